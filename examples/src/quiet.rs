//! The kernel under test: its loop while registers hold tasks.
//!
//! Everything here is scalar: atomics, volatile accesses, inlined bookkeeping of `fpu-core`, and
//! assembly. No function of `std`, no copy, no formatting. Rarer operations that would be compiled
//! with vector instructions run inside `call_preserving` (see [`rare`](crate::rare)).

use std::{
    arch::asm,
    ffi::c_void,
    ptr::{addr_of_mut, null},
    sync::atomic::{AtomicU32, Ordering},
};

use fpu_core::{CpuWords, Error, KernelFpu, KernelUnits, UserSteps};
use fpu_hosted_test::real::{call_preserving, load_registers, RegFile};

use crate::{
    faults::Fault,
    rare::{fork, poke, spawn, Rare},
    script::{Kind, Op, NO_TASK},
    trip::{save, user_trip, Trip, SKIP_COMMIT, SKIP_RESTORE, SKIP_SAVE},
    world::{Slot, ThisCpu, World, DONE, HOST_SAVED, RESTORED, SAVED, SKIPPED},
};

/// One CPU's part of a run.
pub struct Worker<'w> {
    /// The data of the run.
    pub world: &'w World<'w>,
    /// The CPU's number.
    pub number: u8,
    /// The witness.
    pub cpu: ThisCpu<'w>,
    /// Memory for `call_preserving`.
    pub scratch: RegFile,
    /// The trip being made: reused, so that its fields are stored one by one.
    pub trip: Trip,
    /// Steps that the library did not make: the eager kernel's, and those of a seeded fault.
    pub steps: UserSteps,
    /// The seeded fault.
    pub fault: Option<Fault>,
    /// The operation at which a mismatch or refusal ended the run.
    pub failed_at: Option<usize>,
    /// The register's number, as `RegFile::register_of` takes it.
    pub register: u32,
    /// The library's refusal, if it refused.
    pub refused: Option<Error>,
}

/// A serialised time stamp.
#[inline(always)]
pub(crate) fn quiet_stamp() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads the counter; every x86-64 CPU has both instructions.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("rax") low, out("rdx") high,
            options(nomem, nostack, preserves_flags));
    }
    high << 32 | low
}

/// Waits until it is the operation's turn; false if the run was aborted.
#[inline(never)]
pub(crate) fn quiet_wait(turn: &AtomicU32, want: u32, abort: &AtomicU32) -> bool {
    loop {
        for _ in 0..256 {
            if turn.load(Ordering::Acquire) == want {
                return true;
            }
            if abort.load(Ordering::Relaxed) != 0 {
                return false;
            }
            std::hint::spin_loop();
        }
        // SAFETY: sched_yield, for when both CPUs share a core. The system keeps all registers of ours
        // but the three named.
        unsafe {
            asm!("syscall", inlateout("rax") 24u64 => _, out("rcx") _, out("r11") _, options(nostack));
        }
    }
}

#[inline(always)]
pub(crate) fn quiet_seed(world: &World<'_>, task: u8, slot: &Slot) -> u64 {
    let trips = slot.trips.load(Ordering::Relaxed);
    world.setup.seed ^ (u64::from(task) << 56 | u64::from(trips) << 8)
}

/// A plain store: the compiler neither joins it with its neighbours nor makes it a vector's.
#[inline(always)]
pub(crate) fn quiet_put<T>(field: &mut T, value: T) {
    const { assert!(size_of::<T>() <= 8 && !std::mem::needs_drop::<T>()) };
    // SAFETY: a reference to a live word, whose old value needs no drop.
    unsafe { std::ptr::from_mut(field).write_volatile(value) }
}

/// Cycles from one stamp to the other, as the log holds them.
#[inline(always)]
pub(crate) fn quiet_cycles(from: u64, to: u64) -> u32 {
    to.wrapping_sub(from) as u32
}

/// The seeded fault: kernel code that is not scalar.
#[inline(never)]
fn clobber() {
    // SAFETY: the ABI does not keep the register.
    unsafe { asm!("pcmpeqd xmm3, xmm3", out("xmm3") _) };
}

