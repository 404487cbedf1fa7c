//! The plan as a backend that can be told to be wrong. A kernel of yours has no such file.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};

use fpu_core::{
    grow::{GrowFpu, NoRoom},
    trap::TrapFpu,
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu, RestoreFault,
};
use fpu_x86::{Components, DynamicPlan, Image, ImageMut, Plan, Room, SaveInstruction, XfdCopy};

use crate::{amx, faults::Fault};

/// The fault's number and one, 0 for none.
static FAULT: AtomicU8 = AtomicU8::new(0);

/// Seeds a fault, before the first task runs.
pub fn seed(fault: Option<Fault>) {
    FAULT.store(fault.map_or(0, |fault| fault as u8 + 1), Ordering::Relaxed);
}

/// Tells whether this fault is seeded.
#[inline(always)]
pub fn on(fault: Fault) -> bool {
    FAULT.load(Ordering::Relaxed) == fault as u8 + 1
}

/// A vector instruction where there should be none.
#[inline(never)]
pub fn seeded_vector_instruction() {
    // SAFETY: it is what K9 (soft-float) forbids, and what the fault is for; the compiler uses no vector registers.
    unsafe { core::arch::asm!("pxor xmm7, xmm7", options(nomem, nostack, preserves_flags)) }
}

/// What a save that leaves XMM out keeps.
const X87_PART: usize = 160;

/// A plan, and its broken copies.
pub struct Seeded<X> {
    plan: Plan,
    /// The same with tiles on demand. Saves and restores go by it, if there is one.
    small: Option<DynamicPlan<X>>,
    /// What `small` has, for the fault.
    copy: X,
    /// Executes the same instruction with fewer components.
    narrow: Option<Plan>,
    /// Its restores are executed instead: another instruction, or fewer components.
    other: Option<Plan>,
    /// Every image has SSE state.
    keeps_sse: bool,
}

impl<X: XfdCopy> Seeded<X> {
    pub fn new(plan: Plan, small: Option<DynamicPlan<X>>, copy: X, keeps_sse: bool) -> Self {
        let narrow = Plan::detect_kernel_given(plan.cpuid_info().clone(), Components::LEGACY);
        let narrow =
            narrow.and_then(|narrow| narrow.with_save_instruction(plan.save_instruction()));
        let narrow = narrow.ok().filter(|n| n.components() != plan.components());
        let users = plan.components() & !Components::SUPERVISOR;
        let other = match () {
            () if on(Fault::LegacyRestore) => Some((Components::LEGACY, SaveInstruction::Fxsave)),
            () if on(Fault::UserRestore) => Some((users, plan.save_instruction())),
            () => None,
        };
        let other = other.and_then(|(wanted, rung)| {
            Plan::detect_kernel_given(plan.cpuid_info().clone(), wanted)
                .ok()?
                .with_save_instruction(rung)
                .ok()
        });
        Self { plan, small, copy, narrow, other, keeps_sse }
    }
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    pub fn small(&self) -> Option<&DynamicPlan<X>> {
        self.small.as_ref()
    }

    /// # Safety
    ///
    /// As for `RawFpu::save`.
    #[inline(never)]
    unsafe fn small_save(&self, small: &DynamicPlan<X>, area: NonNull<u8>) {
        // SAFETY: the caller's.
        unsafe {
            small.save(area);
            if small.room(area) == Room::Full {
                amx::mend(&self.plan, area);
            }
        }
    }

    /// # Safety
    ///
    /// As for `RawFpu::restore`.
    #[inline(never)]
    unsafe fn small_restore(
        &self,
        small: &DynamicPlan<X>,
        area: NonNull<u8>,
    ) -> Result<(), RestoreFault> {
        // SAFETY: the caller's.
        let room = unsafe { small.room(area) };
        if on(Fault::XfdUnwritten) && room == Room::Base {
            // SAFETY: it is what K20 (copy of IA32_XFD) forbids, and what the fault is for.
            unsafe { self.copy.set(small.xfd_of(room).bits()) };
        }
        // SAFETY: the caller's.
        unsafe { small.restore(area) }
    }

    /// Bochs 3.0 keeps MXCSR where an image that it restores has no SSE state, so that plans scrub there. This mends
    /// it outside of the restore, for the sake of the restores that do not.
    ///
    /// # Safety
    ///
    /// As for `RawFpu::image_mut`.
    #[inline(always)]
    unsafe fn keep_sse(&self, area: NonNull<u8>) {
        if self.keeps_sse {
            // SAFETY: the caller's.
            let mut image = unsafe { self.plan.image_mut(area) };
            if !image.as_image().present().contains(Components::SSE) {
                // Legal on every CPU.
                let _set = image.set_mxcsr(0x1F80);
            }
        }
    }

    /// # Safety
    ///
    /// As for `RawFpu::save`.
    #[inline(never)]
    unsafe fn seeded_save(&self, area: NonNull<u8>) {
        if on(Fault::SkipSave) {
            return;
        }
        if let Some(narrow) = &self.narrow {
            // SAFETY: C9, C10: the caller's; a part of the components needs no more bytes.
            return unsafe { narrow.save(area) };
        }
        debug_assert!(self.plan.save_instruction() == SaveInstruction::Fxsave);
        #[repr(C, align(64))]
        struct Legacy([u8; 512]);
        let mut scratch = Legacy([0; 512]);
        // SAFETY: C9: FXSAVE's 512 bytes; C10: the caller's.
        unsafe { self.plan.save(NonNull::from(&mut scratch).cast()) };
        // SAFETY: C9: the caller's.
        unsafe { area.as_ptr().copy_from_nonoverlapping(scratch.0.as_ptr(), X87_PART) };
    }
}

