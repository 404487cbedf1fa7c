//! A CPU that comes online and goes offline, interrupted at every step: no stamp is issued twice, and a CPU on which a guard
//! was forgotten goes on refusing.

use fpu_core::{session::TaskState, CpuLifecycle, Error, KernelFpu, KernelUnits};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Interrupt, Registers, SimCpu},
};
use std::cell::Cell;

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}
fn leave(cpu: &SimCpu, task: &Task) {
    task.switch_prepare(&cpu.irqs_off()).expect("it is current here");
}
fn online(cpu: &SimCpu, number: u32) -> Result<(), Error> {
    // SAFETY: K15, K16: the one CPU of a test, which has had no other number since, its words kept.
    unsafe { cpu.preempt_off().fpu_online(number) }
}

/// Another context's stamps are never issued again: no other load makes `guest` look loaded.
fn never_claims(cpu: &SimCpu, guest: &Task, what: &str) {
    for load in 0..8 {
        assert!(!guest.registers_valid(&cpu.irqs_off()), "{what}: after {load} loads by others");
        let other = new_task();
        enter(cpu, &other);
        cpu.fpu().load(&Registers::pattern(load, u64::MAX));
        leave(cpu, &other);
    }
}

type Lifecycle = fn(&SimCpu) -> Result<(), Error>;
const CALLS: [(&str, Lifecycle); 4] = [
    ("offline and online", |cpu| {
        cpu.preempt_off().fpu_offline()?;
        cpu.fpu().lose_power();
        online(cpu, 0)
    }),
    ("resume", |cpu| {
        cpu.fpu().lose_power();
        cpu.preempt_off().fpu_resume()
    }),
    ("invalidate", |cpu| cpu.preempt_off().invalidate_registers()),
    ("idle", |cpu| cpu.preempt_off().fpu_idle().map(drop)),
];

/// An interrupt that runs a section, and then a virtual CPU, under stamps that the operation has not seen.
#[test]
fn a_stamp_issued_in_an_interrupt_is_not_issued_again() {
    for (name, call) in CALLS {
        for (at, ran) in (1..).map(|at| (at, Cell::new(0))) {
            let (cpu, guest) = (SimCpu::online(0), new_task());
            let handler = || {
                for _ in 0..2 {
                    let mut pin = cpu.interrupted();
                    let section = pin.with_kernel_fpu(None, KernelUnits::ALL, || ());
                    let run = || cpu.fpu().load(&Registers::pattern(9, u64::MAX));
                    let guests = pin.run_guest(guest.context(), None, run);
                    assert_eq!(section.is_ok(), guests.is_ok());
                    ran.set(ran.get() + u32::from(guests.is_ok()));
                }
            };
            let (done, injection) = cpu.inject(at, Interrupt::Maskable, &handler, || call(&cpu));
            assert_eq!(done, Ok(()), "{name}, interrupt at step {at}");
            if at > injection.steps {
                assert!(at > 4, "{name}: only {at} steps");
                break;
            }
            let what = format!("{name}, interrupt at step {at} ran {} guests", ran.get());
            if guest.registers_valid(&cpu.irqs_off()) {
                // The interrupt came last.
                enter(&cpu, &guest);
                assert_eq!(cpu.fpu().registers(), Registers::pattern(9, u64::MAX), "{what}");
                leave(&cpu, &guest);
                cpu.preempt_off().invalidate_registers().expect("free");
            }
            never_claims(&cpu, &guest, &what);
            enter(&cpu, &guest);
            let found = cpu.fpu().registers();
            let expect = [Registers::initial(), Registers::pattern(9, u64::MAX)];
            assert_eq!(found, expect[usize::from(ran.get() > 0)], "{what}");
        }
    }
}

/// An interrupt opens a session, loads the context several times, each under a new stamp, and forgets it.
fn forgets(cpu: &SimCpu, guest: &Task) -> bool {
    let mut pin = cpu.interrupted();
    let Ok(mut state) = guest.open(&mut pin) else { return false };
    for _ in 0..4 {
        let session = state.make_memory_valid_write().make_registers_valid();
        state = TaskState::Both(session.expect("a good image"));
    }
    core::mem::forget(state);
    true
}

