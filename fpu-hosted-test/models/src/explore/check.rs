//! What must hold in every state, and what the core must refuse there.

use fpu_core::{
    verify::{Scratch, VerifyError},
    CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, Level, PendingGuest, PendingSection,
    SaveArea, SwitchSteps,
};

use super::{
    backend::{Context, Cpu, Off, Pin, Proof},
    calls::Call,
    image::Area,
    machine::Machine,
    ops::Op,
    state::State,
    words::{left, number, Claim, GATE_OFFLINE, PLENTY, RESERVE},
};

impl Machine {
    /// Reports what is wrong with the state that the machine is in.
    pub(super) fn check(&self, state: &State) {
        for (c, cpu) in self.cpus.iter().enumerate() {
            let open = state.cpus[c].is_open();
            let claimants = state.contexts.iter().filter(|context| context.held(c));
            if claimants.count() > 1 {
                self.line.report(|| format!("two claims on the registers of CPU {c}"));
            }
            for (which, slot) in self.slots.iter().enumerate() {
                self.call(Call::RegistersValid);
                let valid = slot.fpu.borrow().registers_valid(&Pin(cpu, Level::Task));
                if valid != (open && state.contexts[which].held(c)) {
                    self.line.report(|| format!("registers_valid of context {which}: {valid}"));
                }
            }
        }
        for which in 0..self.slots.len() {
            if self.is_bound(which) {
                self.bound_elsewhere(which);
            }
            self.check_context(state, which);
        }
    }

    fn check_context(&self, state: &State, which: usize) {
        let context = state.contexts[which];
        self.call(Call::Address);
        {
            let fpu = self.slots[which].fpu.borrow();
            if fpu.address() != std::ptr::from_ref::<Context>(&fpu) as usize {
                self.line.report(|| String::from("a context is not where it says"));
            }
            let other = self.slots[(which + 1) % self.slots.len()].fpu.borrow();
            let mut proof = Proof(&self.cpus[0].registers, &other);
            if !matches!(fpu.stopped(&mut proof), Err(Error::NotStopped)) {
                self.line.report(|| format!("context {which} is opened by another's proof"));
            }
        }
        match context.claim {
            Claim::Lost { .. } => {
                self.line.report(|| format!("unsaved state lost: context {which}"));
            }
            Claim::On { cpu, ahead, memory } => {
                let open = state.cpus[cpu].is_open();
                if memory {
                    self.judge(which, context.memory, "its image, with a claim on registers");
                } else if state.cpus[cpu].current != Some(which) && !self.is_bound(which) {
                    self.line.report(|| {
                        format!("context {which} is live on CPU {cpu}, where it is not current")
                    });
                }
                if ahead == 0 && (open || !memory) {
                    self.judge(which, state.cpus[cpu].holds, "registers that are claimed");
                    self.judge_room(&self.cpus[cpu], context.room, which);
                }
                // What a bound context refuses is asked in `bound_elsewhere`.
                if !memory && !self.is_bound(which) {
                    self.elsewhere(cpu, which);
                    if open && ahead == 0 {
                        self.live_here(cpu, which);
                    }
                }
            }
            Claim::Nowhere => self.judge(which, context.memory, "its image, claimed nowhere"),
        }
    }

    /// Every other CPU refuses a context that is live on one, and changes nothing.
    pub(super) fn elsewhere(&self, live: usize, which: usize) {
        let before = self.state();
        for cpu in self.cpus.iter().enumerate().filter(|(c, _)| *c != live).map(|(_, cpu)| cpu) {
            if self.refused_area(cpu, which) == Some(Ok(())) {
                self.line.report(|| format!("not refused: an area for context {which}"));
            }
        }
        let context = self.slots[which].fpu.borrow();
        let told = Some(context.context());
        let number = number(self.cpus[live].words.resident());
        for cpu in self.cpus.iter().filter(|cpu| cpu.at != live) {
            let mut pin = Pin(cpu, Level::Task);
            let (mut off, units) = (Off::new(cpu), KernelUnits::ALL);
            // A hint, which the comparison with `before` below finds to be no more.
            self.call(Call::Prefetch);
            context.prefetch(&pin);
            let tried = [
                ("switch_return", context.switch_return(&mut off).map(drop)),
                ("switch_prepare", context.switch_prepare(&off)),
                ("begin_user", context.begin_user(&mut off).map(drop)),
                ("open", context.open(&mut pin).map(drop)),
                ("open_saved", context.open_saved(&mut pin).map(drop)),
                ("switch to", SwitchSteps::begin(&mut off, None, told).map(drop)),
                ("guest's steps", PendingGuest::begin(&mut pin, context.context(), None).map(drop)),
                ("section's steps", PendingSection::begin(&mut pin, told, units).map(drop)),
                ("switch from", SwitchSteps::begin(&mut off, told, None).map(drop)),
                ("section", pin.with_kernel_fpu(told, KernelUnits::ALL, || ())),
                ("run_guest", pin.run_guest(context.context(), None, || ())),
            ];
            for (name, result) in tried {
                let offline = cpu.words.gate() == GATE_OFFLINE;
                let right = match result {
                    Err(Error::LiveElsewhere { cpu }) => cpu == number,
                    Err(Error::Busy) => !cpu.is_open() && !offline,
                    Err(Error::CpuOffline) => offline,
                    Err(Error::Exhausted) => left(cpu.words.resident()) <= RESERVE,
                    _ => false,
                };
                if !right {
                    self.line.report(|| {
                        format!("not refused: {name} of context {which}, live on CPU {live}: {result:?}")
                    });
                }
            }
        }
        let mut proof = Proof(&self.cpus[0].registers, &context);
        let stopped = context.stopped(&mut proof).map(drop);
        if stopped != Err(Error::LiveElsewhere { cpu: number }) {
            self.line.report(|| format!("not refused: stopped, of context {which}"));
        }
        if self.state() != before {
            self.line.report(|| format!("a refusal of context {which} has changed something"));
        }
    }

