//! Which steps are due when a task leaves a CPU or enters user mode, and the steps: one save, one load, and with each the
//! store to the context's word that belongs to it.

use core::{marker::PhantomData, ptr::NonNull};

use super::{
    cpu_word::Stamp,
    word::{Place, TaskWord, Word},
};
use crate::{
    backend::RawFpu,
    error::Error,
    observe::{Event, EventKind},
    witness::{Asked, CpuWords, Exclusive, Pinned, Settle, SoftFloat},
};

/// A context without the type of its area: the context that a section saves, or that a persistent run loads.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// let current = Some(task.context());
/// cpu.with_kernel_fpu(current, KernelUnits::ALL, || { /* vector code */ })?;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[derive(Debug)]
pub struct FpuRef<'t, B> {
    pub(crate) word: &'t TaskWord,
    pub(crate) area: NonNull<u8>,
    pub(crate) backend: PhantomData<fn(&B)>,
}

impl<B> Clone for FpuRef<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B> Copy for FpuRef<'_, B> {}

impl<B> FpuRef<'_, B> {
    #[inline(always)]
    pub(crate) fn tell<C: Pinned>(&self, cpu: &C, kind: EventKind) {
        cpu.observe(Event { kind, context: self.word.as_ptr() as usize });
    }
}

/// Tells which step is due when the task of `word` is switched out of this CPU: none, or a save and the word to publish
/// after it.
#[inline(always)]
pub(crate) fn due_on_leaving<W: CpuWords>(word: &TaskWord, cpu: &W) -> Result<Option<Word>, Error> {
    let w = word.peek();
    if w.in_memory() {
        return Ok(None);
    }
    if !w.is_live_under(Stamp::of(cpu)) {
        return Err(w.refusal(cpu));
    }
    Ok(Some(w.saved()))
}

/// The step that is due before user mode; each carries the stamp under which the task is live afterwards.
pub(crate) enum OnEntry {
    Nothing,
    Mark(Stamp),
    /// The stamp is the CPU's already, and no context has it until the load is done. `moved`: the context was loaded last
    /// on another CPU, whose caches are likely to have the image, or on none.
    Load {
        live: Stamp,
        moved: bool,
    },
}

/// Tells which step is due before the task of `word` enters user mode here.
#[inline(always)]
pub(crate) fn due_on_entry<W: CpuWords>(word: &TaskWord, cpu: &W) -> Result<OnEntry, Error> {
    let current = Stamp::of(cpu);
    let compared = word.peek().against(current);
    match compared.place() {
        Place::Registers => Ok(OnEntry::Nothing),
        Place::Both => Ok(OnEntry::Mark(current)),
        Place::Elsewhere => Err(compared.refusal(cpu)),
        Place::Memory => {
            let fresh = current.next();
            if !fresh.can_be_taken(cpu) {
                return Err(compared.refusal(cpu));
            }
            TaskWord::before_image();
            // Before the registers change: from here on no context claims them. After a load that fails,
            // nothing has to be undone.
            fresh.set(cpu);
            Ok(OnEntry::Load { live: fresh, moved: compared.is_of_another_cpu() })
        }
    }
}

/// Saves the bound context that was live under the CPU's stamp before this one, which the CPU has had since just now. The
/// registers are as they were.
#[inline(always)]
pub(crate) fn settle_before<C: Pinned>(live: Stamp, cpu: &C) {
    cpu.settle(Settle(Asked::Under(live.before().bits())));
}