// SAFETY: the backend's duties (B1-B7) are those of the plan; the faults break them on purpose.
unsafe impl<X: XfdCopy> RawFpu for Seeded<X> {
    type Image<'a>
        = Image<'a>
    where
        X: 'a;
    type ImageMut<'a>
        = ImageMut<'a>
    where
        X: 'a;

    fn area_len(&self) -> usize {
        self.small.as_ref().map_or(RawFpu::area_len(&self.plan), RawFpu::area_len)
    }
    unsafe fn image_len(&self, area: NonNull<u8>) -> usize {
        match &self.small {
            // SAFETY: the caller's, as in all of these.
            Some(small) => unsafe { small.image_len(area) },
            None => RawFpu::area_len(&self.plan),
        }
    }
    fn area_align(&self) -> usize {
        self.plan.area_align()
    }
    fn plan_word(&self) -> u64 {
        self.plan.plan_word()
    }
    #[inline(always)]
    fn prefetch(&self, area: NonNull<u8>) {
        self.plan.prefetch(area);
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => small.write_initial(area),
                None => self.plan.write_initial(area),
            }
            self.keep_sse(area);
        }
    }
    #[inline(always)]
    unsafe fn save(&self, area: NonNull<u8>) {
        if on(Fault::SkipSave) || on(Fault::FewComponents) {
            // SAFETY: the caller's, in another way of saving.
            return unsafe { self.seeded_save(area) };
        }
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => self.small_save(small, area),
                None => self.plan.save(area),
            }
            self.keep_sse(area);
        }
    }
    #[inline(always)]
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        if on(Fault::SkipRestore) {
            return Ok(());
        }
        if let Some(other) = &self.other {
            // SAFETY: the caller's; the other plan's area is no larger.
            return unsafe { other.restore(area) };
        }
        // SAFETY: the caller's.
        let answer = unsafe {
            self.keep_sse(area);
            match &self.small {
                Some(small) => self.small_restore(small, area),
                None => self.plan.restore(area),
            }
        };
        if on(Fault::IgnoreFailure) {
            return Ok(());
        }
        answer
    }
    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        // SAFETY: the caller's; tiles on demand change nothing here.
        unsafe { self.plan.kernel_defaults(units) }
    }
    unsafe fn section_end(&self, units: KernelUnits) {
        // SAFETY: the caller's.
        unsafe { self.plan.section_end(units) }
    }
    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        if on(Fault::ForkInherits) {
            let len = RawFpu::area_len(&self.plan);
            // SAFETY: valid area (C9) of both, which do not overlap.
            return unsafe { to.as_ptr().copy_from_nonoverlapping(from.as_ptr(), len) };
        }
        // SAFETY: the caller's; a child has the SSE state of its parent.
        unsafe {
            match &self.small {
                Some(small) => small.copy_for_child(from, to),
                None => self.plan.copy_for_child(from, to),
            }
        }
    }
    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> Image<'a> {
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => small.image(area),
                None => self.plan.image(area),
            }
        }
    }
    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> ImageMut<'a> {
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => small.image_mut(area),
                None => self.plan.image_mut(area),
            }
        }
    }
}

// SAFETY: the comparison's duties (B8-B10) are those of the plan.
unsafe impl<X: XfdCopy> CompareFpu for Seeded<X> {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => small.same_state(one, other),
                None => self.plan.same_state(one, other),
            }
        }
    }
}

// SAFETY: B11 (true answer), B12 (exact release) are those of the plan.
unsafe impl<X: XfdCopy> IdleFpu for Seeded<X> {
    unsafe fn keeps_awake(&self) -> bool {
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => small.keeps_awake(),
                None => self.plan.keeps_awake(),
            }
        }
    }
    unsafe fn release(&self) {
        // SAFETY: the caller's.
        unsafe {
            match &self.small {
                Some(small) => small.release(),
                None => self.plan.release(),
            }
        }
    }
}

// SAFETY: B13 (room in the area), B14 (same state), B15 (no room, no use) are those of the plan; without small areas no code has another room.
unsafe impl<X: XfdCopy> GrowFpu for Seeded<X> {
    type Room = Room;

    fn room_len(&self, room: Room) -> usize {
        self.small.as_ref().map_or(RawFpu::area_len(&self.plan), |small| small.room_len(room))
    }
    unsafe fn room(&self, area: NonNull<u8>) -> Room {
        // SAFETY: the caller's.
        self.small.as_ref().map_or(Room::Full, |small| unsafe { small.room(area) })
    }
    unsafe fn move_image(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        room: Room,
    ) -> Result<(), NoRoom> {
        match &self.small {
            // SAFETY: the caller's.
            Some(small) => unsafe { small.move_image(from, to, room) },
            None => Err(NoRoom),
        }
    }
}

// SAFETY: B18 (whole trap), B19 (exact trap) are those of the plan.
unsafe impl<X: XfdCopy> TrapFpu for Seeded<X> {
    fn traps(&self) -> bool {
        self.plan.traps()
    }
    unsafe fn arm(&self) {
        if !on(Fault::TrapUnarmed) {
            // SAFETY: the caller's.
            unsafe { self.plan.arm() }
        }
    }
    unsafe fn disarm(&self) {
        // SAFETY: the caller's.
        unsafe { self.plan.disarm() }
    }
}
