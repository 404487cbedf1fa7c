//! The x86 backend on this CPU's registers, as the conformance suite sees it.

use std::{
    arch::global_asm,
    ffi::c_void,
    fmt,
    ptr::{addr_of_mut, NonNull},
    sync::OnceLock,
};

use fpu_core::{
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu,
};
use fpu_x86::units::{SIMD, X87};
use fpu_x86::{Components, Format, Image, ImageMut, Plan, PlanError, SaveInstruction};

use super::{
    load_registers, refuses_reserved_mxcsr, run_between, serve_fixups, Classes, RegFile, Thunk,
};
use crate::conformance::{call, Action, Call, Harness, Outcome, Step};

// rdi = calls, ended by a null function. Between two calls no register changes that is not integer.
global_asm!(
    ".pushsection .text.fpu_real_steps,\"ax\",@progbits",
    ".p2align 4",
    ".type fpu_real_steps,@function",
    ".globl fpu_real_steps",
    "fpu_real_steps:",
    "push rbx",
    "mov rbx, rdi",
    "1:",
    "mov rax, [rbx]",
    "test rax, rax",
    "jz 2f",
    "mov rdi, [rbx + 8]",
    "call rax",
    "add rbx, 16",
    "jmp 1b",
    "2: pop rbx",
    "ret",
    ".size fpu_real_steps, . - fpu_real_steps",
    ".popsection",
);

extern "C" {
    fn fpu_real_steps(calls: *mut c_void);
}

/// One entry of the list that the assembly walks.
#[repr(C)]
struct Entry {
    function: Option<Thunk>,
    argument: *mut c_void,
}

unsafe extern "C" fn load(file: *mut c_void) {
    // SAFETY: C31: `run` passes files of the harness's classes. C32: `run_between` ends with it.
    unsafe { load_registers(file.cast()) }
}
unsafe extern "C" fn step<F: RawFpu>(argument: *mut c_void) {
    // SAFETY: `run` passes a `Call` of its own backend; C9 (valid area) and C10 (registers free) are `run`'s.
    unsafe { call::<F>(argument.cast()) }
}

/// A backend to ask, and its answer.
struct Idle<'p, F> {
    fpu: &'p F,
    awake: bool,
}
unsafe extern "C" fn idle<F: IdleFpu>(argument: *mut c_void) {
    // SAFETY: `Harness::idle` passes a live one.
    let idle = unsafe { &mut *argument.cast::<Idle<'_, F>>() };
    // SAFETY: C10: `run_between` has nothing of its own in the registers.
    idle.awake = unsafe { idle.fpu.keeps_awake() };
    if idle.awake {
        // SAFETY: C10: `run_between` needs no register; `keeps_awake` has just answered.
        unsafe { idle.fpu.release() };
    }
}

/// All registers, compared by value.
///
/// ```
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// use fpu_hosted_test::{conformance::Harness, real::RealHarness};
/// use fpu_x86::{Components, Plan};
/// let harness = RealHarness::new(Plan::detect_user(Components::all())?);
/// assert_eq!(harness.pattern(1, 1), harness.pattern(1, 1));
/// assert_ne!(harness.pattern(1, 1), harness.pattern(2, 1));
/// # }
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone)]
pub struct Seen(pub RegFile);

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.0.first_difference(&other.0).is_none()
    }
}
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A plan, or a backend with a plan inside, on the registers of the CPU that this runs on.
///
/// ```
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// use fpu_hosted_test::{conformance, real::RealHarness};
/// use fpu_x86::{Components, Plan};
/// let report = conformance::check(&mut RealHarness::new(Plan::detect_user(Components::all())?));
/// assert!(report.passed(), "{report}");
/// # }
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Debug)]
pub struct RealHarness<F = Plan> {
    fpu: F,
    format: Format,
    classes: Classes,
    parts: Vec<Components>,
    count: fn() -> Option<u64>,
    allocations: u64,
}

/// What a [`RegFile`] holds, in the order of the conformance suite's component bits.
const VISIBLE: [Components; 6] = [
    Components::X87,
    Components::SSE,
    Components::AVX,
    Components::OPMASK,
    Components::ZMM_HI256,
    Components::HI16_ZMM,
];

