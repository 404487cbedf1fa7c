//! The instructions, and which faults of theirs are fixed up.

#[cfg(target_os = "linux")]
mod masks;

use std::println;

use fpu_core::IdleFpu;

use super::*;
use crate::{components::Components, plan::Plan, tests::words::tiles};

#[test]
fn only_our_instructions_and_only_faults_are_fixed_up() {
    let asked = |code: &[u8], vector| {
        // SAFETY: N7: as much of the array is read as is a whole sequence.
        unsafe { fixup(code.as_ptr() as usize, vector) }
    };
    for (instruction, xor) in MAY_FAULT.into_iter().flat_map(|one| XORS.map(|xor| (one, xor))) {
        let code = [instruction, xor, &MARK].concat();
        let rip = code.as_ptr() as usize + instruction.len() + xor.len();
        for vector in 0..=255 {
            let fixup = asked(&code, vector);
            // #UD, #NM, #SS, #GP, #PF, #AC (SDM vol. 3, 6.15).
            let ours = [6, 7, 12, 13, 14, 17].contains(&vector);
            assert_eq!(fixup.map(|it| it.rip), ours.then_some(rip), "vector {vector}");
            let told = fixup.map(|it| vector_of(it.rax as u32));
            assert_eq!(told, ours.then_some(u32::from(vector)));
        }
        for at in 0..code.len() {
            let mut other = code.clone();
            other[at] ^= 0x80;
            assert_eq!(asked(&other, 13), None, "byte {at} of {instruction:x?}");
        }
    }
}

/// What RAX holds where a handler sets RIP alone is the mask of a plan, or anything: never success, and never a
/// vector that was not told.
#[test]
fn a_handler_that_sets_rip_alone_tells_no_vector() {
    let plans = [3, 7, 0xE7, 0x2E7, 0x6_00E7, 0x6_08E7, 0xE_00E7, u32::MAX];
    for eax in plans.into_iter().chain(0..=255).chain([TOLD, TOLD | 32, TOLD | 255]) {
        assert_eq!(vector_of(eax), NOT_TOLD, "{eax:#x}");
    }
}

#[test]
fn compiled_writes_carry_the_mark() {
    let functions = [
        xsetbv0 as *const (),
        wrmsr as *const (),
        rdmsr_fault as *const (),
        try_set_cr4 as *const (),
    ];
    let functions = functions.map(|function| function.cast::<u8>());
    for (function, instruction) in functions.into_iter().zip(&MAY_FAULT[3..]) {
        let expect = [instruction, XORS[1], &MARK].concat();
        // SAFETY: the functions' own code; what follows them in the section is code too.
        let code = unsafe { core::slice::from_raw_parts(function, 128) };
        assert!(code.windows(expect.len()).any(|bytes| bytes == expect), "{instruction:x?}");
    }
}

fn environment() -> [u32; 7] {
    let mut words = [0; 7];
    // SAFETY: it writes 28 bytes; that it masks exceptions is undone by its second half.
    unsafe { asm!("fnstenv [{0}]", "fldenv [{0}]", in(reg) &mut words) };
    words
}

#[test]
fn a_scrub_leaves_no_pointer() {
    // FLDENV loads what an instruction may not leave: some CPUs set the data pointer at exceptions only. The
    // system may switch threads at any time, and with that the pointers may go.
    const HELD: [u32; 7] = [0x37F, 0, 0xFFFF, 0x1234_5678, 0x05EA_0000, 0x1BCD_EF01, 0];
    for _ in 0..100 {
        // SAFETY: it reads 28 bytes of a constant: an empty x87 unit and its pointers.
        unsafe { asm!("fldenv [{}]", in(reg) &HELD, options(readonly)) };
        let [.., fip, opcode, fdp, _] = environment();
        // SAFETY: N2: nothing is in the x87 unit.
        unsafe { scrub() };
        let [fcw, fsw, tags, rest @ ..] = environment();
        assert_eq!((fcw & 0xFFFF, fsw & 0xFFFF, tags & 0xFFFF), (0x37F, 0, 0xFFFF));
        if (fip, opcode >> 16, fdp) == (HELD[3], HELD[4] >> 16, HELD[5]) {
            let [ip, selector_and_opcode, dp, selector] = rest;
            assert_eq!((ip, selector_and_opcode >> 16, dp), (0, 0, 0), "selector {selector:#x}");
            return;
        }
    }
    println!("SKIP: this CPU's FLDENV loads no x87 pointers: there are none to scrub");
}

