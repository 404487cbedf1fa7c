//! Plans that this CPU refuses, and that may not become smaller, and plans of other CPUs: CR0, CR4, XCR0, IA32_XSS
//! and IA32_XFD hold afterwards what they held before. Each is refused twice: the handler of the exception tells the
//! vector, and sets RIP alone. A kernel of yours has no such file.

use core::arch::x86_64::__cpuid;

use fpu_core::{Error, MAX_CPUS};
use fpu_x86::{
    BringUpError, Components, ControlRegister, CpuMismatch, CpuidInfo, EnableError, Plan,
    PlanError, SaveInstruction,
};
use raw_cpuid::{CpuIdReader, CpuIdReaderNative, CpuIdResult};
use x86_64::registers::{
    control::{Cr0, Cr0Flags, Cr4, Cr4Flags},
    model_specific::Msr,
    xcontrol::XCr0,
};

use crate::{fpu::IrqsOff, handlers};

const LEAF: u32 = 0xD;
const IA32_XFD: u32 = 0x1C4;
const IA32_XSS: u32 = 0xDA0;

/// CPUID as it is, except for this.
#[derive(Clone, Copy)]
enum Lie {
    /// AVX lies further behind: it is measured.
    Avx,
    /// APX, behind everything: XCR0 refuses it.
    Apx,
    /// XSAVES and PASID: IA32_XSS refuses it.
    Pasid,
    /// XSAVE, of x87 and SSE alone: CR4 refuses it.
    Xsave,
}

/// Whether the handler sets RIP alone, and the vector that the error has then: that of #GP, or none.
const HANDLERS: [(bool, u32); 2] = [(false, 13), (true, 255)];

impl Lie {
    const ALL: [Self; 3] = [Self::Avx, Self::Apx, Self::Pasid];

    fn component(self) -> Components {
        match self {
            Self::Avx => Components::AVX,
            Self::Apx => Components::APX,
            Self::Pasid => Components::PASID,
            Self::Xsave => Components::LEGACY,
        }
    }
}

impl CpuIdReader for Lie {
    fn cpuid2(&self, leaf: u32, subleaf: u32) -> CpuIdResult {
        let mut words = CpuIdReaderNative.cpuid2(leaf, subleaf);
        match (self, leaf, subleaf) {
            (Self::Avx, LEAF, 2) => words.ebx += 64,
            (Self::Apx, LEAF, 0) => words.eax |= 1 << 19,
            (Self::Apx, LEAF, 19) => words = CpuIdResult { eax: 128, ebx: 11008, ecx: 0, edx: 0 },
            (Self::Pasid, LEAF, 1) => (words.eax, words.ecx) = (words.eax | 8, words.ecx | 1 << 10),
            (Self::Xsave, 0, _) => words.eax = words.eax.max(LEAF),
            (Self::Xsave, 1, _) => words.ecx |= 1 << 26,
            (Self::Xsave, LEAF, 0) => words = CpuIdResult { eax: 3, ebx: 576, ecx: 576, edx: 0 },
            (Self::Xsave, LEAF, _) => words = CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
            (Self::Pasid, LEAF, 10) => words = CpuIdResult { eax: 8, ebx: 0, ecx: 1, edx: 0 },
            _ => {}
        }
        words
    }
}

/// CR0, CR4, XCR0, IA32_XSS and IA32_XFD, as far as there are.
fn registers(facts: &CpuidInfo) -> [u64; 5] {
    let cr4 = Cr4::read();
    if !facts.xsave() {
        return [Cr0::read_raw(), cr4.bits(), 0, 0, 0];
    }
    // SAFETY: XCR0 cannot be read otherwise; interrupts are off, and the bit is put back.
    unsafe { Cr4::write(cr4 | Cr4Flags::OSXSAVE) };
    let xcr0 = XCr0::read_raw();
    // SAFETY: as it was.
    unsafe { Cr4::write(cr4) };
    // SAFETY: the CPU says that it has them.
    let read = |there, number| if there { unsafe { Msr::new(number).read() } } else { 0 };
    let (xss, xfd) = (read(facts.xsaves(), IA32_XSS), read(facts.xfd(), IA32_XFD));
    [Cr0::read_raw(), cr4.bits(), xcr0, xss, xfd]
}

