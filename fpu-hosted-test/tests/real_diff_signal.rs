//! Signal frames against the host's kernel: what it writes we read, and what we write or let pass it loads as we say.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_core::RawFpu;
use fpu_hosted_test::real::{
    deliver, fate, frame_extent, frames_are_linuxs, random_frame, registers_of, set_registers,
    settled, Classes, Delivered, Edit, FrameBuffer, Nested, RegFile, LARGEST_FRAME,
};
use fpu_hosted_test::Random;
use fpu_x86::{Components, FrameKind, Image, Plan};

mod support {
    pub mod frames;
    pub mod real;
}
use support::{
    frames::{frames, plan, same, Ours, Tally},
    real::Memory,
};

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
    }
    println!("200 patterns on each stack, frames of {} bytes", plan.user_format().frame_len());
}

/// Each in the handler of the one before: on its stack, on the other one, on that again; and all return through what we
/// write, with other registers than they had.
#[test]
fn nested_signals_have_frames_of_their_own() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    let pattern = |n| RegFile::pattern(n, classes);
    for seed in (0..600).step_by(6) {
        let load: Vec<RegFile> = (0..3).map(|n| pattern(seed + n)).collect();
        let then: Vec<RegFile> = (3..6).map(|n| pattern(seed + n)).collect();
        let ours: Vec<Vec<u8>> = then.iter().map(|file| written(&plan, file)).collect();
        let (mut second, mut third) = (None, None);
        let nested = |n: usize, on_other_stack, edit, seen| {
            Box::new(Nested { load: &load[n], on_other_stack, edit, seen })
        };
        let in_place = |n: usize| Edit::InPlace(&ours[n]);
        let innermost = nested(2, seed % 12 == 0, in_place(2), &mut third);
        let middle = Edit::Nested(innermost, Box::new(in_place(1)));
        let outer = Edit::Nested(nested(1, true, middle, &mut second), Box::new(in_place(0)));
        let first = deliver(&load[0], false, outer);
        let all = [first, second.unwrap(), third.unwrap()];
        // A handler on the other stack stays there, whatever the next signal asks for.
        assert_eq!(all.each_ref().map(|it| it.on_other_stack), [false, true, true]);
        assert!(all[2].lowest < all[1].lowest);
        for (n, delivered) in all.iter().enumerate() {
            let mut copy = delivered.frame.clone();
            let frame = plan.user_format().read_frame(&mut copy).unwrap();
            let seen = registers_of(&frame.valid().image(), classes);
            same(&load[n], &seen, &format!("level {n}"));
            assert!(!delivered.refused, "level {n}");
            same(&then[n], &delivered.after, &format!("after level {n}"));
        }
    }
}

/// A frame for a task with these registers.
fn written(plan: &Plan, file: &RegFile) -> Vec<u8> {
    let mut area = Memory::new(plan);
    // SAFETY: C9, C11: our own area, which holds an image.
    let mut image = unsafe { plan.image_mut(area.base()) };
    set_registers(&mut image, file);
    let mut out = vec![0xEE; plan.user_format().frame_len()];
    plan.user_format().write_frame(&image.as_image(), None, &mut out).unwrap();
    out
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

/// With its own program's default action: what we refuse ends it by SIGSEGV, what we take lets it go on.
#[test]
fn a_process_that_returns_through_what_we_refuse_is_killed() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    let own = plan.user_format().frame_len().saturating_sub(4);
    let mut words = Random::new(20_261_131);
    let mut bytes = Vec::new();
    let (mut tally, mut killed, mut lived) = (Tally::default(), 0, 0);
    let frames = 1000;
    for n in 0..frames {
        random_frame(&plan, &mut words, &mut bytes);
        let load = RegFile::pattern(n, classes);
        let mut buffer = FrameBuffer::of(&bytes);
        let status = match fate(&load, &buffer) {
            Ok(status) => status,
            Err(why) => {
                println!("SKIP: {why}");
                return;
            }
        };
        let theirs = deliver(&load, false, Edit::Elsewhere(&buffer));
        let expected = if theirs.refused { libc::SIGSEGV } else { 0 };
        assert_eq!(status, expected, "frame {n}: a signal by itself, or an exit with 0");
        (killed, lived) = if theirs.refused { (killed + 1, lived) } else { (killed, lived + 1) };
        tally.compare(&mut buffer, own, &theirs, |frame| ours(frame, &plan, classes));
    }
    println!("{killed} killed by SIGSEGV, {lived} went on, of");
    tally.report(frames);
}

