//! Areas: what each promises of its memory, and the heap's, with an allocator that can refuse.

use core::{cell::Cell, ptr::NonNull};
use fpu_core::{
    align::{AlignTo, Alignment},
    verify::{Scratch, Verified},
    Area, AreaError, BoundCpu, BoundSlot, HeapArea, KernelUnits, NewError, RawFpu, RestoreFault,
    SaveArea, TaskFpu, TheBackend,
};
use fpu_hosted_test::sim::{Registers, SimArea, SimCpu, SimFpu, AREA_LEN};
use std::{alloc::Layout, error::Error};

#[path = "support/allocator.rs"]
mod allocator;
use allocator::{given, refuse, watch};

/// From now on the simulated CPU's areas are counted; how many there are.
fn areas_given() -> isize {
    watch(Layout::from_size_align(AREA_LEN, 64).expect("a layout"));
    given()
}

#[test]
fn a_heap_area_is_zeroed_aligned_and_freed() {
    let cpu = SimCpu::online(0);
    let before = areas_given();
    let areas: Vec<_> = (0..8).map(|_| HeapArea::for_backend(cpu.fpu()).expect("memory")).collect();
    assert_eq!(given(), before + 8);
    for area in &areas {
        assert_eq!((area.len(), area.align()), (AREA_LEN, 64));
        assert_eq!(area.base().as_ptr() as usize % 64, 0);
        // SAFETY: K17: so many bytes, initialised, and no other code has them.
        let bytes = unsafe { core::slice::from_raw_parts(area.base().as_ptr(), area.len()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
    drop(areas);
    assert_eq!(given(), before);
}

#[test]
fn a_context_on_the_heap_goes_the_whole_way() -> Result<(), Box<dyn Error>> {
    let cpu = SimCpu::online(0);
    let before = areas_given();
    // `?` takes both errors, whatever the area is.
    let task = TaskFpu::new(cpu.fpu(), HeapArea::for_backend(cpu.fpu())?)?;
    let mut child = TaskFpu::new(cpu.fpu(), Box::new(HeapArea::for_backend(cpu.fpu())?))?;
    let mut scratch = Scratch::new(cpu.fpu(), HeapArea::for_backend(cpu.fpu())?)?;
    drop(task.switch_return(&mut cpu.irqs_off())?);
    let mine = Registers::pattern(1, u64::MAX);
    cpu.fpu().load(&mine);
    task.fork_into(&mut cpu.irqs_off(), &mut child)?;
    task.switch_prepare(&cpu.irqs_off())?;
    let found = task.verify_registers(&mut cpu.irqs_off(), &mut scratch)?;
    assert_eq!(found, Verified::Agreed);
    drop(child.switch_return(&mut cpu.irqs_off())?);
    drop(task.switch_return(&mut cpu.irqs_off())?);
    assert_eq!(cpu.fpu().registers(), mine);
    drop((task.into_area(), child.into_area(), scratch.into_area()));
    assert_eq!(given(), before);
    Ok(())
}

#[test]
fn without_memory_there_is_an_error_and_no_abort() {
    let cpu = SimCpu::online(0);
    refuse(Some(AREA_LEN));
    let answer = HeapArea::for_backend(cpu.fpu()).map(drop);
    refuse(None);
    assert_eq!(answer, Err(AreaError::OutOfMemory { need: AREA_LEN }));
    assert!(HeapArea::for_backend(cpu.fpu()).is_ok());
}

/// A backend of which only the size counts.
struct Sized(usize, usize);
// SAFETY: B1-B7: no register; no method is called but these two.
unsafe impl RawFpu for Sized {
    type Image<'a> = ();
    type ImageMut<'a> = ();
    fn area_len(&self) -> usize {
        self.0
    }
    fn area_align(&self) -> usize {
        self.1
    }
    unsafe fn write_initial(&self, _: NonNull<u8>) {}
    unsafe fn save(&self, _: NonNull<u8>) {}
    unsafe fn restore(&self, _: NonNull<u8>) -> Result<(), RestoreFault> {
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {}
    unsafe fn image(&self, _: NonNull<u8>) {}
    unsafe fn image_mut(&self, _: NonNull<u8>) {}
}

#[test]
fn sizes_that_no_memory_has_are_refused_and_none_is_one_byte() {
    for need in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 63] {
        // SAFETY: K1: no context is made.
        let backend = unsafe { TheBackend::new(Sized(need, 64)) };
        let answer = HeapArea::for_backend(&backend).map(drop);
        assert_eq!(answer, Err(AreaError::OutOfMemory { need }));
    }
    // SAFETY: K1: nothing is saved.
    let backend = unsafe { TheBackend::new(Sized(0, 8)) };
    let area = HeapArea::for_backend(&backend).expect("memory");
    assert_eq!((area.len(), area.align()), (1, 8));
    assert!(TaskFpu::new(&backend, area).is_ok());
}

/// The type keeps its word about the alignment, and a backend that wants more refuses it.
fn of_alignment<const ALIGN: usize>(enough: bool)
where
    AlignTo<ALIGN>: Alignment,
{
    let (fpu, area) = (SimFpu::new(), Area::<AREA_LEN, ALIGN>::aligned());
    assert_eq!(core::mem::size_of_val(&area), AREA_LEN.next_multiple_of(ALIGN));
    assert_eq!((area.len(), area.align()), (AREA_LEN, ALIGN));
    assert_eq!(area.base().as_ptr() as usize % ALIGN, 0);
    match TaskFpu::new(fpu.the_backend(), area) {
        Ok(task) => assert!(enough && task.address() % ALIGN.max(8) == 0),
        Err(NewError { why, area }) => {
            assert!(!enough);
            assert_eq!((why, area.len()), (AreaError::Misaligned { need: 64 }, AREA_LEN));
        }
    }
}

#[test]
fn an_area_has_the_alignment_of_its_type() {
    of_alignment::<8>(false);
    of_alignment::<16>(false);
    of_alignment::<32>(false);
    of_alignment::<64>(true);
    of_alignment::<128>(true);
}

/// Memory for an image that tells when it is dropped.
struct Told<'t>(SimArea, &'t Cell<u32>);
// SAFETY: K17, K18: those of the area inside.
unsafe impl SaveArea for Told<'_> {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn align(&self) -> usize {
        self.0.align()
    }
}
impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.1.set(self.1.get() + 1);
    }
}
/// The same, and unwinds if it is told to.
struct Unwinds<'t>(Told<'t>, bool);
// SAFETY: K17, K18: those of the area inside.
unsafe impl SaveArea for Unwinds<'_> {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn align(&self) -> usize {
        self.0.align()
    }
}
impl Drop for Unwinds<'_> {
    fn drop(&mut self) {
        assert!(!self.1, "told to");
    }
}
struct ToldPin<'c, A>(&'c SimCpu, &'c BoundCpu<SimFpu, A>);
fpu_core::witness! {
    // SAFETY: K2-K9: one thread, which plays this CPU; no interrupt strikes.
    unsafe impl Pinned + Exclusive + SoftFloat for ToldPin<'_, Told<'_>> {
        backend: SimFpu = |it| it.0.fpu(),
        words: fpu_hosted_test::sim::SimWords = |it| it.0.words(),
        bound: |it| it.1,
    }
    // SAFETY: K2-K9: one thread, which plays this CPU; no interrupt strikes.
    unsafe impl Pinned + Exclusive + SoftFloat for ToldPin<'_, Unwinds<'_>> {
        backend: SimFpu = |it| it.0.fpu(),
        words: fpu_hosted_test::sim::SimWords = |it| it.0.words(),
        bound: |it| it.1,
    }
}

