//! Signal frames of 32-bit programs against the host's kernel.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_hosted_test::real::{
    frames_are_linuxs, random_frame, registers_of, settled, Classes, Compat, FrameBuffer, RegFile,
    LARGEST_FRAME,
};
use fpu_hosted_test::Random;
use fpu_x86::{Plan, Selectors};

#[allow(dead_code)] // the other test uses all of it
mod support {
    pub mod frames;
}
use support::frames::{frames, plan, same, Ours, Tally};

macro_rules! compat {
    () => {
        match frames_are_linuxs().map_err(String::from).and_then(|()| Compat::new()) {
            Ok(compat) => compat,
            Err(why) => {
                println!("SKIP: {why}");
                return;
            }
        }
    };
}

#[test]
fn we_read_what_the_kernel_writes_and_it_reads_what_we_write() {
    let mut compat = compat!();
    let plan = plan();
    let (format, classes) = (plan.user_format(), Classes::detect());
    for seed in 0..200 {
        let load = RegFile::pattern(seed, classes);
        let theirs = compat.deliver(&load, format.frame_len(), None);
        assert!(!theirs.refused);
        same(&load, &theirs.after, "live");
        let mut copy = theirs.frame.clone();
        let frame = format.read_frame_32(&mut copy).unwrap();
        let image = frame.valid().image();
        same(&load, &registers_of(&image, classes), "read");
        let mut ours = vec![0xEE; format.frame_len_32()];
        let written = format.write_frame_32(&image, Selectors::default(), frame.pkru(), &mut ours);
        assert_eq!(written, Ok(theirs.frame.len()));
        assert_eq!(ours[108..112], theirs.frame[108..112], "the status word, and what follows");
        assert_eq!(ours[28..108], theirs.frame[28..108], "the registers in FSAVE's image");
        assert_eq!(ours[..4], theirs.frame[..4], "the control word");
        assert_eq!(ours[112 + 464..112 + 520], theirs.frame[112 + 464..112 + 520]);
        let other = RegFile::pattern(seed + 5000, classes);
        let taken = compat.deliver(&other, format.frame_len(), Some(&ours));
        assert!(!taken.refused);
        same(&load, &taken.after, "ours");
    }
    println!("200 patterns, frames of {} bytes", format.frame_len_32());
}

/// What we say to a frame that has this in front.
fn ours(front: &[u8], frame: &FrameBuffer, plan: &Plan, classes: Classes) -> Ours {
    let format = plan.user_format();
    let first = frame.0[..512].try_into().unwrap();
    let len = format.frame_bytes(&first, LARGEST_FRAME + 4);
    let mut private = [front, &frame.0[..len]].concat();
    let frame = format.read_frame_32(&mut private)?;
    Ok((settled(registers_of(&frame.valid().image(), classes)), frame.kind()))
}

#[test]
fn the_kernel_loads_what_we_read_and_refuses_what_we_refuse() {
    let mut compat = compat!();
    let frames = frames() / 2;
    let (plan, classes) = (plan(), Classes::detect());
    let own = plan.user_format().frame_len().saturating_sub(4);
    let mut words = Random::new(20_261_128);
    let mut bytes = Vec::new();
    let mut tally = Tally::default();
    for n in 0..frames {
        random_frame(&plan, &mut words, &mut bytes);
        let front: Vec<u8> = (0..14).flat_map(|_| words.word().to_le_bytes()).collect();
        let load = RegFile::pattern(n, classes);
        let whole = [&front[..], &bytes].concat();
        let theirs = compat.deliver(&load, own + 4, Some(&whole));
        let mut buffer = FrameBuffer::of(&bytes);
        tally.compare(&mut buffer, own, &theirs, |frame| ours(&front, frame, &plan, classes));
    }
    tally.report(frames);
}
