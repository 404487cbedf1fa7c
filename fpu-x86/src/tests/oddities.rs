//! Unexpected words of real CPUs, typed in: each is handled, or refused by name. And sets that no CPU
//! accepts.

use crate::{
    components::Components as C,
    error::{LeftOut, PlanError},
    layout::{Compacted, Layout, Standard},
    plan::{CpuMismatch, Plan, Quirk},
    registers::{ControlRegister, CR0_TS, CR4_OSXSAVE},
    ring0::{ControlMismatch, ControlState},
    save_instruction::SaveInstruction,
    tests::words::{big_core, cpu, server, tiles, Words, AMD, FXSR_SSE, INTEL},
};

fn zen2() -> Words {
    cpu(AMD, 0x0087_0F10)
        .with(0xD, 0, [0x207, 0x340, 0x380, 0])
        .with(0xD, 1, [0xF, 0x340, 0, 0])
        .with(0xD, 9, [64, 0x340, 0, 0])
}

fn lens(words: &Words, set: C) -> (usize, usize) {
    let facts = words.cpuid_info().unwrap();
    let user = set.intersection(facts.supported_user());
    (
        Layout::<Standard>::new(&facts, user).unwrap().len(),
        Layout::<Compacted>::new(&facts, set).unwrap().len(),
    )
}

#[test]
fn pkru_lies_at_0x340_and_has_64_bytes_on_zen_2() {
    let all = C::LEGACY | C::AVX | C::PKRU;
    assert_eq!(lens(&zen2(), all), (0x380, 0x380));
    let plan = zen2().xcr0(0x207).with(0xD, 0, [0x207, 0x380, 0x380, 0]);
    let plan = plan.with(0xD, 1, [0xF, 0x380, 0, 0]).plan().unwrap();
    assert_eq!((plan.components(), plan.area_len()), (C::LEGACY | C::AVX, 0x340));
    assert_eq!(zen2().kernel(C::all()).unwrap().xcr0(), C::LEGACY | C::AVX);
}

#[test]
fn lightweight_profiling_has_a_place_but_no_plan() {
    let words = cpu(AMD, 0x0060_0F20).with(0xD, 0, [7, 0x340, 0x3C0, 0x4000_0000]).with(
        0xD,
        62,
        [128, 0x340, 0, 0],
    );
    assert_eq!(lens(&words, C::LEGACY | C::AVX | C::LWP), (0x3C0, 0x3C0));
    let plan = words.kernel(C::all()).unwrap();
    assert_eq!(
        (plan.save_instruction(), plan.xcr0()),
        (SaveInstruction::Xsave, C::LEGACY | C::AVX)
    );
    let words = words.xcr0(1 << 62 | 7);
    assert_eq!(words.plan(), Err(PlanError::Unsupported(C::LWP)));
}

#[test]
fn mpx_without_avx() {
    let words = cpu(INTEL, 0x0005_06C9)
        .with(0xD, 0, [0x1B, 0x440, 0x440, 0])
        .with(0xD, 1, [0xF, 0x2C0, 0, 0])
        .with(0xD, 3, [64, 960, 0, 0])
        .with(0xD, 4, [64, 1024, 0, 0])
        .xcr0(0x1B);
    let plan = words.plan().unwrap();
    assert_eq!((plan.save_instruction(), plan.area_len()), (SaveInstruction::Xsavec, 0x2C0));
    // The 256 bytes of the AVX that it lacks are a gap, not a reason to think it has AVX.
    assert_eq!(plan.place(C::BNDREGS), Some((576, 64)));
    assert_eq!(
        plan.with_save_instruction(SaveInstruction::Xsave).unwrap().place(C::BNDREGS),
        Some((960, 64))
    );
    assert_eq!(words.kernel(C::all()).unwrap().xcr0(), C::LEGACY | C::MPX);
}

#[test]
fn xsaves_without_xgetbv1_and_with_an_erratum() {
    let words = |signature| {
        cpu(AMD, signature).with(0xD, 0, [7, 0x340, 0x340, 0]).with(0xD, 1, [0xB, 0x340, 0, 0])
    };
    let facts = words(0x0080_0F12).cpuid_info().unwrap();
    assert!(facts.xsaves() && !facts.xgetbv1() && facts.xsaves_erratum());
    let plan = words(0x0080_0F12).kernel(C::all()).unwrap();
    assert_eq!(plan.save_instruction(), SaveInstruction::Xsavec);
    assert_eq!(
        plan.with_save_instruction(SaveInstruction::Xsaves),
        Err(PlanError::Unavailable(SaveInstruction::Xsaves))
    );
    // XGETBV(1) is not needed for it: the same flags on another family.
    let plan = words(0x00A0_0F11).kernel(C::all()).unwrap();
    assert_eq!(plan.save_instruction(), SaveInstruction::Xsaves);
    let why = plan.check_cpu(&facts);
    assert_eq!(why, Err(CpuMismatch::NoInstruction(SaveInstruction::Xsaves)));
}

