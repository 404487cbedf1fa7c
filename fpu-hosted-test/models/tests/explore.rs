//! Every order of calls within the suite's bounds; the functions that the search does not call, by name; and what the
//! search found in code that had faults.

use fpu_models::{
    edit,
    explore::{explore, on, replay, Bounds, Does, Found, Irq, Of, Op, User, CALLS},
};
use std::{collections::BTreeSet, path::Path, sync::OnceLock};

/// Without optimisation the search takes twenty times as long, so it has a machine of one CPU and one task. The suite
/// builds this with optimisation.
const SMALL: bool = matches!(env!("FPU_OPT_LEVEL").as_bytes(), b"0");

fn bounds() -> Bounds {
    if SMALL {
        Bounds { cpus: 1, tasks: 1, ..Bounds::SUITE }
    } else {
        Bounds::SUITE
    }
}

/// Within the suite's bounds, once for all tests.
fn found() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| explore(bounds()))
}

/// With bound contexts, once for all tests.
fn bound() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    let bound = if SMALL { 1 } else { 2 };
    FOUND.get_or_init(|| explore(Bounds { bound, ..Bounds::BOUND }))
}

fn nothing_wrong(found: &Found, states: usize) {
    if SMALL {
        println!("a smaller machine than the suite's, as this is a debug build:");
    }
    println!("{found}");
    if let Some(violation) = &found.violation {
        panic!("found by the explorer:\n{violation}");
    }
    assert!(found.closed, "there are states that were not visited");
    let states = if SMALL { 100 } else { states };
    assert!(found.states >= states, "of {states} states only {} were found", found.states);
    // One task has no other to switch to.
    if !SMALL {
        let never = found.never_applied.join(", ");
        assert!(never.is_empty(), "operations that no state allowed: {never}");
    }
}

#[test]
fn every_order_of_calls_is_visited() {
    nothing_wrong(found(), 50_000);
}

/// At each step of an operation another CPU carries out a whole one, or tries to take what is in use.
#[test]
fn another_cpu_does_anything_meanwhile() {
    let Bounds { cpus, tasks, .. } = bounds();
    let cpus = if SMALL { 2 } else { cpus };
    nothing_wrong(&explore(Bounds { cpus, tasks, ..Bounds::OTHERS }), 12_000);
}

#[test]
fn contexts_may_change_places_in_memory() {
    nothing_wrong(&explore(Bounds { forgotten: false, moves: true, ..bounds() }), 15_000);
}

/// A context is loaded where what it has room for is allowed, and no more.
#[test]
fn areas_may_grow() {
    let Bounds { cpus, .. } = bounds();
    nothing_wrong(&explore(Bounds { cpus, ..Bounds::GROWS }), 5_000);
}

/// Contexts that a CPU owns leave it without a call; whatever needs its registers saves them first.
#[test]
fn contexts_may_be_bound_to_a_cpu() {
    nothing_wrong(bound(), 10_000);
}

/// The same with another CPU, on which a task that was unbound runs.
#[test]
fn bound_contexts_may_move() {
    let here = Bounds { cpus: 2, bound: 1, ..Bounds::BOUND };
    let quiet = Bounds { interrupts: false, forgotten: false, lifecycle: false, ..here };
    nothing_wrong(&explore(quiet), 15_000);
}

/// Witness and backend say where a save is not needed, as registers and memory agree. Nothing else comes of that than of
/// the save: the states are the same.
#[test]
fn saves_may_be_left_out() {
    let Bounds { cpus, tasks, .. } = bounds();
    let left_out = explore(Bounds { cpus, tasks, ..Bounds::UNCHANGED });
    nothing_wrong(&left_out, 12_000);
    let saved = explore(Bounds { cpus, tasks, unchanged: false, ..Bounds::UNCHANGED });
    nothing_wrong(&saved, 12_000);
    assert_eq!(left_out.states, saved.states);
}

