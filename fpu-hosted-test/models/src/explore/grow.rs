//! Contexts whose area is replaced, and what IA32_XFD is to that.
//!
//! An area has more room or less, and a CPU allows registers beyond the least room or disables them, by what it loaded
//! last. A context without room must not run where they are allowed: what it would use no save would keep. One
//! with room must not run where they are disabled.

use fpu_core::{
    grow::{GrowFpu, NoRoom, ReplaceError, ReplaceRefusal},
    CpuWords, Error, KernelFpu, KernelUnits, Level, RawFpu, SaveArea,
};

use super::{
    backend::{Cpu, Pin, Symbolic},
    calls::Call,
    image::{has_room, move_to, Area, INITIAL},
    machine::Machine,
    ops::Irq,
    words::GATE_OPEN,
};
use core::ptr::NonNull;

// SAFETY: B13: every image has 8 bytes. B14: the symbol is all there is. B15: a restore and `adopt` note what the area has
// room for.
unsafe impl GrowFpu for Symbolic {
    type Room = bool;
    fn room_len(&self, _: bool) -> usize {
        8
    }
    unsafe fn room(&self, area: NonNull<u8>) -> bool {
        // SAFETY: the caller's valid area (C9).
        unsafe { has_room(area) }
    }
    /// Whatever is not initial needs the room that it has.
    unsafe fn move_image(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        room: bool,
    ) -> Result<(), NoRoom> {
        self.line.step();
        // SAFETY: the caller's valid area (C9) of both.
        unsafe {
            if has_room(from) && !room && self.image(from) != INITIAL {
                return Err(NoRoom);
            }
            move_to(from, to, room);
        }
        self.line.step();
        Ok(())
    }
}

impl Machine {
    /// Does a CPU allow what this context has room for, and no more?
    pub(super) fn judge_room(&self, cpu: &Cpu, room: bool, context: usize) {
        if cpu.registers.disables.get() == room {
            self.line.report(|| format!("context {context} is loaded under another's IA32_XFD"));
        }
    }

    /// Of the context that is current here, or held by nobody else.
    pub(super) fn replace(&self, cpu: &Cpu, which: usize, room: bool) -> Result<(), Error> {
        let slot = &self.slots[which];
        let mut context = slot.fpu.borrow_mut();
        let mut pin = Pin(cpu, Level::Task);
        self.call(Call::Room);
        let had = context.room(&pin);
        self.call(Call::Replace);
        let replaced = context.replace_area(&mut pin, Area::new(), room);
        let has = context.room(&pin);
        match replaced {
            Ok(_) if has == room => {
                self.judge(which, Self::memory(&context), "an area that it was given");
                Ok(())
            }
            Err(ReplaceError { why: ReplaceRefusal::Refused(why), .. }) if has == had => Err(why),
            Err(ReplaceError { why: ReplaceRefusal::NoRoom, area }) if has == had => {
                if !had || room || slot.expected.get() == INITIAL || area.len() != 8 {
                    self.line.report(|| format!("no room for context {which}"));
                }
                Ok(())
            }
            other => {
                self.line.report(|| format!("the room of context {which}: {has}, {other:?}"));
                Ok(())
            }
        }
    }

    /// Is the context of the task that is current there held exclusively?
    pub(super) fn is_held(&self, cpu: &Cpu) -> bool {
        cpu.current.get().is_some_and(|task| self.slots[task].fpu.try_borrow().is_err())
    }
    /// An interrupt whose handler cannot name the current context, because it is held exclusively: it does without. On a
    /// CPU that is closed the core refuses it in any case.
    pub(super) fn locked_out(&self, cpu: &Cpu, irq: Irq) {
        let level = if irq == Irq::Nmi { Level::Nmi } else { Level::HardIrq };
        if cpu.words.gate() == GATE_OPEN && level != Level::Nmi {
            return;
        }
        let refused = Pin(cpu, level).with_kernel_fpu(None, KernelUnits::ALL, || ());
        if !matches!(refused, Err(Error::Nmi | Error::Busy | Error::CpuOffline)) {
            self.line.report(|| format!("not refused while an area is replaced: {refused:?}"));
        }
    }

    /// Of a context that is live on another CPU.
    pub(super) fn refused_area(&self, cpu: &Cpu, which: usize) -> Option<Result<(), Error>> {
        let mut context = self.slots[which].fpu.try_borrow_mut().ok()?;
        let room = context.room(&Pin(cpu, Level::Task));
        match context.replace_area(&mut Pin(cpu, Level::Task), Area::new(), room) {
            Err(ReplaceError { why: ReplaceRefusal::Refused(why), .. }) => Some(Err(why)),
            _ => Some(Ok(())),
        }
    }
}
