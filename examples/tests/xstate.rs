//! `xstate` as it is used: batches, tables, pictures and exit codes.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Output, Stdio},
};

use fpu_examples::xstate::encode::Kind;
use fpu_x86::{Components, Layout, Plan, SaveInstruction, Standard};
use serde_json::{json, Value};

#[path = "support/program.rs"]
mod support;
use support::{program, text};

fn xstate(args: &[&str]) -> Output {
    let program = program(env!("CARGO_BIN_EXE_xstate")).args(args).output();
    program.expect("xstate can be started")
}
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fpu-xstate-{}-{name}", std::process::id()))
}

fn started() -> Child {
    let mut program = program(env!("CARGO_BIN_EXE_xstate"));
    let batch = program.arg("batch").stdin(Stdio::piped()).stdout(Stdio::piped());
    batch.spawn().expect("xstate can be started")
}
/// Runs a batch; one answer a line.
fn batch(input: &[u8]) -> Vec<String> {
    let mut child = started();
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // Both pipes would fill up if one thread did both.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(out.status.success());
    text(&out.stdout).lines().map(str::to_owned).collect()
}

/// The words of a server with supervisor components, an aligned one and a gap in front of it.
fn server() -> Value {
    json!({
        "0xd.0": ["0x602e7", "0x2b00", "0x2b00", "0x0"],
        "0xd.1": ["0x1f", "0x2a00", "0x1800", "0x0"],
        "0xD.2": ["0x100", "0x240", "0x0", "0x0"],
        "0x0000000d.5": ["0x40", "0x440", "0x0", "0x0"],
        "0xd.6": ["0x200", "0x480", "0x0", "0x0"],
        "0xd.7": ["0x400", "0x680", "0x0", "0x0"],
        "0xd.9": ["8", "a80", "0", "0"],
        "0xd.11": ["0x10", "0x0", "0x1", "0x0"],
        "0xd.12": ["0x18", "0x0", "0x1", "0x0"],
        "0xd.17": ["0x40", "0xac0", "0x2", "0x0"],
        "0xd.18": ["0x2000", "0xb00", "0x6", "0x0"],
        "another key": 7,
    })
}

fn request(id: &Value, cpuid: &Value, bitmap: &str) -> String {
    json!({"id": id, "cpuid": cpuid, "bitmap": bitmap}).to_string()
}

