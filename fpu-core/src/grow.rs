//! Contexts whose area can be replaced: by a larger one when a task first uses registers that its area has no room
//! for, and by a smaller one at exec.
//!
//! A backend with [`GrowFpu`] has areas of more than one size. What an area has room for is written in the area itself,
//! by [`GrowFpu::move_image`]; saves and restores follow that. A new context, a child and a context that was
//! [reset](TaskFpu::reset) have the least room, whatever memory they have.
//!
//! A kernel whose backend has no `GrowFpu` has no code of this.

use core::{fmt, mem, ptr::NonNull};

use crate::{
    area::SaveArea,
    backend::RawFpu,
    error::{AreaError, Error},
    observe::EventKind,
    protocol::{
        closed::Closed,
        cpu_word::gate,
        steps,
        word::{Place, Word},
    },
    task::TaskFpu,
    witness::{Pinned, SoftFloat},
};

/// A backend whose areas differ in what they have room for. Only [`TaskFpu::replace_area`] and [`TaskFpu::room`] ask for
/// it.
///
/// On x86: AMX tiles take 8 KiB, and few tasks use them. IA32_XFD disables them for the others, whose areas have no
/// room for tiles.
///
/// # Safety
///
/// The implementer promises, with B6 (bounded steps) of [`RawFpu`]:
///
/// * **B13** [`room_len`](Self::room_len) never changes, and is [`area_len`](RawFpu::area_len) or more. Of an area that
///   [`move_image`](Self::move_image) has written for a room, every method of the backend reads and writes
///   [`room_len`](Self::room_len) bytes of that room at most, until [`write_initial`](RawFpu::write_initial) or
///   [`copy_for_child`](RawFpu::copy_for_child) makes it one of `area_len` bytes again. [`image_len`](RawFpu::image_len)
///   is that number.
/// * **B14** after [`move_image`](Self::move_image) has returned `Ok`, no task could tell a restore of `to` from one of `from`.
///   `from` is unchanged in any case.
/// * **B15** as long as the registers are those of an area, by a restore from it or by [`adopt`](RawFpu::adopt), a task
///   cannot use a register for which that area has no room: the CPU refuses.
///
/// # Examples
///
/// A CPU with two registers, of which the second is kept in large areas only:
///
/// ```
/// # use core::{cell::Cell, ptr::NonNull};
/// use fpu_core::{grow::{GrowFpu, NoRoom}, RawFpu};
/// # use fpu_core::{KernelUnits, RestoreFault};
/// # /// The second register is refused while `large` is clear. The first word of an image says which it is.
/// # struct Two { one: Cell<u32>, other: Cell<u64>, large: Cell<bool> }
/// # fn large(area: NonNull<u8>) -> bool { unsafe { area.cast::<u32>().as_ptr().read() != 0 } }
/// # // SAFETY: B1-B7: two registers, moved whole as far as there is room; the other one is initial. Nothing faults.
/// # unsafe impl RawFpu for Two {
/// #     type Image<'a> = u32;
/// #     type ImageMut<'a> = ();
/// #     fn area_len(&self) -> usize { 8 }
/// #     fn area_align(&self) -> usize { 8 }
/// #     unsafe fn image_len(&self, area: NonNull<u8>) -> usize { if large(area) { 16 } else { 8 } }
/// #     // SAFETY: valid area (C9) by the caller, here and below.
/// #     unsafe fn write_initial(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(0) } }
/// #     unsafe fn save(&self, area: NonNull<u8>) { unsafe {
/// #         area.cast::<u32>().as_ptr().add(1).write(self.one.get());
/// #         if large(area) { area.cast::<u64>().as_ptr().add(1).write(self.other.get()) }
/// #     } }
/// #     unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> { unsafe {
/// #         self.large.set(large(area));
/// #         self.one.set(area.cast::<u32>().as_ptr().add(1).read());
/// #         self.other.set(if large(area) { area.cast::<u64>().as_ptr().add(1).read() } else { 0 });
/// #         Ok(())
/// #     } }
/// #     unsafe fn kernel_defaults(&self, _: KernelUnits) {}
/// #     unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> u32 { unsafe { area.cast::<u32>().as_ptr().add(1).read() } }
/// #     unsafe fn image_mut<'a>(&'a self, _: NonNull<u8>) {}
/// # }
/// // SAFETY: B13: the first word of an image says whether it has 16 bytes, and no save changes it. B14: both registers are
/// // moved. B15: a restore notes in `large` whether the second register may be used.
/// unsafe impl GrowFpu for Two {
///     type Room = bool;
///     fn room_len(&self, large: bool) -> usize { if large { 16 } else { 8 } }
///     unsafe fn room(&self, area: NonNull<u8>) -> bool { large(area) }
///     unsafe fn move_image(&self, from: NonNull<u8>, to: NonNull<u8>, room: bool) -> Result<(), NoRoom> {
///         let (from, to) = (from.cast::<u64>().as_ptr(), to.cast::<u64>().as_ptr());
///         // SAFETY: the caller's valid areas (C9), of 8 or 16 bytes each.
///         unsafe {
///             let second = if self.room(NonNull::new_unchecked(from).cast()) { from.add(1).read() } else { 0 };
///             if second != 0 && !room {
///                 return Err(NoRoom);
///             }
///             to.write(from.read() >> 32 << 32 | u64::from(room));
///             if room {
///                 to.add(1).write(second);
///             }
///         }
///         Ok(())
///     }
/// }
/// # let cpu = Two { one: Cell::new(1), other: Cell::new(2), large: Cell::new(true) };
/// # let (mut small, mut big) = ([0u64; 1], [0u64; 2]);
/// # let (small, big) = (NonNull::from(&mut small).cast(), NonNull::from(&mut big).cast());
/// # // SAFETY: C9: memory of our own, of 8 and of 16 bytes. C10: the registers are cells.
/// # unsafe {
/// #     cpu.save(small);
/// #     assert_eq!(cpu.move_image(small, big, true), Ok(()));
/// #     cpu.restore(big).unwrap();
/// #     assert_eq!((cpu.one.get(), cpu.other.get(), cpu.image_len(big)), (1, 0, 16));
/// #     cpu.other.set(3);
/// #     cpu.save(big);
/// #     assert_eq!(cpu.move_image(big, small, false), Err(NoRoom));
/// # }
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the areas of the backend `{Self}` are all of one size",
        label = "there is no other room to move an image to",
        note = "`fpu_x86::DynamicPlan` has areas without and with AMX tiles; a backend of your own implements `fpu_core::grow::GrowFpu`"
    )
)]
pub unsafe trait GrowFpu: RawFpu {
    /// What an area can have room for.
    type Room: Copy + fmt::Debug + PartialEq;

