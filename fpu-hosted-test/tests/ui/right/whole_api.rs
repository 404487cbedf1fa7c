//! The same kernel used rightly: it compiles, so the cases beside it fail for what they say.
#[path = "../support/kernel.rs"]
mod kernel;
use core::ptr::NonNull;
use fpu_core::*;
use fpu_core::{session::*, verify::*};
use kernel::*;

pub fn exit_path(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    task.switch_prepare(cpu)?;
    enter_user(task.switch_return(cpu)?);
    Ok(())
}

pub fn set_register(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let mut session = task.open(cpu)?.make_memory_valid_write();
    *session.image_mut() = 1;
    enter_user(session.switch_return()?);
    Ok(())
}

pub fn set_register_of_what_is_elsewhere(
    session: Session<'_, IrqOff, MemoryOnly>,
) -> Session<'_, IrqOff, MemoryWritable> {
    let mut session = session.make_memory_valid_write();
    *session.image_mut() = *session.image() + 1;
    session
}

pub fn each_state(task: &Task, cpu: &mut IrqOff) -> Result<u64, Error> {
    Ok(match task.open(cpu)? {
        TaskState::RegistersOnly(session) => *session.make_memory_valid_read().image(),
        TaskState::Both(session) => *session.invalidate_registers().image(),
        TaskState::MemoryOnly(session) => *session.make_registers_valid()?.image(),
    })
}

pub fn sections(task: &Task, cpu: &mut PreemptOff) -> Result<(), Error> {
    drop(cpu.kernel_fpu(Some(task.context()), KernelUnits::ALL)?);
    cpu.with_kernel_fpu(None, KernelUnits::ALL, || ())
}

pub fn by_steps(task: &Task, cpu: &mut VectorKernel) -> Result<u64, Error> {
    Ok(task.begin_user(cpu)?.steps().live)
}

pub fn switched(prev: &Task, next: &Task, cpu: &mut VectorKernel) -> Result<u64, Error> {
    Ok(SwitchSteps::begin(cpu, Some(prev.context()), Some(next.context()))?.live)
}

pub fn computes_and_runs_a_guest(
    task: &Task,
    guest: &Task,
    cpu: &mut VectorKernel,
) -> Result<u64, Error> {
    let pending = PendingSection::begin(cpu, Some(task.context()), KernelUnits::ALL)?;
    // SAFETY: never run.
    drop(unsafe { pending.saved() });
    Ok(PendingGuest::begin(cpu, guest.context(), Some(task.context()))?.steps().live)
}

pub fn written_and_forked(
    task: &Task,
    child: &mut Task,
    cpu: &mut VectorKernel,
) -> Result<(), Error> {
    match task.open_saved(cpu)? {
        ReadSession::Both(session) => *session.invalidate_registers().image_mut() = 1,
        memory => *memory.make_memory_valid_write().image_mut() = 1,
    }
    task.open_saved(cpu)?.fork_into(child);
    Ok(())
}

pub fn debugger(task: &Task, proof: &mut Debugger) -> Result<(), Error> {
    let mut image = task.stopped(proof)?.make_memory_valid_write();
    *image.image_mut() = 1;
    Ok(())
}

// SAFETY: never run.
unsafe impl CompareFpu for Xsave {
    unsafe fn same_state(&self, _: NonNull<u8>, _: NonNull<u8>) -> Result<(), Difference> {
        Ok(())
    }
}

pub fn checked_exit(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    if let Ok(mut scratch) = Scratch::new(cpu.backend(), Area::<64>::new()) {
        if let Err(VerifyError::Disagreement(what)) = task.verify_registers(cpu, &mut scratch) {
            let _ = (what.component, what.offset);
        }
    }
    enter_user(task.switch_return(cpu)?);
    Ok(())
}

// SAFETY: never run.
unsafe impl IdleFpu for Xsave {
    unsafe fn keeps_awake(&self) -> bool {
        false
    }
    unsafe fn release(&self) {}
}

pub fn idle_loop(cpu: &mut PreemptOff) -> bool {
    cpu.fpu_idle().unwrap_or(false)
}