#[test]
fn a_batch_is_answered_as_the_hardware_lays_out() {
    let bitmaps = ["0x61ae7", "0x3", "0x0", "0x800", "0x204", "0x40000", "0X0000000000000007"];
    let lines: Vec<String> =
        bitmaps.iter().map(|bitmap| request(&json!("x"), &server(), bitmap)).collect();
    let answers = batch(lines.join("\n").as_bytes());
    let expected = [
        concat!(
            r#""standard":{"size":11008,"offsets":{"2":[576,256],"5":[1088,64],"6":[1152,512],"#,
            r#""7":[1664,1024],"9":[2688,8],"17":[2752,64],"18":[2816,8192]}},"#,
            r#""compacted":{"size":10752,"offsets":{"2":[576,256],"5":[832,64],"6":[896,512],"#,
            r#""7":[1408,1024],"9":[2432,8],"11":[2440,16],"12":[2456,24],"17":[2496,64],"#,
            r#""18":[2560,8192]}}"#,
        ),
        r#""standard":{"size":576,"offsets":{}},"compacted":{"size":576,"offsets":{}}"#,
        r#""standard":{"size":576,"offsets":{}},"compacted":{"size":576,"offsets":{}}"#,
        r#""standard":{"size":576,"offsets":{}},"compacted":{"size":592,"offsets":{"11":[576,16]}}"#,
        concat!(
            r#""standard":{"size":2696,"offsets":{"2":[576,256],"9":[2688,8]}},"#,
            r#""compacted":{"size":840,"offsets":{"2":[576,256],"9":[832,8]}}"#,
        ),
        concat!(
            r#""standard":{"size":11008,"offsets":{"18":[2816,8192]}},"#,
            r#""compacted":{"size":8768,"offsets":{"18":[576,8192]}}"#,
        ),
        concat!(
            r#""standard":{"size":832,"offsets":{"2":[576,256]}},"#,
            r#""compacted":{"size":832,"offsets":{"2":[576,256]}}"#,
        ),
    ];
    assert_eq!(answers.len(), bitmaps.len());
    for ((bitmap, expected), answer) in bitmaps.iter().zip(expected).zip(answers) {
        assert_eq!(answer, format!(r#"{{"id":"x","bitmap":"{bitmap}",{expected}}}"#));
    }
}

#[test]
fn bad_lines_get_an_error_and_the_rest_an_answer() {
    let good = request(&json!(1), &server(), "0x7");
    let with = |key: &str, words: Value| {
        let mut cpuid = server();
        cpuid[key] = words;
        request(&json!(9), &cpuid, "0x4")
    };
    let nine = "{\"id\":9,";
    let null = "{\"id\":null,";
    let long = format!("{{\"id\":9,\"x\":\"{}\"}}", "y".repeat(17 << 20));
    let deep = format!("{{\"id\":9,\"x\":{}}}", "[".repeat(200_000));
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"".to_vec(), null, "EOF"),
        (b"\x00\xff\xfe".to_vec(), null, "not UTF-8 at column 2"),
        (b"nonsense".to_vec(), null, "not a JSON object"),
        (b"[1,2]".to_vec(), null, "not a JSON object"),
        (b"{\"id\":9,\"cpuid\"".to_vec(), nine, "not a JSON object"),
        (b"{\"id\":9,\"cpuid\":{},\"bitmap\":\"\xff\"}".to_vec(), nine, "not UTF-8"),
        (b"{\"id\":9}".to_vec(), nine, "missing key: cpuid"),
        (b"{\"cpuid\":{},\"bitmap\":\"0x1\"}".to_vec(), null, "missing key: id"),
        (b"{\"bitmap\":7,\"cpuid\":{},\"id\":9}".to_vec(), nine, "bitmap is no string"),
        (b"{\"bitmap\":\"0x1\",\"cpuid\":{},\"id\":9}".to_vec(), nine, "no words 0xd.0"),
        (long.into_bytes(), null, "longer than"),
        (deep.into_bytes(), nine, "not a JSON object"),
        (request(&json!(9), &server(), "0x10007").into(), nine, "does not have component 16 (HWP)"),
        (request(&json!(9), &server(), "0x100000007").into(), nine, "component 32"),
        (request(&json!(9), &server(), "0x8000000000000001").into(), nine, "bit 63"),
        (request(&json!(9), &server(), "0x10000000000000000").into(), nine, "is no hex number"),
        (request(&json!(9), &server(), "0x-1").into(), nine, "is no hex number"),
        (request(&json!(9), &json!([]), "0x1").into(), nine, "cpuid is no object"),
        (with("0xd.0", json!(["0", "0", "0", "0"])).into(), nine, "all zero"),
        (with("0xD.2", json!(["0", "0", "0", "0"])).into(), nine, "component 2 (AVX)"),
        (with("0xD.2", json!([256, 576, 0, 0])).into(), nine, "not an array of four hex strings"),
        (with("0xD.2", json!(["0x100", "0x240", "0x0"])).into(), nine, "3 words"),
        (with("0xD.2", json!(["0x100", "0x23f", "0x0", "0"])).into(), nine, "offset 575"),
        (with("0xD.2", json!(["0xffffffff", "0x240", "0x0", "0"])).into(), nine, "(AVX)"),
        (with("0xD.2", json!(["0x1000000000", "0x240", "0x0", "0"])).into(), nine, "32 bits"),
    ];
    let mut input = Vec::new();
    for (line, ..) in &cases {
        input.extend_from_slice(line);
        input.push(b'\n');
        input.extend_from_slice(good.as_bytes());
        input.extend_from_slice(b"\r\n");
    }
    let answers = batch(&input);
    assert_eq!(answers.len(), 2 * cases.len());
    for ((line, id, why), pair) in cases.iter().zip(answers.chunks(2)) {
        let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
        assert!(pair[0].starts_with(&format!("{id}\"error\":\"")), "{line}: {}", pair[0]);
        assert!(pair[0].contains(why), "{line}: {}", pair[0]);
        let parsed: Result<Value, _> = serde_json::from_str(&pair[0]);
        assert!(parsed.is_ok_and(|answer| answer.as_object().is_some_and(|o| o.len() == 2)));
        assert!(pair[1].starts_with("{\"id\":1,\"bitmap\":\"0x7\",\"standard\":{\"size\":832,"));
    }
}

