//! Which control registers the library writes to put a plan into force, in which order, and what: by the numbers of
//! the SDM. A kernel of yours has no such file.

use fpu_x86::{CpuidInfo, Plan, SaveInstruction};
use x86_64::registers::control::{Cr0, Cr4};

use crate::{
    cpuid, fpu, odd, verdict,
    watch::{self, Register},
};

/// CR0.MP, EM, TS and NE (bits 1, 2, 3, 5); MP and NE are set.
const CR0: [u64; 2] = [0x2E, 0x22];
/// CR4.OSFXSR and OSXMMEXCPT (bits 9, 10).
const CR4: u64 = 0x600;
/// CR4.OSXSAVE (bit 18).
const OSXSAVE: u64 = 0x4_0000;
const IA32_XFD: Register = Register::Msr(0x1C4);
const IA32_XFD_ERR: Register = Register::Msr(0x1C5);
const IA32_XSS: Register = Register::Msr(0xDA0);

/// Ends the run if the plan comes into force otherwise: twice, from what firmware may leave with XSAVE on and off.
///
/// Interrupts are off, no other CPU has been started, no code needs what the registers hold, and CPUID is this CPU's (or has an IA32_XFD
/// that `xfd` emulates).
pub fn as_the_manual_has_it() {
    let Ok(facts) = CpuidInfo::from_cpuid(cpuid::Reader) else { return };
    for _ in 0..2 {
        // SAFETY: interrupts are off, the CPU's word is not open, and the plan comes into force below.
        unsafe { odd::leave() };
        enable(fpu::plan(), &facts);
    }
}

fn enable(plan: &Plan, facts: &CpuidInfo) {
    let (cr0, cr4) = (Cr0::read_raw(), Cr4::read_raw());
    let mut ended = Ok(());
    let seen = watch::writes(|| {
        // SAFETY: C1 to C5: as in `fpu::bring_up`.
        ended = unsafe { plan.enable_given(facts) }.map(drop);
    });
    if let Err(why) = ended {
        verdict::fail(format_args!("the plan comes into force, and then not: {why}"));
    }
    let xsave = plan.save_instruction() != SaveInstruction::Fxsave;
    let osxsave = if xsave { OSXSAVE } else { 0 };
    let [ours, set] = CR0;
    let due = [
        (Register::Cr(0), true, cr0 & !ours | set),
        (Register::Cr(4), true, cr4 & !OSXSAVE | CR4 | osxsave),
        (Register::Xcr(0), xsave, plan.xcr0().bits()),
        (IA32_XSS, xsave && facts.xsaves(), plan.xss().bits()),
        (IA32_XFD, xsave && facts.xfd(), 0),
        (IA32_XFD_ERR, xsave && facts.xfd(), 0),
    ];
    let due = due.into_iter().filter(|(_, there, _)| *there).map(|(one, _, value)| (one, value));
    // Of what is written several times in a row, the last.
    let all = seen.all();
    let is_last = |n: usize| all.get(n + 1).is_none_or(|next| next.0 != all[n].0);
    let last = (0..all.len()).filter(|n| is_last(*n)).map(|n| all[n]);
    if !last.eq(due) {
        verdict::fail(format_args!("a plan is put into force by writes of {all:x?}"));
    }
}
