//! Signal frames against the host's kernel: what it writes we read, and what we write or let pass it loads as we say.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{fs, path::Path};

use fpu_hosted_test::real::{
    deliver, frames_are_linuxs, random_frame, registers_of, settled, Classes, Delivered, Edit,
    Entry, FrameBuffer, RegFile, Subject, LARGEST_FRAME,
};
use fpu_hosted_test::Random;
use fpu_x86::{Components, FrameKind, Image, Plan};

mod support {
    pub mod frames;
}
use support::frames::{frames, plan, same, Ours, Tally};

/// Why these tests cannot be done here; said once per test.
macro_rules! skip_elsewhere {
    () => {
        if let Err(why) = frames_are_linuxs() {
            println!("SKIP: {why}");
            return;
        }
    };
}

/// Our reader on a frame of the kernel's.
#[track_caller]
fn check_live(delivered: &Delivered, plan: &Plan, load: &RegFile, what: &str) {
    let format = plan.user_format();
    let mut copy = delivered.frame.clone();
    assert_eq!(copy.len(), format.frame_len(), "{what}");
    let first = copy[..512].try_into().unwrap();
    assert_eq!(format.frame_bytes(&first, 16388), copy.len(), "{what}");
    let frame = format.read_frame(&mut copy).unwrap();
    match frame.kind() {
        FrameKind::Full(named) => {
            assert_eq!(named, format.components() & !Components::TILEDATA, "{what}");
        }
        FrameKind::Legacy(why) => assert_eq!(copy_len(delivered), 512, "{what}: {why}"),
    }
    same(load, &registers_of(&frame.valid().image(), load.classes()), what);
    assert_eq!(frame.pkru(), delivered.pkru, "{what}");
    same(load, &delivered.after, what);
}

fn copy_len(delivered: &Delivered) -> usize {
    delivered.frame.len()
}

#[test]
fn we_find_every_register_in_the_kernels_frames() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    for seed in 0..200 {
        let load = RegFile::pattern(seed, classes);
        for on_other_stack in [false, true] {
            let delivered = deliver(&load, on_other_stack, Edit::Keep);
            assert_eq!((delivered.on_other_stack, delivered.refused), (on_other_stack, false));
            check_live(&delivered, &plan, &load, "live");
        }
        let inner = RegFile::pattern(seed + 1000, classes);
        let mut nested = None;
        let outer = deliver(&load, false, Edit::Nested(&inner, &mut nested));
        check_live(&outer, &plan, &load, "outer");
        check_live(&nested.unwrap(), &plan, &inner, "nested");
    }
    println!(
        "200 patterns on each stack and nested, frames of {} bytes",
        plan.user_format().frame_len()
    );
}

/// What we write for a task whose registers are those, byte for byte where bytes mean anything.
#[test]
fn we_write_frames_as_the_kernel_does() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    let format = plan.user_format();
    for seed in 0..200 {
        let (load, other) =
            (RegFile::pattern(seed, classes), RegFile::pattern(seed + 5000, classes));
        let theirs = deliver(&load, false, Edit::Keep);
        let mut copy = theirs.frame.clone();
        let frame = format.read_frame(&mut copy).unwrap();
        let image: Image<'_> = frame.valid().image();
        let mut ours = vec![0xEE; format.frame_len()];
        assert_eq!(format.write_frame(&image, frame.pkru(), &mut ours), Ok(theirs.frame.len()));
        assert_eq!(ours[464..512], theirs.frame[464..512], "software's words");
        assert_eq!(ours[ours.len() - 4..], theirs.frame[ours.len() - 4..]);
        // And they take ours: the handler of a task with other registers puts it into place.
        let taken = deliver(&other, seed % 2 == 0, Edit::InPlace(&ours));
        assert!(!taken.refused);
        same(&load, &taken.after, "ours");
    }
}

/// What we say to a frame.
fn ours(frame: &FrameBuffer, plan: &Plan, classes: Classes) -> Ours {
    let format = plan.user_format();
    let first = frame.0[..512].try_into().unwrap();
    let len = format.frame_bytes(&first, LARGEST_FRAME + 4);
    let mut private = frame.0[..len].to_vec();
    let frame = format.read_frame(&mut private)?;
    Ok((settled(registers_of(&frame.valid().image(), classes)), frame.kind()))
}

/// Random frames, in place of the kernel's and elsewhere in memory.
#[test]
fn the_kernel_loads_what_we_read_and_refuses_what_we_refuse() {
    skip_elsewhere!();
    let frames = frames();
    let (plan, classes) = (plan(), Classes::detect());
    let own = plan.user_format().frame_len().saturating_sub(4);
    let mut words = Random::new(20_261_126);
    let mut bytes = Vec::new();
    let (mut tally, mut in_place) = (Tally::default(), 0);
    for n in 0..frames {
        random_frame(&plan, &mut words, &mut bytes);
        let load = RegFile::pattern(n, classes);
        let mut buffer = FrameBuffer::of(&bytes);
        let fits = n % 4 == 0 && bytes.len() <= own + 4;
        let edit = if fits { Edit::InPlace(&bytes) } else { Edit::Elsewhere(&buffer) };
        let theirs = deliver(&load, n % 2 == 0, edit);
        if fits {
            // Behind the new bytes, if they are fewer, stand those of the kernel's frame.
            buffer.0[..theirs.frame.len()].copy_from_slice(&theirs.frame);
            buffer.0[..bytes.len()].copy_from_slice(&bytes);
            in_place += 1;
        }
        tally.compare(&mut buffer, own, &theirs, |frame| ours(frame, &plan, classes));
    }
    println!("{in_place} in the place of the kernel's, of");
    tally.report(frames);
}

#[test]
fn the_least_signal_stack_holds_our_frames() {
    skip_elsewhere!();
    const AT_MINSIGSTKSZ: u64 = 51;
    /// Return address, context and signal information of a 64-bit frame.
    const OTHER: usize = 440;
    // SAFETY: reads what the kernel told this process.
    let theirs = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
    if theirs == 0 {
        println!("SKIP: this kernel does not tell AT_MINSIGSTKSZ");
        return;
    }
    let ours = plan().user_format().min_signal_stack(OTHER);
    println!("{theirs} by the kernel, {ours} for the 64-bit frame alone");
    assert!(theirs >= ours, "{theirs} < {ours}");
}

/// What the fuzzer starts from, as it tries it.
#[test]
fn the_fuzzers_seeds_run() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fpu-x86/fuzz/seeds/frame");
    let bytes = |name: &str| fs::read(seeds.join(name)).unwrap();
    let mut subjects = Subject::of_this_cpu();
    let mut names: Vec<String> = fs::read_dir(&seeds)
        .unwrap()
        .map(|seed| seed.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in &names {
        let bytes = bytes(name);
        let mut by = |entry| {
            let answers = subjects.iter_mut().map(|subject| subject.check(entry, &bytes));
            answers.filter(|answer| answer.is_ok()).count()
        };
        let taken = Entry::ALL.map(|entry| (entry, by(entry)));
        println!("{name}: {taken:?}");
        let frames = by(Entry::Frame) + by(Entry::Frame32);
        match name.as_str() {
            // For every plan, as one of the two.
            "fxsave" | "legacy_only_header" | "magic2_missing" | "size_huge" | "narrow_fxsave" => {
                assert!(frames >= Subject::of_this_cpu().len(), "{name}");
            }
            "mxcsr_reserved" | "supervisor" | "cut" | "empty" => {
                assert_eq!(by(Entry::Frame), 0, "{name}");
            }
            _ => {}
        }
    }
    assert!(names.len() >= 15, "{names:?}");
}
