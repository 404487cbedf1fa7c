//! Plans for CPUs that are not at hand, from made-up words: everything a user program can hold, and
//! a shadow stack.

use raw_cpuid::CpuIdResult;
use std::vec::Vec;

use crate::{
    components::Components, cpuid::CpuidInfo, plan::Plan, save_instruction::SaveInstruction,
};

/// Number, size, offset in the standard format, and the supervisor, align and XFD bits.
const PARTS: [(u32, u32, u32, u32); 11] = [
    (2, 256, 576, 0),
    (3, 64, 960, 0),
    (4, 64, 1024, 0),
    (5, 64, 1088, 0),
    (6, 512, 1152, 0),
    (7, 1024, 1664, 0),
    (9, 8, 2688, 0),
    (17, 64, 2752, 2),
    (18, 8192, 2816, 6),
    (11, 16, 0, 1),
    // In the hole that MPX left.
    (19, 128, 960, 0),
];

pub(crate) const MXCSR_MASK: u32 = 0xFFFF;

/// A CPU that has these user components and nothing else, all of them enabled; or also CET's, and XSAVES.
pub(crate) fn facts(user: Components, shadow_stack: bool) -> CpuidInfo {
    let supervisor = if shadow_stack { Components::CET_U } else { Components::empty() };
    let of =
        move |set: Components| PARTS.into_iter().filter(move |part| set.bits() >> part.0 & 1 != 0);
    let standard = of(user).fold(576, |len, (_, size, offset, _)| len.max(offset + size));
    let compacted = of(user).fold(576, |len: u32, (_, size, _, flags)| {
        size + if flags & 2 != 0 { len.next_multiple_of(64) } else { len }
    });
    let words = move |leaf, sub| {
        let four = match (leaf, sub) {
            (0, _) => [0x16, 0, 0, 0],
            (1, _) => [0, 0, 1 << 26 | 1 << 27, 3 << 24],
            (0xD, 0) => [user.bits() as u32, standard, standard, 0],
            (0xD, 1) if shadow_stack => [0xF, compacted, supervisor.bits() as u32, 0],
            (0xD, 1) => [7, compacted, 0, 0],
            (0xD, number) => of(user | supervisor)
                .find(|part| part.0 == number)
                .map_or([0; 4], |(_, size, offset, flags)| [size, offset, flags, 0]),
            _ => [0; 4],
        };
        let [eax, ebx, ecx, edx] = four;
        CpuIdResult { eax, ebx, ecx, edx }
    };
    CpuidInfo::from_cpuid(words).unwrap()
}

/// A plan for what `xcr0` enables, on a CPU that has that and nothing else.
pub(crate) fn plan(xcr0: Components) -> Plan {
    let facts = facts(xcr0, false).with_xcr0(xcr0);
    Plan::for_user(facts, MXCSR_MASK, Components::all()).unwrap()
}

/// A kernel's plan with a shadow stack's pointer, switched by XSAVES.
pub(crate) fn kernel() -> Plan {
    let user = Components::LEGACY | Components::AVX;
    Plan::for_kernel(facts(user, true), MXCSR_MASK, Components::all()).unwrap()
}

/// With MPX, PKRU and AMX; with APX in MPX's place; with AVX only; with SSE only.
pub(crate) fn plans() -> Vec<Plan> {
    let avx512 = Components::LEGACY | Components::AVX | Components::AVX512 | Components::PKRU;
    let sets = [
        avx512 | Components::MPX | Components::AMX,
        avx512 | Components::APX | Components::AMX,
        Components::LEGACY | Components::AVX,
        Components::LEGACY,
    ];
    let mut plans = Vec::new();
    for set in sets {
        for instruction in
            [SaveInstruction::Xsavec, SaveInstruction::Xsave, SaveInstruction::Fxsave]
        {
            plans.extend(plan(set).with_save_instruction(instruction));
        }
    }
    plans
}

/// SplitMix64, for tests without a dependency.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }
}