impl RealHarness {
    /// The harness of a plan; [serves fixups](serve_fixups) from now on.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        serve_fixups();
        let has = |component| plan.components().contains(component);
        let parts: Vec<_> = VISIBLE.into_iter().filter(|component| has(*component)).collect();
        let mut classes = Classes::BASE;
        if has(Components::AVX) {
            classes = classes.with(Classes::AVX);
        }
        if has(Components::AVX512) {
            classes = classes.with(Classes::AVX512).with(Classes::WIDE_MASKS);
        }
        let classes = classes.and(Classes::detect());
        let format = plan.format();
        Self { fpu: plan, format, classes, parts, count: || None, allocations: 0 }
    }

    /// The harness of a backend with this plan inside, whose new areas are `without` these components.
    ///
    /// ```
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// use fpu_hosted_test::{conformance::Harness, real::RealHarness};
    /// use fpu_x86::{Components, Plan};
    /// let plan = Plan::detect_user(Components::all())?;
    /// let harness = RealHarness::new(plan.clone()).of_backend(plan, Components::empty());
    /// assert!(harness.components() >= 2);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn of_backend<F>(self, fpu: F, without: Components) -> RealHarness<F> {
        let Self { format, classes, mut parts, count, allocations, .. } = self;
        parts.retain(|part| !without.contains(*part));
        RealHarness { fpu, format, classes, parts, count, allocations }
    }

    /// The plan of every rung that this CPU offers to ring 3, and a sentence for every one it does not.
    ///
    /// FXSAVE is tried with a plan for x87 and SSE only.
    #[must_use]
    pub fn rungs() -> (Vec<Self>, Vec<String>) {
        let (mut offered, mut skipped) = (Vec::new(), Vec::new());
        // XSAVES is for ring 0, on every CPU.
        for rung in SaveInstruction::ALL.into_iter().filter(|rung| *rung != SaveInstruction::Xsaves)
        {
            let plan = match rung {
                // SAFETY: C23: the harness of this plan moves x87 and SSE registers only, and every
                // test that uses others loads all of them itself.
                SaveInstruction::Fxsave => unsafe {
                    Plan::detect_user_without(!Components::LEGACY)
                },
                _ => Plan::detect_user(Components::all()),
            };
            match plan.and_then(|plan| plan.with_save_instruction(rung)) {
                Ok(plan) => offered.push(Self::new(plan)),
                Err(why @ PlanError::Unavailable(_)) => skipped.push(why.to_string()),
                Err(why) => skipped.push(format!("{rung:?}: {why}")),
            }
        }
        (offered, skipped)
    }
}

impl<F> RealHarness<F> {
    /// With a way to tell how often this thread has allocated.
    #[must_use]
    pub fn counting(self, count: fn() -> Option<u64>) -> Self {
        Self { count, ..self }
    }
    /// The registers it moves and compares.
    #[must_use]
    pub fn classes(&self) -> Classes {
        self.classes
    }
    /// The components it sees, in the order of the suite's component bits.
    #[must_use]
    pub fn parts(&self) -> &[Components] {
        &self.parts
    }
}

/// The vector registers' part that lies in each component, as registers and 8-byte words.
fn part(component: Components) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    match component {
        Components::SSE => (0..16, 0..2),
        Components::AVX => (0..16, 2..4),
        Components::ZMM_HI256 => (0..16, 4..8),
        Components::HI16_ZMM => (16..32, 0..8),
        _ => (0..0, 0..0),
    }
}

/// Copies the registers of one component.
fn take(to: &mut RegFile, from: &RegFile, component: Components) {
    let (registers, words) = part(component);
    for n in registers {
        to.vector_mut(n)[words.clone()].copy_from_slice(&from.vector(n)[words.clone()]);
    }
    match component {
        Components::X87 => {
            to.set_fcw(from.fcw());
            to.set_fsw(from.fsw());
            to.set_ftw(from.ftw());
            for n in 0..8 {
                let (significand, sign_and_exponent) = from.x87(n);
                to.set_x87(n, significand, sign_and_exponent);
            }
        }
        Components::SSE => to.set_mxcsr(from.mxcsr()),
        Components::OPMASK => (0..8).for_each(|n| *to.mask_mut(n) = from.mask(n)),
        _ => {}
    }
}

