//! The machine: CPUs, contexts, and what each context must hold.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::cell::{Cell, RefCell};

use fpu_core::{
    raw::TaskWord, session::TaskState, verify::Scratch, CpuLifecycle, CpuWords, Error, KernelFpu,
    KernelUnits, Level, NewError, SaveArea, TaskFpu,
};

use super::{
    backend::{
        get, has_room, put_over_old_bytes, set_room, Area, Context, Cpu, Pin, Symbol, Symbolic,
        Words, DEFAULTS, FIRST, INITIAL, KERNEL, TORN,
    },
    calls::{Call, Called},
    line::{Irq, Line},
    ops::Op,
    state::{ContextState, CpuState, State},
    words::{left, number, resident, Claim, GONE, PLENTY, RESERVE},
};

/// A context and what it must hold.
pub(super) struct Slot {
    pub(super) fpu: RefCell<Context>,
    pub(super) expected: Cell<Symbol>,
}

/// CPUs, tasks, and one guest, which is the last context.
pub(super) struct Machine {
    pub(super) line: &'static Line,
    pub(super) cpus: Vec<Cpu>,
    pub(super) slots: Vec<Slot>,
    /// One for each CPU.
    pub(super) scratch: Vec<RefCell<Scratch<Symbolic, Area>>>,
    pub(super) called: Called,
    fresh: Cell<Symbol>,
    /// CPU numbers taken after the first of each.
    numbers: Cell<u32>,
    /// The interrupted operation uses the guest, so the interrupt must not (K5).
    pub(super) guest_in_use: Cell<bool>,
    /// What the operation uses that another CPU might try to take.
    pub(super) in_use: Cell<Option<(usize, Op)>>,
    /// An interrupt has forgotten a session here.
    pub(super) forgot: Cell<bool>,
}

/// Who looks, and whether user code there changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// It only looks, so that a save can be left out.
    Looks,
    /// It computes something new.
    Writes,
    /// It brings its registers to their initial state, so that a save leaves them out.
    Clears,
}