#[test]
fn leaves_that_are_zero_or_missing() {
    let zero = cpu(INTEL, 0x0003_06A9).with(0xD, 0, [0; 4]).with(0xD, 2, [0; 4]);
    let missing = server().with(0, 0, [0xA, 0, 0, 0]);
    // Not even x87 and SSE are listed.
    let half = server().with(0xD, 0, [0x2E5, 2696, 2696, 0]);
    for (words, quirk, why) in [
        (zero, Quirk::EmptyXsaveLeaf { eax: 0 }, PlanError::EmptyXsaveLeaf),
        (missing, Quirk::NoXsaveLeaf { last: 0xA }, PlanError::NoXsaveLeaf),
        (half, Quirk::EmptyXsaveLeaf { eax: 0x2E5 }, PlanError::EmptyXsaveLeaf),
    ] {
        let plan = words.kernel(C::all()).unwrap();
        assert_eq!(
            (plan.save_instruction(), plan.area_len(), plan.xcr0()),
            (SaveInstruction::Fxsave, 512, C::LEGACY)
        );
        assert!(plan.quirks().eq([quirk]));
        assert_eq!(ControlState::of(&plan).cr4 & CR4_OSXSAVE, 0, "nobody can use AVX");
        // In ring 3 tasks can use it: the system has enabled it.
        assert_eq!(words.plan(), Err(why));
        let plan = words.xcr0(3).plan().unwrap();
        assert_eq!((plan.save_instruction(), plan.area_len()), (SaveInstruction::Fxsave, 512));
    }
    let none = Words::default().with(0, 0, [2, 0, 0, 0]).with(1, 0, [0, 0, 0, FXSR_SSE]);
    let plan = none.kernel(C::all()).unwrap();
    assert_eq!(
        (plan.save_instruction(), plan.area_len(), plan.xcr0()),
        (SaveInstruction::Fxsave, 512, C::LEGACY)
    );
    let state = ControlState::of(&plan);
    assert_eq!((state.cr4 & CR4_OSXSAVE, state.xcr0, state.xss), (0, None, None));
    let none = none.with(1, 0, [0, 0, 0, 1 << 24]);
    assert_eq!(none.kernel(C::all()), Err(PlanError::NoFxsave));
}

#[test]
fn cpus_of_another_kind_are_refused() {
    let plan = big_core().kernel(C::USER | C::CET_U).unwrap();
    assert_eq!(plan.check_cpu(&big_core().cpuid_info().unwrap()), Ok(()));
    let small = big_core().with(0xD, 0, [0x207, 0x340, 0xA88, 0]);
    let why = plan.check_cpu(&small.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::Missing(C::AVX512)));
    // The other way round the big core has more, which stays off.
    let narrow = small.kernel(C::USER | C::CET_U).unwrap();
    assert_eq!(narrow.check_cpu(&big_core().cpuid_info().unwrap()), Ok(()));
    let no_cet = big_core().with(0xD, 1, [0xF, 0x340, 0x100, 0]);
    let why = plan.check_cpu(&no_cet.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::Missing(C::CET_U)));
    let elsewhere = big_core().with(0xD, 5, [64, 1088, 2, 0]);
    let why = plan.check_cpu(&elsewhere.cpuid_info().unwrap());
    assert!(matches!(why, Err(CpuMismatch::Described { component: C::OPMASK, .. })), "{why:?}");
    let no_xsaves = big_core().with(0xD, 1, [0x7, 0x340, 0, 0]);
    let why = plan.check_cpu(&no_xsaves.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::NoInstruction(SaveInstruction::Xsaves)));
    let lower =
        big_core().kernel(C::USER).unwrap().with_save_instruction(SaveInstruction::Xsavec).unwrap();
    let why = lower.check_cpu(&no_xsaves.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::OnOneOnly("XSAVES")));
    // Idle CPUs ask XGETBV(1) where the plan's has it.
    let no_xgetbv1 = big_core().with(0xD, 1, [0xB, 0x340, 0x900, 0]);
    let why = lower.check_cpu(&no_xgetbv1.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::OnOneOnly("XGETBV with ECX = 1")));
    let xfd = big_core().with(0xD, 1, [0x1F, 0x340, 0x900, 0]);
    let why = lower.check_cpu(&xfd.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::OnOneOnly("IA32_XFD")));
    let lowest = lower.with_save_instruction(SaveInstruction::Xsave).unwrap();
    let no_xsavec = big_core().with(0xD, 1, [0xD, 0x340, 0x900, 0]);
    let why = lowest.check_cpu(&no_xsavec.cpuid_info().unwrap());
    assert_eq!(why, Err(CpuMismatch::OnOneOnly("XSAVEC")));
    let masked = plan.check_mxcsr_mask(0xFFBF);
    assert_eq!(masked, Err(CpuMismatch::MxcsrMask { missing: 0x40 }));
    assert_eq!(plan.check_mxcsr_mask(0x2_FFFF), Ok(()));
}

