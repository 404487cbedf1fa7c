//! `cargo boot --cpuid` without an emulator: what becomes of recorded words on their way to the kernel.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{fs, path::PathBuf, process::Command};

use fpu_examples::{
    boot::{
        cpuid::{load, Recorded},
        document,
        faults::Fault,
        host::Host,
        image::fits,
        judge::{missed, Verdict},
        machines::named,
        params::Params,
        run::{Job, Run},
        serial::{self, Report, SerialError, COUNTS},
        table,
    },
    report::Style,
};
use serde_json::{json, Value};

/// A file of these lines, for a test of this name.
fn file(test: &str, lines: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cpuid-{test}.jsonl"));
    fs::write(&path, lines).expect("a file");
    path
}

fn loaded(test: &str, lines: &str) -> Result<Vec<&'static Recorded>, String> {
    let path = file(test, lines);
    let path = path.to_string_lossy();
    load(&path).map_err(|why| why.replace(&*path, "FILE"))
}

/// Leaves 0 and 1 of a CPU with XSAVE, and these subleaves of 0xD.
fn line(xcr0: Option<&str>, subleaves: &[(u32, [u32; 4])]) -> String {
    let mut cpuid = json!({
        "0x0.0": ["0x16", "0x756e6547", "0x6c65746e", "0x49656e69"],
        "0x1.0": ["0x806f8", "0", "0x0c000000", "0x03000000"],
        "0x80000000.0": ["0", "0", "0", "0"],
        "0x1d.1": ["1", "2", "3", "4"],
    });
    for (subleaf, words) in subleaves {
        let words: Vec<_> = words.iter().map(|word| format!("{word:#x}")).collect();
        cpuid[format!("0xd.{subleaf}")] = json!(words);
    }
    let mut line = json!({ "name": "one", "cpuid": cpuid, "status": [7] });
    if let Some(xcr0) = xcr0 {
        line["xcr0"] = xcr0.into();
    }
    line.to_string()
}

fn parameter(test: &str, line: &str) -> String {
    loaded(test, line).expect("words")[0].parameter.clone()
}

#[test]
fn the_kernel_is_told_the_leaves_that_its_library_looks_at() {
    let avx = (2, [0x100, 0x240, 0, 0]);
    let text = line(Some("0x7"), &[(0, [7, 0x340, 0x440, 0]), (1, [1, 5, 0, 0]), avx]);
    assert_eq!(
        parameter("told", &text),
        "0.0:16,756e6547,6c65746e,49656e69/1.0:806f8,0,c000000,3000000/d.0:7,~,440,0/d.1:1,5,0,0/\
         d.2:100,240,0,0"
    );
}

/// The two words of EBX in the parameter.
fn ebx(test: &str, xcr0: Option<&str>, main: u32, sub: [u32; 2], cet: bool) -> [String; 2] {
    let mut subleaves = vec![
        (0, [0x600E7, main, 0x2B00, 0]),
        (1, [sub[0], sub[1], if cet { 0x800 } else { 0 }, 0]),
        (2, [0x100, 0x240, 0, 0]),
        (5, [0x40, 0x440, 0, 0]),
        (6, [0x200, 0x480, 0, 0]),
        (7, [0x400, 0x680, 0, 0]),
        (17, [0x40, 0xAC0, 2, 0]),
        (18, [0x2000, 0xB00, 6, 0]),
    ];
    if cet {
        subleaves.push((11, [16, 0, 1, 0]));
    }
    let text = parameter(test, &line(xcr0, &subleaves));
    ["d.0:", "d.1:"].map(|key| {
        let words = text.split(key).nth(1).expect(key);
        words.split([',', '/']).nth(1).expect(key).to_owned()
    })
}

