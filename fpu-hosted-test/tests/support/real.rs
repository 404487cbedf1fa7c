//! What the tests on real registers share: areas, and steps run on them.
#![allow(dead_code)] // each of them uses a part

use core::ptr::NonNull;
use fpu_core::RawFpu;
use fpu_hosted_test::{
    conformance::{Harness, Outcome, Step},
    real::{RealHarness, RegFile, Seen},
};
use fpu_x86::{Plan, SaveInstruction};

pub const HEADER: usize = 512;

/// An area of more than any plan needs, with an initial image.
#[repr(C, align(64))]
pub struct Memory(pub [u8; 16384]);

impl Memory {
    pub fn new(plan: &Plan) -> Box<Self> {
        assert!(plan.area_len() <= 16384);
        let mut memory = Box::new(Self([0x5A; 16384]));
        // SAFETY: C9: aligned, long enough, ours.
        unsafe { plan.write_initial(memory.base()) };
        memory
    }
    pub fn base(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }
    pub fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}

/// Steps on areas that are all [`Memory`]: what the last restore answered, and the registers after.
pub fn attempt(h: &mut RealHarness, steps: &[Step<'_, Seen>]) -> Outcome<Seen> {
    // SAFETY: C9: each step names a `Memory`: aligned, long enough, ours.
    unsafe { h.run(steps) }
}
/// As [`attempt`], for steps that succeed.
#[track_caller]
pub fn run(h: &mut RealHarness, steps: &[Step<'_, Seen>]) -> RegFile {
    let Outcome { restored, registers } = attempt(h, steps);
    assert_eq!(restored, Ok(()), "a legal image was refused");
    registers.0
}
pub fn every(h: &RealHarness) -> u64 {
    (1 << h.components()) - 1
}
#[track_caller]
pub fn same(got: &RegFile, expect: &RegFile, what: &str) {
    if let Some(register) = expect.first_difference(got) {
        let (got, expect) = (register.value(got), register.value(expect));
        panic!("{what}: {register} is {got:#x}, expected {expect:#x}");
    }
}
/// An area with these registers saved.
pub fn saved(h: &mut RealHarness, registers: &Seen) -> Box<Memory> {
    let mut memory = Memory::new(h.fpu());
    run(h, &[Step::Load(registers), Step::Save(memory.base())]);
    memory
}
pub fn for_each_rung(mut test: impl FnMut(&mut RealHarness)) {
    let (rungs, skipped) = RealHarness::rungs();
    for why in skipped {
        println!("SKIP: {why}");
    }
    assert!(
        rungs.iter().any(|h| h.fpu().save_instruction() == SaveInstruction::Fxsave),
        "every CPU has it"
    );
    for mut harness in rungs {
        test(&mut harness);
    }
}