#[test]
fn stamps_may_run_out() {
    nothing_wrong(&explore(Bounds { cpus: 1, stamps: Some(6), ..bounds() }), 8_000);
}

/// The search finds a kernel that breaks a duty, by a trace that plays without renumbering and prints as a test.
#[test]
fn a_wrong_kernel_is_found_by_the_shortest_trace() {
    let found = explore(Bounds { wrong_kernel: true, ..Bounds::SUITE });
    let violation = found.violation.expect("a duty is broken");
    let Some((last, before)) = violation.trace.split_last() else { panic!("an empty trace") };
    assert_eq!(
        replay(Bounds::SUITE, before),
        Ok(()),
        "the shortest: without the last move all is well"
    );
    let again = replay(Bounds::SUITE, &violation.trace).expect_err("the same once more");
    assert!(again.ends_with(&violation.what), "{again}, not {}", violation.what);
    assert_eq!((before.len(), violation.what.contains("kernel's")), (1, true), "{violation}");
    let printed = violation.to_string();
    let end = format!("        {last},\n    ];\n    let bounds = Bounds {{ cpus: 2, tasks: 2, ");
    assert!(printed.contains(&end), "{printed}");
}

/// A session wrote a context in memory that another CPU's registers claimed, and the write was lost. As printed.
#[test]
fn a_session_drops_the_claim_of_another_cpu() {
    let trace = [
        on(1, Op::Persistent(Of::Guest, User::Looks), 1),
        on(0, Op::Session(Of::Guest, Does::Writes), 0),
    ];
    assert_eq!(replay(Bounds::SUITE, &trace), Ok(()));
}

/// The core issued again a stamp under which a forgotten session had loaded. As printed.
#[test]
fn a_cpu_with_a_forgotten_session_does_not_go_offline() {
    let offline = on(1, Op::Offline, 1).interrupted(2, Irq::Forgets);
    assert_eq!(replay(Bounds::SUITE, &[offline]), Ok(()));
    // The trace had another move. Now the CPU cannot come online, because it has not gone offline.
    let online = on(1, Op::Online, 0).interrupted(5, Irq::Section);
    let refused = replay(Bounds::SUITE, &[offline, online]).expect_err("it stays online");
    assert!(refused.starts_with("move 1 is not allowed"), "{refused}");
}

/// The sources whose public functions the search must call.
const SOURCES: [&str; 15] = [
    "bound/context.rs",
    "bound/per_cpu.rs",
    "cpu.rs",
    "deferred.rs",
    "deferred/section.rs",
    "deferred/switch.rs",
    "grow.rs",
    "raw.rs",
    "section.rs",
    "session/typed.rs",
    "session/open.rs",
    "stopped.rs",
    "switch.rs",
    "task.rs",
    "verify.rs",
];
/// The sources without such functions: what a kernel or a backend supplies, and what is internal.
const OTHER_SOURCES: [&str; 26] = [
    "align.rs",
    "area.rs",
    "backend.rs",
    "bound/mod.rs",
    "bound/slot.rs",
    "error.rs",
    "guide.rs",
    "heap_area.rs",
    "lib.rs",
    "macros.rs",
    "observe.rs",
    "protocol/closed.rs",
    "protocol/cpu_word.rs",
    "protocol/mod.rs",
    "protocol/steps.rs",
    "protocol/word.rs",
    "session/messages.rs",
    "session/mod.rs",
    "session/state.rs",
    "sync.rs",
    // `tests/explore_traps.rs` has these.
    "trap.rs",
    "trap/backend.rs",
    "trap/error.rs",
    "trap/kind.rs",
    "trap/switch.rs",
    "witness.rs",
];
/// Types in the sources that are the kernel's or a backend's: per-CPU memory, a proof, and the comparison of images.
const OTHER_TYPES: [&str; 4] = ["CpuFpu::", "CompareFpu::", "GrowFpu::", "Stopped::"];

