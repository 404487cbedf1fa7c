//! Every order of calls about contexts that were never used, and the functions that the search does not call.

use fpu_models::{edit, trapped};
use std::path::Path;

/// Without optimisation the search stops after a few moves.
const SMALL: bool = matches!(env!("FPU_OPT_LEVEL").as_bytes(), b"0");

#[test]
fn every_order_of_first_uses_is_visited() {
    let found = trapped::explore(SMALL.then_some(3));
    println!("{found}");
    if let Some(violation) = &found.violation {
        panic!("found by the explorer: {violation}");
    }
    assert!(found.closed != SMALL, "there are states that were not visited");
    assert!(found.states >= if SMALL { 50 } else { 1000 }, "only {} states", found.states);
    assert!(SMALL || found.never_applied.is_empty(), "never: {:?}", found.never_applied);
}

#[test]
fn every_public_function_of_a_trapped_context_is_called() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fpu-core/src");
    let files = edit::sources(&dir).expect("the sources of the core");
    let mut public: Vec<_> = files["trap.rs"]
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub "))
        .filter_map(|line| line.trim_start_matches("unsafe ").strip_prefix("fn "))
        .map(|name| name.split(['<', '(']).next().unwrap_or_default())
        .map(|name| format!("Trapped::{name}"))
        .collect();
    let mut called = trapped::CALLS.map(String::from).to_vec();
    public.sort();
    called.sort();
    assert_eq!(public, called);
    assert!(files["trap/switch.rs"].contains("pub fn switch<"));
}
