//! What CPUID's words are made into, against what this CPU does: sizes, and where XSAVE and XSAVEC put
//! each component of each set.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::arch::{asm, x86_64::__cpuid_count};

use fpu_x86::{
    Compacted, Components, ControlState, Layout, Plan, PlanError, Quirk, SaveInstruction, SizeWord,
    Standard,
};

/// Components that take any bytes: not tiles, which need permission, and not bounds.
fn loadable(plan: &Plan) -> Components {
    plan.components().difference(Components::AMX | Components::MPX)
}

#[test]
fn layouts_have_the_sizes_that_this_cpu_reports_or_a_quirk_says_so() {
    let plan = Plan::detect_user(Components::all()).unwrap();
    let facts = plan.cpuid_info();
    if plan.save_instruction() == SaveInstruction::Fxsave {
        println!("SKIP: this CPU or its system has no XSAVE");
        return;
    }
    let (main, sub) = (__cpuid_count(0xD, 0), __cpuid_count(0xD, 1));
    let standard = Layout::<Standard>::new(facts, plan.xcr0()).unwrap().len() as u32;
    let all = Layout::<Standard>::new(facts, facts.supported_user()).map(|all| all.len() as u32);
    let least = Layout::<Compacted>::new(facts, plan.xcr0()).unwrap().len() as u32;
    println!("{standard} standard, {least} compacted; {} and {} by CPUID", main.ebx, sub.ebx);
    // A hypervisor may say anything. If it is not what the components make, the plan says so.
    let said = |word| {
        plan.quirks().any(|quirk| matches!(quirk, Quirk::Size { word: it, .. } if it == word))
    };
    assert_eq!(said(SizeWord::Standard), standard != main.ebx);
    assert_eq!(said(SizeWord::Supported), all.is_ok_and(|all| all != main.ecx));
    // The system may have supervisor components enabled, which ring 3 cannot see.
    assert!(!said(SizeWord::Compacted) || least != sub.ebx);
    plan.quirks().for_each(|quirk| println!("{quirk}"));
}

#[repr(C, align(64))]
struct Bytes([u8; 16384]);

/// An image in the standard format of every component, with bytes that tell where they came from.
fn everything(layout: &Layout<Standard>) -> Box<Bytes> {
    let mut image = Box::new(Bytes([0; 16384]));
    for number in layout.components().numbers().filter(|number| *number >= 2) {
        let place = layout.place(number).unwrap();
        let bytes = layout.bytes_mut(place, &mut image.0).unwrap();
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (at as u32 * 7 + number * 31 + 1) as u8 | 1;
        }
    }
    image.0[..2].copy_from_slice(&0x37Fu16.to_le_bytes());
    image.0[4] = 0xFF;
    for st in 0..8 {
        image.0[32 + 16 * st..42 + 16 * st].fill(st as u8 + 0x40);
    }
    image.0[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    for at in 160..416 {
        image.0[at] = (at % 251) as u8 | 1;
    }
    image.0[512..520].copy_from_slice(&layout.components().bits().to_le_bytes());
    image
}

