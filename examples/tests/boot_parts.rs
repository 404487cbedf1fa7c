//! The parts of `cargo boot`: its arguments, the disk image of a made-up kernel, and a child process that
//! is no emulator.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    path::Path,
    process::{Command, Output},
    sync::Mutex,
    time::Duration,
};

use fpu_examples::boot::{
    args::{parse, Args, Command as Asked, Which},
    child::{self, Ended, Patience, Scratch},
    faults::{Fault, Needs},
    host,
    image::{cylinders, disk, fits, ImageError, BASE, LARGEST, PARAMETERS},
    machines::{self, named, Machine, RUNGS},
    params::Params,
};

fn asked(args: &[&str]) -> Args {
    match parse(args.iter().map(|arg| (*arg).into())) {
        Ok(Asked::Boot(args)) => args,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn arguments_are_understood() {
    let plain = asked(&[]);
    assert_eq!((plain.which, plain.params), (Which::Best, Params::default()));
    let two = asked(&["--machine", "max", "--machine=ryzen", "--cpus=4", "--seconds", "9"]);
    assert_eq!(two.which, Which::Named(vec![named("max").unwrap(), named("ryzen").unwrap()]));
    assert_eq!((two.params.cpus, two.params.seconds, two.params.limit), (4, 9, 69));
    let all = asked(&["--all", "--seed", "0x2a", "--rung", "xsave", "--check", "--json"]);
    assert_eq!((all.which, all.params.seed, all.params.rung), (Which::All, 42, Some("xsave")));
    assert!(all.params.check && all.json && !all.verbose);
    let fault = asked(&["--fault", "skip-save", "--verbose"]);
    assert_eq!((fault.params.fault, fault.verbose), (Some(Fault::SkipSave), true));
    let torture = asked(&["--torture", "90"]);
    assert_eq!((torture.which, torture.torture), (Which::All, Some(90)));
    assert!(asked(&["--controls", "--machine", "icelake"]).controls);
    let other = |args: &[&str]| parse(args.iter().map(|arg| (*arg).into()));
    assert_eq!(other(&["--machine", "list"]), Ok(Asked::List));
    assert_eq!(other(&["--build-only", "--json"]), Ok(Asked::Build { json: true }));
    assert_eq!(other(&["--fetch-bochs"]), Ok(Asked::Fetch));
}

/// An ELF file of these segments: address, bytes.
fn elf(segments: &[(u64, &[u8])]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[16] = 2;
    file[18] = 62;
    file[32] = 64;
    file[54] = 56;
    file[56] = segments.len() as u8;
    let mut from = 64 + 56 * segments.len();
    for (address, bytes) in segments {
        let mut header = vec![0; 56];
        header[0] = 1;
        header[8..16].copy_from_slice(&(from as u64).to_le_bytes());
        // The virtual address is another, and memory goes on behind the bytes.
        header[16..24].copy_from_slice(&(address | 0xFFFF_0000_0000_0000).to_le_bytes());
        header[24..32].copy_from_slice(&address.to_le_bytes());
        header[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        header[40..48].copy_from_slice(&(bytes.len() as u64 + 4096).to_le_bytes());
        from += bytes.len();
        file.extend(header);
    }
    segments.iter().for_each(|(_, bytes)| file.extend(*bytes));
    file
}

/// What a BIOS starts, and room for parameters, in the middle of which something lies.
fn first_sectors() -> Vec<u8> {
    let mut bytes = vec![0xEB; 1024];
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    bytes
}

#[test]
fn segments_lie_in_the_image_as_in_memory() {
    let (first, code) = (first_sectors(), [0x90; 100]);
    let file = elf(&[(BASE, &first), (BASE + 0x2000, &code), (0xFFFF_FFFF, &[])]);
    let image = disk(&file, "cpus=2 seed=7").expect("an image");
    assert_eq!((image.len(), cylinders(&image)), (16 * 63 * 512, 1));
    assert_eq!(image[..512], first[..512]);
    assert_eq!(&image[512..526], b"cpus=2 seed=7\0");
    assert!(image[525..0x2000].iter().all(|byte| *byte == 0), "the rest of the room is cleared");
    assert_eq!(image[0x2000..0x2064], code);
    assert!(image[0x2064..].iter().all(|byte| *byte == 0));
    let longest = "x".repeat(PARAMETERS - 1);
    let image = disk(&file, &longest).expect("fits");
    assert_eq!(image[512..][..PARAMETERS - 1], *longest.as_bytes());
    assert_eq!(image[512 + PARAMETERS - 1], 0);
    assert_eq!(fits(&longest), Ok(()));
    // The kernel reserves as much, for both ways to boot.
    let script = include_str!("../kernel/link.ld");
    assert!(script.contains(&format!("boot_params_size = {PARAMETERS};")));
}

#[test]
fn what_cannot_be_an_image_is_refused() {
    let first = first_sectors();
    let good = elf(&[(BASE, &first)]);
    let of = |file: &[u8]| disk(file, "cpus=2").expect_err("no image");
    assert_eq!(of(b""), ImageError::CutOff("header"));
    assert_eq!(of(&good[..63]), ImageError::CutOff("header"));
    assert_eq!(of(&good[..119]), ImageError::CutOff("program headers"));
    assert_eq!(of(&good[..good.len() - 1]), ImageError::CutOff("segments"));
    for (at, byte) in [(0, 0), (4, 1), (5, 2), (16, 3), (18, 3), (54, 57)] {
        let mut other = good.clone();
        other[at] = byte;
        assert_eq!(of(&other), ImageError::NotAnElf, "byte {at}");
    }
    let mut far = good.clone();
    far[32..40].fill(0xFF);
    assert_eq!(of(&far), ImageError::CutOff("program headers"));
    let below = elf(&[(BASE, &first), (BASE - 1, &[1, 2])]);
    assert_eq!(of(&below), ImageError::Outside { address: BASE - 1, size: 2 });
    let top = BASE + LARGEST as u64;
    assert!(disk(&elf(&[(BASE, &first), (top - 2, &[1, 2])]), "").is_ok());
    let above = elf(&[(BASE, &first), (top - 1, &[1, 2])]);
    assert_eq!(of(&above), ImageError::TooLarge(LARGEST as u64 + 1));
    let wraps = elf(&[(BASE, &first), (u64::MAX, &[1, 2])]);
    assert!(matches!(of(&wraps), ImageError::TooLarge(_)));
    assert_eq!(of(&elf(&[(BASE + 512, &first)])), ImageError::NoBootSector);
    assert_eq!(of(&elf(&[])), ImageError::NoBootSector);
    for params in ["x".repeat(PARAMETERS), "a\0b".to_owned()] {
        let size = params.len();
        assert_eq!(fits(&params), Err(ImageError::Parameters(size)));
        assert_eq!(disk(&good, &params), Err(ImageError::Parameters(size)));
    }
    // Each says something of its own.
    for error in [of(b""), of(&below), of(&above), of(&elf(&[])), ImageError::Parameters(600)] {
        assert!(error.to_string().len() > 20, "{error}");
    }
}

/// A shell script in the emulator's place; also what it was seen to say, line by line.
fn script(name: &str, text: &str, patience: [u64; 3]) -> (Ended, Vec<String>) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let scratch = Scratch::new(target, name).expect("a directory");
    let [first, next, whole] = patience.map(Duration::from_millis);
    let patience = Patience { first, next, whole };
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    let lines = Mutex::new(Vec::new());
    let show = |line: &str| lines.lock().expect("whole").push(line.to_owned());
    let ended = child::run(command, &scratch, patience, &show).expect("a child");
    let path = scratch.path().to_owned();
    assert!(path.exists());
    drop(scratch);
    assert!(!path.exists(), "nothing is left");
    (ended, lines.into_inner().expect("whole"))
}

#[test]
fn what_a_child_says_is_kept_apart() {
    let text = "printf 'fpu-kernel a\\r\\nRESULT {}' >serial; echo louder >&2; exit 33";
    let (ended, lines) = script("apart", text, [60_000; 3]);
    assert_eq!(ended.serial, "fpu-kernel a\r\nRESULT {}");
    assert_eq!((ended.stderr.as_str(), ended.code, ended.late), ("louder\n", Some(33), false));
    assert_eq!(lines, ["fpu-kernel a"], "lines as they come");
}

#[test]
fn a_terminal_does_not_obey_a_kernel() {
    let text = "printf 'fpu-kernel \\033[2J\\a\\377\\n' >serial";
    let (ended, lines) = script("obey", text, [60_000; 3]);
    assert_eq!(ended.serial, "fpu-kernel ?[2J?\u{fffd}\n");
    assert_eq!(lines, ["fpu-kernel ?[2J?\u{fffd}"]);
}

#[test]
fn a_child_that_hangs_is_ended() {
    let (ended, _) = script("silent", "echo BIOS >serial; exec sleep 600", [300, 600_000, 600_000]);
    assert!(ended.late && ended.code.is_none());
    let begun = "echo fpu-kernel a >serial; exec sleep 600";
    let (ended, _) = script("begun", begun, [600_000, 600_000, 300]);
    assert!(ended.late && ended.code.is_none());
    assert_eq!(ended.still, None, "its time was up before");
    let still = "echo fpu-kernel a >serial; exec sleep 600";
    let (ended, _) = script("still", still, [600_000, 300, 600_000]);
    assert!(ended.late && ended.still == Some(Duration::from_millis(300)));
    // None is due before the first line.
    let (ended, _) = script("before", "sleep 1; exit 3", [600_000, 300, 600_000]);
    assert_eq!((ended.late, ended.still, ended.code), (false, None, Some(3)));
    let doomed = "echo KVM internal error >&2; exec sleep 600";
    let (ended, _) = script("doomed", doomed, [600_000; 3]);
    assert!(ended.late && ended.stderr.contains("KVM internal error"));
}

#[test]
fn what_a_killed_run_has_left_is_removed() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stale");
    // No process has this number: it is above what Linux can give.
    let stale = target.join("boot/max-0-4194305");
    std::fs::create_dir_all(&stale).expect("a directory");
    std::fs::write(stale.join("disk.img.lock"), "").expect("a file");
    let scratch = Scratch::new(&target, "max-0").expect("a directory");
    assert!(!stale.exists() && scratch.path().exists());
}

#[test]
fn a_file_in_the_directorys_place_is_named() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("taken");
    std::fs::create_dir_all(&target).expect("a directory");
    let file = target.join("boot");
    std::fs::write(&file, "").expect("a file");
    let why = Scratch::new(&target, "max-0").expect_err("a file").to_string();
    assert!(why.contains(&*file.to_string_lossy()), "{why}");
}