/// "A forgotten guard leaves the CPU refusing, nothing worse": whatever it interrupted.
#[test]
fn a_cpu_on_which_a_guard_was_forgotten_stays_refusing() {
    for (name, call) in CALLS {
        let (mut forgotten, mut noticed) = (0, 0);
        for at in 1.. {
            let (cpu, guest, forgot) = (SimCpu::online(0), new_task(), Cell::new(false));
            let handler = || forgot.set(forgot.get() || forgets(&cpu, &guest));
            let (done, injection) = cpu.inject(at, Interrupt::Maskable, &handler, || call(&cpu));
            let what = format!("{name}, interrupt at step {at}");
            if at > injection.steps {
                assert_eq!(done, Ok(()), "{what}");
                break;
            }
            if !forgot.get() {
                assert_eq!(done, Ok(()), "{what}");
                never_claims(&cpu, &guest, &what);
                continue;
            }
            forgotten += 1;
            // It noticed, or the interrupt came when it had done its work.
            assert!(matches!(done, Err(Error::Busy) | Ok(())), "{what}: {done:?}");
            noticed += u32::from(done.is_err());
            for (_, again) in CALLS {
                assert_eq!(again(&cpu), Err(Error::Busy), "{what}, and again");
            }
            assert_eq!(online(&cpu, 0), Err(Error::CpuOnline), "{what}");
            let entered = new_task().switch_return(&mut cpu.irqs_off()).map(drop);
            assert_eq!(entered, Err(Error::Busy), "{what}");
        }
        assert!(noticed > 0, "{name}: noticed none of {forgotten} forgotten sessions");
    }
}

/// What `call` comes to on a CPU, and what an interrupt's `fpu_offline` or `fpu_online` comes to, at each of its steps.
fn beside_each_step(
    offline: bool,
    call: Lifecycle,
    handler: impl Fn(&SimCpu, &Task),
    check: impl Fn(&SimCpu, &Task, Result<(), Error>, &str),
) {
    for at in 1.. {
        let (cpu, guest) = (SimCpu::online(0), new_task());
        if offline {
            cpu.preempt_off().fpu_offline().expect("no task is current");
        }
        let handle = || handler(&cpu, &guest);
        let (done, injection) = cpu.inject(at, Interrupt::Maskable, &handle, || call(&cpu));
        if at > injection.steps {
            assert!(at > 4, "only {at} steps");
            return;
        }
        check(&cpu, &guest, done, &format!("interrupt at step {at}: {done:?}"));
    }
}

/// An interrupt brings the CPU online, and a guest's claim is younger than the word that the interrupted call has seen.
#[test]
fn an_interrupt_comes_online_first() {
    let handler = |cpu: &SimCpu, guest: &Task| {
        if online(cpu, 0).is_err() {
            return;
        }
        let run = || cpu.fpu().load(&Registers::pattern(9, u64::MAX));
        cpu.interrupted().run_guest(guest.context(), None, run).expect("the CPU is open");
    };
    beside_each_step(
        true,
        |cpu| online(cpu, 0),
        handler,
        |cpu, guest, done, what| {
            assert!(matches!(done, Ok(()) | Err(Error::CpuOnline)), "{what}");
            if !guest.registers_valid(&cpu.irqs_off()) {
                never_claims(cpu, guest, what);
            }
            enter(cpu, guest);
            let found = cpu.fpu().registers();
            let expect = [Registers::initial(), Registers::pattern(9, u64::MAX)];
            assert!(expect.contains(&found), "{what}");
            assert!(done.is_ok() || found == expect[1], "{what}");
            leave(cpu, guest);
            assert_eq!(cpu.preempt_off().fpu_offline(), Ok(()), "{what}");
        },
    );
}

/// An interrupt brings the CPU online and forgets a guard: the CPU refuses, nothing worse.
#[test]
fn an_interrupt_comes_online_and_forgets() {
    let handler = |cpu: &SimCpu, guest: &Task| {
        let _ = online(cpu, 0).is_ok() && forgets(cpu, guest);
    };
    beside_each_step(
        true,
        |cpu| online(cpu, 0),
        handler,
        |cpu, guest, _, what| {
            if cpu.preempt_off().with_kernel_fpu(None, KernelUnits::ALL, || ()).is_ok() {
                return never_claims(cpu, guest, what);
            }
            for (_, again) in CALLS {
                assert_eq!(again(cpu), Err(Error::Busy), "{what}");
            }
            assert_eq!(online(cpu, 0), Err(Error::CpuOnline), "{what}");
        },
    );
}

