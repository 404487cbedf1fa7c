//! A task that moves between two CPUs at every switch.

use std::{
    ffi::c_void,
    io,
    sync::{
        atomic::{AtomicU32, AtomicU64, Ordering},
        Mutex,
    },
};

use fpu_core::HeapArea;
use fpu_hosted_test::real::{run_between, Classes, RegFile, Thunk};
use fpu_x86::Plan;

use crate::{
    classes::Class,
    peers::{Bare, Linux},
    report::Line,
    scenes::{quiet_moves, Moved},
    ways::{number, Make, Tasks, Typed, Way, FXSAVE, XSAVE, XSAVEC, XSAVEOPT},
    Failure, BARE, HEAP,
};

pub const SCENE: &str = "moved task, a restore";

/// Two CPUs of this process's set.
fn two_cpus() -> Result<[usize; 2], Failure> {
    // SAFETY: an all-zero set is a valid empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of the size that is passed; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: each number is below the set's size.
    let mut has =
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) });
    match (has.next(), has.next()) {
        (Some(one), Some(other)) => Ok([one, other]),
        _ => Err("it needs two CPUs".into()),
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number came out of such a set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a set of the size that is passed; 0 is this thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn one<W: Way, A: Make, const HINT: bool>(
    name: &'static str,
    way: W,
    tasks: impl Fn(&W) -> &Tasks<A>,
    class: Class,
    turns: u32,
) -> Result<Line, Failure> {
    class.give(tasks(&way))?;
    let ticks = (0..turns).map(|_| AtomicU64::new(0)).collect();
    let moved = Moved { way, turn: AtomicU32::new(0), last: turns, ticks };
    let at = std::ptr::from_ref(&moved) as usize;
    let failed = Mutex::new(None);
    let cpus = two_cpus()?;
    let barrier = &std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let runs: [Thunk; 2] = [quiet_moves::<W, 0, HINT>, quiet_moves::<W, 1, HINT>];
        let failed = &failed;
        for (cpu, run) in cpus.into_iter().zip(runs) {
            scope.spawn(move || {
                let pinned = pin(cpu);
                if let Err(why) = pinned {
                    *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(why);
                }
                barrier.wait();
                if failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some() {
                    return;
                }
                let classes = Classes::detect();
                let (before, mut after) = (RegFile::pattern(7, classes), RegFile::initial(classes));
                // SAFETY: C31: files of this CPU's classes. C33: a `Moved<W>` that outlives the scope, scalar code.
                unsafe { run_between(&before, run, at as *mut c_void, &mut after) };
            });
        }
    });
    if let Some(why) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(why.into());
    }
    if tasks(&moved.way).refused.load(Ordering::Relaxed) != 0 {
        return Err(format!("{name}: the library refused a call").into());
    }
    // The first turns find the areas nowhere.
    let rows = moved.ticks.iter().skip(8).map(|ticks| ticks.load(Ordering::Relaxed)).collect();
    Ok(Line::new(class.name(), SCENE, name, rows, 1.0))
}

fn all<const SAVE: u8>(plan: &Plan, class: Class, turns: u32) -> Result<Vec<Line>, Failure> {
    let tasks = || Tasks::new(plan.clone())?.checked();
    let heap = || Tasks::<HeapArea>::new(plan.clone());
    Ok(vec![
        one::<_, _, false>(BARE, Bare::<SAVE>(tasks()?), |way| &way.0, class, turns)?,
        one::<_, _, false>("fpu-core, typed", Typed(tasks()?), |way| &way.0, class, turns)?,
        one::<_, _, true>(
            "fpu-core, typed, `prefetch`",
            Typed(tasks()?),
            |way| &way.0,
            class,
            turns,
        )?,
        one::<_, _, false>(HEAP, Typed(heap()?), |way| &way.0, class, turns)?,
        one::<_, _, true>(
            "fpu-core, HeapArea, `prefetch`",
            Typed(heap()?),
            |way| &way.0,
            class,
            turns,
        )?,
        one::<_, _, false>("as Linux", Linux::<SAVE>::new(tasks()?), Linux::tasks, class, turns)?,
    ])
}

/// Measures it.
///
/// # Errors
///
/// There is one CPU, or a thread could not be pinned, or the library refused a call.
pub fn measure(plan: &Plan, class: Class, turns: u32) -> Result<Vec<Line>, Failure> {
    match number(plan.save_instruction()) {
        Some(XSAVEC) => all::<XSAVEC>(plan, class, turns),
        Some(XSAVEOPT) => all::<XSAVEOPT>(plan, class, turns),
        Some(XSAVE) => all::<XSAVE>(plan, class, turns),
        _ => all::<FXSAVE>(plan, class, turns),
    }
}