/// One component's share of vector register `n`, as the view has it.
fn shown(image: &Image<'_>, component: Components, n: usize) -> Option<Vec<u8>> {
    Some(match component {
        Components::SSE => image.xmm(n)?.to_vec(),
        Components::AVX => image.ymm_hi(n)?.to_vec(),
        Components::ZMM_HI256 => image.zmm_hi256(n)?.to_vec(),
        _ => image.zmm_hi16(n)?.to_vec(),
    })
}

impl<F> Harness for RealHarness<F>
where
    F: CompareFpu + IdleFpu + 'static,
    F: for<'a> RawFpu<Image<'a> = Image<'a>, ImageMut<'a> = ImageMut<'a>>,
{
    type Fpu = F;
    type Registers = Seen;

    fn fpu(&self) -> &F {
        &self.fpu
    }
    fn components(&self) -> u32 {
        self.parts.len() as u32
    }
    fn pattern(&self, seed: u64, present: u64) -> Seen {
        let full = RegFile::pattern(seed, self.classes);
        let mut file = RegFile::initial(self.classes);
        for (bit, component) in self.parts.iter().enumerate() {
            if present >> bit & 1 != 0 {
                take(&mut file, &full, *component);
            }
        }
        Seen(file)
    }

    unsafe fn run(&mut self, steps: &[Step<'_, Seen>]) -> Outcome<Seen> {
        let mut calls: Vec<Call<F>> = steps
            .iter()
            .map(|step| {
                let action = match *step {
                    Step::Save(area) => Action::Save(area),
                    Step::SaveIfChanged(area) => Action::SaveIfChanged(area),
                    Step::Restore(area) => Action::Restore(area),
                    Step::Adopt(area) => Action::Adopt(area),
                    Step::Defaults(units) => Action::Defaults(units),
                    Step::End(units) => Action::End(units),
                    Step::Load(_) => Action::Defaults(KernelUnits::NONE), // not called
                };
                Call::new(&self.fpu, action)
            })
            .collect();
        let mut list: Vec<Entry> = Vec::with_capacity(steps.len() + 1);
        for (step_is, call) in steps.iter().zip(&mut calls) {
            list.push(match step_is {
                Step::Load(file) => Entry {
                    function: Some(load),
                    argument: (&file.0 as *const RegFile).cast_mut().cast(),
                },
                _ => Entry { function: Some(step::<F>), argument: addr_of_mut!(*call).cast() },
            });
        }
        list.push(Entry { function: None, argument: std::ptr::null_mut() });
        let before = RegFile::initial(self.classes);
        let mut after = before.clone();
        let allocated = (self.count)();
        // SAFETY: C31: files of classes that the CPU has. C33: the list is complete and alive; its
        // functions are assembly, or Rust that moves a few integers and then calls the backend.
        unsafe { run_between(&before, fpu_real_steps, list.as_mut_ptr().cast(), &mut after) };
        if let (Some(before), Some(after)) = (allocated, (self.count)()) {
            self.allocations += after - before;
        }
        let answers = steps.iter().zip(&calls).rev();
        let restored = answers
            .filter(|(step, _)| matches!(step, Step::Restore(_) | Step::Adopt(_)))
            .map(|(_, call)| call.answer)
            .next();
        Outcome { restored: restored.unwrap_or(Ok(())), registers: Seen(after) }
    }

    fn units(&self) -> u32 {
        2
    }

    fn defaults_hold(&self, registers: &Seen, units: KernelUnits) -> bool {
        let Seen(file) = registers;
        (!units.contains(X87) || (file.fcw(), file.fsw(), file.ftw()) == (0x37F, 0, 0))
            && (!units.contains(SIMD) || file.mxcsr() == 0x1F80)
    }

    fn view(&self, image: Image<'_>) -> Option<Seen> {
        let mut file = RegFile::initial(self.classes);
        file.set_fcw(image.fcw());
        file.set_fsw(image.fsw());
        file.set_ftw(image.tags());
        file.set_mxcsr(image.mxcsr());
        for n in 0..8 {
            let bytes = image.st(n)?;
            let (low, high) = bytes.split_at(8);
            let significand = u64::from_le_bytes(low.try_into().ok()?);
            file.set_x87(n, significand, u16::from_le_bytes(high.try_into().ok()?));
            if self.parts.contains(&Components::OPMASK) {
                *file.mask_mut(n) = image.opmask(n)?;
            }
        }
        for component in &self.parts {
            let (registers, words) = part(*component);
            for n in registers {
                let bytes = shown(&image, *component, n)?;
                for (word, eight) in words.clone().zip(bytes.chunks(8)) {
                    file.vector_mut(n)[word] = u64::from_le_bytes(eight.try_into().ok()?);
                }
            }
        }
        Some(Seen(file))
    }

    fn write(&self, mut image: ImageMut<'_>, registers: &Seen) -> bool {
        write_all(&mut image, &registers.0, &self.parts).is_some()
    }

    fn spoil(&self, image: &mut [u8]) -> bool {
        static REFUSES: OnceLock<bool> = OnceLock::new();
        if *REFUSES.get_or_init(refuses_reserved_mxcsr) {
            // A reserved bit of MXCSR; the suite spoils images in which SSE is present.
            image[27] |= 0x80;
            return true;
        }
        // A reserved byte of the header.
        let header = self.format != Format::Legacy;
        if header {
            image[512 + 16] |= 1;
        }
        header
    }
    fn omit(&self, image: &mut [u8], components: u64) -> bool {
        /// XSTATE_BV, in the header behind the legacy region.
        const PRESENT: std::ops::Range<usize> = 512..520;
        const MXCSR: std::ops::Range<usize> = 24..28;
        if self.format == Format::Legacy {
            return false;
        }
        let omitted = |(bit, _): &(usize, &Components)| components >> bit & 1 != 0;
        for (_, component) in self.parts.iter().enumerate().filter(omitted) {
            // The components that a harness sees are in the first byte.
            image[PRESENT][0] &= !(component.bits() as u8);
            // The standard form of XRSTOR loads MXCSR whether SSE is present or not (SDM vol. 1, 13.8.1).
            if *component == Components::SSE && self.format == Format::Standard {
                image[MXCSR].copy_from_slice(&0x1F80u32.to_le_bytes());
            }
        }
        true
    }
    unsafe fn compare(
        &self,
        one: NonNull<u8>,
        other: NonNull<u8>,
    ) -> Option<Result<(), Difference>> {
        // SAFETY: valid area (C9), no other writer (C11) by the caller.
        Some(unsafe { self.fpu.same_state(one, other) })
    }
    // A `RegFile` has no tiles, so `keeps_awake` is 0: what is seen is that no other register changes.
    fn idle(&mut self, registers: &Seen) -> Option<(bool, Seen)> {
        let mut after = registers.0.clone();
        let mut job = Idle { fpu: &self.fpu, awake: false };
        // SAFETY: C31: files of classes that the CPU has. C33: a live argument; the thunk moves a few integers.
        unsafe { run_between(&registers.0, idle::<F>, addr_of_mut!(job).cast(), &mut after) };
        Some((job.awake, Seen(after)))
    }
    fn allocations(&self) -> Option<u64> {
        (self.count)().map(|_| self.allocations)
    }
}

fn write_all(image: &mut ImageMut<'_>, file: &RegFile, parts: &[Components]) -> Option<()> {
    image.set_fcw(file.fcw());
    image.set_fsw(file.fsw());
    for n in 0..8 {
        let (significand, sign_and_exponent) = file.x87(n);
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&significand.to_le_bytes());
        bytes[8..].copy_from_slice(&sign_and_exponent.to_le_bytes());
        image.set_st(n, bytes).ok()?;
    }
    image.set_tags(file.ftw());
    image.set_mxcsr(file.mxcsr()).ok()?;
    for component in parts {
        let (registers, words) = part(*component);
        for n in registers {
            let mut bytes = [0; 64];
            let used = 8 * words.len();
            for (eight, word) in bytes.chunks_mut(8).zip(&file.vector(n)[words.clone()]) {
                eight.copy_from_slice(&word.to_le_bytes());
            }
            match *component {
                Components::SSE => image.set_xmm(n, bytes[..used].try_into().ok()?),
                Components::AVX => image.set_ymm_hi(n, bytes[..used].try_into().ok()?),
                Components::ZMM_HI256 => image.set_zmm_hi256(n, bytes[..used].try_into().ok()?),
                _ => image.set_zmm_hi16(n, bytes),
            }
            .ok()?;
        }
        if *component == Components::OPMASK {
            (0..8).try_for_each(|n| image.set_opmask(n, file.mask(n)).ok())?;
        }
    }
    Some(())
}