    /// Bytes that an area for this must have.
    fn room_len(&self, room: Self::Room) -> usize;

    /// What an area has room for.
    ///
    /// # Safety
    ///
    /// Valid area (C9) of [`RawFpu::write_initial`], reading only, and the area holds an image.
    unsafe fn room(&self, area: NonNull<u8>) -> Self::Room;

    /// Makes of `to` an area with this room that holds the image of `from`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]: what the image holds does not fit. `from` is unchanged, `to` may be anything.
    ///
    /// # Safety
    ///
    /// Valid area (C9) of [`RawFpu::write_initial`] for both, `from` of its [`image_len`](RawFpu::image_len), `to` of
    /// [`room_len`](Self::room_len) bytes; they do not overlap, and `from` holds an image.
    unsafe fn move_image(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        room: Self::Room,
    ) -> Result<(), NoRoom>;
}

/// An image holds registers for which the other area has no room.
///
/// ```
/// assert_eq!(fpu_core::grow::NoRoom.to_string(), "the image holds registers for which the area has no room");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the image holds registers for which the area has no room")
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for NoRoom {}

/// Why a context keeps the area that it has.
///
/// ```
/// use fpu_core::{grow::ReplaceRefusal, AreaError};
/// let why = ReplaceRefusal::Area(AreaError::Misaligned { need: 64 });
/// assert_eq!(why.to_string(), "the save area is not aligned to 64 bytes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceRefusal {
    /// The new area is too small for that room, or misaligned. Nothing has changed.
    Area(AreaError),
    /// The context cannot be reached on this CPU. Nothing has changed, as [`Error`] says.
    Refused(Error),
    /// The image holds registers for which that room has no place. If the registers were the only copy, they have been
    /// saved; nothing else has changed.
    NoRoom,
}

impl fmt::Display for ReplaceRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(why) => why.fmt(f),
            Self::Refused(why) => why.fmt(f),
            Self::NoRoom => NoRoom.fmt(f),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl core::error::Error for ReplaceRefusal {}

/// Why a context keeps its area ([`TaskFpu::replace_area`]), with the new one.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::{grow::{ReplaceError, ReplaceRefusal}, AreaError};
/// # let (mut cpu, mut task) = cpu_and_task_on_demand();
/// // Tiles need 512 bytes.
/// match task.replace_area(&mut cpu, area_on_demand(256), Room::Full) {
///     Err(ReplaceError { why: ReplaceRefusal::Area(AreaError::TooSmall { need: 512, have: 256 }), area }) => drop(area),
///     other => panic!("{other:?}"),
/// }
/// ```
pub struct ReplaceError<A> {
    /// What is wrong.
    pub why: ReplaceRefusal,
    /// The new area. Its bytes may have been written.
    pub area: A,
}