#[test]
fn a_word_that_a_cpu_computes_follows_and_another_stands_still() {
    let of = |main, sub, cet| ebx("follow", Some("0x600e7"), main, [0xF, sub], cet);
    assert_eq!(of(0x2B00, 10688, false), ["~", "~"], "TILECFG at 2432, TILEDATA behind it");
    assert_eq!(of(0x2B00, 10688, true), ["~", "~"], "with CET_U off");
    assert_eq!(of(0x2B00, 10752, true), ["~", "~"], "with CET_U at 2432, TILECFG at 2496");
    assert_eq!(of(0x2B00, 10752, false), ["~", "2a00"], "there is no CET_U");
    assert_eq!(of(0x2B00, 10704, true), ["~", "29d0"], "the alignment of TILECFG forgotten");
    assert_eq!(of(0xA80, 2432, false), ["a80", "980"], "those of another XCR0");
    assert_eq!(of(0x2B00, 0, false), ["~", "0"], "XSAVEC has a size");
    let neither = ebx("neither", Some("0x600e7"), 0x2B00, [1, 0], false);
    assert_eq!(neither, ["~", "~"], "where there is neither XSAVEC nor XSAVES, 0 is right");
    let neither = ebx("neither", Some("0x600e7"), 0x2B00, [1, 10752], false);
    assert_eq!(neither, ["~", "2a00"]);
    // What was enabled is not said: any set that has both sizes.
    assert_eq!(ebx("any", None, 0xA80, [0xF, 2432], false), ["~", "~"]);
    assert_eq!(ebx("any", None, 0x2B00, [0xF, 2432], false), ["~", "980"]);
    assert_eq!(ebx("any", None, 0x2B01, [0xF, 10688], false), ["2b01", "~"]);
}

