//! The guard that shuts a CPU to every other user of its registers; and how a CPU comes online and goes offline. No other
//! file stores to a gate.

use super::{
    cpu_word::{gate, set_gate, Stamp},
    word::{Place, Word},
};
use crate::{
    error::Error,
    sync::{compiler_fence, Ordering},
    witness::{Asked, CpuWords, Level, Pinned, Settle},
};

/// A CPU on which no other code can use the registers, until drop. After a forgotten value the CPU
/// refuses with [`Error::Busy`], nothing worse.
///
/// While it lives the CPU's word is closed: it matches no context, and no stamp can be taken on the hot path.
pub(crate) struct Closed<'c, C: Pinned> {
    cpu: &'c mut C,
    /// The stamp with which the CPU is reopened.
    stamp: Stamp,
}

impl<'c, C: Pinned> Closed<'c, C> {
    /// For a section or a session.
    #[inline]
    pub(crate) fn new(cpu: &'c mut C, by: u64) -> Result<Self, Error> {
        refuse_nmi(cpu)?;
        let stamp = close(cpu.words(), by)?;
        Ok(Self { cpu, stamp })
    }
    pub(crate) fn cpu(&self) -> &C {
        self.cpu
    }
    /// The stamp with which the CPU is reopened: until claims end, the stamp under which the registers were loaded.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }
    /// Where a context's state is.
    #[inline]
    pub(crate) fn place(&self, word: Word) -> Place {
        word.against(self.stamp).place()
    }
    /// Saves the bound context that the registers are the only copy of, if there is one.
    #[inline(always)]
    pub(crate) fn settle(&self) {
        self.cpu.settle(Settle(Asked::Under(self.stamp.bits())));
    }
    /// From now on no context holds the stamp with which the CPU is reopened; a bound one is saved first. `close` refuses
    /// a CPU that has no stamp left for this.
    #[inline]
    pub(crate) fn end_claims(&mut self) {
        self.settle();
        self.stamp = self.stamp.next();
    }
    /// As [`end_claims`](Self::end_claims), where what the registers held may be gone already, so that a save would be wrong.
    #[inline]
    pub(crate) fn drop_claims(&mut self) {
        self.stamp = self.stamp.next();
    }
    /// Issues another stamp, one for each load of a session, and refuses when none is left. A bound context is saved first.
    #[inline]
    pub(crate) fn issue(&mut self) -> Result<Stamp, Error> {
        self.settle();
        self.stamp = self.stamp.another()?;
        Ok(self.stamp)
    }
    /// Opens the CPU, and tells why the context of `word` cannot be used here.
    pub(crate) fn refuse(self, word: Word) -> Error {
        word.refusal(self.into_cpu().words())
    }
    /// Opens the CPU, and returns the witness.
    pub(crate) fn into_cpu(self) -> &'c mut C {
        open(self.cpu.words(), self.stamp);
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: rests on no duty: moves the reference out of a value that is neither dropped nor used
        // again.
        unsafe { core::ptr::read(&this.cpu) }
    }
}

impl<C: Pinned> Drop for Closed<'_, C> {
    #[inline]
    fn drop(&mut self) {
        open(self.cpu.words(), self.stamp);
    }
}

/// Refuses in a non-maskable interrupt, which may have struck between a comparison and a save.
#[inline]
fn refuse_nmi<C: Pinned + ?Sized>(cpu: &C) -> Result<(), Error> {
    match cpu.level() {
        Level::Nmi => Err(Error::Nmi),
        _ => Ok(()),
    }
}

/// Shuts the gate, and reads the CPU's word behind it.
///
/// An interrupt before the gate is set can run a whole section, or take the CPU offline. After that an interrupt is
/// refused a section, and a load too, which looks at the gate. So the word is read behind the gate, and a plain load and
/// store are enough.
#[inline]
fn shut<W: CpuWords>(cpu: &W, by: u64) -> Result<Stamp, Error> {
    match cpu.gate() {
        gate::OPEN => {}
        gate::OFFLINE => return Err(Error::CpuOffline),
        _ => return Err(Error::Busy),
    }
    set_gate(cpu, by);
    compiler_fence(Ordering::SeqCst);
    let found = Stamp::of(cpu);
    if found.is_offline() {
        // An interrupt has just taken the CPU offline.
        set_gate(cpu, gate::OFFLINE);
        return Err(Error::CpuOffline);
    }
    Ok(found)
}

