//! The register sets of a 32-bit program against the host's kernel: FSAVE's, FXSAVE's and XSAVE's of a child that is
//! stopped in 32-bit code, both ways.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_core::RawFpu;
use fpu_hosted_test::real::{
    frames_are_linuxs, registers_of, set_registers, settled, Classes, Compat, RegFile, Tracee,
    NT_PRFPREG, NT_PRXFPREG, NT_X86_XSTATE,
};
use fpu_hosted_test::Random;
use fpu_x86::{Components, Format, Plan, Selectors, X87};

mod support {
    #[allow(dead_code)] // the tests of frames use all of it
    pub mod frames;
    pub mod real;
}
use support::{
    frames::{plan, same},
    real::Memory,
};

const FSAVE: usize = 108;

/// A child to look at, or why there is none.
fn start(load: &RegFile) -> Result<Tracee, String> {
    frames_are_linuxs()?;
    Tracee::start_32(load, &Compat::new()?)
}

macro_rules! tracee {
    ($load:expr) => {
        match start($load) {
            Ok(tracee) => tracee,
            Err(why) => {
                println!("SKIP: {why}");
                return;
            }
        }
    };
}

fn get(tracee: &Tracee, kind: i32) -> Vec<u8> {
    let mut out = vec![0xEE; 20480];
    let len = tracee.get(kind, &mut out).unwrap();
    out.truncate(len);
    out
}

/// What a task with these registers has after a change of its image.
fn changed(
    plan: &Plan,
    before: &RegFile,
    change: impl FnOnce(&mut fpu_x86::ImageMut<'_>),
) -> RegFile {
    let mut area = Memory::new(plan);
    // SAFETY: C9, C11: our own area, which holds an image.
    let mut image = unsafe { plan.image_mut(area.base()) };
    set_registers(&mut image, before);
    change(&mut image);
    registers_of(&image.as_image(), before.classes())
}

#[test]
fn we_read_what_the_kernel_gives_and_write_the_same() {
    let (plan, classes) = (plan(), Classes::detect());
    let format = plan.user_format();
    let mut load = RegFile::pattern(0, classes);
    let mut tracee = tracee!(&load);
    for seed in 1..300 {
        let fsave: [u8; FSAVE] = get(&tracee, NT_PRFPREG).try_into().expect("FSAVE's 108 bytes");
        let (x87, _) = X87::from_fsave(&fsave);
        let read = changed(&plan, &load, |image| image.set_x87(&x87));
        same(&load, &read, "NT_PRFPREG");
        let fxsave = get(&tracee, NT_PRXFPREG);
        assert_eq!(fxsave.len(), 512);
        let mut copy = fxsave.clone();
        let valid = format.read_prfpreg(&mut copy).unwrap();
        let merged = changed(&plan, &RegFile::pattern(seed + 7000, classes), |image| {
            image.merge(&valid, Components::LEGACY).unwrap();
        });
        assert_eq!(merged.mxcsr(), load.mxcsr());
        for n in 0..16 {
            assert_eq!(merged.vector(n)[..2], load.vector(n)[..2], "xmm{n}");
        }
        // What we write for the same task; the image has no segments, and the kernel puts its own there.
        let mut area = Memory::new(&plan);
        // SAFETY: C9, C11: our own area, which holds an image.
        let mut image = unsafe { plan.image_mut(area.base()) };
        set_registers(&mut image, &load);
        let ours = image.as_image().x87().to_fsave(Selectors::default());
        assert_eq!(ours[8..10], fsave[8..10], "tags");
        assert_eq!(ours[28..], fsave[28..], "ST");
        let mut ours = [0xEE; 512];
        format.write_prfpreg(&image.as_image(), &mut ours).unwrap();
        assert_eq!(ours[24..32], fxsave[24..32], "MXCSR and its mask");
        assert_eq!(ours[32..416], fxsave[32..416], "ST and XMM");
        if plan.format() != Format::Legacy {
            let mut theirs = get(&tracee, NT_X86_XSTATE);
            let valid = format.read_xstate(&mut theirs).unwrap();
            same(&load, &registers_of(&valid.image(), classes), "NT_X86_XSTATE");
        }
        let next = RegFile::pattern(seed, classes);
        same(&load, &tracee.go(&next), "nothing was set");
        load = next;
    }
}

#[test]
fn what_is_set_is_what_the_program_goes_on_with() {
    let (plan, classes) = (plan(), Classes::detect());
    let mut before = RegFile::pattern(0, classes);
    let mut tracee = tracee!(&before);
    let mut words = Random::new(20_261_130);
    let (mut taken, mut refused) = (0, 0);
    for round in 1..=4000 {
        let mut bytes = vec![0; if words.below(2) == 0 { FSAVE } else { 512 }];
        words.fill(&mut bytes);
        let kind = if bytes.len() == FSAVE { NT_PRFPREG } else { NT_PRXFPREG };
        if words.below(8) == 0 {
            // Not as long as it has to be; of what is longer, Linux takes the beginning.
            bytes.truncate(4 * words.below(bytes.len() / 4));
        }
        if kind == NT_PRXFPREG && bytes.len() == 512 && words.below(4) != 0 {
            let mxcsr = words.word() as u32 & plan.mxcsr_mask();
            bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        }
        let theirs = tracee.set(kind, &bytes).is_ok();
        let next = RegFile::pattern(round, classes);
        let after = settled(tracee.go(&next));
        let ours = match <&[u8; FSAVE]>::try_from(&bytes[..]) {
            Ok(fsave) if kind == NT_PRFPREG => {
                Ok(changed(&plan, &before, |image| image.set_x87(&X87::from_fsave(fsave).0)))
            }
            _ if kind == NT_PRFPREG => Err(()),
            _ => match plan.user_format().read_prfpreg(&mut bytes.clone()) {
                Ok(valid) => Ok(changed(&plan, &before, |image| {
                    image.merge(&valid, Components::LEGACY).unwrap();
                })),
                Err(_) => Err(()),
            },
        };
        let what = format!("round {round}, type {kind:#x}, {} bytes", bytes.len());
        assert_eq!(ours.is_ok(), theirs, "{what}");
        same(ours.as_ref().unwrap_or(&before), &after, &what);
        (taken, refused) = if theirs { (taken + 1, refused) } else { (taken, refused + 1) };
        before = next;
    }
    println!("4000 register sets: both take {taken}, both refuse {refused}");
    assert!(taken > 2000 && refused > 200);
}