impl Machine {
    /// For as long as the program runs, so that its parts can know one another.
    pub(super) fn new(cpus: usize, tasks: usize) -> &'static Self {
        let line: &'static Line = Box::leak(Box::default());
        let cpu = |_| Cpu {
            words: Words { fpu: fpu_core::CpuFpu::new(), line, opened: Cell::new(None) },
            registers: Symbolic::new(line),
            current: Cell::new(None),
        };
        let cpus: Vec<_> = (0..cpus).map(cpu).collect();
        let slot = |_| Slot {
            fpu: RefCell::new(context(&cpus[0].registers, Area::new())),
            expected: Cell::new(INITIAL),
        };
        let slots = (0..=tasks).map(slot).collect();
        let scratch = |cpu: &Cpu| match Scratch::new(cpu.registers.the_backend(), Area::new()) {
            Ok(scratch) => RefCell::new(scratch),
            Err(_) => unreachable!("the area fits"),
        };
        let scratch = cpus.iter().map(scratch).collect();
        let machine = Box::leak(Box::new(Self {
            line,
            cpus,
            slots,
            scratch,
            called: Called::default(),
            fresh: Cell::new(FIRST + 64),
            numbers: Cell::new(0),
            guest_in_use: Cell::new(false),
            in_use: Cell::new(None),
            forgot: Cell::new(false),
        }));
        line.belongs_to(machine);
        machine
    }

    pub(super) fn guest(&self) -> usize {
        self.slots.len() - 1
    }
    pub(super) fn call(&self, call: Call) {
        self.called.note(call);
    }
    /// A symbol that nothing holds yet.
    pub(super) fn fresh(&self) -> Symbol {
        self.fresh.set(self.fresh.get() + 1);
        self.fresh.get()
    }
    pub(super) fn word(context: &Context) -> &AtomicU64 {
        let word = std::ptr::from_ref(context).cast::<TaskWord>().cast::<u64>().cast_mut();
        // SAFETY: rests on no duty: a context begins with its word, an `AtomicU64` inside, for as long as it is
        // borrowed.
        unsafe { AtomicU64::from_ptr(word) }
    }
    /// Where a context's image is.
    pub(super) fn area(context: &Context) -> core::ptr::NonNull<u8> {
        let word_and_area = std::ptr::from_ref(context).cast::<u8>().cast_mut();
        // The area is inline, the only other field, and aligned to 64: the last 64 bytes.
        let at = size_of::<Context>() - size_of::<Area>();
        core::ptr::NonNull::new(word_and_area.wrapping_add(at)).expect("not null")
    }
    /// A CPU number that none has had.
    pub(super) fn number(&self) -> u32 {
        self.numbers.set(self.numbers.get() + 1);
        self.cpus.len() as u32 + self.numbers.get()
    }
    /// Each CPU has so few stamps left, beyond the reserve.
    pub(super) fn leave(&self, stamps: u8) {
        let few = (stamps + RESERVE).min(PLENTY - 1);
        for (c, cpu) in self.cpus.iter().enumerate() {
            // SAFETY: the word that so many loads would leave.
            unsafe { cpu.words.fpu.set_resident(resident(c, true, few)) };
        }
    }
    /// Nothing is live in this CPU's registers that would be lost with them: nobody is current, or who is has
    /// been saved.
    pub(super) fn free(&self, cpu: &Cpu) -> bool {
        let saved = |task: usize| {
            let word = Self::word(&self.slots[task].fpu.borrow()).load(Relaxed);
            word & super::words::MEMORY != 0
        };
        cpu.current.get().map_or(true, saved)
    }
    pub(super) fn memory(context: &Context) -> Symbol {
        // SAFETY: C9: the context's own area; nothing else runs.
        unsafe { get(Self::area(context)) }
    }

    pub(super) fn room(context: &Context) -> bool {
        // SAFETY: C9: the context's own area; nothing else runs.
        unsafe { has_room(Self::area(context)) }
    }

    /// Puts the machine into a state.
    pub(super) fn load(&self, state: &State) {
        let mut residents = [0; super::state::CPUS];
        for (c, (cpu, to)) in self.cpus.iter().zip(&state.cpus).enumerate() {
            residents[c] = resident(c, to.open, to.left) | if to.gate == 0 { GONE } else { 0 };
            // SAFETY: words that this crate would have left in that state.
            unsafe {
                cpu.words.fpu.set_resident(residents[c]);
                cpu.words.fpu.set_gate(to.gate);
            }
            cpu.registers.change(to.holds);
            if let Some(slot) = to.from {
                let area = Self::area(&self.slots[slot].fpu.borrow());
                cpu.registers.unmodified.set(area.as_ptr() as usize);
            }
            cpu.registers.fails.set(false);
            cpu.registers.disables.set(to.disables);
            cpu.current.set(to.current);
        }
        for (slot, to) in self.slots.iter().zip(&state.contexts) {
            let context = slot.fpu.borrow();
            Self::word(&context).store(to.claim.word(&residents), Relaxed);
            // SAFETY: C9: the context's own area; nothing else runs.
            unsafe {
                put_over_old_bytes(Self::area(&context), to.memory);
                set_room(Self::area(&context), to.room);
            }
            slot.expected.set(to.expected);
        }
        self.fresh.set(FIRST + 64);
        self.numbers.set(0);
        self.guest_in_use.set(false);
        self.forgot.set(false);
    }

    /// The state it is in.
    pub(super) fn state(&self) -> State {
        let mut state = State::EMPTY;
        let mut residents = [0; super::state::CPUS];
        for (c, (cpu, to)) in self.cpus.iter().zip(&mut state.cpus).enumerate() {
            residents[c] = cpu.words.fpu.resident();
            let at = cpu.registers.unmodified.get();
            let from = |slot: &Slot| Self::area(&slot.fpu.borrow()).as_ptr() as usize == at;
            *to = CpuState {
                gate: cpu.words.fpu.gate(),
                open: residents[c] & super::words::OPEN != 0,
                holds: cpu.registers.holds.get(),
                from: if at == 0 { None } else { self.slots.iter().position(from) },
                current: cpu.current.get(),
                left: left(residents[c]),
                disables: cpu.registers.disables.get(),
            };
        }
        for (slot, to) in self.slots.iter().zip(&mut state.contexts) {
            let context = slot.fpu.borrow();
            *to = ContextState {
                claim: Claim::of(Self::word(&context).load(Relaxed), &residents[..self.cpus.len()]),
                memory: Self::memory(&context),
                expected: slot.expected.get(),
                room: Self::room(&context),
            };
        }
        state
    }

    /// Complains if a context does not find what it must.
    pub(super) fn judge(&self, context: usize, found: Symbol, place: &str) {
        let expected = self.slots[context].expected.get();
        if found == expected {
            return;
        }
        self.line.report(|| {
            let whose = (0..self.slots.len())
                .find(|&other| self.slots[other].expected.get() == found)
                .map(|other| format!("another's, of context {other}"));
            let what = match found {
                INITIAL => "the initial state".into(),
                DEFAULTS | KERNEL => "the kernel's".into(),
                TORN => "torn, lost or stale".into(),
                _ => whose.unwrap_or_else(|| "stale".into()),
            };
            format!("wrong contents: context {context} in {place}: {what}")
        });
    }
    /// User code of a context runs on a CPU.
    pub(super) fn runs(&self, cpu: &Cpu, context: usize, user: User, place: &str) {
        self.judge(context, cpu.registers.holds.get(), place);
        self.judge_room(cpu, Self::room(&self.slots[context].fpu.borrow()), context);
        let new = match user {
            User::Looks => return,
            User::Writes => self.fresh(),
            User::Clears => INITIAL,
        };
        cpu.registers.change(new);
        self.slots[context].expected.set(new);
    }
    /// Kernel code runs in a section.
    pub(super) fn computes(&self, cpu: &Cpu) {
        let found = cpu.registers.holds.get();
        if found != DEFAULTS {
            self.line.report(|| String::from("section without defaults"));
        }
        cpu.registers.change(KERNEL);
        self.line.step();
        if cpu.registers.holds.get() != KERNEL {
            self.line.report(|| String::from("section not exclusive"));
        }
    }

    /// An interrupt on a CPU.
    pub(super) fn interrupted(&self, at: usize, irq: Irq) {
        let cpu = &self.cpus[at];
        let level = if irq == Irq::Nmi { Level::Nmi } else { Level::HardIrq };
        let mut pin = Pin(cpu, level);
        let current = match cpu.current.get().map(|task| self.slots[task].fpu.try_borrow()) {
            None => None,
            Some(Ok(current)) => Some(current),
            Some(Err(_)) => return self.locked_out(cpu, level),
        };
        let told = current.as_ref().map(|task| task.context());
        let guest = (!self.guest_in_use.get()).then(|| self.slots[self.guest()].fpu.borrow());
        let refused = |why: Error| {
            let few = why == Error::Exhausted && left(cpu.words.fpu.resident()) < PLENTY;
            if !few && !matches!(why, Error::Busy | Error::CpuOffline) {
                self.line.report(|| format!("wrong error: in an interrupt: {why:?}"));
            }
        };
        if irq == Irq::Nmi {
            let seen = || {
                let word = current.as_ref().map(|task| Self::word(task).load(Relaxed));
                (cpu.words.fpu.resident(), cpu.words.fpu.gate(), cpu.registers.holds.get(), word)
            };
            let before = seen();
            let refused = [
                pin.with_kernel_fpu(told, KernelUnits::ALL, || ()),
                pin.fpu_offline(),
                pin.fpu_resume(),
                pin.fpu_idle().map(drop),
                // SAFETY: K15, K16: refused.
                unsafe { pin.fpu_online(at as u32) },
            ];
            let opened = guest.as_ref().map_or(Err(Error::Nmi), |g| g.open(&mut pin).map(drop));
            let reset = guest.as_ref().map_or(Err(Error::Nmi), |g| g.reset(&mut pin));
            let ran = current
                .as_ref()
                .or(guest.as_ref())
                .map_or(Err(Error::Nmi), |it| pin.run_guest(it.context(), None, || ()));
            let all = refused.into_iter().chain([opened, reset, ran]);
            if all.into_iter().any(|result| result != Err(Error::Nmi)) || seen() != before {
                self.line.report(|| String::from("a non-maskable interrupt was not refused"));
            }
            return;
        }
        if irq == Irq::Forgets {
            // Loading it would overwrite a task that is live here, which is a mistake of another kind.
            let Some(guest) = guest.filter(|_| self.free(cpu)) else { return };
            let mut state = match guest.open(&mut pin) {
                Ok(state) => state,
                Err(why) => return refused(why),
            };
            for _ in 0..3 {
                match state.make_memory_valid_write().make_registers_valid() {
                    Ok(both) => state = TaskState::Both(both),
                    Err(why) => return refused(why),
                }
            }
            std::mem::forget(state);
            return self.forgot.set(true);
        }
        if irq == Irq::Offline {
            return match pin.fpu_offline() {
                Ok(()) => cpu.registers.change(TORN),
                Err(why) => refused(why),
            };
        }
        if irq == Irq::Online {
            if cpu.words.fpu.gate() != 0 {
                return;
            }
            cpu.registers.disables.set(true);
            // SAFETY: K15: the CPU keeps its number to itself. K16: its words are kept.
            if let Err(why) = unsafe { pin.fpu_online(number(cpu.words.fpu.resident())) } {
                return refused(why);
            }
        }
        match pin.kernel_fpu(told, KernelUnits::ALL) {
            Ok(section) => {
                self.computes(cpu);
                drop(section);
            }
            Err(why) => refused(why),
        }
        if let (Irq::SectionThenGuest | Irq::Online, Some(guest)) = (irq, guest) {
            let run = || self.runs(cpu, self.guest(), User::Writes, "a run in an interrupt");
            if let Err(why) = pin.run_guest(guest.context(), told, run) {
                refused(why);
            }
        }
    }
}

/// A new context.
pub(super) fn context(backend: &Symbolic, area: Area) -> Context {
    match TaskFpu::new(backend.the_backend(), area) {
        Ok(context) => context,
        Err(NewError { why, area }) => unreachable!("{why}: {} bytes", area.len()),
    }
}