/// Shuts the gate and closes the CPU's word; returns the stamp with which to open both again.
#[inline]
fn close<W: CpuWords>(cpu: &W, by: u64) -> Result<Stamp, Error> {
    let found = shut(cpu, by)?;
    if found.none_left() {
        set_gate(cpu, gate::OPEN);
        return Err(Error::Exhausted);
    }
    if found.left_closed() {
        // An interrupt has just begun a section or session and forgotten the guard. The CPU stays closed.
        return Err(Error::Busy);
    }
    found.closed().set(cpu);
    Ok(found.open())
}

/// Stores the stamp to the CPU's word, then opens the gate.
#[inline]
fn open<W: CpuWords>(cpu: &W, stamp: Stamp) {
    stamp.set(cpu);
    compiler_fence(Ordering::SeqCst);
    set_gate(cpu, gate::OPEN);
}

/// Refuses unless the CPU of this number is open, whose stamps may be used up.
pub(crate) fn refuse_unless_open<W: CpuWords>(cpu: &W, number: u32) -> Result<(), Error> {
    match cpu.gate() {
        gate::OPEN if Stamp::of(cpu).is_of(number) => Ok(()),
        gate::OPEN => Err(Error::BoundElsewhere { cpu: number }),
        gate::OFFLINE => Err(Error::CpuOffline),
        _ => Err(Error::Busy),
    }
}

/// Opens a CPU that is offline, under a number.
pub(crate) fn come_online<C: Pinned + ?Sized>(cpu: &C, number: u32) -> Result<(), Error> {
    refuse_nmi(cpu)?;
    let cpu = cpu.words();
    if cpu.gate() != gate::OFFLINE {
        return Err(Error::CpuOnline);
    }
    set_gate(cpu, gate::SESSION);
    compiler_fence(Ordering::SeqCst);
    let found = Stamp::of(cpu);
    if !found.is_offline() {
        // An interrupt has just brought the CPU online. Where the interrupt forgot a guard, the CPU stays closed.
        if !found.left_closed() {
            set_gate(cpu, gate::OPEN);
        }
        return Err(Error::CpuOnline);
    }
    match found.online(number) {
        Ok(stamp) => open(cpu, stamp),
        Err(why) => {
            set_gate(cpu, gate::OFFLINE);
            return Err(why);
        }
    }
    Ok(())
}

/// Closes a CPU until [`come_online`]. A CPU that has used up its stamps can go offline, too.
pub(crate) fn go_offline<C: Pinned>(witness: &C) -> Result<(), Error> {
    refuse_nmi(witness)?;
    let cpu = witness.words();
    let found = shut(cpu, gate::SESSION)?;
    if found.left_closed() {
        // An interrupt has just begun a section or session and forgotten the guard. How many stamps that
        // session has issued is not known here, so no word is sure to lie behind all of them.
        return Err(Error::Busy);
    }
    witness.settle(Settle(Asked::Under(found.bits())));
    found.offline().set(cpu);
    compiler_fence(Ordering::SeqCst);
    set_gate(cpu, gate::OFFLINE);
    Ok(())
}

/// Ends the claims on a CPU; also where it returns [`Error::Exhausted`], after which nothing can be loaded there.
pub(crate) fn invalidate<C: Pinned>(cpu: &C) -> Result<(), Error> {
    refuse_nmi(cpu)?;
    let cpu = cpu.words();
    let found = shut(cpu, gate::SESSION)?;
    if found.none_left() {
        open(cpu, found.used_up());
        return Err(Error::Exhausted);
    }
    if found.left_closed() {
        // Forgotten by an interrupt, as in `close`. The CPU stays closed.
        return Err(Error::Busy);
    }
    open(cpu, found.next());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        cpu_word::tests::{online, stamp, ALL},
        steps::due_on_entry,
        word::TaskWord,
    };

    #[test]
    fn a_closed_cpu_refuses_whatever_its_count() {
        for count in [0, 1, ALL / 2, ALL - 4, ALL - 3, ALL - 1] {
            let (cpu, now) = (online(7, count), stamp(7, count));
            let Ok(open_word) = close(&cpu, gate::SESSION) else {
                assert!(count >= ALL - 3);
                assert_eq!((Stamp::of(&cpu), cpu.gate()), (now, gate::OPEN));
                continue;
            };
            assert_eq!(open_word, now);
            let (nowhere, live, other) = (TaskWord::new(), TaskWord::new(), TaskWord::new());
            live.mark_live(now);
            other.publish(Word::both(stamp(0, 1)));
            let both = TaskWord::new();
            both.publish(Word::both(now));
            for word in [nowhere, live, both, other] {
                assert!(matches!(due_on_entry(&word, &cpu), Err(Error::Busy)), "{word:?}");
                assert_eq!(Stamp::of(&cpu), now.closed());
            }
            open(&cpu, now);
            assert_eq!((Stamp::of(&cpu), cpu.gate()), (now, gate::OPEN));
        }
    }
}