fn boot(args: &[&str]) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_boot")).args(args).output();
    program.expect("boot can be started")
}

#[test]
fn wrong_arguments_are_named() {
    for (args, why) in [
        (&["--machine"][..], "--machine needs a value"),
        (&["--machine", "cray"], "--machine: no such machine: \"cray\""),
        (&["--cpus", "0"], "--cpus: not a number from 1 to 8: \"0\""),
        (&["--cpus=9"], "--cpus: not a number from 1 to 8: \"9\""),
        (&["--seconds", "soon"], "--seconds: not a number from 0 to 1000000: \"soon\""),
        (&["--seed="], "--seed: not a number"),
        (&["--fault", "none"], "--fault: no such fault (--help lists them): \"none\""),
        (
            &["--rung", "fsave"],
            "--rung: no such rung (xsaves, xsavec, xsaveopt, xsave, fxsave): \"fsave\"",
        ),
        (&["--torture", "0"], "--torture: not a number from 1"),
        (&["--json=yes"], "--json takes no value"),
        (&["--all", "--machine", "max"], "--all and --machine contradict each other"),
        (&["--controls", "--fault", "skip-save"], "--controls and --fault"),
        (&["--torture", "1", "--controls"], "--torture and --controls"),
        (&["--torture", "1", "--seconds", "9"], "--torture and --seconds"),
        (&["max"], "unknown argument: \"max\""),
    ] {
        let out = boot(args);
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{args:?}");
        assert!(stderr.starts_with("boot: ") && stderr.contains(why), "{args:?}: {stderr}");
    }
    let unknown = boot(&["--machine", "cray"]);
    let stderr = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(machines::ALL.iter().all(|machine| stderr.contains(machine.about)), "{stderr}");
}

