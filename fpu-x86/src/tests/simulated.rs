//! CPUs whose registers are an image in memory, of any plan: what the calls on tasks are tried on.

use core::{cell::RefCell, ptr::NonNull};
use std::{vec, vec::Vec};

use fpu_core::{
    Area, CpuFpu, CpuLifecycle, KernelUnits, RawFpu, RestoreFault, SaveSteps, StepsFpu,
    SwitchSteps, TaskFpu, TheBackend, UserSteps,
};

use crate::{
    components::Components,
    fields::{u32_at, u64_at, COMPACTED, MXCSR, XCOMP_BV, XSTATE_BV},
    image::{self, Image, ImageMut},
    plan::Plan,
    save_instruction::Format,
};

const AREA: usize = 16384;

/// The backend of one CPU: a plan, and an image that is the registers.
pub(crate) struct Simulated {
    plan: Plan,
    registers: RefCell<Vec<u8>>,
}

pub(crate) type Task = TaskFpu<Simulated, Area<AREA>>;

/// One CPU.
pub(crate) struct Cpu {
    backend: TheBackend<Simulated>,
    words: CpuFpu,
}

/// On that CPU with interrupts off, in a soft-float kernel.
pub(crate) struct Soft<'c>(pub(crate) &'c Cpu);
/// The same in a kernel compiled with vector instructions.
pub(crate) struct Vector<'c>(pub(crate) &'c Cpu);
/// That task is stopped.
pub(crate) struct Traced<'c>(pub(crate) &'c Cpu, pub(crate) &'c Task);

fpu_core::witness! {
    // SAFETY: K2, K8: one thread, no interrupts. K3, K4: the CPU's words; one layout. K5: the tests open a task on one CPU
    // at a time. K6: no interrupts. K9: simulated registers change only when told to.
    unsafe impl Pinned + Exclusive + SoftFloat for Soft<'_> {
        backend: Simulated = |cpu| &cpu.0.backend,
        words: CpuFpu = |cpu| &cpu.0.words,
    }
    // SAFETY: K2 to K6, K8: the same.
    unsafe impl Pinned + Exclusive for Vector<'_> {
        backend: Simulated = |cpu| &cpu.0.backend,
        words: CpuFpu = |cpu| &cpu.0.words,
    }
    // SAFETY: K10: one thread: the task runs nowhere while the value lives. K11: one value at a time. K12: a field.
    unsafe impl Stopped for Traced<'_> {
        backend: Simulated = |proof| &proof.0.backend,
        context: |proof| proof.1.context(),
    }
}

// SAFETY: B16: what the tests execute are these two.
unsafe impl StepsFpu for Simulated {}

// SAFETY: B1: the plan's sizes. B2, B3: whole images, in which what is absent is initial. B4: a refused image is only looked
// at. B5: refused is what the SDM says of XRSTOR (vol. 1, 13.8), which the plan's setters do not write. B6: nothing of the
// kind but for the tests' own vectors. B7: nothing is left out.
unsafe impl RawFpu for Simulated {
    type Image<'a> = Image<'a>;
    type ImageMut<'a> = ImageMut<'a>;

    fn area_len(&self) -> usize {
        self.plan.area_len()
    }
    fn area_align(&self) -> usize {
        64
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        // SAFETY: valid area (C9), by the caller.
        let bytes = unsafe { self.bytes_mut(area) };
        bytes.fill(0);
        image::write_initial(bytes, &self.plan);
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: valid area (C9), by the caller.
        unsafe { self.bytes_mut(area) }.copy_from_slice(&self.registers.borrow());
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: valid area (C9), by the caller.
        let bytes = unsafe { self.bytes(area) };
        let mut registers = self.registers.borrow_mut();
        if !self.loads(bytes) {
            registers.fill(0);
            image::write_initial(&mut registers, &self.plan);
            return Err(RestoreFault(13));
        }
        registers.copy_from_slice(bytes);
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {}
    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> Image<'a> {
        // SAFETY: valid area (C9) and no other writer (C11), by the caller.
        Image::new(unsafe { self.bytes(area) }, &self.plan)
    }
    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> ImageMut<'a> {
        // SAFETY: valid area (C9), no other writer (C11) nor reader, by the caller.
        ImageMut::new(unsafe { self.bytes_mut(area) }, &self.plan)
    }
}

