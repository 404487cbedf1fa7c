//! The kernel to compare with: it saves a task whenever it leaves and loads it whenever it comes, and
//! saves and loads around every section, and the host's registers and the guest's around every run of a
//! guest. It runs the same scripts with the same instructions and checks.
//!
//! The kernel is the cheapest of its kind: idle and kernel threads have no registers of their own, and a save
//! done on entry is not repeated at the switch.

use std::{
    ffi::c_void,
    ptr::{addr_of_mut, null},
    sync::atomic::Ordering,
};

use fpu_core::RawFpu;
use fpu_hosted_test::real::{call_preserving, load_registers};

use crate::{
    quiet::{quiet_cycles, quiet_put, quiet_seed, quiet_stamp, quiet_wait, Worker},
    rare::{eager_fork, eager_poke, spawn, Rare},
    script::{Kind, Op, NO_TASK},
    trip::{restore, save, user_trip},
    world::{Slot, DONE, HOST_RESTORED, HOST_SAVED, RESTORED, SAVED},
};

impl Worker<'_> {
    /// Executes this CPU's operations eagerly.
    #[inline(never)]
    pub fn quiet_eager(&mut self) {
        let world = self.world;
        let (mask, instructions) = (world.setup.plan.plan_word(), world.instructions);
        for (at, op) in world.ops.iter().enumerate() {
            if op.cpu != self.number {
                continue;
            }
            let record = &world.records[at];
            let slot = if op.task == NO_TASK { None } else { world.slots.get(op.task as usize) };
            if let Some(slot) = slot {
                if !quiet_wait(&slot.turn, op.turn, &world.abort) {
                    return;
                }
            }
            let mut flags = DONE;
            match (op.kind, slot) {
                (Kind::User | Kind::UserSave, Some(slot)) => {
                    if !self.quiet_eager_user(at, op, slot) {
                        self.failed_at = Some(at);
                        world.abort.store(1, Ordering::Relaxed);
                        return;
                    }
                    flags = record.flags.load(Ordering::Relaxed);
                }
                (Kind::Out, Some(slot)) => {
                    let from = quiet_stamp();
                    if slot.saved_on_entry.load(Ordering::Relaxed) == 0 {
                        // SAFETY: C27: the slot's area.
                        unsafe { save(slot.area(), mask, instructions.save) };
                        slot.saved_on_entry.store(1, Ordering::Relaxed);
                        flags |= SAVED;
                    }
                    record.cycles.store(quiet_cycles(from, quiet_stamp()), Ordering::Relaxed);
                }
                (Kind::Section, slot) => {
                    let from = quiet_stamp();
                    if let Some(slot) = slot {
                        // SAFETY: C27: the slot's area.
                        unsafe { save(slot.area(), mask, instructions.save) };
                        flags |= SAVED | RESTORED;
                    }
                    let to = quiet_stamp();
                    // SAFETY: C31: a file of this machine's classes. C32: at the end of the run.
                    unsafe { load_registers(&world.scribble) };
                    let again = quiet_stamp();
                    if let Some(slot) = slot {
                        // SAFETY: C27: the slot's area. C28: this function is scalar.
                        unsafe { restore(slot.area(), mask, instructions.restore) };
                    }
                    let rest = quiet_cycles(again, quiet_stamp());
                    record.cycles.store(quiet_cycles(from, to), Ordering::Relaxed);
                    record.entry_cycles.store(rest, Ordering::Relaxed);
                }
                (Kind::Guest, host) => {
                    if !self.quiet_eager_guest(at, op, host) {
                        self.failed_at = Some(at);
                        world.abort.store(1, Ordering::Relaxed);
                        return;
                    }
                    flags = record.flags.load(Ordering::Relaxed);
                }
                (Kind::Spawn | Kind::Poke | Kind::Fork, Some(slot)) => {
                    if !self.quiet_eager_rare(op, slot) {
                        return;
                    }
                    if op.kind as u8 == Kind::Fork as u8 {
                        flags |= SAVED;
                    }
                }
                _ => std::hint::spin_loop(),
            }
            record.flags.store(flags, Ordering::Relaxed);
            if let Some(slot) = slot {
                slot.turn.store(op.turn + 1, Ordering::Release);
            }
        }
    }

    #[inline(never)]
    fn quiet_eager_user(&mut self, at: usize, op: &Op, slot: &Slot) -> bool {
        let world = self.world;
        let record = &world.records[at];
        // SAFETY: this operation has the turn.
        let (expected, next) = unsafe { (&*slot.expected(), &mut *slot.next()) };
        next.quiet_set_pattern(quiet_seed(world, op.task, slot));
        let save_on_entry = u64::from(op.kind as u8 == Kind::UserSave as u8);
        let (trip, steps) = (&mut self.trip, &mut self.steps);
        let from = quiet_stamp();
        quiet_put(&mut steps.restore_from, if op.switched_in { slot.area() } else { null() });
        quiet_put(&mut steps.save_to, slot.area());
        quiet_put(&mut steps.word, slot.unused_word.as_ptr());
        quiet_put(&mut trip.steps, std::ptr::from_ref(steps));
        quiet_put(&mut trip.seen, slot.seen());
        quiet_put(&mut trip.next, next);
        quiet_put(&mut trip.save_on_entry, save_on_entry);
        // SAFETY: C27: the slot's area and files. C28: this function is scalar.
        unsafe { user_trip(trip) };
        slot.saved_on_entry.store(save_on_entry as u32, Ordering::Relaxed);
        let mut flags = DONE;
        if op.switched_in {
            flags |= RESTORED;
        }
        if save_on_entry != 0 {
            flags |= SAVED;
        }
        record.flags.store(flags, Ordering::Relaxed);
        record.cycles.store(quiet_cycles(from, trip.at_user), Ordering::Relaxed);
        record.entry_cycles.store(quiet_cycles(trip.at_entry, trip.at_saved), Ordering::Relaxed);
        // SAFETY: this operation has the turn.
        self.register = expected.quiet_first_difference(unsafe { &*slot.seen() });
        if self.register != u32::MAX {
            return false;
        }
        slot.trips.store(slot.trips.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        slot.parity.store(slot.parity.load(Ordering::Relaxed) ^ 1, Ordering::Relaxed);
        true
    }

    /// The host, if its registers are loaded, is saved before the guest runs and loaded after it.
    #[inline(never)]
    fn quiet_eager_guest(&mut self, at: usize, op: &Op, host: Option<&Slot>) -> bool {
        let world = self.world;
        let record = &world.records[at];
        let Some(guest) = world.slots.get(op.other as usize) else { return false };
        if !quiet_wait(&guest.turn, op.other_turn, &world.abort) {
            return false;
        }
        // SAFETY: this operation has the guest's turn.
        let (expected, next) = unsafe { (&*guest.expected(), &mut *guest.next()) };
        next.quiet_set_pattern(quiet_seed(world, op.other, guest));
        let mask = world.setup.plan.plan_word();
        let loaded = host.filter(|_| !op.switched_in);
        let (trip, steps) = (&mut self.trip, &mut self.steps);
        let mut flags = DONE | RESTORED | SAVED;
        let from = quiet_stamp();
        if let Some(host) = loaded {
            // SAFETY: C27: the slot's area.
            unsafe { save(host.area(), mask, world.instructions.save) };
            flags |= HOST_SAVED | HOST_RESTORED;
        }
        quiet_put(&mut steps.restore_from, guest.area().cast_const());
        quiet_put(&mut steps.save_to, guest.area());
        quiet_put(&mut steps.word, guest.unused_word.as_ptr());
        quiet_put(&mut trip.steps, std::ptr::from_ref(steps));
        quiet_put(&mut trip.seen, guest.seen());
        quiet_put(&mut trip.next, next);
        quiet_put(&mut trip.save_on_entry, 1);
        // SAFETY: C27: the guest's area and files. C28: this function is scalar.
        unsafe { user_trip(trip) };
        if let Some(host) = loaded {
            // SAFETY: C27: the host's area. C28: this function is scalar.
            unsafe { restore(host.area(), mask, world.instructions.restore) };
        }
        let back = quiet_cycles(trip.at_entry, quiet_stamp());
        record.cycles.store(quiet_cycles(from, trip.at_user), Ordering::Relaxed);
        record.entry_cycles.store(back, Ordering::Relaxed);
        record.flags.store(flags, Ordering::Relaxed);
        // SAFETY: the guest's file, which only this CPU uses while it has the guest.
        self.register = expected.quiet_first_difference(unsafe { &*guest.seen() });
        if self.register != u32::MAX {
            return false;
        }
        guest.quiet_ran(op.other_turn);
        true
    }

    #[inline(never)]
    fn quiet_eager_rare(&mut self, op: &Op, slot: &Slot) -> bool {
        let world = self.world;
        let fork = op.kind as u8 == Kind::Fork as u8;
        let other = match world.slots.get(op.other as usize) {
            Some(child) if fork => child,
            _ => slot,
        };
        if fork {
            if !quiet_wait(&other.turn, op.other_turn, &world.abort) {
                return false;
            }
            // SAFETY: C27: the child's area, whose turn is this operation's.
            unsafe { save(other.area(), world.setup.plan.plan_word(), world.instructions.save) };
        }
        let thunk = match op.kind {
            Kind::Fork => eager_fork,
            Kind::Poke => eager_poke,
            _ => spawn,
        };
        let scratch = addr_of_mut!(self.scratch);
        let mut rare = Rare { cpu: &mut self.cpu, slot, other, op, fault: None, refused: None };
        let arg: *mut c_void = addr_of_mut!(rare).cast();
        // SAFETY: C31: made for this machine. The thunk takes a `Rare` and does not unwind.
        unsafe { call_preserving(scratch, thunk, arg) };
        if fork {
            other.turn.store(op.other_turn + 1, Ordering::Release);
        }
        true
    }
}
