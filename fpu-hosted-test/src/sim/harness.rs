//! The simulated CPU as the conformance suite sees it.

use super::{layout::ALL, Flaw, Registers, SimFpu, SimImage, SimImageMut, COMPONENTS, LAYOUT};
use crate::conformance::{save_if_changed, Harness, Outcome, Step, Trap};
use core::ptr::NonNull;
use fpu_core::{
    trap::TrapFpu,
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu,
};
use fpu_x86::units::{SIMD, X87};

/// The simulated backend, sound or not.
///
/// ```
/// use fpu_hosted_test::{conformance, sim::SimHarness};
/// assert!(conformance::check(&mut SimHarness::new()).passed());
/// ```
pub struct SimHarness {
    fpu: SimFpu,
    count: fn() -> Option<u64>,
    allocations: u64,
}

impl SimHarness {
    /// The harness of the sound backend.
    #[must_use]
    pub fn new() -> Self {
        Self::of(SimFpu::new())
    }
    fn of(fpu: SimFpu) -> Self {
        fpu.tell_unchanged();
        Self { fpu, count: || None, allocations: 0 }
    }
    /// The harness of a broken backend.
    #[must_use]
    pub fn with_flaw(flaw: Flaw) -> Self {
        Self::of(SimFpu::with_flaw(flaw))
    }
    /// With a way to tell how often this thread has allocated.
    #[must_use]
    pub fn counting(self, count: fn() -> Option<u64>) -> Self {
        Self { count, ..self }
    }
}
impl Default for SimHarness {
    fn default() -> Self {
        Self::new()
    }
}

impl Harness for SimHarness {
    type Fpu = SimFpu;
    type Registers = Registers;

    fn fpu(&self) -> &SimFpu {
        &self.fpu
    }
    fn components(&self) -> u32 {
        COMPONENTS as u32
    }
    fn inherited(&self) -> u64 {
        (0..COMPONENTS).filter(|&c| LAYOUT[c].inherited).fold(0, |set, c| set | 1 << c)
    }
    fn pattern(&self, seed: u64, present: u64) -> Registers {
        Registers::pattern(seed, present & ALL)
    }
    unsafe fn run(&mut self, steps: &[Step<'_, Registers>]) -> Outcome<Registers> {
        let mut restored = Ok(());
        for step in steps {
            let before = (self.count)();
            // SAFETY: valid area (C9) by the caller; C10: simulated registers.
            unsafe {
                match *step {
                    Step::Load(registers) => self.fpu.load(registers),
                    Step::Save(area) => self.fpu.save(area),
                    Step::SaveIfChanged(area) => save_if_changed(&self.fpu, area),
                    Step::Restore(area) => restored = self.fpu.restore(area),
                    Step::Adopt(area) => restored = self.fpu.adopt(area),
                    Step::Defaults(units) => self.fpu.kernel_defaults(units),
                    Step::End(units) => self.fpu.section_end(units),
                }
            }
            if let (Some(before), Some(after)) = (before, (self.count)()) {
                self.allocations += after - before;
            }
        }
        Outcome { restored, registers: self.fpu.registers() }
    }
    fn units(&self) -> u32 {
        2
    }
    fn defaults_hold(&self, registers: &Registers, units: KernelUnits) -> bool {
        let initial = Registers::initial();
        (!units.contains(X87) || registers.component(0) == initial.component(0))
            && (!units.contains(SIMD) || registers.component(1)[0] == initial.component(1)[0])
    }
    fn view(&self, image: SimImage<'_>) -> Option<Registers> {
        Some(image.registers())
    }
    fn write(&self, mut image: SimImageMut<'_>, registers: &Registers) -> bool {
        image.set(registers);
        true
    }
    fn spoil(&self, image: &mut [u8]) -> bool {
        // A bit in the header that no component has.
        image[7] |= 0x80;
        true
    }
    fn omit(&self, image: &mut [u8], components: u64) -> bool {
        // The first word says what is present; no more than four components.
        image[0] &= !(components as u8);
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
    fn keeps_awake(&self) -> u64 {
        (0..COMPONENTS).filter(|&c| LAYOUT[c].keeps_awake).fold(0, |set, c| set | 1 << c)
    }
    fn idle(&mut self, registers: &Registers) -> Option<(bool, Registers)> {
        self.fpu.load(registers);
        // SAFETY: C10: simulated registers.
        let awake = unsafe { self.fpu.keeps_awake() };
        if awake {
            // SAFETY: C10: simulated registers, which no code needs; `keeps_awake` has just answered.
            unsafe { self.fpu.release() };
        }
        Some((awake, self.fpu.registers()))
    }
    fn trap(&mut self, registers: &Registers, component: u32) -> Option<Trap<Registers>> {
        let writes = |fpu: &SimFpu| fpu.task_writes(component as usize, 0, 0);
        self.fpu.load(registers);
        // SAFETY: C50: the simulated backend traps, and no code uses the registers but `writes`.
        unsafe { self.fpu.arm() };
        let armed = !writes(&self.fpu);
        // SAFETY: C50: the simulated backend traps; no task relies on the trap.
        unsafe { self.fpu.disarm() };
        let registers = self.fpu.registers();
        Some(Trap { armed, disarmed: !writes(&self.fpu), registers })
    }
    fn allocations(&self) -> Option<u64> {
        (self.count)().map(|_| self.allocations)
    }
}
