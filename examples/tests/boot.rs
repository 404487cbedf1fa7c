//! `cargo boot` without an emulator: the verdict on what a kernel said, the tables.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_examples::{
    boot::{
        child::Ended,
        controls, document,
        faults::Fault,
        judge::{caught, judge, missed, Verdict},
        machines::{self, named, Machine},
        params::Params,
        run::{Job, Run},
        serial::{self, Report, SerialError, COUNTS},
        table,
    },
    report::Style,
};
use serde_json::{json, Map, Value};

/// A result with which every goal is reached, on the machine `max`.
fn result() -> Map<String, Value> {
    let mut result = json!({
        "verdict": "pass", "why": null, "vendor": "AuthenticAMD", "rung": "xsaveopt", "area": 1088,
        "xcr0": "0x7", "xss": "0x0", "registers": "x87 stack and control, MXCSR, ymm0-15, PKRU",
        "quirks": 0, "cpus": 2, "tasks": 7, "of a later kernel": [1, 2],
    });
    for (index, name) in COUNTS.iter().enumerate() {
        result[*name] = (1000 + index).into();
    }
    result["mismatches"] = 0.into();
    result.as_object().expect("an object").clone()
}

fn with(key: &str, value: impl Into<Value>) -> Map<String, Value> {
    let mut result = result();
    assert!(result.insert(key.into(), value.into()).is_some(), "{key} is none of the keys");
    result
}

fn failed(why: &str) -> Map<String, Value> {
    let mut result = with("verdict", "fail");
    result.insert("why".into(), why.into());
    result
}

/// As the machine says it, with every goal reached.
fn of(machine: &Machine) -> Map<String, Value> {
    let mut result = result();
    let hex = |value: u64| Value::from(format!("{value:#x}"));
    if let (Some(rung), Some(enables)) = (machine.rung, machine.enables) {
        result.insert("rung".into(), rung.into());
        result.insert("xcr0".into(), enables.xcr0.map_or(Value::Null, hex));
        result.insert("xss".into(), hex(enables.xss));
        result.insert("scrubs".into(), (!machine.unscrubbed).into());
    }
    result
}

fn parse(result: Map<String, Value>) -> Report {
    Report::parse(&Value::Object(result).to_string()).expect("whole")
}

/// What comes over the serial line.
fn said(result: &Map<String, Value>) -> String {
    let result = serde_json::to_string(result).expect("JSON");
    format!("fpu-kernel starting\r\nrunning on 2 CPUs\r\n\r\nRESULT {result}\r\n")
}

fn machine(name: &str) -> &'static Machine {
    named(name).unwrap_or_else(|| panic!("no machine {name}"))
}

fn ended(result: &Map<String, Value>) -> Ended {
    let code = if result["verdict"] == "pass" { 33 } else { 35 };
    Ended { serial: said(result), code: Some(code), seconds: 1.25, ..Ended::default() }
}

fn verdict(ended: &Ended) -> Verdict {
    judge(ended, machine("max"), &Params::default()).0
}

