//! A CPU's online, offline, resume and idle; a stopped task; the end of a context.

use std::mem;

use fpu_core::{CpuLifecycle, CpuWords, Error, IdleFpu, Level, TaskFpu};

use super::{
    backend::{Cpu, Pin, Proof},
    calls::Call,
    image::{Area, INITIAL, TORN},
    machine::{context, Machine},
    ops::Op,
    words::{number, GATE_OFFLINE},
};

impl Machine {
    pub(super) fn lifecycle(&self, cpu: &Cpu, op: Op) -> Result<(), Error> {
        let mut pin = Pin(cpu, Level::Task);
        let lost = || cpu.registers.change(TORN);
        match op {
            Op::Idle => {
                self.call(Call::Idle);
                // SAFETY: C10: symbols.
                let awake = unsafe { cpu.registers.keeps_awake() };
                cpu.opened.set(None);
                let given_up = pin.fpu_idle()?;
                // An interrupt before the core closed the CPU, or after it opened the CPU, was free to use the registers.
                let left = cpu.opened.get();
                let right = if given_up { TORN } else { INITIAL };
                if left != Some(right) || given_up != awake && !self.line.delivered() {
                    self.line.report(|| String::from("the wrong answer before a sleep"));
                }
            }
            Op::Invalidate(overwritten) => {
                self.call(Call::Invalidate);
                let done = pin.invalidate_registers();
                if overwritten {
                    lost();
                }
                done?;
            }
            Op::Resume => {
                lost();
                self.call(Call::Resume);
                pin.fpu_resume()?;
            }
            Op::Offline => {
                self.call(Call::Offline);
                pin.fpu_offline()?;
                // Unless an interrupt has brought it online.
                if cpu.words.gate() == GATE_OFFLINE {
                    lost();
                }
            }
            _ => {
                self.call(Call::Online);
                let own = number(cpu.words.resident());
                let number = if op == Op::Online { own } else { self.number() };
                // What sets up a CPU, before it comes online, disables them.
                if cpu.words.gate() == GATE_OFFLINE {
                    cpu.registers.disables.set(true);
                }
                // SAFETY: K15: a CPU has a number to itself, and none takes up a number that was given up. K16: its words
                // are kept.
                unsafe { pin.fpu_online(number)? };
            }
        }
        Ok(())
    }

    pub(super) fn stopped(&self, which: usize, writes: bool) -> Result<(), Error> {
        let task = self.slots[which].fpu.borrow();
        let mut proof = Proof(&self.cpus[0].registers, &task);
        self.call(Call::Stopped);
        let stopped = task.stopped(&mut proof)?;
        self.call(Call::StoppedImage);
        self.judge(which, stopped.image(), "a stopped task's image");
        if writes {
            self.call(Call::StoppedWrite);
            let mut writable = stopped.make_memory_valid_write();
            self.call(Call::StoppedMutImage);
            self.judge(which, writable.image(), "a stopped task's image, before it is written");
            self.call(Call::StoppedImageMut);
            self.writes(which, writable.image_mut());
        }
        Ok(())
    }

    /// The context ends, and a new one begins in its memory.
    pub(super) fn exit(&self, which: usize) {
        let (slot, backend) = (&self.slots[which], &self.cpus[0].registers);
        let mut place = slot.fpu.borrow_mut();
        self.call(Call::New);
        let old: TaskFpu<_, Area> = mem::replace(&mut **place, context(backend, Area::new()));
        self.call(Call::IntoArea);
        **place = context(backend, old.into_area());
        slot.expected.set(INITIAL);
    }
}
