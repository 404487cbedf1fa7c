//! CPUs that go online and offline, sleep, and use up their stamps.

use fpu_core_loom::{
    session::TaskState, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, Level,
};

use super::{cover, ghost::UNDEFINED, must, Cpu, Machine, Model, Slot};

/// No claim on a CPU's registers survives offline, whichever task runs there next (I2, I10).
pub const OFFLINE: Model = Model::new("offline_online_and_back", "I2 I10")
    .explores(4500)
    .comes_to(&["back on a CPU that was offline", "refused while offline", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            return cpu.turns([first; 2]);
        }
        // First with another task in between, then straight to the task in the registers.
        for order in [[second, first], [first, second]] {
            let was_here = cpu.turn(first);
            cpu.power_off();
            for slot in order {
                refused_while_offline(cpu, slot);
            }
            cpu.power_on();
            for slot in order {
                if cpu.turn(slot) && was_here {
                    cover("back on a CPU that was offline");
                }
            }
        }
    });

/// The core refuses a task that is new here, and a task that was in the registers.
fn refused_while_offline(cpu: &Cpu, slot: &Slot) {
    let Some(task) = slot.take() else { return };
    if cpu.is_offline() {
        match cpu.enter(&task) {
            Err(Error::CpuOffline) => cover("refused while offline"),
            other => must(other, "return on an offline CPU"),
        }
        cpu.set_current(None);
    }
    slot.put(task);
}

/// No claim survives suspend (I2).
pub const RESUME: Model = Model::new("resume", "I2")
    .explores(1000)
    .comes_to(&["slept with a task in the registers", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        for _ in 0..2 {
            if cpu.turn(slot) {
                cover("slept with a task in the registers");
            }
            cpu.suspend();
        }
        cpu.turn(slot);
    });

/// When a CPU number's stamps are used up, the core refuses to load, and issues no stamp twice. It can still save
/// what the registers hold, and a new number makes the CPU usable (I2, liveness).
///
/// One CPU: there is nothing to interleave.
pub const EXHAUSTED: Model = Model::new("stamps_run_out", "I2, liveness")
    .comes_to(&["refused: exhausted", "usable again"])
    .plays(|| {
        let machine = Machine::new(2, 4);
        let cpu = Cpu::online(&machine, 0);
        let tasks: Vec<_> = machine.slots.iter().filter_map(|slot| slot.take()).collect();
        let [old, last, next, third] = &tasks[..] else { return };
        cpu.run(old); // the first stamp
        cpu.leave(old);
        // As if all stamps but one had been issued since: the count is bits 15 to 62, 63 is "open".
        let words = cpu.words();
        let number = words.resident() & 0x7fff;
        // SAFETY: the word that so many loads would leave.
        unsafe { words.set_resident(0u64.wrapping_sub(2 << 15) | number) };
        cpu.run_once(last);
        let told = Some(last.fpu.context());
        let section = cpu.pinned().with_kernel_fpu(told, KernelUnits::ALL, || ());
        let session = last.fpu.open(&mut cpu.pinned()).map(drop);
        for result in [section, session] {
            assert_eq!(result, Err(Error::Exhausted), "not reported: no stamp left");
        }
        for task in [next, third, old] {
            match cpu.enter(task) {
                Err(Error::Exhausted) => cover("refused: exhausted"),
                other => {
                    must(other, "return with no stamp left");
                    cpu.leave(task);
                }
            }
        }
        cpu.run(last); // still in the registers
        cpu.leave(last);
        // A resume ends its claim all the same.
        assert_eq!(cpu.pinned().fpu_resume(), Err(Error::Exhausted), "not reported: no stamp left");
        assert_eq!(cpu.enter(last), Err(Error::Exhausted), "stale registers after a resume");
        must(cpu.pinned().fpu_offline(), "going offline");
        // SAFETY: K15: number 1 has no other CPU here. K16: it had no words before.
        must(unsafe { cpu.pinned().fpu_online(1) }, "coming online");
        for task in [old, last, next] {
            cpu.run_once(task);
        }
        cover("usable again");
    });

/// An interrupt runs a section and then a virtual CPU, at each step of going offline. When the CPU is online again,
/// the core does not issue again the stamp under which it loaded the virtual CPU (I2).
pub const OFFLINE_INTERRUPTED: Model = Model::new("offline_interrupted_at_every_step", "I2")
    .interrupted()
    .explores(10)
    .comes_to(&["interrupt ran the guest", "interrupt refused"])
    .on_cpus(1, 3, |cpu, machine| {
        cpu.arm(section_and_guest);
        must(cpu.pinned().fpu_offline(), "going offline");
        back_among_others(cpu, machine);
    });

fn section_and_guest(cpu: &Cpu) {
    let Some(guest) = cpu.machine().slots[0].take() else { return };
    let mut pin = cpu.pinned_at(Level::HardIrq);
    let section = pin.with_kernel_fpu(None, KernelUnits::ALL, || ());
    match pin.run_guest(guest.fpu.context(), None, || cpu.user(&guest)) {
        Ok(()) => {
            assert!(section.is_ok(), "a guest ran where a section was refused");
            cover("interrupt ran the guest");
        }
        Err(Error::Busy | Error::CpuOffline) => cover("interrupt refused"),
        Err(why) => panic!("wrong error: an interrupt's guest was refused with {why:?}"),
    }
    cpu.machine().slots[0].put(guest);
}

/// An interrupt opens a session, loads it three times, and forgets it, at each step of going offline: the CPU stays
/// as it is and refuses (I2, I5).
pub const OFFLINE_FORGOTTEN: Model = Model::new("offline_where_a_session_was_forgotten", "I2 I5")
    .interrupted()
    .explores(10)
    .comes_to(&["refused: forgotten", "went offline"])
    .on_cpus(1, 3, |cpu, machine| {
        cpu.arm(forgets_session);
        match cpu.pinned().fpu_offline() {
            Err(Error::Busy) => {
                cover("refused: forgotten");
                let again = cpu.pinned().fpu_offline();
                assert_eq!(again, Err(Error::Busy), "not reported: a forgotten session");
            }
            other => {
                must(other, "going offline");
                cover("went offline");
                back_among_others(cpu, machine);
            }
        }
    });

fn forgets_session(cpu: &Cpu) {
    let Some(guest) = cpu.machine().slots[0].take() else { return };
    let mut pin = cpu.pinned_at(Level::HardIrq);
    if let Ok(mut state) = guest.fpu.open(&mut pin) {
        for _ in 0..3 {
            let loaded = state.make_memory_valid_write().make_registers_valid();
            state = TaskState::Both(must(loaded, "load"));
        }
        std::mem::forget(state);
    }
    cpu.machine().slots[0].put(guest);
}

/// The CPU comes online after its power was cut, and runs two tasks in turn, and the guest of slot 0 wherever it seems
/// loaded.
fn back_among_others(cpu: &Cpu, machine: &Machine) {
    let [guest, first, second] = &machine.slots[..] else { return };
    cpu.registers.fill(UNDEFINED);
    cpu.power_on();
    let Some(guest) = guest.take() else { return };
    for slot in [first, second, first, second] {
        if guest.fpu.registers_valid(&cpu.pinned()) {
            cpu.run_once(&guest);
        }
        let Some(task) = slot.take() else { continue };
        cpu.run_once(&task);
        slot.put(task);
    }
    cpu.run_once(&guest);
}