/// Linux restores a 64-bit frame where it lies. That its address is legal is for the kernel to see: a copy has no address.
#[test]
fn a_frame_that_is_not_aligned_is_refused_or_the_same() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    let (load, then) = (RegFile::pattern(1, classes), RegFile::pattern(2, classes));
    let full = written(&plan, &then);
    let mut legacy = full[..512].to_vec();
    legacy[464..512].fill(0);
    let mut answers = Vec::new();
    for (bytes, what) in [(&full, "all"), (&legacy, "x87 and SSE")] {
        for offset in [1, 2, 4, 8, 16, 32, 48, 64] {
            let buffer = FrameBuffer::of(&[&vec![0; offset][..], bytes].concat());
            let delivered = deliver(&load, false, Edit::Misaligned(&buffer, offset));
            if !delivered.refused {
                let mut copy = bytes.clone();
                let frame = plan.user_format().read_frame(&mut copy).unwrap();
                let seen = registers_of(&frame.valid().image(), classes);
                same(&seen, &delivered.after, &format!("{what} at {offset}"));
            }
            answers.push(format!(
                "{what} at {offset}: {}",
                if delivered.refused { "refused" } else { "taken" }
            ));
            assert!(offset % 64 != 0 || !delivered.refused, "{what} at {offset}");
        }
    }
    println!("{}", answers.join(", "));
}

#[test]
fn the_least_signal_stack_holds_our_frames() {
    skip_elsewhere!();
    const AT_MINSIGSTKSZ: u64 = 51;
    /// Return address, context and signal information of a 64-bit frame.
    const OTHER: usize = 440;
    let ours = plan().user_format().min_signal_stack(OTHER);
    // Wherever a stack ends, a frame takes no more of it; and at the worst place, that much.
    let load = RegFile::pattern(4, Classes::detect());
    let taken = (0..64).map(|short| frame_extent(&load, short)).max().unwrap();
    println!("{ours} for a 64-bit frame, which takes {taken} at most");
    assert!((ours - 31..=ours).contains(&taken), "{taken} of {ours}");
    // SAFETY: reads what the kernel told this process.
    let theirs = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
    if theirs == 0 {
        println!("SKIP: this kernel does not tell AT_MINSIGSTKSZ");
        return;
    }
    // Theirs is for tasks with a permission for tiles too, and for 32-bit frames, whose other parts are larger.
    let plan = plan();
    // SAFETY: C24: no image is made; only the length is asked.
    let ours = unsafe { plan.user_format().with_tiles() }.min_signal_stack(OTHER);
    println!("{theirs} by the kernel");
    assert!((ours..ours + 1024).contains(&theirs), "{theirs}, and {ours}");
}

#[test]
fn rights_come_with_a_frame() {
    skip_elsewhere!();
    let plan = plan();
    if !plan.user_format().components().contains(Components::PKRU) {
        println!("SKIP: this system has no protection keys");
        return;
    }
    let load = RegFile::pattern(5, Classes::detect());
    let before = deliver(&load, false, Edit::Keep).pkru.unwrap();
    // Key 0, which all memory of this program has, stays usable; the others are closed one by one.
    for key in 1..16 {
        let rights = before ^ 1 << (2 * key);
        let mut frame = written(&plan, &load);
        let mut area = Memory::new(&plan);
        // SAFETY: C9, C11: our own area, which holds an image.
        let mut image = unsafe { plan.image_mut(area.base()) };
        set_registers(&mut image, &load);
        plan.user_format().write_frame(&image.as_image(), Some(rights), &mut frame).unwrap();
        let delivered = deliver(&load, key % 2 == 0, Edit::InPlace(&frame));
        assert_eq!((delivered.refused, delivered.pkru), (false, Some(rights)), "key {key}");
        let again = deliver(&load, false, Edit::Keep);
        let read = plan.user_format().read_frame(&mut again.frame.clone()).unwrap().pkru();
        assert_eq!(read, Some(rights), "key {key}: in the next frame");
    }
}