/// Plans that must be refused are. Interrupts are off, no code needs what the registers hold, and the CPU is brought
/// up afterwards.
pub fn leaves_everything_as_before() -> Result<(), &'static str> {
    let Ok(facts) = CpuidInfo::from_cpuid(CpuIdReaderNative) else { return Ok(()) };
    // Another value than the library writes, where one is harmless here.
    // SAFETY: nothing in the kernel uses x87 or SSE exceptions, and no task runs.
    unsafe {
        Cr0::update(|cr0| cr0.remove(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR));
        Cr4::update(|cr4| cr4.remove(Cr4Flags::OSXMMEXCPT_ENABLE));
    }
    if !facts.xsave() {
        return without_osxsave(&facts);
    }
    if !facts.supported_user().contains(Components::AVX) {
        return Ok(());
    }
    if facts.xfd() {
        // SAFETY: the CPU says that it has it, and tiles, which are not used here.
        unsafe { Msr::new(IA32_XFD).write(1 << 18) };
    }
    let supported = facts.supported_user() | facts.supported_supervisor();
    for lie in Lie::ALL {
        let lies = matches!(lie, Lie::Avx) || !supported.contains(lie.component());
        if lies {
            tried(lie, &facts)?;
        }
    }
    others(&facts)?;
    not_kept(&facts)?;
    without_xsave(&facts)
}

/// What is refused leaves the registers as they were.
fn unchanged(facts: &CpuidInfo, refused: impl FnOnce() -> bool) -> Result<(), &'static str> {
    let before = registers(facts);
    let refused = refused();
    let after = registers(facts);
    if !refused {
        return Err("it was none, or another");
    }
    let names = ["CR0", "CR4", "XCR0", "IA32_XSS", "IA32_XFD"];
    match names.into_iter().zip(before.iter().zip(after)).find(|(_, (old, new))| **old != *new) {
        Some((name, _)) => Err(name),
        None => Ok(()),
    }
}

/// One of them, with instructions that are as they should be.
#[inline(never)]
fn tried(lie: Lie, facts: &CpuidInfo) -> Result<(), &'static str> {
    let told = CpuidInfo::from_cpuid(lie).map_err(|_| "CPUID is none")?;
    let wanted = Components::LEGACY | Components::AVX | lie.component();
    let plan =
        Plan::for_kernel(told.clone(), 0, wanted).and_then(|plan| plan.requiring(lie.component()));
    let plan = match lie {
        // Where a component has a place of its own.
        Lie::Avx => plan.and_then(|plan| plan.with_save_instruction(SaveInstruction::Xsave)),
        _ => plan,
    };
    // AMD's family 17h has XSAVES that is not used, so that there is no such plan.
    let Ok(plan) = plan else { return Ok(()) };
    for (rip_only, vector) in HANDLERS {
        let mut settling = plan.clone();
        unchanged(facts, || {
            handlers::set_rip_only(rip_only);
            // SAFETY: C1 to C5: ring 0, interrupts are off, nothing has run here; there are no areas.
            let first = unsafe { plan.enable_given(&told) };
            // SAFETY: C1 to C5: nothing has changed since the attempt, which was refused; there are no areas.
            let settled = unsafe { settling.settle_given(&told) };
            handlers::set_rip_only(false);
            let refused = |register| first == Err(EnableError::Refused { register, vector });
            let why = match lie {
                Lie::Apx => refused(ControlRegister::Xcr0),
                // Without XSAVES there is no such register, or it keeps nothing.
                Lie::Pasid if facts.xsaves() => refused(ControlRegister::Xss),
                _ => first.is_err(),
            };
            why && matches!(settled, Err(EnableError::Plan(PlanError::Required { .. })))
        })?;
        unchanged(facts, || {
            handlers::set_rip_only(rip_only);
            let result = brought_up(&told, plan.clone(), 0, |_| Err(()));
            handlers::set_rip_only(false);
            matches!(
                result,
                Err(BringUpError::Enable(EnableError::Plan(PlanError::Required { .. })))
            )
        })?;
    }
    Ok(())
}

/// The whole way up, of the first CPU, which is offline.
fn brought_up(
    facts: &CpuidInfo,
    plan: Plan,
    number: u32,
    keep: impl FnOnce(Plan) -> Result<IrqsOff, ()>,
) -> Result<(), BringUpError<()>> {
    // SAFETY: C1 to C5: as in `tried`. K15, K16: the number is refused, or is not reached.
    unsafe { fpu_x86::bring_up_boot_cpu_given(facts, number, || Ok(plan), keep) }.map(drop)
}