#[test]
fn bad_lines_are_named_by_file_line_and_field() {
    let good = line(None, &[]);
    let without = |leaf: &str| good.replace(leaf, "0x99.0");
    for (lines, why) in [
        (String::new(), "FILE: no CPUID words in it"),
        ("\n \n".into(), "FILE: no CPUID words in it"),
        (format!("{good}\n\n[]\n"), "FILE:3: not a JSON object: invalid type"),
        (format!("{good}\n{{\"cpuid\":"), "FILE:2: not a JSON object: EOF"),
        ("{}".into(), "FILE:1: missing key: cpuid"),
        (r#"{"cpuid":7}"#.into(), "FILE:1: cpuid is no object of CPUID words"),
        (line(Some("7"), &[]), "FILE:1: xcr0 \"7\" is no hex number of 64 bits"),
        (good.replace("\"one\"", "1"), "FILE:1: name is no string"),
        (without("0x0.0"), "FILE:1: cpuid has no four words 0x0.0"),
        (without("0x1.0"), "FILE:1: cpuid has no four words 0x1.0"),
        (good.replace("\"0x806f8\",", ""), "FILE:1: cpuid has no four words 0x1.0"),
        (good.replace("0x1d.1", "0xd.0").replace("\"4\"", "4"), "FILE:1: cpuid 0xd.0: not an"),
    ] {
        let said = loaded("bad", &lines).expect_err(why);
        assert!(said.starts_with(why), "{lines}: {said}");
    }
    let text = "{\"name\":\"\u{7}\u{1b}[2J\",\"cpuid\":{}}".replace("{}", &good[9..good.len()]);
    assert!(loaded("obey", &text).is_err(), "control characters are no JSON");
}

#[test]
fn wrong_arguments_are_named() {
    let path = file("exit", "{}");
    let path = path.to_string_lossy();
    for (args, why) in [
        (&["--cpuid"][..], "--cpuid needs a value"),
        (&["--cpuid", "cray"], "neither a name (--cpuid list) nor a file: \"cray\""),
        (&["--cpuid", "all", "--controls"], "--cpuid and --all, --controls or --torture"),
        (&["--all", "--cpuid=all"], "--cpuid and --all, --controls or --torture"),
        (&["--torture", "1", "--cpuid", "via"], "--cpuid and --all, --controls or --torture"),
        (&["--cpuid", &path], "cpuid-exit.jsonl:1: missing key: cpuid"),
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_boot")).args(args).output();
        let out = out.expect("boot can be started");
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{args:?}: {stderr}");
        assert!(stderr.starts_with("boot: ") && stderr.contains(why), "{args:?}: {stderr}");
    }
}

#[test]
fn the_built_in_ones_have_names_and_are_found_by_them() {
    let all = load("all").expect("all");
    assert!(all.len() >= 25);
    for one in &all {
        assert_eq!(load(&one.name).expect("by name"), [*one]);
        assert!(!one.about.is_empty() && one.name.len() <= 16, "{}", one.name);
        assert!(!one.name.contains(['/', '.', ' ']), "{}", one.name);
    }
    let list = Command::new(env!("CARGO_BIN_EXE_boot")).args(["--cpuid", "list"]).output();
    let list = String::from_utf8(list.expect("boot can be started").stdout).expect("text");
    assert_eq!(list.lines().count(), all.len());
    assert!(all.iter().all(|one| list.contains(&one.name) && list.contains(&one.about)), "{list}");
}

#[test]
fn any_machine_fits() {
    // More than any CPU has: every digit of every leaf that is told.
    let full = "fffffffe";
    let subleaves = (0..63).map(|subleaf| format!("0xd.{subleaf}"));
    let leaves = ["0x0.0", "0x1.0", "0x7.0", "0x80000000.0", "0x80000008.0"].map(str::to_owned);
    let words = json!([full, full, full, full]);
    let all = subleaves.chain(leaves).map(|key| (key, words.clone()));
    let cpuid: serde_json::Map<String, Value> = all.collect();
    let machine = loaded("longest", &json!({ "cpuid": cpuid }).to_string()).expect("words")[0];
    assert_eq!(machine.parameter.matches(full).count(), 4 * 68, "none of the sums is right");
    let longest = |one: &Fault| one.name().len();
    let fault = Fault::ALL.into_iter().max_by_key(longest);
    let (seconds, limit, seed) = (u64::MAX, u64::MAX, u64::MAX);
    let (cpuid, rung) = (Some(machine), Some("xsaveopt"));
    let (check, trust, unscrubbed) = (true, true, true);
    let params = Params { cpus: 8, seconds, limit, seed, fault, rung, cpuid, ..Params::default() };
    let params = Params { check, trust, unscrubbed, ..params };
    assert_eq!(fits(&params.to_string()), Ok(()));
}

fn host(bochs: bool) -> Host {
    let found = fpu_examples::boot::bochs::Bochs {
        program: "bochs".into(),
        version: "3.0".into(),
        bios: "bios".into(),
        vga: "vga".into(),
    };
    let bochs = if bochs { Ok(found) } else { Err("none".into()) };
    Host { qemu: Ok("7.2".into()), bochs, kvm: Err("none".into()), cpus: 2 }
}

#[test]
fn a_machine_has_what_the_words_promise() {
    let params = Params::default();
    for (name, machine) in [
        ("athlon2", "max"),
        ("bhyve-avx", "max"),
        ("xhyve-mpx", "max"),
        ("cpuid-limit", "max"),
        ("bhyve-avx512", "icelake"),
        ("wsl2", "icelake"),
        ("openhcl-tdx", "sapphire"),
        ("kvm-half-amx", "sapphire"),
        ("acrn-pt", "sapphire"),
    ] {
        let one = load(name).expect(name)[0];
        let on = |host: &Host| {
            let runs = |machine: &_| host.can_run(machine, &params).is_ok();
            one.machine(runs).expect("one").name
        };
        assert_eq!(on(&host(true)), machine, "{name}");
        assert_eq!(on(&host(false)), "max", "{name}: the next best");
    }
}

/// The last line of a kernel that has reached every goal.
fn result(rung: &str, xcr0: Option<&str>) -> String {
    let mut result = json!({
        "verdict": "pass", "why": null, "vendor": "GenuineIntel", "rung": rung, "area": 512,
        "xcr0": xcr0, "xss": "0x0", "registers": "ymm0-15", "quirks": 2, "cpus": 2, "tasks": 7,
    });
    for name in COUNTS {
        result[*name] = 1000.into();
    }
    result["mismatches"] = 0.into();
    result.to_string()
}

/// What a kernel says that has reached every goal.
fn report(rung: &str, xcr0: Option<&str>) -> Report {
    let result = result(rung, xcr0);
    let said = format!("fpu-kernel starting\nquirk: one\r\nquirk: two\r\nRESULT {result}\r\n");
    let report = serial::read(&said).expect("whole");
    assert_eq!(report.quirks, ["one", "two"]);
    report
}

#[test]
fn there_is_a_line_for_each_quirk() {
    let result = result("xsave", Some("0x7"));
    for (quirks, count) in [("", 0), ("quirk: one\n", 1), ("quirk: a\nquirk: b\nquirk: c\n", 3)] {
        let said = format!("fpu-kernel starting\n{quirks}RESULT {result}\n");
        let wrong = SerialError::Wrong("quirks", format!("2, and {count} lines"));
        assert_eq!(serial::read(&said), Err(wrong));
    }
}

#[test]
fn a_pass_is_held_against_the_plan_for_the_words() {
    let on = |name: &str, recorded: &str, report: &Report| {
        let cpuid = Some(load(recorded).expect(recorded)[0]);
        missed(report, named(name).expect(name), &Params { cpuid, ..Params::default() })
    };
    // These words make XSAVEOPT and 0x7. The machine has that.
    let (words, whole) = ("bhyve-avx", report("xsaveopt", Some("0x7")));
    assert_eq!(on("max", words, &whole), None);
    let why = on("max", words, &report("xsaveopt", Some("0x3")));
    assert_eq!(why.as_deref(), Some("it enables 0x3 in XCR0, and should enable 0x7"));
    let why = on("max", words, &report("xsave", Some("0x7")));
    assert_eq!(why.as_deref(), Some("it saves with xsave, and should with xsaveopt"));
    let why = on("max", words, &report("fxsave", None));
    assert_eq!(why.as_deref(), Some("it saves with fxsave, and should with xsaveopt"));
    // These machines have not.
    for (name, rung, xcr0) in [
        ("qemu64", "fxsave", None),
        ("max-noopt", "xsave", Some("0x7")),
        ("max-noavx", "fxsave", None),
        ("kvm", "fxsave", None),
    ] {
        assert_eq!(on(name, words, &report(rung, xcr0)), None, "{name}");
    }
    // A machine that lacks a part does the rest: here all but AMX.
    let mut rest = report("xsaves", Some("0xe7"));
    rest.xss = Some("0x800".into());
    assert_eq!(on("sapphire", "openhcl-tdx", &rest), None);
    for (rung, xcr0) in [("fxsave", None), ("xsavec", Some("0xe7")), ("xsaves", Some("0x7"))] {
        let less = Report { xss: rest.xss.clone(), ..report(rung, xcr0) };
        assert!(on("sapphire", "openhcl-tdx", &less).is_some(), "{rung} {xcr0:?}");
    }
    rest.xss = Some("0x0".into());
    assert!(on("sapphire", "openhcl-tdx", &rest).is_some(), "without CET_U");
    // What they have, they must enable.
    let why = on("max", "bhyve-avx512", &report("fxsave", None));
    assert_eq!(why.as_deref(), Some("it saves with fxsave, and should with xsaveopt"));
    assert_eq!(on("max", "bhyve-avx512", &whole), None);
    // More than the words allow is wrong everywhere.
    for name in ["max", "max-noavx", "icelake", "kvm"] {
        for more in ["0x1f", "0xf", "0x10003"] {
            let why = format!("it enables {more} in XCR0, and CPUID allows 0x7");
            assert_eq!(on(name, words, &report("xsaveopt", Some(more))), Some(why));
        }
        assert!(on(name, words, &report("xsaveopt", Some("all"))).is_some());
        let mut supervisor = report("xsaveopt", Some("0x7"));
        supervisor.xss = Some("0x800".into());
        let why = "it enables 0x800 in IA32_XSS, and CPUID allows 0x0";
        assert_eq!(on(name, words, &supervisor).as_deref(), Some(why));
    }
    let why = "it enables 0x7 in XCR0, and CPUID allows 0x3";
    assert_eq!(on("max", "athlon2", &whole).as_deref(), Some(why));
    // Goals are those of the instruction that came of it.
    let mut few = report("fxsave", None);
    few.counts.bad_images = 0;
    assert_eq!(on("max", "athlon2", &few), None, "QEMU's FXRSTOR loads any image");
    assert!(on("icelake", "athlon2", &few).is_some());
    few.counts.bad_images = 5;
    assert_eq!(on("icelake", "athlon2", &few), None);
    few.counts.mismatches = 1;
    assert!(on("icelake", "athlon2", &few).is_some());
    let cpuid = Some(load(words).expect(words)[0]);
    let asked = Params { rung: Some("xsave"), cpuid, ..Params::default() };
    let machine = named("max").expect("max");
    assert!(missed(&whole, machine, &asked).is_some(), "where an instruction was asked for");
    assert_eq!(missed(&report("xsave", Some("0x7")), machine, &asked), None);
}

/// An EPYC 9004 has AVX-512 where no emulator has it. Packed, that does not matter.
#[test]
fn what_lies_elsewhere_on_the_machine_is_not_missed() {
    let made = |number, at: [u32; 4], xsave| {
        let [avx, opmask, zmm, high] = at;
        let subleaves = [
            (0, [0xE7, 0, 0, 0]),
            (1, [xsave, 0, 0, 0]),
            (2, [0x100, avx, 0, 0]),
            (5, [0x40, opmask, 0, 0]),
            (6, [0x200, zmm, 0, 0]),
            (7, [0x400, high, 0, 0]),
        ];
        loaded(&format!("elsewhere-{number}"), &line(Some("0xe7"), &subleaves)).expect("words")[0]
    };
    let (intel, amd) = ([576, 1088, 1152, 1664], [576, 832, 896, 1408]);
    let standard = ("xsaveopt", 1);
    for (number, (at, (rung, xsave), due)) in [
        (intel, standard, "0xe7"),
        (amd, standard, "0x7"),
        ([640, 1088, 1152, 1664], standard, "0x3"),
        ([576, 1088, 1152, 1728], standard, "0x7"),
        (amd, ("xsaves", 0xF), "0xe7"),
    ]
    .into_iter()
    .enumerate()
    {
        let params = Params { cpuid: Some(made(number, at, xsave)), ..Params::default() };
        for seen in ["0x3", "0x7", "0xe7"] {
            let why = missed(&report(rung, Some(seen)), named("icelake").expect("one"), &params);
            if due == "0x3" {
                let should = format!("it saves with {rung}, and should with fxsave");
                assert_eq!(why, Some(should), "{at:?}");
                continue;
            }
            let should = format!("it enables {seen} in XCR0, and should enable {due}");
            assert_eq!(why, (seen != due).then_some(should), "{at:?}");
        }
    }
}

#[test]
fn the_table_and_the_document_say_how_many_quirks() {
    let run = |name: &str, verdict: Verdict| {
        let params = Params { cpuid: Some(load(name).expect(name)[0]), ..Params::default() };
        let job = Job { machine: named("icelake").expect("icelake"), params };
        let report =
            (verdict != Verdict::Skip("no Bochs".into())).then(|| report("xsaves", Some("0xe7")));
        Run { job, verdict, report, seconds: 1.25 }
    };
    let runs = [
        run("bhyve-avx512", Verdict::Pass),
        run("firecracker-emr", Verdict::Fail("register ".repeat(30))),
        run("wsl2", Verdict::Skip("no Bochs".into())),
    ];
    let rows: Vec<_> = runs.iter().map(|run| table::row(run, Style::plain())).collect();
    let text = table::words_heading(Style::plain()) + &rows.concat();
    assert!(text.lines().all(|line| line.chars().count() <= table::WIDTH), "{text}");
    let cells: Vec<_> = rows[0].split_whitespace().collect();
    let whole =
        ["bhyve-avx512", "icelake", "XSAVES", "0xe7", "0x0", "2", "1000", "1000", "0", "1.2"];
    assert_eq!(cells, whole, "{text}");
    assert!(
        rows[1].contains("FAILED: register") && rows[2].contains("skipped: no Bochs"),
        "{text}"
    );
    let document = document::document(&runs, false);
    let first: &Value = &document["machines"][0];
    assert_eq!(
        (&first["cpuid"], &first["quirks"]),
        (&json!("bhyve-avx512"), &json!(["one", "two"]))
    );
    assert!(first["expected_rung"].is_null() && document["machines"][2]["quirks"].is_null());
}
