//! What the save instructions write for every set of components, and what is read and converted from it,
//! byte for byte against the CPU's other instructions.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::ptr::NonNull;

use fpu_core::RawFpu;
use fpu_hosted_test::{
    conformance::{Harness, Outcome, Step},
    real::{keeps_x87_pointers, RealHarness, RegFile, Seen, NO_POINTERS},
};
use fpu_x86::{Components, Format, Image, ImageMut, Plan, SaveInstruction};

const HEADER: usize = 512;
const MXCSR: u32 = 0x1F80;

#[repr(C, align(64))]
#[derive(Clone)]
struct Memory([u8; 16384]);

impl Memory {
    /// An initial image over these bytes, which stay wherever the header says that they are nothing.
    fn over(plan: &Plan, poison: u8) -> Box<Self> {
        assert!(plan.area_len() <= 16384);
        let mut memory = Box::new(Self([0; 16384]));
        // SAFETY: C9: aligned, long enough, ours.
        unsafe { plan.write_initial(memory.base()) };
        if plan.format() != Format::Legacy {
            memory.0[32..416].fill(poison);
            memory.0[HEADER + 64..plan.area_len()].fill(poison);
        }
        memory
    }
    fn base(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }
    fn view<'a>(&'a mut self, plan: &'a Plan) -> Image<'a> {
        // SAFETY: C9, C11: an image, and borrowed exclusively.
        unsafe { plan.image(self.base()) }
    }
    fn view_mut<'a>(&'a mut self, plan: &'a Plan) -> ImageMut<'a> {
        // SAFETY: C9, C11: an image, and borrowed exclusively.
        unsafe { plan.image_mut(self.base()) }
    }
    fn present(&self) -> u64 {
        u64::from_le_bytes(self.0[HEADER..HEADER + 8].try_into().unwrap())
    }
}