/// `TYPE::function` of everything public, as the source has it. Of the type's parameters only a session's state stays.
fn public_functions(file: &str, source: &str) -> BTreeSet<String> {
    let mut owner = String::new();
    let (mut names, mut is_trait) = (BTreeSet::new(), false);
    for line in source.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if line.starts_with("impl")
            || line.starts_with("pub trait")
            || line.starts_with("pub unsafe trait")
        {
            is_trait = line.contains(" trait ");
            let rest = line.trim_end_matches('{').trim();
            let rest = match rest.strip_prefix("impl<") {
                Some(generic) => after_generics(generic),
                None => rest
                    .trim_start_matches("impl ")
                    .trim_start_matches("pub unsafe trait ")
                    .trim_start_matches("pub trait "),
            };
            let of_trait = rest.contains(" for ");
            let name: String = rest.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
            owner = match rest.split_once("Session<'s, C, ") {
                Some((_, state)) if name == "Session" => format!("Session<{state}"),
                _ if of_trait => String::new(),
                _ => name,
            };
        }
        if line.starts_with('}') {
            owner.clear();
        }
        let start = line.trim_start();
        let indent = line.len() - start.len();
        let public = start.starts_with("pub ") && !start.starts_with("pub(");
        if !(public || is_trait && indent == 4) {
            continue;
        }
        let words = start.trim_start_matches("pub ").replace("extern \"C\" ", "");
        let words = words.trim_start_matches("const ").trim_start_matches("unsafe ");
        let Some(name) = words.strip_prefix("fn ") else { continue };
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if indent == 0 {
            names.insert(format!("{}::{name}", file.trim_end_matches(".rs")));
        } else if !owner.is_empty() {
            names.insert(format!("{owner}::{name}"));
        }
    }
    names.retain(|name| !OTHER_TYPES.iter().any(|other| name.starts_with(other)));
    names
}

fn after_generics(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        depth += match c {
            '<' => 1,
            '>' => -1,
            _ => 0,
        };
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    text
}

#[test]
fn every_public_function_is_called() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fpu-core/src");
    let files = edit::sources(&dir).expect("the sources of the core");
    let mut public = BTreeSet::new();
    for file in SOURCES {
        // The tests of a file follow its code.
        let code = files[file].split("#[cfg(test)]").next().unwrap_or_default();
        public.extend(public_functions(file, code));
    }
    let called = found().called.iter().chain(&bound().called);
    let called: BTreeSet<_> = called.map(|name| String::from(*name)).collect();
    let escape: Vec<_> = public.difference(&called).collect();
    assert!(escape.is_empty(), "the explorer never calls {escape:?}");
    let listed: BTreeSet<_> = CALLS.iter().map(|(_, name)| String::from(*name)).collect();
    let gone: Vec<_> = listed.difference(&public).collect();
    assert!(gone.is_empty(), "the explorer lists what is not there: {gone:?}");
    let files: BTreeSet<_> = files.into_keys().collect();
    let known = SOURCES.iter().chain(&OTHER_SOURCES).map(|file| String::from(*file)).collect();
    assert_eq!(files, known, "is a new file the search's matter?");
    println!("{} public functions, all called", public.len());
}

#[test]
fn a_function_that_is_not_called_would_be_named() {
    let source = "impl<'s, C: SoftFloat> Session<'s, C, Both> {\n    pub fn leave(self) {}\n}\n\
                  impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {\n    pub unsafe fn make() {}\n    pub(crate) fn no() {}\n}\n\
                  pub trait KernelFpu: Pinned {\n    fn section(&mut self);\n}\n\
                  pub unsafe extern \"C\" fn out() {}\nimpl<C> fmt::Debug for X<C> {\n    fn fmt() {}\n}\n";
    let names: Vec<_> = public_functions("raw.rs", source).into_iter().collect();
    assert_eq!(names, ["KernelFpu::section", "Session<Both>::leave", "TaskFpu::make", "raw::out"]);
}
