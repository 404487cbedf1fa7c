//! Long random runs: tasks that are switched between CPUs, interrupted by signals and by signals in their handlers, returned,
//! debugged and started anew, against an oracle that knows for each task the registers that it must find.

use std::collections::BTreeMap;

use fpu_core::{KernelFpu, KernelUnits};

use super::*;
use crate::tests::simulated::Traced;

const CPUS: usize = 2;
const TASKS: usize = 3;

struct Slot {
    task: Box<Task>,
    /// The registers that it must find.
    expect: Vec<u8>,
    /// Frames on its stack, of 32-bit programs or not, and the registers with which each returns.
    frames: Vec<(Vec<u8>, bool, Vec<u8>)>,
}

struct Run<'p> {
    plan: &'p Plan,
    cpus: Vec<Cpu>,
    slots: Vec<Slot>,
    /// Which task is current on each CPU.
    current: [Option<usize>; CPUS],
    random: Random,
    done: BTreeMap<&'static str, u32>,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, seed: u64) -> Self {
        let cpus = Cpu::some(plan, CPUS as u32);
        let mut expect = vec![0; plan.area_len()];
        write_initial(&mut expect, plan);
        let slot = |_| {
            let task = Box::new(cpus[0].task());
            Slot { task, expect: expect.clone(), frames: Vec::new() }
        };
        let slots = (0..TASKS).map(slot).collect();
        Self {
            plan,
            cpus,
            slots,
            current: [None; CPUS],
            random: Random(seed),
            done: BTreeMap::new(),
        }
    }
    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }
    /// Other user registers beside the supervisor ones that are there.
    fn other_registers(&mut self, of: usize) -> Vec<u8> {
        let new = random_area(self.plan, some(self.plan, &mut self.random), &mut self.random);
        let mut bytes = vec![0; self.plan.user_format().xstate_len()];
        let format = self.plan.user_format();
        format.write_xstate(&Image::new(&new, self.plan), None, &mut bytes).unwrap();
        let valid = format.read_xstate(&mut bytes).unwrap();
        let mut all = self.slots[of].expect.clone();
        ImageMut::new(&mut all, self.plan).replace_with(&valid).unwrap();
        all
    }
    fn switch(&mut self, cpu: usize) {
        if let Some(task) = self.current[cpu].take() {
            self.slots[task].task.switch_prepare(&Soft(&self.cpus[cpu])).unwrap();
        }
        let next = self.random.below(TASKS as u64 + 1) as usize;
        if next < TASKS && !self.current.contains(&Some(next)) {
            self.current[cpu] = Some(next);
        }
    }
    fn enter(&mut self, cpu: usize, task: usize) {
        let slot = &self.slots[task];
        let found = match self.random.below(2) {
            0 => self.cpus[cpu].enter(&slot.task),
            _ => self.cpus[cpu].enter_by_steps(&slot.task),
        };
        compare(self.plan, &found, &slot.expect, "user mode").unwrap();
        if self.random.below(2) == 0 {
            let new = self.other_registers(task);
            self.cpus[cpu].load(&new);
            self.slots[task].expect = new;
        }
        self.count("entered");
    }
    /// The kernel uses vector registers itself.
    fn section(&mut self, cpu: usize, task: usize) {
        let (here, context) = (&self.cpus[cpu], self.slots[task].task.context());
        let junk = random_area(self.plan, self.plan.user_components(), &mut self.random);
        let ran = Soft(here).with_kernel_fpu(Some(context), KernelUnits::NONE, || here.load(&junk));
        ran.unwrap();
        self.count("sections");
    }
    fn deliver(&mut self, cpu: usize, task: usize) {
        let narrow = self.random.below(4) == 0;
        let fails = self.random.below(3) == 0;
        let by_steps = self.random.below(2) == 0;
        let (plan, slot) = (self.plan, &mut self.slots[task]);
        let (format, mut frame, mut buffer) =
            (plan.user_format(), Vec::new(), vec![0; 16384 + FRONT]);
        let copy = |part: &[u8]| {
            frame.extend_from_slice(part);
            if fails {
                Err(())
            } else {
                Ok(())
            }
        };
        let delivered =
            open(&self.cpus[cpu], &slot.task, by_steps, |opened| match (opened, narrow) {
                (Opener::Soft(it), false) => format.deliver(it, None, &mut buffer, copy),
                (Opener::Soft(it), true) => {
                    format.deliver_32(it, SELECTORS, None, &mut buffer, copy)
                }
                (Opener::Vector(it), false) => format.deliver(it, None, &mut buffer, copy),
                (Opener::Vector(it), true) => {
                    format.deliver_32(it, SELECTORS, None, &mut buffer, copy)
                }
            });
        assert_eq!(delivered.is_err(), fails);
        if fails {
            return self.count("not delivered");
        }
        // What a 32-bit frame does not hold.
        let mut back = slot.expect.clone();
        if narrow {
            let mut image = ImageMut::new(&mut back, plan);
            let mut x87 = image.as_image().x87();
            (x87.fip, x87.fdp) = (x87.fip & 0xFFFF_FFFF, x87.fdp & 0xFFFF_FFFF);
            image.set_x87(&x87);
        }
        slot.frames.push((frame, narrow, back));
        slot.expect = handlers(plan, &slot.expect);
        let nested = slot.frames.len() > 1;
        self.count(if nested { "delivered to a handler" } else { "delivered" });
    }
    /// The handler, if there is one, returns; perhaps from a frame in which it changed a register, or that is junk.
    fn sigreturn(&mut self, cpu: usize, task: usize) {
        let Some((mut frame, narrow, mut back)) = self.slots[task].frames.pop() else { return };
        let (plan, front) = (self.plan, if narrow { FRONT } else { 0 });
        let how = self.random.below(4);
        match how {
            0 => {
                let value = [self.random.word() as u8; 16];
                frame[front + XMM..front + XMM + 16].copy_from_slice(&value);
                ImageMut::new(&mut back, plan).set_xmm(0, value).unwrap();
            }
            1 => frame[front + MXCSR + 3] ^= 0x80,
            _ => {}
        }
        let present =
            if how == 2 { self.random.below(frame.len() as u64) as usize } else { frame.len() };
        let by_steps = self.random.below(2) == 0;
        let (format, mut buffer) = (plan.user_format(), vec![0; 16384 + FRONT]);
        let copy = |at: usize, bytes: &mut [u8]| {
            let to = at + bytes.len();
            if to > present {
                return Err(());
            }
            bytes.copy_from_slice(&frame[at..to]);
            Ok(())
        };
        let slot = &self.slots[task];
        let returned =
            open(&self.cpus[cpu], &slot.task, by_steps, |opened| match (opened, narrow) {
                (Opener::Soft(it), false) => format.sigreturn(it, &mut buffer, copy),
                (Opener::Soft(it), true) => format.sigreturn_32(it, &mut buffer, copy),
                (Opener::Vector(it), false) => format.sigreturn(it, &mut buffer, copy),
                (Opener::Vector(it), true) => format.sigreturn_32(it, &mut buffer, copy),
            });
        match (returned, how) {
            (Ok(_), 0 | 3) => {
                self.slots[task].expect = back;
                self.count("returned");
            }
            (Err(SigreturnError::Refused(_)), 1) | (Err(SigreturnError::FaultIn(())), 2) => {
                // The handler goes on, and its frame is as it was.
                frame[front + MXCSR + 3] ^= if how == 1 { 0x80 } else { 0 };
                self.slots[task].frames.push((frame, narrow, back));
                self.count("not returned");
            }
            (other, _) => panic!("{how}: {other:?}"),
        }
    }
    fn debug(&mut self) {
        let task = self.random.below(TASKS as u64) as usize;
        if self.current.contains(&Some(task)) {
            return;
        }
        let new = self.other_registers(task);
        let (format, slot) = (self.plan.user_format(), &mut self.slots[task]);
        let mut proof = Traced(&self.cpus[0], &slot.task);
        let stopped = slot.task.stopped(&mut proof).unwrap();
        let mut bytes = vec![0; format.xstate_len()];
        format.write_xstate(&stopped.image(), None, &mut bytes).unwrap();
        let mut expected = vec![0; format.xstate_len()];
        format.write_xstate(&Image::new(&slot.expect, self.plan), None, &mut expected).unwrap();
        // Present with the initial value or absent.
        bytes[XSTATE_BV..576].fill(0);
        expected[XSTATE_BV..576].fill(0);
        assert_eq!(bytes, expected, "what a debugger reads");
        if self.random.below(2) == 0 {
            format.write_xstate(&Image::new(&new, self.plan), None, &mut bytes).unwrap();
            assert!(format.set_xstate(stopped, &mut bytes).is_ok());
            slot.expect = new;
        }
        self.count("debugged");
    }
    fn exec(&mut self, cpu: usize, task: usize) {
        let slot = &mut self.slots[task];
        slot.task.reset(&mut Soft(&self.cpus[cpu])).unwrap();
        slot.frames.clear();
        slot.expect.fill(0);
        write_initial(&mut slot.expect, self.plan);
        self.count("started anew");
    }
    fn step(&mut self) {
        let cpu = self.random.below(CPUS as u64) as usize;
        let Some(task) = self.current[cpu] else { return self.switch(cpu) };
        match self.random.below(16) {
            0..=3 => self.enter(cpu, task),
            4..=5 => self.switch(cpu),
            6..=8 => self.deliver(cpu, task),
            9..=12 => self.sigreturn(cpu, task),
            13 => self.section(cpu, task),
            14 => self.debug(),
            _ if self.random.below(8) == 0 => self.exec(cpu, task),
            _ => self.debug(),
        }
    }
}

/// As a soft-float kernel does, or by steps.
fn open<R>(here: &Cpu, task: &Task, by_steps: bool, run: impl FnOnce(Opener<'_>) -> R) -> R {
    if !by_steps {
        let mut pin = Soft(here);
        return run(Opener::Soft(task.open(&mut pin).unwrap().make_memory_valid_read()));
    }
    let mut pin = Vector(here);
    if let Some(pending) = task.begin_switch_out(&mut pin).unwrap() {
        // SAFETY: `pending` is alive. C15: executed just now.
        unsafe {
            here.save_by(pending.steps());
            pending.saved();
        }
    }
    run(Opener::Vector(task.open_saved(&mut pin).unwrap()))
}

#[test]
fn nested_signals_in_any_order() {
    let mut done = BTreeMap::new();
    for (seed, plan) in plans().iter().enumerate() {
        let mut run = Run::new(plan, 81 + seed as u64);
        for _ in 0..1500 {
            run.step();
        }
        for (what, times) in run.done {
            *done.entry(what).or_insert(0) += times;
        }
    }
    println!("{done:?}");
    assert_eq!(done.len(), 9, "{done:?}");
    assert!(done.values().all(|times| *times > 50), "{done:?}");
}
