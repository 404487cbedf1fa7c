//! The manuals' numbers, literally: no test here computes from the constants that it checks.

use core::ptr::NonNull;
use std::{vec, vec::Vec};

use fpu_core::RawFpu;

use crate::{
    components::Components as C,
    cpuid::CpuidInfo,
    error::ImageError,
    image::{self, Image, ImageMut},
    plan::Plan,
    ring0::ControlState,
    save_instruction::SaveInstruction,
    tests::words::{big_core, server, tiles, Words},
    x87::X87,
};

/// SDM vol. 3, 2.5: CR0.MP is bit 1, EM 2, TS 3, NE 5; CR4.OSFXSR is bit 9, OSXMMEXCPT 10, OSXSAVE 18.
#[test]
fn control_registers_are_those_of_the_manual() {
    let plan = big_core().kernel(C::USER | C::CET_U).unwrap();
    let state = ControlState::of(&plan);
    assert_eq!((state.cr0, state.cr4), (0x22, 0x4_0600));
    assert_eq!((state.xcr0, state.xss), (Some(0xE7), Some(0x800)));
    let legacy = big_core()
        .kernel(C::LEGACY)
        .unwrap()
        .with_save_instruction(SaveInstruction::Fxsave)
        .unwrap();
    let state = ControlState::of(&legacy);
    assert_eq!((state.cr0, state.cr4, state.xcr0), (0x22, 0x600, None));
    // Each bit that is looked at, set or clear against the plan; no other.
    let good = ControlState::of(&plan);
    for bit in 0..64 {
        let cr0 = ControlState { cr0: good.cr0 ^ 1 << bit, ..good };
        assert_eq!(cr0.verify(&plan).is_err(), [1, 2, 3, 5].contains(&bit), "CR0 bit {bit}");
        let cr4 = ControlState { cr4: good.cr4 ^ 1 << bit, ..good };
        assert_eq!(cr4.verify(&plan).is_err(), [9, 10, 18].contains(&bit), "CR4 bit {bit}");
    }
}

/// AuthenticAMD and HygonGenuine, families 17h and 18h: XSAVES may lose XMM registers (erratum 1386), restores keep
/// x87 pointers without CPUID 80000008:EBX\[2\]. No other vendor's, whatever the family.
#[test]
fn vendors_and_families_decide_over_errata() {
    const AMD: [u32; 3] = [0x6874_7541, 0x444D_4163, 0x6974_6E65];
    const HYGON: [u32; 3] = [0x6F67_7948, 0x656E_6975, 0x6E65_476E];
    const INTEL: [u32; 3] = [0x756E_6547, 0x6C65_746E, 0x4965_6E69];
    for (vendor, errata) in [(AMD, true), (HYGON, true), (INTEL, false)] {
        for family in 0x0F..=0x10E {
            let signature = (family - 0x0F) << 20 | 0xF00;
            let [ebx, ecx, edx] = vendor;
            // In the order of CPUID.0: EBX, EDX, ECX spell the name.
            let words = big_core().with(0, 0, [0x16, ebx, ecx, edx]).with(
                1,
                0,
                [signature, 0, 3 << 26, 3 << 24],
            );
            let facts = words.cpuid_info().unwrap();
            assert_eq!(facts.keeps_x87_pointers(), errata, "{vendor:x?}");
            let erratum = errata && [0x17, 0x18].contains(&family);
            assert_eq!(facts.xsaves_erratum(), erratum, "{vendor:x?}, family {family:#x}");
            // Without XSAVES there is nothing to hold supervisor state.
            let plan = words.kernel(C::USER | C::CET_U).unwrap();
            let (instruction, xss) = if erratum {
                (SaveInstruction::Xsavec, 0)
            } else {
                (SaveInstruction::Xsaves, 0x800)
            };
            assert_eq!(
                (plan.save_instruction(), plan.xss().bits()),
                (instruction, xss),
                "{vendor:x?}, {family:#x}"
            );
        }
    }
}

/// Reserved subleaves answer with another leaf's words on some parts.
#[test]
fn subleaves_of_absent_components_are_not_believed() {
    let junk = (2..63).fold(server().with(0xD, 0, [7, 832, 832, 0]), |words, number| {
        if number == 2 {
            words
        } else {
            words.with(0xD, number, [64, 832, number & 1, 0])
        }
    });
    let junk = junk.with(0xD, 1, [0xF, 832, 0, 0]);
    let facts: CpuidInfo = junk.cpuid_info().unwrap();
    for number in 0..70 {
        assert_eq!(facts.described(number).is_some(), number == 2, "{number}");
    }
    assert_eq!(junk.kernel(C::all()).unwrap().components().bits(), 7);
}

/// A frame may hold what the system has enabled, whether or not the plan saves it.
#[test]
fn a_foreign_image_is_as_long_as_xcr0_makes_it() {
    let plan = server().user(C::all(), C::AVX512).unwrap();
    assert_eq!((plan.area_len(), plan.standard_len(), plan.foreign_len()), (832, 832, 2696));
}

fn kernel_with_everything() -> Plan {
    let words: Words = tiles()
        .with(0xD, 1, [0xF, 10752, 0x1C00, 0])
        .with(0xD, 10, [8, 0, 1, 0])
        .with(0xD, 11, [16, 0, 1, 0])
        .with(0xD, 12, [24, 0, 1, 0]);
    words.kernel(C::all()).unwrap()
}