#[test]
fn a_batch_answers_before_the_input_ends() {
    let mut child = started();
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut ask = |line: &str, answers: usize| {
        stdin.write_all(line.as_bytes()).expect("it reads");
        (0..answers)
            .map(|_| {
                let mut answer = String::new();
                stdout.read_line(&mut answer).expect("it answers");
                answer
            })
            .collect::<Vec<_>>()
    };
    // Ends would hang here if answers were kept back.
    assert!(ask("{\"id\":1}\n", 1)[0].starts_with("{\"id\":1,"));
    assert_eq!(ask("{\"id\":", 0).len(), 0);
    assert!(ask("2}\n{\"id\":3}\n", 2)[1].starts_with("{\"id\":3,"));
    ask("{\"id\":4}", 0);
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("it ends");
    assert!(rest.starts_with("{\"id\":4,") && rest.ends_with("}\n"), "{rest}");
    assert!(child.wait().expect("it ends").success());
}

fn recorded(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn hex(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

#[test]
fn a_batch_of_real_cpus_gives_their_own_sizes() {
    let corpus = recorded(include_str!("../../fpu-x86/testdata/xsave_layouts.jsonl"));
    let (mut lines, mut expected) = (Vec::new(), Vec::new());
    for entry in &corpus {
        let word = |sub: &str, n: usize| hex(&entry["cpuid"][sub][n]);
        let known = [("0xd.0", 0), ("0xd.1", 2)]
            .map(|(sub, n)| word(sub, n).unwrap_or(0) | word(sub, 3).unwrap_or(0) << 32);
        let mut ask = |bitmap: u64, standard: Option<u64>, compacted: Option<u64>| {
            lines.push(request(&entry["id"], &entry["cpuid"], &format!("{bitmap:#x}")));
            expected.push((entry["id"].clone(), bitmap, standard, compacted));
        };
        // What was enabled when the words were read, as far as that can be told.
        for xcr0 in entry["state"]["xcr0_candidates"].as_array().into_iter().flatten() {
            ask(hex(xcr0).expect("hex"), word("0xd.0", 1), None);
        }
        for pair in entry["state"]["pairs"].as_array().into_iter().flatten() {
            let (xcr0, xss) = (hex(&pair[0]).expect("hex"), hex(&pair[1]).expect("hex"));
            let xsavec = word("0xd.1", 0).is_some_and(|eax| eax & 2 != 0);
            ask(xcr0 | xss, word("0xd.0", 1), word("0xd.1", 1).filter(|_| xsavec));
        }
        if entry["status"] == "complete" {
            ask(known[0], word("0xd.0", 2), None);
        } else {
            // Everything, some of which is not described.
            ask(known[0] | known[1] | 1, None, None);
        }
    }
    let answers = batch((lines.join("\n") + "\n").as_bytes());
    assert_eq!(answers.len(), expected.len());
    let (mut checked, mut refused) = (0, 0);
    for ((id, bitmap, standard, compacted), answer) in expected.iter().zip(&answers) {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        assert_eq!(&answer["id"], id);
        if standard.is_none() && compacted.is_none() {
            refused += usize::from(answer["error"].is_string());
            continue;
        }
        for (format, size) in [("standard", standard), ("compacted", compacted)] {
            if let Some(size) = size {
                assert_eq!(
                    answer[format]["size"].as_u64(),
                    Some(*size),
                    "{id} {bitmap:#x} {answer}"
                );
                checked += 1;
            }
        }
    }
    println!("{} CPUs: {checked} sizes are the CPU's own, {refused} refused", corpus.len());
    let complete = corpus.iter().filter(|entry| entry["status"] == "complete").count();
    let missing = corpus
        .iter()
        .filter(|e| e["undescribed"].as_array().is_some_and(|list| list.iter().any(|n| n != 1)))
        .count();
    assert!(checked >= 2 * complete && complete >= 30, "{checked} sizes of {complete} CPUs");
    assert!(refused >= missing, "{refused} refused, {missing} have undescribed components");
}

/// Machines whose words do not agree are read too, and what is enabled on them is laid out.
#[test]
fn a_batch_of_quirks_is_answered() {
    let quirks = recorded(include_str!("../../fpu-x86/testdata/quirks.jsonl"));
    let ask = |quirk: &Value| {
        request(&quirk["name"], &quirk["cpuid"], quirk["xcr0"].as_str().expect("a string"))
    };
    let lines: Vec<String> = quirks.iter().map(ask).collect();
    let answers = batch((lines.join("\n") + "\n").as_bytes());
    assert_eq!(answers.len(), quirks.len());
    let mut sizes = 0;
    for (quirk, answer) in quirks.iter().zip(&answers) {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        assert_eq!(answer["id"], quirk["name"]);
        let has_leaf = quirk["cpuid"]["0xd.0"].is_array();
        assert_eq!(answer["error"].is_string(), !has_leaf, "{answer}");
        assert_eq!(answer["standard"]["size"].is_u64(), has_leaf, "{answer}");
        sizes += u32::from(has_leaf);
    }
    assert_eq!(sizes, 23, "all but the two without leaf 0xD");
}

/// Every machine that contradicts itself has a table, which names what a plan overlooks.
#[test]
fn the_tables_of_quirks_say_what_is_overlooked() {
    let quirks = include_str!("../../fpu-x86/testdata/quirks.jsonl");
    let path = file("quirk.json");
    for line in quirks.lines() {
        std::fs::write(&path, line).expect("a file");
        let done = xstate(&["--cpuid", path.to_str().expect("UTF-8")]);
        let (table, complaint) = (text(&done.stdout), text(&done.stderr));
        assert!(done.status.success(), "{line}: {complaint}");
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
        let quirk: Value = serde_json::from_str(line).expect("JSON");
        let name = quirk["name"].as_str().expect("a name");
        assert!(table.starts_with(name), "{table}");
        let overlooked = match name {
            "kvm-half-amx" => "left out TILECFG: TILEDATA is missing",
            "snp-no-cet" => "left out CET_U: CPUID(0xD,11).EAX is 0x0, should be at least 0x10",
            "cpuid-limit" => "CPUID.1:ECX says XSAVE, the last leaf is 0x3: FXSAVE is used",
            "wsl2" => "CPUID(0xD,1).EBX says 0 bytes, the components have 832",
            "firecracker-emr" => "CPUID(0xD,0).ECX says 11008 bytes, the components have 2688",
            _ => "",
        };
        assert!(table.contains(overlooked), "{name}: {table}");
        let none = ["cpuid-limit", "athlon2"].contains(&name);
        assert_eq!(table.contains("\n  no XSAVE: "), none, "{table}");
        // x87 and SSE alone are saved by FXSAVE, with XSAVE or without; not where there are protection keys (n5105).
        let few = table.contains("\n  XCR0         0x3  X87 SSE\n");
        let xsave = !(none || few && name != "n5105");
        assert_eq!(table.contains("\n  in ring 0    XSAVE"), xsave, "{table}");
    }
    std::fs::remove_file(&path).expect("ours");
}

/// The table of the documentation has what these tables show.
#[test]
fn the_page_of_hypervisors_says_what_a_kernel_would_have() {
    let page = include_str!("../../docs/hypervisors.md");
    let table = &page[page.find("| name | source |").expect("the table")..];
    let path = file("page.json");
    for line in include_str!("../../fpu-x86/testdata/quirks.jsonl").lines() {
        let quirk: Value = serde_json::from_str(line).expect("JSON");
        let name = quirk["name"].as_str().expect("a name");
        std::fs::write(&path, line).expect("a file");
        let shown = text(&xstate(&["--cpuid", path.to_str().expect("UTF-8")]).stdout);
        let row = table.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
        let cells: Vec<&str> = row.expect(name).split('|').map(str::trim).collect();
        let [_, _, _, xcr0, xss, rung, _] = cells[..] else { panic!("{cells:?}") };
        if rung == "FXSAVE" {
            let none = shown.contains("no XSAVE: an area is the 512 bytes of FXSAVE");
            let legacy = shown.contains("\n  in ring 0    FXSAVE, 512 bytes; XCR0 0x3\n");
            assert!(none || legacy, "{name}: {shown}");
            assert_eq!((xcr0, xss), ("-", "-"), "{name}");
            continue;
        }
        let ring0 =
            shown.lines().find_map(|line| line.strip_prefix("  in ring 0    ")).expect(name);
        assert!(ring0.starts_with(&format!("{rung}, ")), "{name}: {ring0}");
        let none = ["-", "0"].contains(&xss);
        let xss = if none { String::new() } else { format!(", IA32_XSS {xss}") };
        let end = format!("; XCR0 {}{xss}", xcr0.to_lowercase());
        assert!(ring0.ends_with(&end), "{name}: {ring0}, on the page {end}");
    }
    std::fs::remove_file(&path).expect("ours");
}

#[test]
fn the_table_fits_and_says_what_the_cpu_says() {
    let out = xstate(&[]);
    let table = text(&out.stdout);
    assert!(out.status.success() && out.stderr.is_empty(), "{table}");
    assert!(!table.contains('\x1b'), "no colour into a pipe");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    let plan = Plan::detect_user(Components::all()).expect("a plan");
    assert!(table.contains(&format!("{} bytes a task", plan.area_len())), "{table}");
    for number in plan.components().numbers().filter(|number| *number >= 2) {
        let (name, _) = Components::all()
            .iter_names()
            .find(|(_, one)| one.number() == Some(number))
            .expect("named");
        let row = table.lines().find(|line| line.contains(&format!(" {number}  {name} ")));
        let row = row.unwrap_or_else(|| panic!("no row of {name}: {table}"));
        assert!(row.trim_end().ends_with(" on"), "{row}");
    }
    // Computed is what the subleaves of CPUID make; its own sum of them may be another (a hypervisor that
    // takes components away may leave the size with them), which the table says.
    let facts = plan.cpuid_info();
    let all = Layout::<Standard>::new(facts, facts.supported_user()).map(|layout| layout.len());
    let agrees = all.is_ok_and(|len| len == facts.standard_supported() as usize);
    let row = "standard, all that XCR0 can enable";
    for line in table.lines().filter(|line| line.contains("CPUID(0xD,")) {
        assert!(!line.contains("differs") || line.contains(row) && !agrees, "{line}");
        assert!(!line.contains(row) || agrees || line.contains("differs"), "{line}");
    }
}

#[test]
fn a_table_shows_what_is_off_and_finds_what_cannot_be_read() {
    let words = file("off.json");
    let mut cpuid = server();
    // Of x87, SSE, AVX and PKRU, with 16 bytes more: CET_U.
    cpuid["0xd.1"][1] = json!("0x358");
    std::fs::write(&words, json!({"cpuid": cpuid, "bitmap": "0x207"}).to_string()).expect("ours");
    let out = xstate(&["--cpuid", words.to_str().expect("UTF-8")]);
    std::fs::remove_file(&words).expect("ours");
    let table = text(&out.stdout);
    let spaced = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in [
        "5 OPMASK mask registers K0-7 64 1088-1151 - - XCR0 off",
        "11 CET_U shadow stack of ring 3 16 - 840-855 - XSS on",
        "12 CET_S shadow stacks of rings 0-2 24 - - - XSS off",
        "standard, what XCR0 enables 2696 11008 for another set: CPUID(0xD,0).EBX",
        "compacted, with CET_U 856 856 = CPUID(0xD,1).EBX",
    ] {
        assert!(table.lines().any(|line| spaced(line) == row), "{row}\n{table}");
    }
}

/// Is there an XSAVE area on this machine?
fn has_area() -> bool {
    Plan::detect_user(Components::all())
        .is_ok_and(|plan| plan.save_instruction() != SaveInstruction::Fxsave)
}

#[test]
fn other_cpus_have_tables_and_pictures() {
    let (words, svg) = (file("words.json"), file("map.svg"));
    let [words_name, svg_name] = [&words, &svg].map(|path| path.to_str().expect("UTF-8"));
    std::fs::write(
        &words,
        json!({"cpuid": server(), "bitmap": "0x602e7", "brand": "A <CPU>"}).to_string(),
    )
    .expect("ours");
    let table = text(&xstate(&["--cpuid", words_name]).stdout);
    assert!(table.contains("2816-11007   2560-10751     64  XCR0 on"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    for args in [&["--cpuid", words_name, "map", svg_name][..], &["--svg", svg_name]] {
        let out = xstate(args);
        if args.len() == 2 && !has_area() {
            assert_eq!(out.status.code(), Some(1));
            assert!(text(&out.stderr).contains("there is no XSAVE here"));
            println!("SKIP: no XSAVE here, so no area of this machine to draw");
            continue;
        }
        assert!(out.status.success() && out.stdout.is_empty(), "{}", text(&out.stderr));
        let picture = std::fs::read_to_string(&svg).expect("the picture");
        std::fs::remove_file(&svg).expect("ours");
        assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
        assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
        for label in ["Standard format", "Compacted format", "XSTATE_BV, XCOMP_BV", "AVX", ">832<"]
        {
            assert!(picture.contains(label) || args.len() == 2, "{label}");
        }
        assert!(picture.contains("A &lt;CPU&gt;") || args.len() == 2);
        let gaps = picture.matches(">unused<").count();
        assert!(gaps == 3 || args.len() == 2, "{gaps} gaps: two in one format, one in the other");
    }
    std::fs::write(&words, "{\"cpuid\":{}}").expect("ours");
    let out = xstate(&["--cpuid", words_name]);
    std::fs::remove_file(&words).expect("ours");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("no words 0xd.0"));
}

#[test]
fn help_version_and_bad_arguments() {
    let help = xstate(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    for said in
        ["xstate batch", "--cpuid", "--layout", "--text", "--json", "encode", "exit code: 0", "1 "]
    {
        assert!(help.contains(said), "{said}");
    }
    let kinds = xstate(&["encode", "via", "x", "y"]);
    for (kind, _) in Kind::ALL {
        assert!(help.contains(&format!("  {kind}  ")), "{kind}");
        assert!(text(&kinds.stderr).contains(kind), "{kind}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 79));
    let version = xstate(&["--version"]);
    assert_eq!(text(&version.stdout), concat!("xstate ", env!("CARGO_PKG_VERSION"), "\n"));
    for bad in [
        &["--nonsense"][..],
        &["decode"],
        &["map"],
        &["--svg="],
        &["batch", "decode", "x"],
        &["batch=x"],
        &["batch", "--cpuid", "x"],
        &["--cpuid", "x", "--cpuid", "y"],
        &["line\nbreak"],
        &["--json"],
        &["--text", "map", "x"],
        &["--layout", "amd"],
        &["decode", "x", "y"],
        &["decode", "--json", "--text", "x"],
        &["decode", "--layout", "via", "x"],
        &["decode", "--layout"],
        &["encode", "frame", "x"],
        &["encode", "via", "x", "y"],
        &["encode", "frame", "x", "y", "z"],
        &["encode", "frame", "x", "y", "--text"],
    ] {
        let out = xstate(bad);
        assert_eq!(out.status.code(), Some(2), "{bad:?}");
        assert!(out.stdout.is_empty(), "{bad:?}");
        assert_eq!(text(&out.stderr).lines().count(), 1, "{bad:?}");
    }
}
