//! The x87 tag word and FSAVE's layout against this CPU's own FXSAVE and FNSAVE.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::arch::asm;

use fpu_hosted_test::real::{keeps_x87_pointers, NO_POINTERS};
use fpu_x86::{Selectors, X87};

#[repr(C, align(64))]
struct Legacy([u8; 512]);

/// Loads `image` and stores the x87 unit in both layouts; the registers are as before.
fn both_layouts(image: &Legacy) -> (Legacy, [u8; 108]) {
    let (mut kept, mut fxsave, mut fsave) = (Legacy([0; 512]), Legacy([0; 512]), [0u8; 108]);
    // SAFETY: every 64-bit CPU has the instructions; the areas are locals of the right sizes; all that
    // is changed in the registers is put back. None of them waits for a pending exception.
    unsafe {
        asm!(
            "fxsave64 [{kept}]",
            "fxrstor64 [{image}]",
            "fxsave64 [{fxsave}]",
            "fnsave [{fsave}]",
            "fxrstor64 [{kept}]",
            kept = in(reg) &mut kept,
            image = in(reg) image,
            fxsave = in(reg) &mut fxsave,
            fsave = in(reg) &mut fsave,
        );
    }
    (fxsave, fsave)
}

/// FSAVE's image without what is reserved: the upper halves of the words of FCW, FSW, the tags and the
/// data pointer's selector (SDM vol. 1, figure 8-9).
fn defined(mut fsave: [u8; 108]) -> [u8; 108] {
    for word in [0, 1, 2, 6] {
        fsave[4 * word + 2..4 * word + 4].fill(0);
    }
    fsave
}

/// Zeros, ones, and what is neither: infinity, a denormal, a pseudo-denormal, an unnormal, a NaN.
const KINDS: [[u8; 10]; 8] = [
    [0; 10],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80],
    [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F],
    [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x7F],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0x40, 0xFF, 0x3F],
    [1, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF],
];

/// All abridged tag words, all tops of the stack, every kind of number in every register.
#[test]
fn every_stack_is_converted_as_the_cpu_does() {
    let (mut compared, mut pending) = (0, 0);
    let pointers = keeps_x87_pointers();
    if !pointers {
        println!("SKIP: {NO_POINTERS}");
    }
    for tags in 0..=255 {
        for top in 0..8u16 {
            for shift in 0..KINDS.len() {
                // Every third has an unmasked exception pending, and with it pointers on every CPU.
                let raised = (usize::from(tags) + shift) % 3 == 0;
                let mut x87 = X87 { tags, fsw: top << 11, ..X87::INITIAL };
                if raised {
                    x87.fsw |= 0x8084 | 0x4100;
                    (x87.fcw, x87.fop) = (0x37B, 0x5EA);
                    // Canonical: the CPU makes them so.
                    (x87.fip, x87.fdp) = (0x7654_3210_FEDC, 0xFFFF_8765_4321_0FED);
                    pending += 1;
                }
                x87.st = core::array::from_fn(|index| KINDS[(index + shift) % KINDS.len()]);
                let mut image = Legacy([0; 512]);
                image.0[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
                x87.to_fxsave(&mut image.0);
                let (fxsave, fsave) = both_layouts(&image);
                let seen = X87::from_fxsave(&fxsave.0);
                let what = format!("tags {tags:#04x}, top {top}, shift {shift}");
                assert_eq!((seen.fcw, seen.fsw, seen.tags), (x87.fcw, x87.fsw, x87.tags), "{what}");
                assert_eq!(seen.st, x87.st, "{what}");
                if raised && pointers {
                    assert_eq!(
                        (seen.fip, seen.fdp, seen.fop),
                        (x87.fip, x87.fdp, x87.fop),
                        "{what}"
                    );
                }
                // The selectors are in one of the layouts only.
                let (back, selectors) = X87::from_fsave(&fsave);
                assert_eq!(defined(seen.to_fsave(selectors)), defined(fsave), "{what}");
                let (fip, fdp) = (seen.fip & 0xFFFF_FFFF, seen.fdp & 0xFFFF_FFFF);
                assert_eq!(back, X87 { fip, fdp, ..seen }, "{what}");
                compared += 1;
            }
        }
    }
    println!("{compared} stacks, {pending} with an exception pending");
    assert_eq!(compared, 256 * 8 * 8);
    assert!(pending > compared / 4);
}

/// FRSTOR of what conversion makes gives back the registers.
#[test]
fn the_cpu_loads_what_conversion_makes() {
    for tags in 0..=255u8 {
        let top = u16::from(tags % 8);
        let st = core::array::from_fn(|index| KINDS[(index + usize::from(tags)) % KINDS.len()]);
        let x87 = X87 { tags, fsw: top << 11, st, ..X87::INITIAL };
        let fsave = x87.to_fsave(Selectors::default());
        let (mut kept, mut seen) = (Legacy([0; 512]), Legacy([0; 512]));
        // SAFETY: as in `both_layouts`; no exception is pending.
        unsafe {
            asm!(
                "fxsave64 [{kept}]",
                "frstor [{fsave}]",
                "fxsave64 [{seen}]",
                "fxrstor64 [{kept}]",
                kept = in(reg) &mut kept,
                fsave = in(reg) &fsave,
                seen = in(reg) &mut seen,
            );
        }
        let seen = X87::from_fxsave(&seen.0);
        assert_eq!((seen.fsw, seen.tags, seen.st), (x87.fsw, tags, st));
    }
}