#[test]
fn each_area_is_dropped_once() {
    let (dropped, of_moved) = (Cell::new(0), Cell::new(0));
    let cpu = SimCpu::online(0);
    let new = |told| TaskFpu::new(cpu.fpu(), Told(SimArea::new(), told)).expect("it fits");
    {
        let slots = BoundCpu::<_, _, [fpu_core::BoundSlot<_, _>; 2]>::new(0);
        let slots: &BoundCpu<SimFpu, Told<'_>> = &slots;
        let mut pin = ToldPin(&cpu, slots);
        let one = slots.bind(new(&dropped), &mut pin);
        let two = slots.bind(new(&of_moved), &mut pin);
        drop(one.expect("free"));
        assert_eq!(dropped.get(), 0, "the CPU may be saving it");
        let again = slots.bind(new(&dropped), &mut pin).expect("the slot is free again");
        assert_eq!(dropped.get(), 1);
        let out = two.expect("free").unbind(&mut pin).expect("open");
        assert_eq!(of_moved.get(), 0);
        drop(out);
        assert_eq!(of_moved.get(), 1);
        core::mem::forget(again); // its slot stays taken, and ends with the array
        assert_eq!(dropped.get(), 1);
    }
    assert_eq!((dropped.get(), of_moved.get()), (2, 1), "the slot that was emptied has none");
}

/// Memory for an image whose drop unwinds, once.
#[test]
fn an_area_whose_drop_unwinds_is_not_dropped_again() {
    let dropped = Cell::new(0);
    let cpu = SimCpu::online(0);
    let new = |unwinds| {
        TaskFpu::new(cpu.fpu(), Unwinds(Told(SimArea::new(), &dropped), unwinds)).expect("it fits")
    };
    {
        let slots = BoundCpu::<_, _, [fpu_core::BoundSlot<_, _>; 1]>::new(0);
        let slots: &BoundCpu<SimFpu, Unwinds<'_>> = &slots;
        let mut pin = ToldPin(&cpu, slots);
        drop(slots.bind(new(true), &mut pin).expect("free"));
        let bind = || drop(slots.bind(new(false), &mut pin));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(bind));
        assert!(unwound.is_err());
        assert_eq!(dropped.get(), 2, "the one in the slot, and the one that was to be bound");
        let again = slots.bind(new(false), &mut pin).expect("the slot is empty");
        drop(again);
    }
    assert_eq!(dropped.get(), 3);
}

/// An array of them, one for each CPU, whatever the areas.
#[test]
fn no_two_cpus_bound_contexts_share_a_cache_line() {
    type Of<A> = BoundCpu<SimFpu, A, [BoundSlot<SimFpu, A>; 1]>;
    for (align, size) in [
        (align_of::<Of<SimArea>>(), size_of::<Of<SimArea>>()),
        (align_of::<Of<HeapArea>>(), size_of::<Of<HeapArea>>()),
    ] {
        assert_eq!((align % 64, size % 64), (0, 0));
    }
}