#[test]
fn a_cpu_that_keeps_x87_pointers_needs_a_plan_that_scrubs() {
    let fixed = |words: Words| {
        words.with(0x8000_0000, 0, [0x8000_0008, 0, 0, 0]).with(0x8000_0008, 0, [0, 4, 0, 0])
    };
    for (old, new) in [
        (zen2(), fixed(zen2())),
        (
            cpu(AMD, 0x0010_0F42).with(1, 0, [0x0010_0F42, 0, 0, FXSR_SSE]),
            fixed(cpu(AMD, 0x0010_0F42).with(1, 0, [0x0010_0F42, 0, 0, FXSR_SSE])),
        ),
    ] {
        let (scrubs, trusts) = (old.kernel(C::LEGACY).unwrap(), new.kernel(C::LEGACY).unwrap());
        let why = trusts.check_cpu(&old.cpuid_info().unwrap());
        assert_eq!(why, Err(CpuMismatch::KeepsX87Pointers));
        assert_eq!(scrubs.check_cpu(&new.cpuid_info().unwrap()), Ok(()));
        assert_eq!(scrubs.check_cpu(&old.cpuid_info().unwrap()), Ok(()));
        let forced = trusts.scrubbing().with_save_instruction(SaveInstruction::Fxsave).unwrap();
        assert!(forced.scrubs(), "whichever was asked for first");
    }
}

#[test]
fn sets_that_xsetbv_refuses_are_errors() {
    let with_apx = tiles()
        .with(0xD, 0, [0xE_02FF, 11008, 11136, 0])
        .with(0xD, 3, [64, 960, 0, 0])
        .with(0xD, 4, [64, 1024, 0, 0])
        .with(0xD, 19, [128, 11008, 0, 0]);
    let avx = C::LEGACY | C::AVX;
    for illegal in [
        avx | C::OPMASK,
        avx | C::ZMM_HI256 | C::HI16_ZMM,
        C::LEGACY | C::AVX512,
        avx | C::BNDREGS,
        avx | C::BNDCSR,
        avx | C::TILECFG,
        avx | C::TILEDATA,
    ] {
        let why = with_apx.kernel(illegal);
        assert_eq!(why, Err(PlanError::IllegalXcr0(illegal)), "{illegal:?}");
    }
    assert_eq!(with_apx.kernel(C::X87 | C::AVX), Err(PlanError::Uncovered { missing: C::SSE }));
    // A set that no CPU has is not the kernel's mistake.
    let plan = with_apx.kernel(C::all()).unwrap();
    assert_eq!(plan.xcr0(), avx | C::AVX512 | C::AMX | C::APX);
    let why = LeftOut::Excluded { by: C::APX };
    assert!(plan.quirks().any(|quirk| quirk == Quirk::LeftOut { components: C::MPX, why }));
    let good = avx | C::AVX512 | C::AMX | C::APX;
    assert_eq!(with_apx.kernel(good).map(|plan| plan.xcr0()), Ok(good));
    // APX, with the highest number but one, may lie where MPX did: below AVX-512.
    let below =
        with_apx.clone().with(0xD, 0, [0xE_02E7, 11008, 11008, 0]).with(0xD, 19, [128, 960, 0, 0]);
    let plan = below
        .kernel(good)
        .and_then(|plan| plan.with_save_instruction(SaveInstruction::Xsave))
        .unwrap();
    assert_eq!((plan.place(C::APX), plan.area_len()), (Some((960, 128)), 11008));
    let missing = C::SSE;
    assert_eq!(with_apx.kernel(C::X87), Err(PlanError::Uncovered { missing }));
    let unknown = C::from_bits_retain(1 << 40);
    assert_eq!(with_apx.kernel(good | unknown), Err(PlanError::Unsupported(unknown)));
}