/// A plan that works, which the kernel does not keep, or with which the CPU does not come online.
#[inline(never)]
fn not_kept(facts: &CpuidInfo) -> Result<(), &'static str> {
    // Of fewer components than XCR0 has now.
    let plan = Plan::detect_kernel_given(facts.clone(), Components::LEGACY)
        .and_then(|plan| plan.with_save_instruction(SaveInstruction::Xsave));
    let Ok(plan) = plan else { return Ok(()) };
    unchanged(facts, || {
        brought_up(facts, plan.clone(), 0, |_| Err(())) == Err(BringUpError::Kept(()))
    })?;
    unchanged(facts, || {
        // SAFETY: interrupts are off.
        let keep = |_| Ok(unsafe { IrqsOff::new() });
        let result = brought_up(facts, plan.clone(), MAX_CPUS, keep);
        result == Err(BringUpError::Online(Error::InvalidCpu))
    })
}

/// A CPU without XSAVE refuses CR4.OSXSAVE.
#[inline(never)]
fn without_osxsave(facts: &CpuidInfo) -> Result<(), &'static str> {
    // QEMU 7.2, which says that it is a hypervisor, hangs there.
    let hypervisor = __cpuid(1).ecx >> 31 & 1 != 0;
    let told = CpuidInfo::from_cpuid(Lie::Xsave).map_err(|_| "CPUID is none")?;
    let plan = Plan::for_kernel(told.clone(), 0, Components::LEGACY);
    let plan = plan
        .and_then(|plan| plan.with_save_instruction(SaveInstruction::Xsave))
        .map_err(|_| "no plan")?;
    for (rip_only, vector) in HANDLERS.into_iter().filter(|_| !hypervisor) {
        unchanged(facts, || {
            handlers::set_rip_only(rip_only);
            // SAFETY: as in `tried`.
            let result = unsafe { plan.enable_given(&told) };
            handlers::set_rip_only(false);
            result.map(drop) == Err(EnableError::Refused { register: ControlRegister::Cr4, vector })
        })?;
    }
    Ok(())
}

/// Plans of CPUs that are not like this one: with AVX elsewhere, and with more bits of MXCSR; and one for ring 3.
#[inline(never)]
fn others(facts: &CpuidInfo) -> Result<(), &'static str> {
    let of = |facts, mask| Plan::for_kernel(facts, mask, Components::LEGACY | Components::AVX);
    if let Ok(plan) = CpuidInfo::from_cpuid(Lie::Avx).and_then(|told| of(told, 0)) {
        unchanged(facts, || {
            // SAFETY: as in `tried`.
            let result = unsafe { plan.enable_given(facts) };
            matches!(result, Err(EnableError::Cpu(CpuMismatch::Described { .. })))
        })?;
    }
    let user = facts.clone().with_xcr0(Components::LEGACY);
    if let Ok(plan) = Plan::for_user(user, 0, Components::all()) {
        unchanged(facts, || {
            // SAFETY: as in `tried`.
            let result = unsafe { plan.enable_given(facts) };
            result == Err(EnableError::UserPlan)
        })?;
    }
    let own = Plan::detect_kernel_given(facts.clone(), Components::LEGACY);
    let lacks = |plan: &Plan| own.is_ok_and(|own| plan.mxcsr_mask() & !own.mxcsr_mask() != 0);
    match of(facts.clone(), u32::MAX) {
        // Some have all that any CPU has.
        Ok(plan) if lacks(&plan) => unchanged(facts, || {
            // SAFETY: as in `tried`.
            let result = unsafe { plan.enable_given(facts) };
            matches!(result, Err(EnableError::Cpu(CpuMismatch::MxcsrMask { .. })))
        }),
        _ => Ok(()),
    }
}

/// A plan for FXSAVE turns off what firmware, or a plan with XSAVE, has turned on: tasks cannot use AVX.
#[inline(never)]
fn without_xsave(facts: &CpuidInfo) -> Result<(), &'static str> {
    let plan = Plan::for_kernel(facts.clone(), 0, Components::LEGACY)
        .and_then(|plan| plan.with_save_instruction(SaveInstruction::Fxsave));
    let Ok(plan) = plan else { return Ok(()) };
    let before = Cr4::read();
    // SAFETY: the CPU has XSAVE; what enabling asks for (C1 to C5) as in `tried`; the bit is put back.
    let (result, after) = unsafe {
        Cr4::write(before | Cr4Flags::OSXSAVE);
        (plan.enable_given(facts), Cr4::read())
    };
    // SAFETY: as it was.
    unsafe { Cr4::write(before) };
    match result {
        Ok(_) if !after.contains(Cr4Flags::OSXSAVE) => Ok(()),
        _ => Err("FXSAVE leaves CR4.OSXSAVE"),
    }
}