#[test]
fn a_scrub_survives_a_full_stack_and_a_pending_exception() {
    // SAFETY: x87 only; N2: what is in the unit is the test's.
    unsafe {
        asm!("fninit", "fldz", "fld1", "fdivrp", "fld1", "fld1", "fld1", "fld1", "fld1", "fld1");
        asm!("fld1", "push 0x340", "fldcw [rsp]", "pop {}", out(reg) _);
        scrub();
    }
    let [fcw, fsw, tags, ..] = environment();
    assert_eq!((fcw & 0xFFFF, fsw & 0xFFFF, tags & 0xFFFF), (0x37F, 0, 0xFFFF));
}

#[test]
fn a_scrub_sets_mxcsr() {
    // SAFETY: N2: flags of exceptions that are masked, then the default again.
    let (before, after) = unsafe {
        ldmxcsr(0x1FBF);
        let before = stmxcsr();
        scrub();
        (before, stmxcsr())
    };
    assert_eq!((before, after), (0x1FBF, 0x1F80));
}

#[test]
fn tilerelease_is_what_an_assembler_makes_of_its_name() {
    unsafe extern "C" fn by_name() {
        // SAFETY: never run.
        unsafe { asm!("tilerelease") }
    }
    const BYTES: [u8; 5] = [0xC4, 0xE2, 0x78, 0x49, 0xC0];
    for function in [by_name as *const () as *const u8, tilerelease as *const () as *const u8] {
        // SAFETY: the functions' own code; what follows them in the section is code too.
        let code = unsafe { core::slice::from_raw_parts(function, 32) };
        assert!(code.windows(5).any(|bytes| bytes == BYTES), "{code:x?}");
    }
}

/// Without a way to ask, tiles count as in use; a plan without them executes nothing.
#[test]
fn what_cannot_be_asked_about_keeps_a_core_awake() {
    let mute = tiles().with(0xD, 1, [0xB, 10752, 0, 0]);
    let with = mute.plan().unwrap();
    let without = mute.user(Components::all(), Components::AMX).unwrap();
    assert!(with.components().contains(Components::AMX) && !with.cpuid_info().xgetbv1());
    assert!(!without.components().intersects(Components::AMX));
    // SAFETY: C10: nothing is executed on a register.
    unsafe {
        assert!(with.keeps_awake());
        assert!(!without.keeps_awake());
        without.release();
    }
}

#[test]
fn in_use_is_what_this_cpu_says() {
    let plan = Plan::detect_user(Components::all()).unwrap();
    if !plan.cpuid_info().xgetbv1() || !plan.components().contains(Components::AVX) {
        return println!("SKIP: this CPU or its system has no AVX, or no XGETBV with ECX = 1");
    }
    let in_use: u64;
    // SAFETY: AVX is enabled; the one register is named.
    unsafe {
        asm!("vinsertf128 ymm15, ymm15, [{}], 1", in(reg) &[1u64, 2], out("ymm15") _);
        // N3, N8: just seen.
        in_use = xgetbv1();
        asm!("vzeroupper", out("xmm15") _);
    }
    assert_eq!(in_use & !plan.xcr0().bits(), 0, "{in_use:#x}: not enabled");
    assert_ne!(in_use & Components::AVX.bits(), 0, "{in_use:#x}: a YMM register was written");
    // As if the plan had tiles: no test has permission to use tiles, and a CPU may call initial tiles in use.
    let with = tiles().plan().unwrap();
    // SAFETY: C10: it only asks. N3, N8: AVX was in use just now, by XGETBV's own word.
    let (kept, said) = unsafe { (with.keeps_awake(), xgetbv1()) };
    assert_eq!(kept, said & Components::AMX.bits() != 0, "{said:#x}");
}
