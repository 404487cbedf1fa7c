//! What a kernel can get wrong without breaking a duty: each is refused or harmless.

use core::{cell::UnsafeCell, mem, ptr::NonNull};
use fpu_core::{AreaError, CpuLifecycle, Error, KernelFpu, KernelUnits, RawFpu, SaveArea, TaskFpu};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Interrupt, SimCpu, SimFpu, SimStopped, AREA_LEN},
};

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}

/// A section forgotten by an interrupt that came between the gate's test and its store: the CPU stays
/// busy, and no ended claim is valid again.
#[test]
fn a_section_forgotten_in_an_interrupt_leaves_the_cpu_busy() {
    let mut met = 0;
    for step in 1..40 {
        let (cpu, task) = (SimCpu::online(0), new_task());
        enter(&cpu, &task);
        cpu.fpu().set_avx0(7);
        task.switch_prepare(&cpu.irqs_off()).expect("live here");
        let forgotten = core::cell::Cell::new(false);
        let handler = || {
            let irq = Box::leak(Box::new(cpu.interrupted()));
            if let Ok(section) = irq.kernel_fpu(Some(task.context()), KernelUnits::ALL) {
                cpu.fpu().set_avx0(666);
                mem::forget(section);
                forgotten.set(true);
            }
        };
        cpu.inject(step, Interrupt::Maskable, &handler, || {
            let opened = task.open(&mut cpu.preempt_off()).map(drop);
            assert_eq!(opened.is_err(), forgotten.get(), "step {step}: {opened:?}");
        });
        if forgotten.get() {
            met += 1;
            assert!(!task.registers_valid(&cpu.irqs_off()), "step {step}");
            let again = task.open(&mut cpu.preempt_off()).err();
            assert_eq!(again, Some(Error::Busy), "step {step}");
        }
    }
    assert!(met >= 2, "before the gate's test, and between test and store");
}

/// A context that is live here and not named as current is not lost.
#[test]
fn a_live_context_run_as_a_guest_is_refused_by_name() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    enter(&cpu, &task);
    cpu.fpu().set_avx0(7);
    let ran = cpu.preempt_off().run_guest(task.context(), None, || unreachable!("refused"));
    assert_eq!(ran, Err(Error::LiveHere));
    task.switch_prepare(&cpu.irqs_off()).expect("nothing was lost");
    assert_eq!(cpu.fpu().avx0(), 7);
}

/// Memory whose first byte moves with respect to its alignment: 64 aligned bytes somewhere in it.
struct RoundUp(UnsafeCell<[u8; AREA_LEN + 64]>);
// SAFETY: K17: within the value, at a multiple of 1. K18: private.
unsafe impl SaveArea for RoundUp {
    fn base(&self) -> NonNull<u8> {
        let first: NonNull<u8> = NonNull::from(&self.0).cast();
        let up = first.as_ptr().align_offset(64);
        // SAFETY: less than 64, of which there are that many more.
        unsafe { NonNull::new_unchecked(first.as_ptr().add(up)) }
    }
    fn len(&self) -> usize {
        AREA_LEN
    }
    fn align(&self) -> usize {
        1
    }
}

#[test]
fn alignment_is_what_the_type_promises_not_where_it_happens_to_be() {
    let fpu = SimFpu::new();
    let area = RoundUp(UnsafeCell::new([0; AREA_LEN + 64]));
    let refused = TaskFpu::new(fpu.the_backend(), area).err().map(|refused| refused.why);
    assert_eq!(refused, Some(AreaError::Misaligned { need: fpu.area_align() }));
}

#[test]
fn a_proof_of_one_tasks_stop_opens_no_other() {
    let (cpu, stopped, runs) = (SimCpu::online(0), new_task(), new_task());
    enter(&cpu, &runs);
    runs.switch_prepare(&cpu.irqs_off()).expect("live here");
    let mut proof = SimStopped::of(stopped.context());
    assert!(stopped.stopped(&mut proof).is_ok());
    assert_eq!(runs.stopped(&mut proof).err(), Some(Error::NotStopped));
    assert!(runs.registers_valid(&cpu.irqs_off()), "its claim stands");
    cpu.irqs_off().invalidate_registers().expect("online");
}

#[test]
fn a_plan_with_nothing_due_tells_nothing() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    enter(&cpu, &task);
    let before = cpu.totals();
    let mut pin = cpu.irqs_off();
    let pending = task.begin_user(&mut pin).expect("it is live here");
    assert!(pending.steps().restore_from.is_null());
    // SAFETY: C12, C13: nothing was due, and nothing has changed the registers.
    drop(unsafe { pending.restored() });
    assert_eq!(cpu.totals(), before);
}