impl Simulated {
    /// # Safety
    ///
    /// Valid area (C9), and nothing writes it.
    unsafe fn bytes<'a>(&self, area: NonNull<u8>) -> &'a [u8] {
        // SAFETY: as the caller promises.
        unsafe { core::slice::from_raw_parts(area.as_ptr(), self.plan.area_len()) }
    }
    /// # Safety
    ///
    /// Valid area (C9), and nothing else uses it.
    #[allow(clippy::mut_from_ref)] // the area is not the backend's
    unsafe fn bytes_mut<'a>(&self, area: NonNull<u8>) -> &'a mut [u8] {
        // SAFETY: as the caller promises.
        unsafe { core::slice::from_raw_parts_mut(area.as_ptr(), self.plan.area_len()) }
    }
    /// Would XRSTOR, or FXRSTOR?
    fn loads(&self, bytes: &[u8]) -> bool {
        let mxcsr = u32_at(bytes, MXCSR) & !self.plan.mxcsr_mask() == 0;
        let (present, format) = (u64_at(bytes, XSTATE_BV), u64_at(bytes, XCOMP_BV));
        let set = self.plan.components().bits();
        match self.plan.format() {
            Format::Legacy => mxcsr,
            Format::Standard => mxcsr && present & !set == 0 && format == 0,
            Format::Compacted => {
                (mxcsr || present & 2 == 0) && present & !set == 0 && format == COMPACTED | set
            }
        }
    }
}

impl Cpu {
    /// Several, online.
    pub(crate) fn some(plan: &Plan, count: u32) -> Vec<Self> {
        assert!(plan.area_len() <= AREA);
        let one = |number| {
            let mut initial = vec![0; plan.area_len()];
            image::write_initial(&mut initial, plan);
            let backend = Simulated { plan: plan.clone(), registers: RefCell::new(initial) };
            // SAFETY: K1: all values here have one plan, and no context outlives a test's plan.
            let cpu = Self { backend: unsafe { TheBackend::new(backend) }, words: CpuFpu::new() };
            // SAFETY: K15: each has its number. K16: the words are new.
            unsafe { Soft(&cpu).fpu_online(number) }.unwrap();
            cpu
        };
        (0..count).map(one).collect()
    }
    pub(crate) fn task(&self) -> Task {
        TaskFpu::new(&self.backend, Area::new()).unwrap()
    }
    pub(crate) fn registers(&self) -> Vec<u8> {
        self.backend.registers.borrow().clone()
    }
    /// User mode changes them.
    pub(crate) fn load(&self, registers: &[u8]) {
        self.backend.registers.borrow_mut().copy_from_slice(registers);
    }
    /// The task enters user mode here, and has these registers.
    pub(crate) fn enter(&self, task: &Task) -> Vec<u8> {
        drop(task.switch_return(&mut Soft(self)).unwrap());
        self.registers()
    }
    /// The bytes of a task's image, where memory holds it.
    pub(crate) fn memory(&self, task: &Task) -> Option<Vec<u8>> {
        let mut cpu = Vector(self);
        let session = task.open_saved(&mut cpu).ok()?;
        let bytes = session.image().bytes().to_vec();
        drop(session);
        Some(bytes)
    }

    /// What assembly does at a switch.
    ///
    /// # Safety
    ///
    /// The steps are those of a plan that is alive.
    pub(crate) unsafe fn save_by(&self, steps: &SaveSteps) {
        // SAFETY: C9: the plan's area. C10: simulated registers.
        unsafe { self.backend.save(NonNull::new(steps.save_to).unwrap()) };
    }
    /// What assembly does at a switch from a task to none.
    ///
    /// # Safety
    ///
    /// Steps in order (C39) and registers kept for the steps (C40).
    pub(crate) unsafe fn leave_by(&self, steps: &SwitchSteps) {
        if let Some(area) = NonNull::new(steps.save_to) {
            // SAFETY: C9: the area of a context that is alive (C39). C10: simulated registers.
            unsafe { self.backend.save(area) };
            // SAFETY: that context's word (C39).
            unsafe { steps.save_word.write_volatile(steps.saved) };
        }
    }
    /// What assembly does before user mode.
    ///
    /// # Safety
    ///
    /// The steps are those of a plan that is alive.
    pub(crate) unsafe fn restore_by(&self, steps: &UserSteps) -> Result<(), RestoreFault> {
        match NonNull::new(steps.restore_from.cast_mut()) {
            // SAFETY: C9: the plan's area. C10: simulated registers.
            Some(area) => unsafe { self.backend.restore(area) },
            None => Ok(()),
        }
    }
    /// As [`enter`](Self::enter), by steps.
    pub(crate) fn enter_by_steps(&self, task: &Task) -> Vec<u8> {
        let mut cpu = Vector(self);
        let pending = task.begin_user(&mut cpu).unwrap();
        // SAFETY: `pending` is alive. C12, C13: executed just now, and simulated registers change only when told to.
        unsafe {
            self.restore_by(pending.steps()).unwrap();
            drop(pending.restored());
        }
        self.registers()
    }
}

/// The supervisor components of these registers, absent ones as zeros.
pub(crate) fn supervisor(registers: &[u8], plan: &Plan) -> Vec<Vec<u8>> {
    let image = Image::new(registers, plan);
    let held = plan.components() & Components::SUPERVISOR;
    held.iter()
        .map(|component| {
            let mut bytes = vec![0; plan.place(component).unwrap().1];
            image.read(component, 0, &mut bytes).unwrap();
            bytes
        })
        .collect()
}