/// Switches a task out: saves it if a save is due, and tells the observer.
#[inline(always)]
pub(crate) fn leave<C>(context: FpuRef<'_, C::Backend>, cpu: &C) -> Result<(), Error>
where
    C: Exclusive + SoftFloat,
{
    if let Some(saved) = due_on_leaving(context.word, cpu.words())? {
        // SAFETY: C19: checked in `TaskFpu::new`; current here (K5). C20, C21: what is due was compared just now;
        // exclusive (K8).
        unsafe { save(context, cpu, saved) };
        context.tell(cpu, EventKind::Unloaded);
    }
    Ok(())
}

/// Switches a task in: loads it, or marks it live, whichever is due, and tells the observer. `ready` makes the caller's
/// return value from the witness: a `Result` that the caller takes apart once more costs the hot path a stack frame.
#[inline(always)]
pub(crate) fn enter<'c, C, T>(
    context: FpuRef<'_, C::Backend>,
    cpu: &'c mut C,
    ready: impl FnOnce(&'c mut C) -> T,
) -> Result<T, Error>
where
    C: Exclusive + SoftFloat,
{
    match due_on_entry(context.word, cpu.words())? {
        OnEntry::Nothing => {}
        OnEntry::Mark(live) => {
            context.word.mark_live(live);
            context.tell(cpu, EventKind::Skipped);
            context.tell(cpu, EventKind::Loaded);
        }
        OnEntry::Load { live, moved } => {
            settle_before(live, cpu);
            if moved {
                cpu.backend().prefetch(context.area);
            }
            // SAFETY: C19: checked in `TaskFpu::new`; current here (K5). C20: compared just now; exclusive (K8). C22:
            // this CPU has had the stamp since then.
            unsafe { load(context, cpu, live) }?;
            context.tell(cpu, EventKind::Loaded);
        }
    }
    Ok(ready(cpu))
}

/// Tells which steps are due in a switch that assembly executes, in a kernel whose compiled code uses the registers:
/// whether `prev` is to be saved, and the stamp under which `next` is live once it is loaded. A load is due even if both
/// registers and memory hold `next`. The stamp is the CPU's already, and no context has it until the load is done.
#[inline(always)]
pub(crate) fn due_on_switch<W: CpuWords>(
    prev: Option<&TaskWord>,
    next: Option<&TaskWord>,
    cpu: &W,
) -> Result<(bool, Option<Stamp>), Error> {
    let saves = match prev {
        Some(prev) => due_on_leaving(prev, cpu)?.is_some(),
        None => false,
    };
    let Some(next) = next else { return Ok((saves, None)) };
    if saves && prev.is_some_and(|prev| core::ptr::eq(prev, next)) {
        return Ok((false, None));
    }
    let (word, stamp) = (next.load(), Stamp::of(cpu).next());
    if !word.in_memory() || !stamp.can_be_taken(cpu) {
        return Err(word.refusal(cpu));
    }
    // After everything that can be refused, and before the registers change.
    stamp.set(cpu);
    Ok((saves, Some(stamp)))
}

/// Saves the registers to memory, unless memory holds what they hold; only then the context's word says so. This is the one
/// place where the witness and the backend are asked. The steps form and the raw layer have a save of their own: it stands
/// in assembly, behind code that may change the registers after the question.
///
/// # Safety
///
/// * **C19** the context was made with this CPU's backend (K1), so its area is large enough, and only this CPU uses
///   it now (K5).
/// * **C20** nothing but the task has changed the registers since its word was compared with this CPU's: the
///   CPU is closed, or interrupts are off (K8); it is pinned (K2), and kernel code leaves them alone (K9).
/// * **C21** that comparison said that they hold the context.
#[inline(always)]
pub(crate) unsafe fn save<C: Pinned>(context: FpuRef<'_, C::Backend>, cpu: &C, word: Word) {
    let address = context.word.as_ptr() as usize;
    // SAFETY: C9: fitting context (C19). C10: registers untouched (C20). C49: they are the context's (C21).
    // After a "yes" memory is valid without a save: same in the area (K21), same already (B17).
    let done = if cpu.unchanged(address) || unsafe { cpu.backend().unchanged(context.area) } {
        EventKind::Unchanged
    } else {
        // SAFETY: C9: fitting context (C19). C10: registers untouched (C20); what is in the registers is the context's (C21).
        unsafe { cpu.backend().save(context.area) };
        EventKind::Saved
    };
    context.word.publish(word);
    context.tell(cpu, done);
}

/// Loads the registers from memory; only then the context's word says that they are the only copy. If the hardware
/// refuses the image, no context claims the registers, and the word is as before.
///
/// # Safety
///
/// Fitting context (C19) and registers untouched (C20), and
///
/// * **C22** no context claims the registers: `stamp` is, or is going to be, this CPU's, and no context has it.
#[inline(always)]
pub(crate) unsafe fn load<C: Pinned>(
    context: FpuRef<'_, C::Backend>,
    cpu: &C,
    stamp: Stamp,
) -> Result<(), Error> {
    // SAFETY: fitting context (C19), registers untouched (C20), unowned registers (C22) by the caller.
    unsafe { restore(context, cpu) }?;
    context.word.mark_live(stamp);
    context.tell(cpu, EventKind::Restored);
    Ok(())
}

/// As [`load`], where the task does not enter user mode next: memory stays valid beside the registers.
///
/// # Safety
///
/// As for [`load`].
#[inline]
pub(crate) unsafe fn load_beside<C: Pinned>(
    context: FpuRef<'_, C::Backend>,
    cpu: &C,
    stamp: Stamp,
) -> Result<(), Error> {
    // SAFETY: fitting context (C19), registers untouched (C20), unowned registers (C22) by the caller.
    unsafe { restore(context, cpu) }?;
    context.word.publish(Word::both(stamp));
    context.tell(cpu, EventKind::Restored);
    Ok(())
}

/// # Safety
///
/// As for [`load`].
#[inline(always)]
unsafe fn restore<C: Pinned>(context: FpuRef<'_, C::Backend>, cpu: &C) -> Result<(), Error> {
    // SAFETY: C9: fitting context (C19). C10: registers untouched (C20); no code needs what is in the registers (C22).
    if let Err(why) = unsafe { cpu.backend().restore(context.area) } {
        context.tell(cpu, EventKind::Failed);
        return Err(Error::RestoreFailed(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::cpu_word::{
        gate,
        tests::{online, stamp, Words, ALL},
    };

    fn word(says: Word) -> TaskWord {
        let word = TaskWord::new();
        word.publish(says);
        word
    }
    fn live(stamp: Stamp) -> TaskWord {
        let word = TaskWord::new();
        word.mark_live(stamp);
        word
    }

    #[test]
    fn only_a_load_takes_a_stamp() {
        let now = stamp(2, 5);
        for (word, expect) in [
            (live(now), "nothing"),
            (word(Word::both(now)), "mark"),
            (TaskWord::new(), "load"),
            (word(Word::both(stamp(2, 4))), "load"),
            (live(stamp(2, 4)), "Lost"),
            (live(stamp(4, 1)), "LiveElsewhere { cpu: 4 }"),
        ] {
            let cpu = online(2, 5);
            let got = match due_on_entry(&word, &cpu) {
                Ok(OnEntry::Nothing) => "nothing".into(),
                Ok(OnEntry::Mark(live)) => {
                    assert_eq!(live, now);
                    "mark".into()
                }
                Ok(OnEntry::Load { live, moved }) => {
                    assert_eq!(live, stamp(2, 6));
                    assert_eq!(moved, !word.load().is_of(now));
                    "load".into()
                }
                Err(e) => std::format!("{e:?}"),
            };
            assert_eq!(got, expect, "{word:?}");
            let after = if got == "load" { stamp(2, 6) } else { now };
            assert_eq!(Stamp::of(&cpu), after, "{word:?}");
        }
    }

    #[test]
    fn a_switch_saves_what_the_registers_hold_and_loads_what_memory_holds() {
        let (now, fresh) = (stamp(2, 5), stamp(2, 6));
        let (lost, away) = (live(stamp(2, 4)), live(stamp(4, 1)));
        let in_memory = [TaskWord::new(), word(Word::both(now)), word(Word::both(stamp(4, 1)))];
        let same = live(now);
        let switched = |prev, next| {
            let cpu = online(2, 5);
            let due = due_on_switch(prev, next, &cpu);
            let moves = if matches!(due, Ok((_, Some(_)))) { fresh } else { now };
            assert_eq!(Stamp::of(&cpu), moves);
            due
        };
        assert_eq!(switched(None, None), Ok((false, None)));
        assert_eq!(switched(Some(&same), None), Ok((true, None)));
        assert_eq!(switched(Some(&same), Some(&same)), Ok((false, None)));
        for next in &in_memory {
            assert_eq!(switched(None, Some(next)), Ok((false, Some(fresh))));
            assert_eq!(switched(Some(&same), Some(next)), Ok((true, Some(fresh))));
            assert_eq!(switched(Some(next), Some(next)), Ok((false, Some(fresh))));
            assert_eq!(switched(Some(next), None), Ok((false, None)));
        }
        for prev in [None, Some(&same)] {
            assert_eq!(switched(prev, Some(&lost)), Err(Error::Lost));
            assert_eq!(switched(prev, Some(&away)), Err(Error::LiveElsewhere { cpu: 4 }));
        }
        assert_eq!(switched(None, Some(&same)), Err(Error::LiveHere));
        assert_eq!(switched(Some(&lost), None), Err(Error::Lost));
        assert_eq!(
            switched(Some(&away), Some(&in_memory[0])),
            Err(Error::LiveElsewhere { cpu: 4 })
        );
    }

    #[test]
    fn exhaustion_is_refused_and_never_reissues() {
        let (cpu, last) = (online(0, ALL - 2), stamp(0, ALL - 1));
        let nowhere = TaskWord::new();
        assert!(
            matches!(due_on_entry(&nowhere, &cpu), Ok(OnEntry::Load { live, .. }) if live == last)
        );
        for _ in 0..3 {
            assert!(matches!(due_on_entry(&nowhere, &cpu), Err(Error::Exhausted)));
            assert_eq!(due_on_switch(None, Some(&nowhere), &cpu), Err(Error::Exhausted));
            assert_eq!((Stamp::of(&cpu), cpu.gate()), (last, gate::OPEN));
        }
    }

    #[test]
    fn a_cpu_that_was_never_online_holds_no_context() {
        let cpu = Words::default();
        for word in [TaskWord::new(), live(stamp(0, 1)), word(Word::both(stamp(0, 1)))] {
            assert!(matches!(due_on_entry(&word, &cpu), Err(Error::CpuOffline)));
            assert!(matches!(due_on_leaving(&word, &cpu), Ok(None) | Err(Error::CpuOffline)));
        }
        assert_eq!((cpu.resident(), cpu.gate()), (0, gate::OFFLINE));
    }
}