/// An interrupt takes the CPU offline: it is offline then, and can go online again.
#[test]
fn an_interrupt_goes_offline_first() {
    let calls = CALLS.into_iter().chain([(
        "section",
        (|cpu| cpu.preempt_off().with_kernel_fpu(None, KernelUnits::ALL, || ())) as Lifecycle,
    )]);
    for (name, call) in calls {
        let handler = |cpu: &SimCpu, _: &Task| {
            let gone = cpu.interrupted().fpu_offline();
            assert!(
                matches!(gone, Ok(()) | Err(Error::Busy | Error::CpuOffline)),
                "{name}: {gone:?}"
            );
        };
        beside_each_step(false, call, handler, |cpu, _, done, what| {
            assert!(matches!(done, Ok(()) | Err(Error::CpuOffline)), "{name}, {what}");
            if cpu.preempt_off().with_kernel_fpu(None, KernelUnits::ALL, || ()).is_err() {
                assert_eq!(
                    cpu.preempt_off().fpu_offline(),
                    Err(Error::CpuOffline),
                    "{name}, {what}"
                );
                assert_eq!(online(cpu, 0), Ok(()), "{name}, {what}");
            }
            enter(cpu, &new_task());
        });
    }
}

/// A CPU that could not come online is as it was.
#[test]
fn a_refused_online_changes_nothing() {
    use fpu_core::CpuWords;
    let cpu = SimCpu::offline();
    let words = || (cpu.words().resident(), cpu.words().gate());
    for _ in 0..2 {
        let before = words();
        assert_eq!(online(&cpu, fpu_core::MAX_CPUS), Err(Error::InvalidCpu));
        assert_eq!(words(), before);
        assert_eq!(online(&cpu, 0), Ok(()));
        assert_eq!(cpu.preempt_off().fpu_offline(), Ok(()));
        assert_eq!(cpu.preempt_off().invalidate_registers(), Err(Error::CpuOffline));
    }
}

/// A CPU that has used up its number can go offline, and online again under another.
#[test]
fn a_used_up_number_can_be_given_up() {
    let cpu = SimCpu::online(0);
    let task = new_task();
    enter(&cpu, &task);
    leave(&cpu, &task);
    use fpu_core::CpuWords;
    let number = cpu.words().resident() & 0x7fff;
    // SAFETY: the word that so many loads would leave: the last that can be issued is still free.
    unsafe { cpu.words().set_resident(0u64.wrapping_sub(1 << 15) | number) };
    assert_eq!(cpu.preempt_off().invalidate_registers(), Err(Error::Exhausted));
    assert_eq!(cpu.preempt_off().fpu_offline(), Ok(()));
    assert_eq!(online(&cpu, 0), Err(Error::Exhausted));
    assert_eq!(online(&cpu, 1), Ok(()));
    enter(&cpu, &task);
}

/// Online is refused where the CPU is online: by a second witness inside a section or session too, and in a
/// non-maskable interrupt whatever it has interrupted.
#[test]
fn online_is_refused_inside_sections_and_sessions_and_in_an_nmi() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let inside = |what: &str| {
        let words = (cpu.words().resident(), cpu.words().gate());
        assert_eq!(online(&cpu, 0), Err(Error::CpuOnline), "{what}");
        assert_eq!(online(&cpu, 1), Err(Error::CpuOnline), "{what}");
        assert_eq!((cpu.words().resident(), cpu.words().gate()), words, "{what}");
    };
    use fpu_core::CpuWords;
    inside("between");
    cpu.preempt_off().with_kernel_fpu(None, KernelUnits::ALL, || inside("section")).expect("free");
    let mut pin = cpu.preempt_off();
    let session = task.open(&mut pin).expect("free");
    inside("session");
    drop(session);
    enter(&cpu, &task);
    leave(&cpu, &task);

    let cpu = SimCpu::offline();
    // SAFETY: K15, K16: the one CPU of this test, its words new.
    let in_nmi = unsafe { cpu.nmi().fpu_online(0) };
    assert_eq!(in_nmi, Err(Error::Nmi));
    assert_eq!(online(&cpu, 0), Ok(()));
}