    /// The same while an operation of this CPU has the context live, unless something strikes that operation.
    pub(super) fn refused_by_others(&self, which: usize) {
        if self.line.calm() {
            let was = self.line.mask();
            self.elsewhere(self.line.cpu(), which);
            self.line.unmask(was);
        }
    }

    /// The core takes no context that is live here for a persistent one, where the caller does not say that it is
    /// current.
    fn live_here(&self, cpu: usize, which: usize) {
        let before = self.state();
        let context = self.slots[which].fpu.borrow();
        let (cpu, told) = (&self.cpus[cpu], context.context());
        let mut pin = Pin(cpu, Level::Task);
        for (name, result) in [
            ("run_guest", pin.run_guest(told, None, || ())),
            ("open_saved", context.open_saved(&mut pin).map(drop)),
            ("guest's steps", PendingGuest::begin(&mut pin, told, None).map(drop)),
            ("switch", SwitchSteps::begin(&mut Off::new(cpu), None, Some(told)).map(drop)),
        ] {
            // Where no stamp is left, the core does not close the CPU to find out.
            let few = ["open_saved", "guest's steps"].contains(&name)
                && left(cpu.words.resident()) <= RESERVE;
            let right = result == Err(Error::LiveHere) || few && result == Err(Error::Exhausted);
            if !right || self.state() != before {
                self.line.report(|| {
                    format!("not refused: {name} of context {which}, live here: {result:?}")
                });
            }
        }
    }

    /// Inside a section the core refuses everything, and changes nothing.
    pub(super) fn refused_inside(&self, cpu: &Cpu) {
        let was = self.line.mask();
        let before = cpu.found();
        let mut pin = Pin(cpu, Level::Task);
        let guest = (!self.guest_in_use.get()).then(|| self.slots[self.guest()].fpu.borrow());
        let mut tried = vec![
            ("section", pin.with_kernel_fpu(None, KernelUnits::ALL, || ())),
            ("fpu_offline", pin.fpu_offline()),
            ("fpu_resume", pin.fpu_resume()),
            ("fpu_idle", pin.fpu_idle().map(drop)),
        ];
        if let Some(guest) = &guest {
            tried.push(("switch_return", guest.switch_return(&mut Off::new(cpu)).map(drop)));
            tried.push(("open", guest.open(&mut pin).map(drop)));
            tried.push(("open_saved", guest.open_saved(&mut pin).map(drop)));
            let (told, units) = (Some(guest.context()), KernelUnits::ALL);
            tried.push(("section's steps", PendingSection::begin(&mut pin, told, units).map(drop)));
            let begun = PendingGuest::begin(&mut pin, guest.context(), None).map(drop);
            tried.push(("guest's steps", begun));
            tried.push(("switch", SwitchSteps::begin(&mut Off::new(cpu), None, told).map(drop)));
            tried.push(("reset", guest.reset(&mut pin)));
            let ran = pin.run_guest(guest.context(), None, || ());
            tried.push(("run_guest", ran));
            self.call(Call::ScratchNew);
            if let Ok(mut scratch) = Scratch::new(cpu.registers.the_backend(), Area::new()) {
                let verified = guest.verify_registers(&mut pin, &mut scratch).map(drop);
                let refused = |why| match why {
                    VerifyError::Refused(why) => why,
                    _ => Error::Lost,
                };
                tried.push(("verify_registers", verified.map_err(refused)));
                self.call(Call::ScratchIntoArea);
                if scratch.into_area().len() != 8 {
                    self.line.report(|| String::from("the area is another one"));
                }
            }
        }
        for (name, result) in tried {
            if result != Err(Error::Busy) {
                self.line.report(|| format!("not refused inside a section: {name}: {result:?}"));
            }
        }
        // SAFETY: K15, K16: refused.
        if unsafe { pin.fpu_online(cpu.registers.line.cpu() as u32) } != Err(Error::CpuOnline) {
            self.line.report(|| String::from("not refused inside a section: fpu_online"));
        }
        if cpu.found() != before {
            self.line.report(|| String::from("a refusal inside a section has changed something"));
        }
        self.line.unmask(was);
    }

    /// Tells whether the core may refuse a right kernel with that error, on a CPU that had that gate and those stamps
    /// left.
    pub(super) fn rightly_refused(
        &self,
        op: Op,
        gate: u64,
        open: bool,
        left: u8,
        why: Error,
    ) -> bool {
        match why {
            Error::CpuOffline => gate == GATE_OFFLINE,
            Error::Busy => gate != GATE_OFFLINE && !open || self.forgot.get(),
            Error::RestoreFailed(_) => op.fails(),
            // Some operations take a few stamps, and so does an interrupt.
            Error::Exhausted => left < PLENTY && op != Op::OnlineAnew,
            _ => false,
        }
    }
}