#[test]
fn help_and_list_name_everything() {
    let help = boot(&["--help"]);
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(Fault::ALL.iter().all(|fault| text.contains(fault.name())), "{text}");
    assert!(RUNGS.iter().all(|rung| text.contains(rung)), "{text}");
    assert!(text.lines().all(|line| line.len() <= 105), "{text}");
    let list = boot(&["--machine", "list"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert_eq!(list.status.code(), Some(0), "{text}");
    assert!(machines::ALL.iter().all(|machine| text.contains(machine.name)), "{text}");
    assert!(!text.contains('\x1b'), "no colour into a pipe");
}

fn machine(name: &str) -> &'static Machine {
    named(name).expect(name)
}

#[test]
fn every_fault_has_a_machine_where_it_can_show() {
    for fault in Fault::ALL {
        assert_eq!(Fault::named(fault.name()), Some(fault));
        assert!(fault.name().len() <= 16, "the table's column");
        let with = |rung, name| {
            let params = Params { rung, ..Params::default() };
            host::can_show(fault, machine(name), &params).is_ok()
        };
        let shows = |name| with(None, name);
        if matches!(fault.needs(), Needs::Svm | Needs::SvmAvx | Needs::SvmPku) {
            assert!(shows("max") && shows("milan"), "{fault:?}");
            assert!(!shows("haswell") && !shows("icelake") && !shows("ryzen"), "{fault:?}");
            assert_eq!(shows("qemu64"), fault.needs() == Needs::Svm, "{fault:?}");
            assert_eq!(shows("max-noavx"), fault.needs() != Needs::SvmAvx, "{fault:?}");
            continue;
        }
        if fault.needs() == Needs::Demand {
            assert!(shows("demand") && with(Some("xsave"), "demand"), "{fault:?}");
            assert!(!with(Some("fxsave"), "demand") && !shows("tiles"), "{fault:?}");
            continue;
        }
        if fault.needs() == Needs::Trap {
            assert!(["max", "qemu64", "icelake", "arrandale"].into_iter().all(shows), "{fault:?}");
            assert!(!shows("sapphire") && !shows("tiles") && !shows("kvm"), "{fault:?}");
            continue;
        }
        let wide = fault.needs() == Needs::Standard512;
        let placed = wide || fault.needs() == Needs::Standard;
        let unscrubbed = fault.needs() == Needs::Unscrubbed;
        let ring0 = fault.needs() == Needs::Supervisor || unscrubbed;
        assert_eq!(
            (shows("xrstors"), with(Some("xsavec"), "xrstors")),
            (!placed, !placed && !ring0)
        );
        assert_eq!((shows("max"), shows("icelake")), (!wide && !ring0, !placed && !ring0));
        assert_eq!(with(Some("xsaveopt"), "icelake"), !ring0, "{fault:?}");
        assert_eq!(
            (shows("sapphire") || unscrubbed, with(Some("xsavec"), "sapphire")),
            (!placed, !placed && !ring0)
        );
        let anywhere = matches!(fault.needs(), Needs::Nothing | Needs::SecondCpu);
        assert_eq!(shows("qemu64"), anywhere, "{fault:?}");
        assert_eq!(shows("arrandale"), fault.needs() != Needs::Pku && !placed && !ring0);
        let one = Params { cpus: 1, ..Params::default() };
        let alone = host::can_show(fault, machine("max"), &one);
        let why = alone.err().unwrap_or_default();
        let second = fault.needs() == Needs::SecondCpu;
        assert_eq!(why.ends_with(": it needs a second CPU"), second, "{fault:?}: {why}");
    }
    assert_eq!(Fault::named("none"), None);
}