#[test]
fn each_component_of_each_set_lies_where_the_layout_says() {
    let plan = Plan::detect_user(Components::all()).unwrap();
    if !plan.cpuid_info().xsavec() || plan.save_instruction() == SaveInstruction::Fxsave {
        println!("SKIP: this CPU or its system has no XSAVEC");
        return;
    }
    let facts = plan.cpuid_info();
    let full = loadable(&plan);
    let standard = Layout::<Standard>::new(facts, full).unwrap();
    let from = everything(&standard);
    let mut initial = Box::new(Bytes([0; 16384]));
    initial.0[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    let numbers: Vec<u32> = full.numbers().collect();
    let (mut sets, mut compared) = (0, 0);
    for pattern in 0..1u32 << numbers.len() {
        let set = numbers.iter().enumerate().filter(|(at, _)| pattern >> at & 1 != 0);
        let set: Components =
            set.map(|(_, number)| Components::of_number(*number).unwrap()).collect();
        let mut packed = Box::new(Bytes([0xA5; 16384]));
        let mut fixed = Box::new(Bytes([0xA5; 16384]));
        // The header is what the instructions expect to find.
        packed.0[512..576].fill(0);
        fixed.0[512..576].fill(0);
        // SAFETY: all four areas are larger than any layout and aligned; the mask has components only
        // that are enabled; `clobber_abi` names every register that is loaded.
        unsafe {
            asm!(
                "mov eax, r8d", "mov rdx, r8", "shr rdx, 32", "xrstor64 [rdi]",
                "mov eax, r9d", "mov rdx, r9", "shr rdx, 32", "xsavec64 [rsi]", "xsave64 [r10]",
                "mov eax, r8d", "mov rdx, r8", "shr rdx, 32", "xrstor64 [r11]",
                in("rdi") from.0.as_ptr(),
                in("rsi") packed.0.as_mut_ptr(),
                in("r10") fixed.0.as_mut_ptr(),
                in("r11") initial.0.as_ptr(),
                in("r8") full.bits(),
                in("r9") set.bits(),
                clobber_abi("sysv64"),
            );
        }
        let compacted = Layout::<Compacted>::new(facts, set).unwrap();
        let narrow = Layout::<Standard>::new(facts, set).unwrap();
        let header = |area: &Bytes, at: usize| {
            u64::from_le_bytes(area.0[512 + at..520 + at].try_into().unwrap())
        };
        assert_eq!(header(&packed, 0), set.bits());
        assert_eq!(header(&packed, 8), 1 << 63 | set.bits());
        assert_eq!(header(&fixed, 0), set.bits());
        for number in set.numbers().filter(|number| *number >= 2) {
            let expect = standard.bytes(standard.place(number).unwrap(), &from.0).unwrap();
            let got = compacted.bytes(compacted.place(number).unwrap(), &packed.0).unwrap();
            assert!(got == expect, "component {number} of {set:?}, compacted");
            let got = narrow.bytes(narrow.place(number).unwrap(), &fixed.0).unwrap();
            assert!(got == expect, "component {number} of {set:?}, standard");
            compared += 1;
        }
        // Nothing is written behind the end.
        assert!(packed.0[compacted.len()..].iter().all(|byte| *byte == 0xA5), "{set:?}");
        assert!(fixed.0[narrow.len()..].iter().all(|byte| *byte == 0xA5), "{set:?}");
        sets += 1;
    }
    println!("{sets} sets, {compared} components compared in each format");
    assert!(compared > 0 || full == Components::LEGACY);
}

#[test]
fn the_plan_for_ring_0_is_consistent_on_this_cpu() {
    let user = Plan::detect_user(Components::all()).unwrap();
    let plan = Plan::detect_kernel(Components::USER | Components::MPX | Components::CET_U).unwrap();
    println!("{:?}, XCR0 {:?}, XSS {:?}", plan.save_instruction(), plan.xcr0(), plan.xss());
    assert!(plan.xcr0().contains(user.components()), "what the system enabled can be enabled");
    assert!(!plan.xcr0().contains(Components::PKRU));
    assert_eq!(plan.components(), plan.xcr0() | plan.xss());
    assert_eq!(plan.check_cpu(user.cpuid_info()), Ok(()), "a CPU is like itself");
    let state = ControlState::of(&plan);
    assert_eq!(state.verify(&plan), Ok(()));
    for rung in SaveInstruction::ALL {
        match plan.clone().with_save_instruction(rung) {
            Ok(lower) => {
                let least = if rung == SaveInstruction::Fxsave { 512 } else { 576 };
                assert!(
                    lower.save_instruction() <= plan.save_instruction()
                        && lower.area_len() >= least
                );
                // All but FXSAVE's need CR4.OSXSAVE and the same XCR0.
                let state = ControlState::of(&lower);
                let same = (rung == SaveInstruction::Fxsave)
                    == (plan.save_instruction() == SaveInstruction::Fxsave);
                assert_eq!(state.verify(&plan).is_ok(), same);
            }
            Err(why) => assert!(
                matches!(why, PlanError::Unavailable(_) | PlanError::TooNarrow { .. }),
                "{rung:?}: {why}"
            ),
        }
    }
}