fn fails(ended: &Ended) -> String {
    match verdict(ended) {
        Verdict::Fail(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_line_is_read() {
    let report = serial::read(&said(&result())).expect("whole");
    assert!(report.passed && report.why.is_none());
    assert_eq!((report.rung.as_str(), report.area, report.cpus), ("xsaveopt", 1088, 2));
    assert_eq!((report.xcr0.as_deref(), report.xss.as_deref()), (Some("0x7"), Some("0x0")));
    assert_eq!(report.counts.switches, 1000);
    assert_eq!(parse(with("xcr0", Value::Null)).xcr0, None, "without XSAVE");
    assert_eq!(report.counts.verified, 1000 + COUNTS.len() as u64 - 1);
    // Bochs may be off before the line's end is out.
    let text = said(&result());
    assert!(serial::read(text.trim_end()).is_ok());
    let why = "task 3 on CPU 1: register ymm4[2] is 0x1 and should be 0x2";
    let report = serial::read(&said(&failed(why))).expect("whole");
    assert_eq!((report.passed, report.why.as_deref()), (false, Some(why)));
}

#[test]
fn what_is_missing_is_named() {
    for key in result().keys().filter(|key| *key != "of a later kernel") {
        let mut result = result();
        result.remove(key);
        match serial::read(&said(&result)) {
            Err(SerialError::Missing(name)) => assert_eq!(name, key),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn damage_is_no_result() {
    assert_eq!(serial::read(""), Err(SerialError::Silent));
    assert_eq!(serial::read("SeaBIOS\nRESULT {}\n"), Err(SerialError::Silent));
    assert_eq!(serial::read("fpu-kernel starting\n"), Err(SerialError::NoResult));
    let text = said(&result());
    assert_eq!(serial::read(&format!("{text}{text}")), Err(SerialError::Twice));
    for cut in ["RESULT {\"verdict\":\"pa", "RESULT ", "RESULT [1]", "RESULT {} and more"] {
        let text = format!("fpu-kernel starting\n{cut}\n");
        assert!(matches!(serial::read(&text), Err(SerialError::Damaged(_))), "{cut}");
    }
    for (key, value) in [
        ("switches", json!("7")),
        ("switches", json!(-7)),
        ("switches", json!(7.5)),
        ("xcr0", json!(7)),
        ("rung", json!(null)),
        ("verdict", json!("perhaps")),
    ] {
        match serial::read(&said(&with(key, value))) {
            Err(SerialError::Wrong(name, _)) => assert_eq!(name, key),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn a_pass_is_held_against_what_was_asked_for() {
    assert_eq!(verdict(&ended(&result())), Verdict::Pass);
    for (key, value, why) in [
        ("rung", json!("xsave"), "should with xsaveopt"),
        ("cpus", json!(1), "1 CPUs of 2"),
        ("mismatches", json!(1), "1 mismatches"),
        ("why", json!("well"), "passed, and yet: well"),
    ] {
        let said = fails(&ended(&with(key, value)));
        assert!(said.contains(why), "{key}: {said}");
    }
    // Other machines have another rung.
    assert!(missed(&parse(result()), machine("qemu64"), &Params::default()).is_some());
    assert_eq!(missed(&parse(result()), machine("kvm"), &Params::default()), None);
    let asked = Params { rung: Some("xsave"), ..Params::default() };
    assert!(missed(&parse(result()), machine("max"), &asked).is_some());
    assert_eq!(missed(&parse(with("rung", "xsave")), machine("max"), &asked), None);
}

/// Every goal: its key, the number, what it is called, and a machine that has it.
const GOALS: [(&str, u64, &str, &str); 49] = [
    ("least_switches", 200, "switches of a task", "max"),
    ("least_migrations", 50, "migrations of a task", "max"),
    ("preemptions", 140, "preemptions", "max"),
    ("least_deferred", 1, "deferred preemptions of a task", "max"),
    ("irq_sections", 200, "sections in interrupts", "max"),
    ("sections", 200, "sections", "max"),
    ("busy", 10, "refused sections", "max"),
    ("worker_busy", 5, "refused sections in workers", "max"),
    ("nmis", 20, "non-maskable interrupts", "max"),
    ("steps", 1000, "single steps", "max"),
    ("step_sections", 100, "sections after single steps", "max"),
    ("exits", 20, "exits of tasks", "max"),
    ("forks", 20, "forks", "max"),
    ("execs", 5, "execs", "max"),
    ("x87_errors", 10, "x87 errors", "max"),
    ("signal_returns", 30, "signals", "max"),
    ("signal_retries", 5, "signals after a fault", "max"),
    ("signal_edits", 10, "edits of signal frames", "max"),
    ("junk_frames", 3, "ends by refused frames", "max"),
    ("trace_reads", 20, "reads of a debugger", "max"),
    ("trace_writes", 10, "writes of a debugger", "max"),
    ("trace_edits", 5, "edits of a debugger", "max"),
    ("offline", 6, "CPUs taken down", "max"),
    ("resumes", 10, "resumes", "max"),
    ("saves", 1, "saves", "max"),
    ("restores", 1, "restores", "max"),
    ("skipped", 50, "skipped restores", "max"),
    ("guests", 100, "rounds of guests", "max"),
    ("vm_rounds", 100, "rounds of virtual CPUs", "max"),
    ("vm_interrupts", 20, "interrupts in virtual CPUs", "max"),
    ("vm_migrations", 10, "migrations of virtual CPUs", "max"),
    ("vm_xcr0", 20, "values of a virtual CPU's XCR0", "max"),
    ("vm_refused", 5, "refused values of a virtual CPU's XCR0", "max"),
    ("vm_saves_avoided", 50, "saves of virtual CPUs avoided", "max"),
    ("vm_restores_avoided", 50, "restores of virtual CPUs avoided", "max"),
    ("first_uses", 2, "first uses", "max"),
    ("trap_sections", 5, "sections of trapped threads", "max"),
    ("tiles_given", 20, "areas with tiles", "demand"),
    ("tiles_refused", 10, "uses of tiles refused", "demand"),
    ("tiles_retried", 5, "uses of tiles without memory", "demand"),
    ("tiles_ended", 2, "ends without memory for tiles", "demand"),
    ("tiles_shrunk", 2, "areas given back by exec", "demand"),
    ("tile_checks", 100, "comparisons of tiles", "demand"),
    ("tile_forks", 2, "forks with tiles", "demand"),
    ("idle", 20, "idle times", "max"),
    ("checks", 1000, "checks of registers", "max"),
    ("bad_images", 5, "refused images", "arrandale"),
    ("rip_only", 5, "refused images by RIP only", "arrandale"),
    ("verified", 50, "comparisons at switches", "max"),
];

#[test]
fn a_pass_is_held_against_every_goal() {
    let params = Params { check: true, ..Params::default() };
    let of = |name, changes: &[(&str, u64)], params: &Params| {
        let mut result = of(machine(name));
        for (key, value) in changes {
            assert!(result.insert((*key).into(), (*value).into()).is_some(), "{key}");
        }
        missed(&parse(result), machine(name), params)
    };
    for (key, goal, what, name) in GOALS {
        assert_eq!(of(name, &[(key, goal)], &params), None, "{key}");
        let why = format!("too few {what}: {} of {goal}", goal - 1);
        assert_eq!(of(name, &[(key, goal - 1)], &params), Some(why));
    }
    // Counts without a goal: sums of those that have one.
    let free: Vec<_> = COUNTS.iter().filter(|c| GOALS.iter().all(|goal| goal.0 != **c)).collect();
    assert_eq!(
        free,
        [&"switches", &"migrations", &"mismatches", &"signals", &"vm_entries", &"released"]
    );
    // One CPU has nowhere to move a task to, and cannot be taken down.
    let one = Params { cpus: 1, ..params };
    let alone = [("cpus", 1), ("least_migrations", 0), ("offline", 0), ("vm_migrations", 0)];
    assert_eq!(of("max", &alone, &one), None);
    // Where a machine cannot do it, or is not asked to.
    let plain = Params::default();
    for (key, name, params) in [
        ("verified", "max", plain),
        ("bad_images", "qemu64", plain),
        ("bad_images", "max-noxsave", plain),
        ("rip_only", "qemu64", plain),
        ("tile_checks", "tiles", plain),
        ("vm_rounds", "haswell", plain),
        ("vm_rounds", "icelake", plain),
        ("vm_xcr0", "qemu64", plain),
    ] {
        assert_eq!(of(name, &[(key, 0)], &params), None, "{key} on {name}");
    }
    let fxsave = Params { rung: Some("fxsave"), ..plain };
    for (name, refuses) in [("max", false), ("kvm", true), ("skylake-x", true)] {
        let mut result = with("bad_images", 4);
        result.insert("rung".into(), "fxsave".into());
        let missed = missed(&parse(result), machine(name), &fxsave);
        assert_eq!(missed.is_some(), refuses, "{name}: {missed:?}");
    }
}

#[test]
fn a_pass_is_held_against_what_the_machine_is_there_for() {
    let plain = Params::default();
    for machine in machines::ALL {
        assert_eq!(missed(&parse(of(machine)), machine, &plain), None, "{}", machine.name);
        for (key, register) in [("xcr0", "XCR0"), ("xss", "IA32_XSS")] {
            for other in ["0x1", "0xE7", ""] {
                let mut result = of(machine);
                let before = result.insert(key.into(), other.into());
                let before = before.as_ref().and_then(Value::as_str).unwrap_or("nothing");
                let (name, report) = (machine.name, parse(result));
                let why = format!("it enables {other} in {register}, and should enable {before}");
                let why = machine.enables.map(|_| why);
                assert_eq!(missed(&report, machine, &plain), why, "{name}");
                let asked = Params { rung: machine.rung, ..plain };
                assert_eq!(missed(&report, machine, &asked), None, "{name} with --rung");
            }
        }
    }
    let why = |name, key: &str, value: Value| {
        let mut result = of(machine(name));
        result.insert(key.into(), value);
        missed(&parse(result), machine(name), &plain).expect("another")
    };
    let said = why("icelake", "xcr0", json!("0x7"));
    assert_eq!(said, "it enables 0x7 in XCR0, and should enable 0xe7");
    let said = why("haswell", "xcr0", Value::Null);
    assert_eq!(said, "it enables nothing in XCR0, and should enable 0x7");
    let said = why("qemu64", "xcr0", json!("0x0"));
    assert_eq!(said, "it enables 0x0 in XCR0, and should enable nothing");
    let said = why("sapphire", "xss", json!("0x0"));
    assert_eq!(said, "it enables 0x0 in IA32_XSS, and should enable 0x800");
    let said = why("xrstors", "scrubs", json!(true));
    assert_eq!(said, "its restores scrub, and should not");
}

#[test]
fn the_machines_end_must_agree() {
    let passed = ended(&result());
    for code in [Some(35), Some(0), Some(1), None] {
        let why = fails(&Ended { code, ..passed.clone() });
        assert!(why.contains("the result says pass"), "{why}");
    }
    let why = fails(&Ended { late: true, ..passed.clone() });
    assert!(why.contains("did not switch itself off"), "{why}");
    // Bochs has one exit code for all.
    let on_bochs = Ended { code: Some(1), ..ended(&of(machine("skylake-x"))) };
    assert_eq!(judge(&on_bochs, machine("skylake-x"), &Params::default()).0, Verdict::Pass);
    let why = "task 3 on CPU 1: register ymm4[2] is 0x1 and should be 0x2";
    assert_eq!(fails(&ended(&failed(why))), why);
}

#[test]
fn without_a_result_the_last_lines_are_shown() {
    let serial = "fpu-kernel starting\n\nrunning on 2 CPUs\n".to_owned();
    let begun = Ended { serial, code: Some(0), ..Ended::default() };
    let why = fails(&begun);
    assert!(why.contains("running on 2 CPUs") && why.contains("QEMU ended with 0"), "{why}");
    match verdict(&Ended { late: true, seconds: 90.0, ..begun.clone() }) {
        Verdict::Hung(why) => {
            assert!(why.contains("hung for 90 s, last serial lines: fpu-kernel starting"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    // Signs of life are no news.
    let ticks = format!("{}tick 1\ntick 2\n", begun.serial);
    let still = Some(std::time::Duration::from_secs(20));
    match verdict(&Ended { serial: ticks, late: true, still, ..begun.clone() }) {
        Verdict::Hung(why) => {
            let told = why.contains("stands still: nothing came for 20 s, last serial lines");
            assert!(told && why.ends_with("running on 2 CPUs"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    for log in ["Triple fault\n", ">>PANIC<< exception(): 3rd (13) exception with no resolution\n"]
    {
        let why = fails(&Ended { stderr: log.into(), ..begun.clone() });
        assert!(why.starts_with("a triple fault, last serial lines: fpu-kernel"), "{why}");
    }
    let stderr = "qemu-system-x86_64: could not load kernel".to_owned();
    let why = fails(&Ended { stderr, code: Some(1), ..Ended::default() });
    assert!(why.contains("could not load kernel"), "{why}");
}

#[test]
fn kvm_that_does_not_run_ring_0_is_a_skip() {
    let of = |ended: &Ended| judge(ended, machine("kvm"), &Params::default()).0;
    let stderr = "KVM internal error. Suberror: 1\nemulation failure\n".to_owned();
    let serial = "fpu-kernel starting\n".to_owned();
    let internal = Ended { stderr, serial: serial.clone(), late: true, ..Ended::default() };
    match of(&internal) {
        Verdict::Skip(why) => assert!(why.contains("internal error in ring 0"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(of(&Ended::default()), Verdict::Skip(_)));
    // From its first line on, the kernel is judged as elsewhere.
    assert!(matches!(of(&Ended { serial, ..Ended::default() }), Verdict::Fail(_)));
    assert_eq!(of(&ended(&result())), Verdict::Pass);
    assert!(matches!(verdict(&internal), Verdict::Hung(_)), "only there");
}

#[test]
fn a_control_is_caught_by_the_kernel_and_by_its_sign_alone() {
    let of = |fault, ended: &Ended| {
        let (verdict, report) = judge(ended, machine("max"), &Params::default());
        caught(fault, &verdict, report.as_ref())
    };
    for fault in Fault::ALL {
        for sign in fault.signs() {
            let why = format!("task 0 on CPU 1: {sign}xmm0 is 0x0");
            assert_eq!(of(fault, &ended(&failed(&why))), Ok(()), "{fault:?}");
        }
        assert!(!fault.signs().is_empty());
        assert!(of(fault, &ended(&failed("the moon was full"))).is_err());
        assert!(of(fault, &ended(&result())).is_err(), "{fault:?} passed");
    }
    let why = "register xmm0 is 0x0 and should be 0x1";
    let mut damaged = ended(&failed(why));
    assert_eq!(of(Fault::SkipRestore, &damaged), Ok(()));
    damaged.serial = damaged.serial.replace("\"area\":1088", "\"area\":");
    assert!(of(Fault::SkipRestore, &damaged).is_err(), "the sign is in the serial lines alone");
    damaged.late = true;
    assert!(of(Fault::SkipRestore, &damaged).is_err());
}

fn run(name: &str, params: Params, ended: &Ended) -> Run {
    let job = Job { machine: machine(name), params };
    let (verdict, report) = judge(ended, job.machine, &params);
    Run { job, verdict, report, seconds: ended.seconds }
}

/// One of each kind.
fn runs() -> Vec<Run> {
    let plain = Params::default();
    let long = "register ".repeat(30);
    let mut skipped = run("kvm", plain, &ended(&result()));
    skipped.verdict = Verdict::Skip(format!("no /dev/kvm, {long}"));
    skipped.report = None;
    let mut last = ended(&of(machine("icelake")));
    last.code = Some(1);
    vec![
        run("max", plain, &ended(&result())),
        run("max-noxsave", plain, &ended(&failed(&long))),
        run("milan", plain, &Ended { late: true, ..Ended::default() }),
        run("icelake", plain, &last),
        skipped,
    ]
}

#[test]
fn the_table_fits_and_says_what_happened() {
    let style = Style::plain();
    let rows: Vec<_> = runs().iter().map(|run| table::row(run, style)).collect();
    let text = table::heading(style) + &rows.concat() + &table::conclusion(&runs(), style);
    assert!(text.lines().all(|line| line.chars().count() <= table::WIDTH), "{text}");
    for columns in 40..=80 {
        let style = Style::of(columns);
        let rows: String = runs().iter().map(|run| table::row(run, style)).collect();
        let text = table::heading(style) + &rows;
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}: {text}");
        assert!(runs().iter().all(|run| text.contains(run.job.machine.name)), "{text}");
    }
    let heads = text.lines().nth(1).expect("heads");
    for column in ["machine", "rung", "XCR0", "XSS", "switches", "moves", "sections", "saves"] {
        assert!(heads.contains(column), "{heads}");
    }
    assert!(rows[0].contains(" XSAVEOPT     0x7    0x0 ") && rows[0].ends_with("1.2\n"), "{text}");
    let without = ended(&of(machine("qemu64")));
    let without = table::row(&run("qemu64", Params::default(), &without), style);
    assert!(without.contains(" FXSAVE         -      - "), "no XSAVE, no IA32_XSS: {without}");
    assert!(rows[1].contains("FAILED: register") && rows[2].contains("HUNG: hung"), "{text}");
    assert!(rows[3].contains("Bochs XSAVES"), "{text}");
    assert!(rows[4].contains("skipped: no /dev/kvm"), "{text}");
    assert!(text.contains("2 passed, 2 failed, 1 skipped; every register compared"), "{text}");
    for params in
        [Params::default(), Params { cpus: 1, rung: Some("fxsave"), ..runs()[0].job.params }]
    {
        assert!(table::goals(&params).len() <= table::WIDTH);
    }
}

#[test]
fn the_controls_table_fits() {
    let style = Style::plain();
    let params = |fault| Params { fault: Some(fault), ..Params::default() };
    let fault = Fault::NoIrqSections;
    let sign = format!("{} {}", fault.signs()[0], "0x0123456789abcdef ".repeat(8));
    let caught = run("max", params(fault), &ended(&failed(&sign)));
    let missed = run("max", params(fault), &ended(&result()));
    let otherwise = run("max", params(fault), &ended(&failed(&"otherwise ".repeat(20))));
    let row = |run: &Run| table::control(fault, run, style);
    let text = table::controls_heading(style) + &row(&caught) + &row(&missed) + &row(&otherwise);
    assert!(text.lines().all(|line| line.chars().count() <= table::WIDTH), "{text}");
    for columns in 40..=80 {
        let rows = [&caught, &missed, &otherwise];
        let text = rows.map(|run| table::control(fault, run, Style::of(columns))).concat();
        assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}: {text}");
    }
    assert_eq!(row(&caught).lines().count(), 1);
    assert!(row(&missed).contains("MISSED: passed"), "{text}");
    assert!(row(&otherwise).contains("MISSED: failed otherwise"), "{text}");
    let noticed = table::noticed(&[caught.clone(), missed.clone(), runs().remove(0)], style);
    let lines: Vec<_> = noticed.lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "{noticed}");
    assert!(lines[0].ends_with("was noticed, as it must be") && lines[1].contains("was not"));
    assert_eq!(controls::tally(&[caught, missed, otherwise]), (1, 2, 0));
}

#[test]
fn the_document_holds_what_the_table_says() {
    let document = document::document(&runs(), false);
    assert_eq!((&document["passed"], &document["failed"]), (&json!(2), &json!(2)));
    assert_eq!(document["skipped"], 1);
    let rows = document["machines"].as_array().expect("a list");
    assert_eq!(rows.len(), 5);
    assert_eq!(rows[0]["result"]["of a later kernel"], json!([1, 2]), "whole, as it was sent");
    let verdicts: Vec<_> = rows.iter().map(|row| row["verdict"].as_str()).collect();
    let all = ["pass", "fail", "hung", "pass", "skip"].map(Some);
    assert_eq!(verdicts, all);
    assert!(rows[2]["result"].is_null() && rows[0]["caught"].is_null());
    let fault = Params { fault: Some(Fault::SkipSave), ..Params::default() };
    let controls =
        [run("max", fault, &ended(&failed("register st0"))), run("max", fault, &ended(&result()))];
    let document = document::document(&controls, true);
    assert_eq!((&document["passed"], &document["failed"]), (&json!(1), &json!(1)));
    assert_eq!(document["controls"][0]["caught"], true);
    assert_eq!(document["controls"][1]["caught"], false);
}