impl Worker<'_> {
    /// Executes this CPU's operations. Returns at the end, or at the first mismatch.
    #[inline(never)]
    pub fn quiet_deferred<const FAULTY: bool>(&mut self) {
        let world = self.world;
        let mut last_loaded = NO_TASK;
        for (at, op) in world.ops.iter().enumerate() {
            if op.cpu != self.number {
                continue;
            }
            let slot = if op.task == NO_TASK { None } else { world.slots.get(op.task as usize) };
            if let Some(slot) = slot {
                if !quiet_wait(&slot.turn, op.turn, &world.abort) {
                    return;
                }
            }
            let good = match (op.kind, slot) {
                (Kind::User | Kind::UserSave, Some(slot)) => {
                    self.quiet_user::<FAULTY>(at, op, slot, &mut last_loaded)
                }
                (Kind::Out, Some(slot)) => self.quiet_out::<FAULTY>(at, op, slot),
                (Kind::Section, slot) => {
                    last_loaded = NO_TASK;
                    self.quiet_section::<FAULTY>(at, slot)
                }
                (Kind::Guest, slot) => {
                    last_loaded = NO_TASK;
                    self.quiet_guest(at, op, slot)
                }
                (Kind::Spawn | Kind::Poke | Kind::Fork, Some(slot)) => {
                    self.quiet_rare(at, op, slot)
                }
                _ => {
                    std::hint::spin_loop();
                    if FAULTY && op.kind == Kind::Idle && self.fault == Some(Fault::Clobber) {
                        clobber();
                    }
                    world.records[at].flags.store(DONE, Ordering::Relaxed);
                    true
                }
            };
            if !good {
                self.failed_at = Some(at);
                world.abort.store(1, Ordering::Relaxed);
                return;
            }
            if let Some(slot) = slot {
                slot.turn.store(op.turn + 1, Ordering::Release);
            }
        }
    }

    /// To user mode and back; true if every register was as expected.
    #[inline(never)]
    fn quiet_user<const FAULTY: bool>(
        &mut self,
        at: usize,
        op: &Op,
        slot: &Slot,
        last_loaded: &mut u8,
    ) -> bool {
        let record = &self.world.records[at];
        // SAFETY: this operation has the turn.
        let (expected, next) = unsafe { (&*slot.expected(), &mut *slot.next()) };
        next.quiet_set_pattern(quiet_seed(self.world, op.task, slot));
        let save_on_entry = op.kind as u8 == Kind::UserSave as u8;
        let trip = &mut self.trip;
        quiet_put(&mut trip.seen, slot.seen());
        quiet_put(&mut trip.next, next);
        quiet_put(&mut trip.save_on_entry, u64::from(save_on_entry));
        if FAULTY {
            let faults = match self.fault {
                Some(Fault::SkipRestore) => SKIP_RESTORE,
                Some(Fault::SkipSave) => SKIP_SAVE,
                Some(Fault::SkipCommit) => SKIP_COMMIT,
                Some(Fault::StaleClaim) if *last_loaded == op.task => SKIP_RESTORE,
                _ => 0,
            };
            quiet_put(&mut trip.faults, faults);
            if self.fault == Some(Fault::WrongTask) {
                let other = (usize::from(op.task) + 1) % self.world.slots.len();
                quiet_put(&mut trip.other_area, self.world.slots[other].area().cast_const());
            }
        }
        let from = quiet_stamp();
        match slot.fpu().begin_user(&mut self.cpu) {
            Ok(pending) => {
                let steps = pending.steps();
                quiet_put(&mut trip.steps, std::ptr::from_ref(steps));
                let restore = !steps.restore_from.is_null();
                // SAFETY: the word of this task, whose turn it is. Live already: back from a system call.
                let nothing = unsafe { steps.word.read_volatile() } == steps.live;
                // SAFETY: C27: the library's steps, files of the slot. C28: this function is scalar.
                unsafe { user_trip(trip) };
                let mut flags = DONE;
                if restore {
                    flags |= RESTORED;
                } else if !nothing {
                    flags |= SKIPPED;
                }
                if save_on_entry {
                    flags |= SAVED;
                    // SAFETY: C12, C13, C14: the assembly executed and committed all of it.
                    unsafe { pending.round_trip_done() };
                } else if !(nothing || FAULTY && self.fault == Some(Fault::SkipCommit)) {
                    // SAFETY: C12, C13: the assembly did the restore, if due, last before user mode; what
                    // has changed the registers since is the task itself.
                    let _ready = unsafe { pending.restored() };
                }
                record.flags.store(flags, Ordering::Relaxed);
            }
            Err(why) => {
                self.refused = Some(why);
                if !FAULTY || self.fault != Some(Fault::NoHandover) {
                    return false;
                }
                // The seeded kernel overrides the refusal, and loads what memory holds.
                let steps = &mut self.steps;
                quiet_put(&mut steps.restore_from, slot.area().cast_const());
                quiet_put(&mut steps.save_to, slot.area());
                quiet_put(&mut steps.word, slot.unused_word.as_ptr());
                quiet_put(&mut trip.steps, std::ptr::from_ref(steps));
                // SAFETY: C27: the slot's area and files. C28: this function is scalar.
                unsafe { user_trip(trip) };
            }
        }
        *last_loaded = op.task;
        record.cycles.store(quiet_cycles(from, trip.at_user), Ordering::Relaxed);
        record.entry_cycles.store(quiet_cycles(trip.at_entry, trip.at_saved), Ordering::Relaxed);
        // SAFETY: this operation has the turn.
        self.register = expected.quiet_first_difference(unsafe { &*slot.seen() });
        if self.register != u32::MAX {
            return false;
        }
        slot.trips.store(slot.trips.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        slot.parity.store(slot.parity.load(Ordering::Relaxed) ^ 1, Ordering::Relaxed);
        self.refused.is_none()
    }

    #[inline(never)]
    fn quiet_out<const FAULTY: bool>(&mut self, at: usize, op: &Op, slot: &Slot) -> bool {
        let record = &self.world.records[at];
        if FAULTY && op.migrates && self.fault == Some(Fault::NoHandover) {
            return true;
        }
        let from = quiet_stamp();
        let mut flags = DONE;
        match slot.fpu().begin_switch_out(&mut self.cpu) {
            Ok(None) => {}
            Ok(Some(pending)) => {
                let steps = pending.steps();
                if !FAULTY || self.fault != Some(Fault::SkipSave) {
                    // SAFETY: C27: `pending`'s area, with the instruction of its rung.
                    unsafe { save(steps.save_to, steps.mask, self.world.instructions.save) };
                }
                // SAFETY: C15: just executed; this function is scalar.
                unsafe { pending.saved() };
                flags |= SAVED;
            }
            Err(why) => {
                self.refused = Some(why);
                return false;
            }
        }
        record.cycles.store(quiet_cycles(from, quiet_stamp()), Ordering::Relaxed);
        record.flags.store(flags, Ordering::Relaxed);
        true
    }

    #[inline(never)]
    fn quiet_section<const FAULTY: bool>(&mut self, at: usize, slot: Option<&Slot>) -> bool {
        let record = &self.world.records[at];
        let before = self.cpu.words.resident();
        let current = slot.map(|slot| slot.fpu().context());
        let saved = slot.is_some_and(Slot::quiet_is_live);
        let from = quiet_stamp();
        match self.cpu.kernel_fpu(current, KernelUnits::ALL) {
            Ok(section) => {
                let to = quiet_stamp();
                record.cycles.store(quiet_cycles(from, to), Ordering::Relaxed);
                // SAFETY: C31: a file of this machine's classes. C32: at the end of the run.
                unsafe { load_registers(&self.world.scribble) };
                drop(section);
            }
            Err(why) => {
                self.refused = Some(why);
                return false;
            }
        }
        if FAULTY && self.fault == Some(Fault::SkipInvalidate) {
            // SAFETY: the seeded fault: a word that the crate did not choose.
            unsafe { self.cpu.words.set_resident(before) };
        }
        let flags = if saved { DONE | SAVED } else { DONE };
        record.flags.store(flags, Ordering::Relaxed);
        true
    }

    /// A virtual CPU's run, with whose registers are whose left to `run_guest`.
    #[inline(never)]
    fn quiet_guest(&mut self, at: usize, op: &Op, host: Option<&Slot>) -> bool {
        let world = self.world;
        let record = &world.records[at];
        let Some(guest) = world.slots.get(op.other as usize) else { return false };
        if !quiet_wait(&guest.turn, op.other_turn, &world.abort) {
            return false;
        }
        // SAFETY: this operation has the guest's turn.
        let (expected, next) = unsafe { (&*guest.expected(), &mut *guest.next()) };
        next.quiet_set_pattern(quiet_seed(world, op.other, guest));
        let (trip, steps) = (&mut self.trip, &mut self.steps);
        // Neither restore nor save are the assembly's here: it only looks and changes.
        quiet_put(&mut steps.restore_from, null());
        quiet_put(&mut steps.word, guest.unused_word.as_ptr());
        quiet_put(&mut trip.steps, std::ptr::from_ref(steps));
        quiet_put(&mut trip.seen, guest.seen());
        quiet_put(&mut trip.next, next);
        quiet_put(&mut trip.save_on_entry, 0);
        quiet_put(&mut trip.faults, 0);
        let found = guest.quiet_word() == self.cpu.words.resident() | 1;
        let mut flags = DONE | SAVED | if found { SKIPPED } else { RESTORED };
        if host.is_some_and(Slot::quiet_is_live) {
            flags |= HOST_SAVED;
        }
        let current = host.map(|slot| slot.fpu().context());
        let from = quiet_stamp();
        let ran = self.cpu.run_guest(guest.fpu().context(), current, || {
            // SAFETY: C27: steps that do nothing, files of the guest. C28: this function is scalar, and so
            // is what it returns to.
            unsafe { user_trip(trip) };
            quiet_stamp()
        });
        match ran {
            Ok(left) => {
                record.entry_cycles.store(quiet_cycles(left, quiet_stamp()), Ordering::Relaxed);
            }
            Err(why) => {
                self.refused = Some(why);
                return false;
            }
        }
        record.cycles.store(quiet_cycles(from, self.trip.at_user), Ordering::Relaxed);
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
    fn quiet_rare(&mut self, at: usize, op: &Op, slot: &Slot) -> bool {
        let mut flags = DONE;
        let other = match op.kind {
            Kind::Fork => match self.world.slots.get(op.other as usize) {
                Some(child) => child,
                None => return false,
            },
            _ => slot,
        };
        if op.kind as u8 == Kind::Fork as u8 {
            if !quiet_wait(&other.turn, op.other_turn, &self.world.abort) {
                return false;
            }
            if slot.quiet_is_live() {
                flags |= SAVED;
            }
        }
        let thunk = match op.kind {
            Kind::Fork => fork,
            Kind::Poke => poke,
            _ => spawn,
        };
        let scratch = addr_of_mut!(self.scratch);
        let mut rare =
            Rare { cpu: &mut self.cpu, slot, other, op, fault: self.fault, refused: None };
        let arg: *mut c_void = addr_of_mut!(rare).cast();
        // SAFETY: C31: made for this machine. The thunk takes a `Rare`, does not unwind, and needs the
        // registers, if at all, before anything else.
        unsafe { call_preserving(scratch, thunk, arg) };
        if rare.refused.is_some() {
            self.refused = rare.refused;
            return false;
        }
        if op.kind as u8 == Kind::Fork as u8 {
            other.turn.store(op.other_turn + 1, Ordering::Release);
        }
        self.world.records[at].flags.store(flags, Ordering::Relaxed);
        true
    }
}

impl Slot {
    /// Tells whether a task's state is in registers only. The caller has the task's turn.
    #[inline(always)]
    fn quiet_is_live(&self) -> bool {
        self.quiet_word() & 1 == 0
    }

    /// The word of a task's context. The caller has the task's turn.
    #[inline(always)]
    fn quiet_word(&self) -> u64 {
        let word = std::ptr::from_ref(self.fpu()).cast::<u64>();
        // SAFETY: the first 8 bytes of a context are its word (see `fpu_core::raw`).
        unsafe { word.read_volatile() }
    }

    /// A guest saw what it expected and has changed its registers: its next operation may begin.
    #[inline(always)]
    pub(crate) fn quiet_ran(&self, turn: u32) {
        self.trips.store(self.trips.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.parity.store(self.parity.load(Ordering::Relaxed) ^ 1, Ordering::Relaxed);
        self.turn.store(turn + 1, Ordering::Release);
    }
}