#[test]
fn what_is_enabled_is_what_the_area_holds() {
    let wanted = C::USER | C::PT | C::CET_U | C::CET_S | C::LBR | C::HWP;
    let plan = big_core().kernel(wanted).unwrap();
    assert_eq!(plan.save_instruction(), SaveInstruction::Xsaves);
    assert_eq!(plan.xss(), C::CET_U | C::CET_S, "saving PT and LBR changes them; HWP is the CPU's");
    assert_eq!(plan.xcr0(), C::LEGACY | C::AVX | C::AVX512, "PKRU stays off: RDPKRU needs no XCR0");
    assert_eq!(plan.components(), plan.xcr0() | plan.xss());
    assert_eq!(plan.xfd(), C::empty());
    assert_eq!((plan.place(C::LBR), plan.place(C::PT)), (None, None));
    assert_eq!(plan.place(C::CET_S).unwrap().1, 24);
    for instruction in [SaveInstruction::Xsavec, SaveInstruction::Xsaveopt, SaveInstruction::Xsave]
    {
        let why = plan.clone().with_save_instruction(instruction);
        assert_eq!(why, Err(PlanError::TooNarrow { missing: plan.xss() }), "{instruction:?}");
    }
    let user = big_core().kernel(C::USER).unwrap();
    for instruction in [
        SaveInstruction::Xsaves,
        SaveInstruction::Xsavec,
        SaveInstruction::Xsaveopt,
        SaveInstruction::Xsave,
    ] {
        assert_eq!(
            user.clone().with_save_instruction(instruction).unwrap().save_instruction(),
            instruction
        );
    }
    let legacy = big_core()
        .kernel(C::LEGACY)
        .unwrap()
        .with_save_instruction(SaveInstruction::Fxsave)
        .unwrap();
    assert_eq!(ControlState::of(&legacy).cr4 & CR4_OSXSAVE, 0, "nobody can use AVX");
}

#[test]
fn ring_3_never_gets_xsaves() {
    let plan = big_core().plan().unwrap();
    assert_eq!((plan.save_instruction(), plan.is_for_kernel()), (SaveInstruction::Xsavec, false));
    assert_eq!(
        plan.with_save_instruction(SaveInstruction::Xsaves),
        Err(PlanError::Unavailable(SaveInstruction::Xsaves))
    );
}

#[test]
fn control_registers_that_differ_are_named() {
    let plan: Plan = big_core().kernel(C::USER | C::CET_U).unwrap();
    let good = ControlState::of(&plan);
    let (xcr0, xss) = (plan.xcr0().bits(), plan.xss().bits());
    assert_eq!((good.xcr0, good.xss, good.xfd), (Some(xcr0), Some(xss), None));
    let others = ControlState { cr0: good.cr0 | 1 << 31, cr4: good.cr4 | 1 << 22, ..good };
    assert_eq!(others.verify(&plan), Ok(()), "paging and PKE are not ours");
    let bad = [
        (ControlState { cr0: good.cr0 | CR0_TS, ..good }, ControlRegister::Cr0),
        (ControlState { cr0: 0, ..good }, ControlRegister::Cr0),
        (ControlState { cr4: good.cr4 & !CR4_OSXSAVE, ..good }, ControlRegister::Cr4),
        (ControlState { xcr0: Some(xcr0 | 0x200), ..good }, ControlRegister::Xcr0),
        (ControlState { xcr0: None, ..good }, ControlRegister::Xcr0),
        (ControlState { xss: Some(0), ..good }, ControlRegister::Xss),
        (ControlState { xss: None, ..good }, ControlRegister::Xss),
        (ControlState { xfd: Some(1 << 18), ..good }, ControlRegister::Xfd),
    ];
    for (state, register) in bad {
        let why = state.verify(&plan);
        assert!(
            matches!(why, Err(ControlMismatch { register: named, .. }) if named == register),
            "{register:?}: {why:?}"
        );
    }
    // Tiles are in the area, so XFD lets them through.
    let plan = tiles().with(0xD, 1, [0x1F, 10752, 0, 0]).kernel(C::USER).unwrap();
    assert_eq!(ControlState::of(&plan).xfd, Some(0));
}
