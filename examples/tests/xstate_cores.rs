//! Core files of a process with several threads, that the host's kernel writes or gdb, as `xstate decode` shows them, and
//! made again from its text.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fpu_hosted_test::real::{frames_are_linuxs, Classes, Dumped, RegFile, THREADS};
use fpu_x86::{Components, Format, Plan};
use serde_json::Value;

#[path = "support/program.rs"]
mod support;
use support::{program, text};

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fpu-xstate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _absent_already = fs::remove_dir_all(&self.0);
    }
}

fn xstate(args: &[&str], file: &Path) -> String {
    let done = program(env!("CARGO_BIN_EXE_xstate")).args(args).arg(file).output();
    let done = done.expect("xstate can be started");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    text(&done.stdout)
}

/// Words of a value, the lowest first, as many as are asked for.
fn words(registers: &Value, names: &[String], count: usize) -> Vec<u64> {
    let value = names.iter().find_map(|name| registers[name].as_str()).unwrap_or("0");
    let digits = value.trim_start_matches("0x").replace('_', "");
    let word = |n: usize| {
        let end = digits.len().saturating_sub(16 * n);
        let part = &digits[end.saturating_sub(16)..end];
        if part.is_empty() {
            0
        } else {
            u64::from_str_radix(part, 16).expect("hex")
        }
    };
    (0..count).map(word).collect()
}

/// Every thread is there with its registers; of AVX-512 only where the writer knows this machine's layout.
fn check(file: &Path, threads: [i32; THREADS], load: &[RegFile; THREADS], plan: &Plan) {
    let shown = xstate(&["decode", "--json"], file);
    let lines = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut seen = [false; THREADS];
    for line in lines {
        let process = line["process"].as_i64().expect("a number");
        let n = threads.iter().position(|thread| i64::from(*thread) == process);
        let n = n.expect("a thread of ours");
        let (load, registers) = (&load[n], &line["registers"]);
        let one = |name: &str| words(registers, &[name.to_owned()], 1)[0];
        assert_eq!(one("mxcsr"), u64::from(load.mxcsr()), "thread {n}");
        assert_eq!(one("ftw"), u64::from(load.ftw()), "thread {n}");
        for st in 0..8 {
            let (significand, head) = load.x87(st);
            let expected = vec![significand, u64::from(head)];
            assert_eq!(words(registers, &[format!("st{st}")], 2), expected, "thread {n}, st{st}");
        }
        let avx = plan.components().contains(Components::AVX);
        let own = line["bytes"].as_u64() == Some(plan.user_format().xstate_len() as u64);
        let avx512 = own && plan.components().contains(Components::AVX512);
        if n == 0 && !own && plan.components().contains(Components::AVX512) {
            println!("SKIP: gdb before 14 takes AVX-512 from another maker's places");
        }
        for vector in 0..if avx512 { 32 } else { 16 } {
            let names = ["zmm", "ymm", "xmm"].map(|class| format!("{class}{vector}"));
            let count = if avx512 {
                8
            } else if avx {
                4
            } else {
                2
            };
            let expected = load.vector(vector)[..count].to_vec();
            assert_eq!(words(registers, &names, count), expected, "thread {n}, vector {vector}");
        }
        for mask in 0..if avx512 { 8 } else { 0 } {
            assert_eq!(one(&format!("k{mask}")), load.mask(mask), "thread {n}, k{mask}");
        }
        seen[n] = true;
    }
    assert_eq!(seen, [true; THREADS]);
    // The text of the file makes a file of which the text is the same.
    if plan.format() != Format::Legacy {
        let again = file.with_extension("again");
        let bare = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        let text = bare(&xstate(&["decode", "--text"], file));
        let input = file.with_extension("txt");
        fs::write(&input, &text).expect("a file");
        let input = input.to_str().expect("UTF-8");
        xstate(&["encode", "core", input], &again);
        assert_eq!(bare(&xstate(&["decode", "--text"], &again)), text);
    }
}

fn registers(seed: u64) -> [RegFile; THREADS] {
    std::array::from_fn(|n| RegFile::pattern(seed + n as u64, Classes::detect()))
}

fn start(load: &[RegFile; THREADS], directory: &Path) -> Result<Dumped, String> {
    frames_are_linuxs()?;
    Dumped::start(load, directory).map_err(|why| format!("no process that can be dumped: {why}"))
}

#[test]
fn the_kernels_core_file_is_decoded() {
    let (directory, load) = (Directory::new("kernel-core"), registers(500));
    let dumped = match start(&load, &directory.0) {
        Ok(dumped) => dumped,
        Err(why) => return println!("SKIP: {why}"),
    };
    let threads = dumped.threads();
    let said = dumped.abort();
    let file = fs::read_dir(&directory.0).expect("ours").next();
    let Some(file) = file.filter(|_| said) else {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        return println!("SKIP: no core file here, the pattern is {}", pattern.trim());
    };
    let plan = Plan::detect_user(Components::all()).expect("a plan");
    check(&file.expect("ours").path(), threads, &load, &plan);
}

#[test]
fn gdbs_core_file_is_decoded() {
    let (directory, load) = (Directory::new("gdb-core"), registers(600));
    if Command::new("gdb").arg("--version").output().is_err() {
        return println!("SKIP: no gdb");
    }
    let dumped = match start(&load, &directory.0) {
        Ok(dumped) => dumped,
        Err(why) => return println!("SKIP: {why}"),
    };
    let path = directory.0.join("of-gdb");
    let save = format!("generate-core-file {}", path.display());
    let process = dumped.process().to_string();
    let done = Command::new("gdb").args(["-nx", "-batch", "-p", &process, "-ex", &save]).output();
    let done = done.expect("gdb can be started");
    if !path.exists() {
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(errors.contains("ptrace"), "{errors}");
        return println!("SKIP: gdb may not attach here: {errors}");
    }
    let plan = Plan::detect_user(Components::all()).expect("a plan");
    check(&path, dumped.threads(), &load, &plan);
}
