//! Core files of a process with several threads, that the host's kernel writes or gdb: each thread's registers are read.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fpu_hosted_test::real::{
    frames_are_linuxs, registers_of, Classes, Dumped, RegFile, NT_PRFPREG, NT_X86_XSTATE, THREADS,
};
use fpu_x86::{ForeignImage, ForeignLayout, ForeignRules, Format};

mod support {
    #[allow(dead_code)] // the tests of frames use all of it
    pub mod frames;
}
use support::frames::{plan, same};

const NT_PRSTATUS: i32 = 1;
const NT_X86_XSAVE_LAYOUT: i32 = 0x205;
/// Where a thread's number stands in its status.
const PR_PID: usize = 32;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Type and contents of all notes.
fn notes(core: &[u8]) -> Vec<(i32, &[u8])> {
    assert_eq!(core[..5], [0x7F, b'E', b'L', b'F', 2]);
    let long = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().unwrap()) as usize;
    let (table, size) = (long(32), usize::from(u16::from_le_bytes([core[54], core[55]])));
    let headers = (0..usize::from(u16::from_le_bytes([core[56], core[57]])))
        .map(|n| table + size * n)
        .filter(|at| word(core, *at) == 4);
    let mut notes = Vec::new();
    for at in headers {
        let mut rest = &core[long(at + 8)..][..long(at + 32)];
        while rest.len() >= 12 {
            let [name, len] = [0, 4].map(|at| word(rest, at) as usize);
            let kind = word(rest, 8) as i32;
            let from = 12 + name.next_multiple_of(4);
            notes.push((kind, &rest[from..from + len]));
            rest = &rest[(from + len.next_multiple_of(4)).min(rest.len())..];
        }
    }
    notes
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fpu-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// Every thread's registers are in the file; does it have a layout note?
fn check(core: &[u8], threads: [i32; THREADS], load: &[RegFile; THREADS]) -> bool {
    let (plan, notes) = (plan(), notes(core));
    let format = plan.user_format();
    let layout = notes.iter().find(|(kind, _)| *kind == NT_X86_XSAVE_LAYOUT);
    let layout = layout.map(|(_, note)| ForeignLayout::from_note(note).unwrap());
    let mut seen = [[false; 2]; THREADS];
    let mut current = None;
    for (kind, bytes) in &notes {
        if *kind == NT_PRSTATUS {
            let number = word(bytes, PR_PID) as i32;
            current = threads.iter().position(|thread| *thread == number);
            assert!(current.is_some(), "a thread {number}");
        }
        let Some(n) = current else { continue };
        let (load, mut copy) = (&load[n], bytes.to_vec());
        match *kind {
            NT_PRFPREG => {
                let image = format.read_prfpreg(&mut copy).unwrap().image();
                let read = registers_of(&image, Classes::BASE);
                assert_eq!((read.mxcsr(), read.ftw()), (load.mxcsr(), load.ftw()), "thread {n}");
                for xmm in 0..16 {
                    assert_eq!(read.vector(xmm)[..2], load.vector(xmm)[..2], "thread {n}");
                }
                assert!((0..8).all(|st| read.x87(st) == load.x87(st)), "thread {n}");
                seen[n][0] = true;
            }
            NT_X86_XSTATE if bytes.len() != format.xstate_len() => {
                // gdb before 14 writes Intel's layout on every machine, and reads AVX-512 from there too.
                let valid = ForeignImage::in_private(&mut copy).validate(&plan).unwrap();
                let read = registers_of(&valid.image(), load.classes());
                assert_eq!((read.mxcsr(), read.ftw()), (load.mxcsr(), load.ftw()), "thread {n}");
                for ymm in 0..16 {
                    assert_eq!(read.vector(ymm)[..4], load.vector(ymm)[..4], "thread {n}");
                }
                if n == 0 {
                    let (len, here) = (bytes.len(), format.xstate_len());
                    println!("SKIP: {len} bytes, {here} on this CPU: AVX-512 lies elsewhere");
                }
                seen[n][1] = true;
            }
            NT_X86_XSTATE => {
                let valid = format.read_xstate(&mut copy).unwrap();
                same(load, &registers_of(&valid.image(), load.classes()), "as this machine's");
                if let Some(layout) = &layout {
                    let (rules, mut copy) = (ForeignRules::new().layout(layout), bytes.to_vec());
                    let valid = ForeignImage::in_private(&mut copy).validate_by(&rules, &plan);
                    let registers = registers_of(&valid.unwrap().image(), load.classes());
                    same(load, &registers, "by the file's layout note");
                }
                seen[n][1] = true;
            }
            _ => {}
        }
    }
    let xstate = plan.format() != Format::Legacy;
    assert_eq!(seen, [[true, xstate]; THREADS], "each thread has its notes");
    println!("{} notes, {THREADS} threads, layout note: {}", notes.len(), layout.is_some());
    layout.is_some()
}

fn registers(seed: u64) -> [RegFile; THREADS] {
    std::array::from_fn(|n| RegFile::pattern(seed + n as u64, Classes::detect()))
}

fn start(load: &[RegFile; THREADS], directory: &Path) -> Result<Dumped, String> {
    frames_are_linuxs()?;
    Dumped::start(load, directory).map_err(|why| format!("no process that can be dumped: {why}"))
}

#[test]
fn the_kernels_core_file_has_every_threads_registers() {
    let (directory, load) = (Directory::new("kernel-core"), registers(300));
    let dumped = match start(&load, &directory.0) {
        Ok(dumped) => dumped,
        Err(why) => return println!("SKIP: {why}"),
    };
    let threads = dumped.threads();
    let said = dumped.abort();
    let file = fs::read_dir(&directory.0).unwrap().next();
    let Some(file) = file.filter(|_| said) else {
        // A pattern with a pipe, or an absolute path, which is not this test's to read.
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        return println!("SKIP: no core file here, the pattern is {}", pattern.trim());
    };
    let core = fs::read(file.unwrap().path()).unwrap();
    let with_layout = check(&core, threads, &load);
    println!("{} bytes, by the kernel; layout {with_layout}", core.len());
}

#[test]
fn gdbs_core_file_has_every_threads_registers() {
    let (directory, load) = (Directory::new("gdb-core"), registers(400));
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
    let done = done.unwrap();
    let Ok(core) = fs::read(&path) else {
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(errors.contains("ptrace"), "{errors}");
        return println!("SKIP: gdb may not attach here: {errors}");
    };
    check(&core, dumped.threads(), &load);
    println!("{} bytes, by gdb", core.len());
}