/// `copy_for_child` of the backend itself: the child lacks tiles and supervisor state, the parent keeps all.
#[test]
fn a_child_gets_everything_but_tiles_and_supervisor_state() {
    #[repr(C, align(64))]
    struct Area([u8; 16384]);
    let kernel = kernel_with_everything();
    let user = tiles().plan().unwrap();
    let plans =
        [kernel.clone(), user.clone(), user.with_save_instruction(SaveInstruction::Xsave).unwrap()];
    for plan in plans {
        let len = plan.area_len();
        let mut parent = std::boxed::Box::new(Area([0; 16384]));
        for (at, byte) in parent.0.iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        parent.0[512..576].fill(0);
        parent.0[512..520].copy_from_slice(&plan.components().bits().to_le_bytes());
        let before = parent.0;
        let mut child = std::boxed::Box::new(Area([0xEE; 16384]));
        let [from, to] =
            [&mut parent, &mut child].map(|area| NonNull::new(area.0.as_mut_ptr()).unwrap());
        // SAFETY: C9: both are larger than an area, aligned, and apart.
        unsafe { plan.copy_for_child(from, to) };
        assert!(parent.0 == before, "{:?}: the parent keeps all", plan.save_instruction());
        let present = u64::from_le_bytes(child.0[512..520].try_into().unwrap());
        // Components 10, 11, 12, 17 and 18.
        assert_eq!(present, plan.components().bits() & !0x6_1C00, "{:?}", plan.save_instruction());
        assert!(child.0[..512] == before[..512] && child.0[520..len] == before[520..len]);
        assert!(child.0[len..].iter().all(|byte| *byte == 0xEE), "nothing behind the area");
    }
}

fn area(plan: &Plan, mxcsr: u32) -> Vec<u8> {
    let mut bytes = vec![0; plan.area_len()];
    image::write_initial(&mut bytes, plan);
    bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    bytes
}

/// MXCSR.DAZ is bit 6, which the oldest CPUs do not have.
#[test]
fn mxcsr_of_a_wider_mask_is_refused() {
    let facts = || server().cpuid_info().unwrap().with_xcr0(C::from_bits_retain(0x2E7));
    let wide = Plan::for_user(facts(), 0x2_FFFF, C::all()).unwrap();
    let narrow = Plan::for_user(facts(), 0xFFBF, C::all()).unwrap();
    assert_eq!((wide.mxcsr_mask(), narrow.mxcsr_mask()), (0x2_FFFF, 0xFFBF));
    // A CPU that leaves the field 0 has the oldest mask.
    assert_eq!(Plan::for_user(facts(), 0, C::all()).unwrap().mxcsr_mask(), 0xFFBF);
    for instruction in [SaveInstruction::Xsave, SaveInstruction::Xsavec] {
        let (wide, narrow) = (
            wide.clone().with_save_instruction(instruction).unwrap(),
            narrow.clone().with_save_instruction(instruction).unwrap(),
        );
        let mut from = area(&wide, 0x1FC0);
        from[512] |= 2;
        let mut to = area(&narrow, 0x1F80);
        let before = to.clone();
        let result = ImageMut::new(&mut to, &narrow).copy_from(&Image::new(&from, &wide));
        assert_eq!(result, Err(ImageError::ReservedMxcsr { bits: 0x40 }), "{instruction:?}");
        assert_eq!(to, before, "{instruction:?}: unchanged");
    }
}

/// In the standard format MXCSR is loaded whether SSE is present or not (SDM vol. 1, 13.8.1).
#[test]
fn a_first_xmm_register_leaves_mxcsr() {
    for instruction in [SaveInstruction::Xsave, SaveInstruction::Xsavec] {
        let plan = server().plan().unwrap().with_save_instruction(instruction).unwrap();
        let mut bytes = area(&plan, 0x7FA0);
        let mut image = ImageMut::new(&mut bytes, &plan);
        // Compacted, an absent SSE has MXCSR's initial value (13.8.2).
        let mxcsr = if instruction == SaveInstruction::Xsave { 0x7FA0 } else { 0x1F80 };
        assert_eq!(image.as_image().mxcsr(), mxcsr);
        image.set_xmm(3, [7; 16]).unwrap();
        assert_eq!(image.as_image().mxcsr(), mxcsr, "{instruction:?}");
        assert_eq!(bytes[24..28], u32::to_le_bytes(mxcsr), "{instruction:?}");
    }
}

/// FOP has 11 bits (SDM vol. 1, 8.1.9); the five above are reserved.
#[test]
fn the_opcode_has_eleven_bits() {
    let plan = server().plan().unwrap();
    let mut bytes = area(&plan, 0x1F80);
    let mut image = ImageMut::new(&mut bytes, &plan);
    image.set_x87_pointers(1, 2, 0xFFFF);
    assert_eq!(image.as_image().fop(), 0x7FF);
    image.set_x87(&X87 { fop: 0xF800, ..image.as_image().x87() });
    assert_eq!(image.as_image().fop(), 0);
    assert_eq!(bytes[6..8], [0, 0]);
}