// Whatever the area is: errors are printed, areas are not.
impl<A> fmt::Debug for ReplaceError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplaceError").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<A> fmt::Display for ReplaceError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<A> From<ReplaceError<A>> for ReplaceRefusal {
    fn from(refused: ReplaceError<A>) -> Self {
        refused.why
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl<A> core::error::Error for ReplaceError<A> {}

// The bound is on each method, so that the compiler prints the text of `GrowFpu`.
impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// What the context's area has room for. The task is current here, or the caller holds its context exclusively (K5).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (cpu, task) = cpu_and_task_on_demand();
    /// assert_eq!(task.room(&cpu), Room::Base);
    /// ```
    #[must_use]
    pub fn room<C>(&self, cpu: &C) -> B::Room
    where
        B: GrowFpu,
        C: Pinned<Backend = B>,
    {
        // SAFETY: C9: checked in `new` or `replace_area`; it holds an image since then. Nobody writes what is read: the
        // context is current here or held exclusively (K5), and a save does not write it (B13).
        unsafe { cpu.backend().room(self.base()) }
    }

    /// Gives the context another area, with this room, and returns the one that it had. The state stays what it was.
    ///
    /// The context is current here, or the caller holds it otherwise; `&mut` says that nobody else uses it meanwhile (K5). So an
    /// interrupt must not name it: the handler of a fault that grows a context has interrupts off, or the context is
    /// behind a lock that the handlers of interrupts only try. Sections of interrupts that name no context, or another one, are refused
    /// with [`Error::Busy`] until the call returns.
    ///
    /// If the registers are the only copy, they are saved first, to the area that they came from. The registers' claim ends, on
    /// this CPU or another, before the area changes, and the next return to user mode loads the new one. So a CPU allows a
    /// task the registers that its area has room for, and no others (B15).
    ///
    /// # Errors
    ///
    /// [`ReplaceRefusal`]: the context has the area that it had. The error carries the new one.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, mut task) = cpu_and_task_on_demand();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// assert_eq!(cpu.use_tile0(8), Err(1 << 3));  // #NM: the task's first use of tiles
    /// let old = task.replace_area(&mut cpu, area_on_demand(512), Room::Full).map_err(|refused| refused.why)?;
    /// drop(old);                                  // to where it came from
    /// drop(task.switch_return(&mut cpu)?);        // loads
    /// assert_eq!(cpu.use_tile0(8), Ok(()));       // the instruction again
    /// assert_eq!(cpu.avx0(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "fpstate_realloc")]
    pub fn replace_area<C>(
        &mut self,
        cpu: &mut C,
        area: A,
        room: B::Room,
    ) -> Result<A, ReplaceError<A>>
    where
        B: GrowFpu,
        C: SoftFloat + Pinned<Backend = B>,
    {
        let (need, align) = (cpu.backend().room_len(room), cpu.backend().area_align());
        let have = area.len();
        if have < need {
            let why = ReplaceRefusal::Area(AreaError::TooSmall { need, have });
            return Err(ReplaceError { why, area });
        }
        if area.align() < align || area.base().as_ptr() as usize & (align - 1) != 0 {
            let why = ReplaceRefusal::Area(AreaError::Misaligned { need: align });
            return Err(ReplaceError { why, area });
        }
        let refused = |why, area| Err(ReplaceError { why: ReplaceRefusal::Refused(why), area });
        let closed = match Closed::new(cpu, gate::SESSION) {
            Ok(closed) => closed,
            Err(why) => return refused(why, area),
        };
        let word = self.word.load();
        match closed.place(word) {
            Place::Registers => {
                // SAFETY: C19: checked in `new` or `replace_area`; current here (K5). C20: this CPU has been closed since
                // the word was read. C21: compared just now.
                unsafe { steps::save(self.context(), closed.cpu(), word.saved()) };
            }
            Place::Both | Place::Memory => {}
            Place::Elsewhere => return refused(closed.refuse(word), area),
        }
        // SAFETY: C9: the context's was checked in `new` or when it was given to it (B13), the new one just now; two
        // values (K17, K18). This CPU is closed, so no save goes to the old one, and nobody else uses the context (K5).
        let moved = unsafe { closed.cpu().backend().move_image(self.base(), area.base(), room) };
        if moved.is_err() {
            return Err(ReplaceError { why: ReplaceRefusal::NoRoom, area });
        }
        // Before the area changes: what the registers hold was loaded for the room that it has.
        if self.word.load() != Word::NOWHERE {
            self.word.publish(Word::NOWHERE);
            self.tell(closed.cpu(), EventKind::Invalidated);
        }
        let old = mem::replace(&mut self.area, area);
        drop(closed);
        Ok(old)
    }
}
