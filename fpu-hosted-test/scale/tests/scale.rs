//! What the core moves between CPUs: nothing where no task moves, and with a task its lines, on 2 to 1,024 CPUs.

use std::{env, fs, path::Path, process::Command, sync::OnceLock};

use fpu_core::Area;
use fpu_scale::{
    lines::Moved,
    machine::{Apart, Failure, Make, Packed, PerCpu},
    picture,
    scenarios::{lines_of_a_context, measure, mixed, owners_looked_through, Cost, Scenario, SIZES},
    table::{Table, IMAGE},
};

/// Everything, once for all tests.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::new().expect("every call is accepted"))
}

/// What the operations may move, if each visit moves a context once and nothing else moves.
fn due(cost: &Cost, visits: u64, image: usize) -> Moved {
    let lines = cost.operations * visits * lines_of_a_context(image);
    Moved { transfers: lines, claims: lines, fills: 0 }
}

#[test]
fn nothing_moves_where_no_task_does_and_a_context_once_where_one_does() {
    for (scenario, row) in Scenario::ALL.into_iter().zip(&table().core) {
        for (cpus, cost) in SIZES.into_iter().zip(&row.costs) {
            let what = format!("{} on {cpus} CPUs", row.name);
            assert_eq!(cost.moved, due(cost, scenario.visits(), IMAGE), "{what}");
            assert_eq!(cost.wrong, None, "{what}");
        }
    }
}

/// The same with the smallest image, and with one of AVX-512.
#[test]
fn other_images_move_their_own_lines() {
    fn check<const N: usize>() {
        for scenario in Scenario::ALL {
            let cost = measure::<Apart, Area<N>>(scenario, 64, N).expect("accepted");
            assert_eq!(cost.moved, due(&cost, scenario.visits(), N), "{}, {N}", scenario.name());
        }
    }
    check::<512>();
    check::<2688>();
}

/// Not on the whole, but call by call: a call moves lines of contexts that it was given, each once in a visit.
fn mix<P: PerCpu, A: Make>(cpus: usize, seed: u64) -> Result<(), Failure> {
    let cost = mixed::<P, A>(cpus, IMAGE, seed)?;
    assert!(cost.visits > 0, "no task moved: {cost:?}");
    let most = cost.visits * lines_of_a_context(IMAGE);
    assert!(cost.wrong.is_some() || cost.moved.transfers <= most, "{cost:?}");
    cost.wrong.map_or(Ok(()), Err)
}

#[test]
fn in_random_order_each_call_moves_only_what_it_visits() {
    for cpus in [2, 3, 4, 16, 64, 256, 1024] {
        for seed in 0..4 {
            if let Err(why) = mix::<Apart, Area<IMAGE>>(cpus, seed) {
                panic!("{cpus} CPUs, seed {seed}: {why}");
            }
        }
    }
}

/// The checks above fail where two CPUs' words share a line, and where two contexts do.
#[test]
fn shared_lines_are_noticed() {
    type Elsewhere = Box<Area<IMAGE>>;
    for cpus in [2, 8, 64] {
        let words = measure::<Packed, Area<IMAGE>>(Scenario::Switch, cpus, IMAGE).expect("right");
        assert_ne!(words.moved, due(&words, 0, IMAGE));
        let why = words.wrong.expect("a call is named");
        assert!(why.contains("too much"), "{why}");
        let contexts = measure::<Apart, Elsewhere>(Scenario::Switch, cpus, IMAGE).expect("right");
        assert_ne!(contexts.moved, due(&contexts, 0, IMAGE));
        for seed in 0..2 {
            let why = mix::<Packed, Area<IMAGE>>(cpus, seed).expect_err("false sharing");
            assert!(why.contains("too much"), "{why}");
            mix::<Apart, Elsewhere>(cpus, seed).expect_err("false sharing");
        }
    }
}

/// A protocol that asks every CPU costs more with each CPU, and the figures say so.
#[test]
fn a_protocol_that_looks_through_all_cpus_is_not_flat() {
    let transfers = SIZES.map(|cpus| owners_looked_through(cpus).transfers());
    for (two, cpus) in transfers.windows(2).zip(&SIZES[1..]) {
        assert!(two[1] > 1.5 * two[0] && two[1] > *cpus as f64 / 4.0, "{transfers:?}");
    }
}

#[test]
fn the_program_refuses_what_it_does_not_know_and_its_help_fits_79_columns() {
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_scale")).args(args).output().expect("starts");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, help) = run(&["--help"]);
    assert!(code == Some(0) && help.lines().all(|line| line.chars().count() <= 79), "{help}");
    for wrong in [["--svg"].as_slice(), &["--svg", "-"], &["--cpus"], &["--help=1"]] {
        assert_eq!(run(wrong), (Some(2), String::new()), "{wrong:?}");
    }
}

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// `FPU_BLESS=1` draws the picture again.
#[test]
fn the_picture_in_the_documentation_is_of_this_code() {
    let (picture, file) = (picture::document(table()), file("scale.svg"));
    if env::var_os("FPU_BLESS").is_some() {
        fs::write(&file, &picture).expect("docs/scale.svg can be written");
    }
    let drawn = fs::read_to_string(&file).unwrap_or_default();
    assert!(drawn == picture, "docs/scale.svg is out of date: FPU_BLESS=1 draws it again");
}

#[test]
fn the_documentation_quotes_the_table() {
    let page = fs::read_to_string(file("performance.md")).expect("a page");
    for line in table().text().lines().skip(1) {
        assert!(page.lines().any(|quoted| quoted == line), "docs/performance.md lacks:\n{line}");
    }
}
