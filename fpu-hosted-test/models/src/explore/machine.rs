//! The machine: CPUs, contexts, and what each context must hold.

use core::{ptr::NonNull, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};
use std::cell::{Cell, Ref, RefCell};

use fpu_core::{
    raw::TaskWord, verify::Scratch, CpuWords, Error, NewError, RawFpu, SaveArea, TaskFpu,
};

use super::{
    backend::{area_of, Context, Cpu, Symbolic},
    calls::{Call, Called},
    holder::Holder,
    image::{
        get, has_room, put_over_old_bytes, set_room, Area, ImageMut, Symbol, DEFAULTS, FIRST,
        INITIAL, KERNEL, TORN,
    },
    line::Line,
    ops::{Of, Op, User},
    state::{ContextState, CpuState, State, CPUS},
    words::{left, resident, Claim, GATE_OFFLINE, GONE, MEMORY, OPEN, PLENTY, RESERVE},
};

/// A context and what it must hold.
pub(super) struct Slot {
    pub(super) fpu: RefCell<Holder>,
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
    /// How many CPU numbers were taken after the first of each CPU.
    numbers: Cell<u32>,
    /// The interrupted operation uses the guest, so the interrupt must not (K5).
    pub(super) guest_in_use: Cell<bool>,
    /// The context that the operation uses, and the operation: another CPU might try to take that context.
    pub(super) in_use: Cell<Option<(usize, Op)>>,
    /// An interrupt has forgotten a session.
    pub(super) forgot: Cell<bool>,
}

impl Machine {
    /// Makes one that lives as long as the program runs, so that its parts can refer to each other.
    pub(super) fn new(cpus: usize, tasks: usize) -> &'static Self {
        let line: &'static Line = Box::leak(Box::default());
        let cpus: Vec<_> = (0..cpus).map(|at| Cpu::new(at, line)).collect();
        let slot = |_| Slot {
            fpu: RefCell::new(Holder::Own(context(&cpus[0].registers, Area::new()))),
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
    pub(super) fn area(context: &Context) -> NonNull<u8> {
        let word_and_area = std::ptr::from_ref(context).cast::<u8>().cast_mut();
        NonNull::new(word_and_area.wrapping_add(area_of(0))).expect("not null")
    }
    pub(super) fn memory(context: &Context) -> Symbol {
        // SAFETY: C9: the context's own area; nothing else runs.
        unsafe { get(Self::area(context)) }
    }
    /// A CPU number that no CPU has had.
    pub(super) fn number(&self) -> u32 {
        self.numbers.set(self.numbers.get() + 1);
        self.cpus.len() as u32 + self.numbers.get()
    }
    /// Leaves each CPU so few stamps, beyond the reserve.
    pub(super) fn leave(&self, stamps: u8) {
        let few = (stamps + RESERVE).min(PLENTY - 1);
        for (c, cpu) in self.cpus.iter().enumerate() {
            // SAFETY: the word that so many loads would leave.
            unsafe { cpu.words.set_resident(resident(c, true, few)) };
        }
    }

    /// The context that an operation is about, if there is one.
    pub(super) fn which(&self, cpu: &Cpu, of: Of) -> Option<usize> {
        match of {
            Of::Current => cpu.current.get(),
            Of::Guest => Some(self.guest()),
        }
    }
    /// The context that an operation is about, which a right kernel carries out only if there is one.
    pub(super) fn about(&self, cpu: &Cpu, of: Of) -> usize {
        let Some(which) = self.which(cpu, of) else { unreachable!("asked before") };
        which
    }
    /// The context of the task that is current there.
    pub(super) fn current(&self, cpu: &Cpu) -> Option<Ref<'_, Context>> {
        let context = |task: usize| Ref::map(self.slots[task].fpu.borrow(), |holder| &**holder);
        cpu.current.get().map(context)
    }
    pub(super) fn with_current<T>(
        &self,
        cpu: &Cpu,
        run: impl FnOnce(usize, &Context) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let which = self.about(cpu, Of::Current);
        run(which, &self.slots[which].fpu.borrow())
    }
    pub(super) fn current_nowhere(&self, context: usize) -> bool {
        self.cpus.iter().all(|cpu| cpu.current.get() != Some(context))
    }
    fn word_of(&self, context: usize) -> u64 {
        Self::word(&self.slots[context].fpu.borrow()).load(Relaxed)
    }
    /// Tells whether this CPU's registers hold this context, as the words say.
    pub(super) fn held(&self, cpu: &Cpu, context: usize) -> bool {
        self.word_of(context) & !MEMORY == cpu.words.resident()
    }
    /// Tells whether memory holds this context, as its word says.
    pub(super) fn saved(&self, context: usize) -> bool {
        self.word_of(context) & MEMORY != 0
    }
    /// Tells whether nothing would be lost with this CPU's registers: no task is current, or the current task has been
    /// saved.
    pub(super) fn free(&self, cpu: &Cpu) -> bool {
        cpu.current.get().map_or(true, |task| self.saved(task))
    }

    pub(super) fn room(context: &Context) -> bool {
        // SAFETY: C9: the context's own area; nothing else runs.
        unsafe { has_room(Self::area(context)) }
    }

    /// Puts the machine into a state.
    pub(super) fn load(&self, state: &State) {
        let mut residents = [0; CPUS];
        for (c, (cpu, to)) in self.cpus.iter().zip(&state.cpus).enumerate() {
            residents[c] =
                resident(c, to.open, to.left) | if to.gate == GATE_OFFLINE { GONE } else { 0 };
            // SAFETY: words that this crate would have left in that state.
            unsafe {
                cpu.words.set_resident(residents[c]);
                cpu.words.set_gate(to.gate);
            }
            cpu.registers.change(to.holds);
            if let Some(slot) = to.from {
                let area = Self::area(&self.slots[slot].fpu.borrow());
                cpu.registers.unmodified.set(area.as_ptr() as usize);
            }
            cpu.registers.fails.set(false);
            cpu.registers.disables.set(to.disables);
            cpu.current.set(to.current);
            cpu.last().store(to.last, Relaxed);
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

    /// The state that the machine is in.
    pub(super) fn state(&self) -> State {
        let mut state = State::EMPTY;
        let mut residents = [0; CPUS];
        for (c, (cpu, to)) in self.cpus.iter().zip(&mut state.cpus).enumerate() {
            residents[c] = cpu.words.resident();
            let at = cpu.registers.unmodified.get();
            let from = |slot: &Slot| Self::area(&slot.fpu.borrow()).as_ptr() as usize == at;
            *to = CpuState {
                gate: cpu.words.gate(),
                open: residents[c] & OPEN != 0,
                holds: cpu.registers.holds.get(),
                from: if at == 0 { None } else { self.slots.iter().position(from) },
                current: cpu.current.get(),
                left: left(residents[c]),
                disables: cpu.registers.disables.get(),
                last: cpu.last().load(Relaxed),
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

    /// Reports contents that are not what a context must find.
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
    /// Kernel code writes a context's image.
    pub(super) fn writes(&self, context: usize, mut image: ImageMut<'_>) {
        let new = self.fresh();
        image.set(new);
        self.slots[context].expected.set(new);
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

    /// Reports a plan that names other components than the backend's.
    pub(super) fn mask(&self, mask: u64) {
        if mask != self.cpus[0].registers.plan_word() {
            self.line.report(|| format!("a plan with the mask {mask:#x}"));
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