#[track_caller]
fn run(h: &mut RealHarness, steps: &[Step<'_, Seen>]) -> RegFile {
    // SAFETY: C9: every area is a `Memory`.
    let Outcome { restored, registers } = unsafe { h.run(steps) };
    assert_eq!(restored, Ok(()), "a legal image was refused");
    registers.0
}
#[track_caller]
fn same(got: &RegFile, expect: &RegFile, what: &str) {
    if let Some(register) = expect.first_difference(got) {
        let (got, expect) = (register.value(got), register.value(expect));
        panic!("{what}: {register} is {got:#x}, expected {expect:#x}");
    }
}
/// The upper 48 bits of each ST's place are unused (SDM vol. 1, 13.5.1): a save may leave them.
fn unused(at: usize) -> bool {
    (32..160).contains(&at) && (at - 32) % 16 >= 10
}
#[track_caller]
fn same_bytes(got: &[u8], expect: &[u8], from: usize, what: &str) {
    let mut pairs = got.iter().zip(expect).enumerate();
    if let Some((at, _)) = pairs.find(|(at, (got, expect))| got != expect && !unused(from + at)) {
        panic!("{what}: byte {} is {:#x}, not {:#x}", from + at, got[at], expect[at]);
    }
}

/// One harness for each rung; all but FXSAVE's have the same components.
fn harnesses() -> (Vec<RealHarness>, RealHarness) {
    let (mut rungs, skipped) = RealHarness::rungs();
    for why in skipped {
        println!("SKIP: {why}");
    }
    let legacy = rungs.pop().unwrap();
    assert_eq!(legacy.fpu().save_instruction(), SaveInstruction::Fxsave, "every CPU has it");
    (rungs, legacy)
}

/// Registers of a set of components; MXCSR initial or not, whether SSE is in the set or not; pointers with
/// an exception pending, or none.
fn registers(h: &RealHarness, set: u64, variant: u64) -> Seen {
    let mut registers = h.pattern(set * 8 + variant, set);
    match variant & 3 {
        0 => registers.0.set_mxcsr(MXCSR),
        1 => registers.0.set_mxcsr(0x7F80),
        2 => registers.0.set_mxcsr(0x1FBF & h.fpu().mxcsr_mask()),
        _ => {}
    }
    let x87 = h.parts().iter().position(|part| *part == Components::X87).unwrap();
    if variant & 4 != 0 && set >> x87 & 1 != 0 {
        let fsw = registers.0.fsw();
        registers.0.set_fcw(0x37B);
        registers.0.set_fsw(fsw | 0x8084);
        registers.0.set_x87_pointers(FIP, FDP, FOP);
    }
    registers
}
const FIP: u64 = 0x0000_7654_3210_FEDC;
const FDP: u64 = 0x0000_1234_5678_9ABC;
const FOP: u16 = 0x5EA;

#[test]
fn what_is_saved_is_what_is_read_and_converted() {
    let (mut rungs, mut legacy) = harnesses();
    let Some(standard) =
        rungs.iter().position(|h| h.fpu().save_instruction() == SaveInstruction::Xsave)
    else {
        return println!("SKIP: no XSAVE");
    };
    let pointers = keeps_x87_pointers();
    if !pointers {
        println!("SKIP: {NO_POINTERS}");
    }
    let bounds = rungs[standard].fpu().place(Components::BNDCSR);
    let mut compared = 0;
    for set in 0..1 << rungs[0].components() {
        for variant in 0..8 {
            let held = registers(&rungs[0], set, variant);
            // What this CPU's XSAVE and FXSAVE write for these registers, over zeros.
            let xsave = {
                let h = &mut rungs[standard];
                let mut memory = Memory::over(h.fpu(), 0);
                run(h, &[Step::Load(&held), Step::Save(memory.base())]);
                memory
            };
            let mut fxsave = Memory::over(legacy.fpu(), 0);
            // FXSAVE's harness loads files of its own classes.
            let mut narrow = legacy.pattern(0, 0);
            copy_legacy(&mut narrow.0, &held.0);
            if held.0.fsw() & 0x80 != 0 {
                narrow.0.set_x87_pointers(FIP, FDP, FOP);
            }
            run(&mut legacy, &[Step::Load(&narrow), Step::Save(fxsave.base())]);
            for h in &mut rungs {
                let what =
                    format!("{:?}, set {set:#x}, variant {variant}", h.fpu().save_instruction());
                let mut memory = Memory::over(h.fpu(), 0xA5);
                run(h, &[Step::Load(&held), Step::Save(memory.base())]);
                let plan = h.fpu().clone();
                let image = memory.view(&plan);
                same(&h.view(image).unwrap().0, &held.0, &what);
                if pointers && held.0.fsw() & 0x80 != 0 {
                    assert_eq!((image.fip(), image.fdp(), image.fop()), (FIP, FDP, FOP), "{what}");
                }
                let mut out = vec![0xEE; plan.standard_len()];
                let len = image.to_standard(&mut out).unwrap();
                same_bytes(&out[..416], &xsave.0[..416], 0, &what);
                if let Some((at, size)) = bounds {
                    // Two registers of 8 bytes; the rest of the component is nothing's, and may stay.
                    out[at + 16..at + size].copy_from_slice(&xsave.0[at + 16..at + size]);
                }
                same_bytes(&out[576..len], &xsave.0[576..len], 576, &what);
                let both = image.present().bits() & xsave.present();
                let due = components(h, set).bits();
                assert_eq!(both & due, due, "{what}: what is not initial is in use");
                let mut out = [0xEE; 512];
                image.to_fxsave(&mut out);
                same_bytes(&out[..416], &fxsave.0[..416], 0, &what);
                compared += 1;
            }
        }
    }
    println!("{compared} images of {} rungs, byte for byte", rungs.len());
    assert!(compared >= 64);
}

/// The components of a set of the harness's. They are not initial, so every save has them; a CPU may call
/// others in use too (SDM vol. 1, 13.6).
fn components(h: &RealHarness, set: u64) -> Components {
    let parts = h.parts().iter().enumerate();
    parts.filter(|(bit, _)| set >> bit & 1 != 0).map(|(_, part)| *part).collect()
}

fn copy_legacy(to: &mut RegFile, from: &RegFile) {
    to.set_fcw(from.fcw());
    to.set_fsw(from.fsw());
    to.set_ftw(from.ftw());
    to.set_mxcsr(from.mxcsr());
    for n in 0..8 {
        let (significand, sign_and_exponent) = from.x87(n);
        to.set_x87(n, significand, sign_and_exponent);
    }
    for n in 0..16 {
        to.vector_mut(n)[..2].copy_from_slice(&from.vector(n)[..2]);
    }
}

/// From every rung's image into every other's, and into the registers.
#[test]
fn a_converted_image_restores_the_same_registers() {
    let (mut rungs, _) = harnesses();
    let mut restored = 0;
    for set in 0..1 << rungs.first().map_or(0, |h| h.components()) {
        for from in 0..rungs.len() {
            let variant = (set + from as u64) % 4;
            let held = registers(&rungs[from], set, variant);
            let every = (1 << rungs[from].components()) - 1;
            let other = registers(&rungs[from], every, 3);
            let mut source = Memory::over(rungs[from].fpu(), 0xA5);
            run(&mut rungs[from], &[Step::Load(&held), Step::Save(source.base())]);
            let plan = rungs[from].fpu().clone();
            let image = source.view(&plan);
            for h in &mut rungs {
                let what = format!(
                    "{:?} to {:?}, set {set:#x}",
                    plan.save_instruction(),
                    h.fpu().save_instruction()
                );
                // A target that holds something else.
                let mut target = Memory::over(h.fpu(), 0x5A);
                run(h, &[Step::Load(&other), Step::Save(target.base())]);
                target.view_mut(h.fpu()).copy_from(&image).unwrap();
                let after = run(h, &[Step::Load(&other), Step::Restore(target.base())]);
                same(&after, &held.0, &what);
                restored += 1;
            }
        }
    }
    println!("{restored} converted images restored");
}

/// What the compacted export says is what XSAVEC itself writes.
#[test]
fn the_compacted_export_is_xsavecs() {
    let (mut rungs, _) = harnesses();
    let find =
        |rungs: &[RealHarness], rung| rungs.iter().position(|h| h.fpu().save_instruction() == rung);
    let (Some(compacted), Some(standard)) =
        (find(&rungs, SaveInstruction::Xsavec), find(&rungs, SaveInstruction::Xsave))
    else {
        return println!("SKIP: no XSAVEC");
    };
    for set in 0..1 << rungs[compacted].components() {
        for variant in 0..8 {
            let held = registers(&rungs[compacted], set, variant);
            let mut images = [compacted, standard].map(|n| {
                let mut memory = Memory::over(rungs[n].fpu(), 0);
                run(&mut rungs[n], &[Step::Load(&held), Step::Save(memory.base())]);
                memory
            });
            let [xsavec, xsave] = &mut images;
            let (plan, from) = (rungs[compacted].fpu(), rungs[standard].fpu());
            let mut out = vec![0xEE; plan.area_len()];
            assert_eq!(xsave.view(from).to_compacted(&mut out), Ok(out.len()));
            let what = format!("set {set:#x}, variant {variant}");
            // XSAVEC may call an initial component in use where XSAVE does not, or the other way.
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes[HEADER..][..8].try_into().unwrap());
            let mut due = components(&rungs[compacted], set).bits();
            if held.0.mxcsr() != MXCSR {
                due |= Components::SSE.bits();
            }
            assert_eq!((word(&out) & due, xsavec.present() & due), (due, due), "{what}");
            same_bytes(&out[HEADER + 8..], &xsavec.0[HEADER + 8..out.len()], HEADER + 8, &what);
            let present = xsavec.view(plan).present();
            let mut parts = Vec::new();
            if present.contains(Components::X87) {
                parts.extend([(0, 24), (32, 160)]);
            }
            if present.contains(Components::SSE) {
                parts.extend([(24, 32), (160, 416)]);
            }
            for (start, end) in parts {
                same_bytes(&out[start..end], &xsavec.0[start..end], start, &what);
            }
        }
    }
}
