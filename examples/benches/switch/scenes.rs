//! What is measured: scenarios of one CPU as steps, and a task that moves between two.

use std::{
    ffi::c_void,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::{
    row::{quiet_ticks, Step},
    ways::Way,
};

/// A scenario of one CPU.
pub trait Scene {
    /// What is done over and over. Task 0 is live before and after.
    fn step<W: Way>(way: &W);
}

/// Two tasks take turns: two switches.
pub struct TwoTasks;
impl Scene for TwoTasks {
    #[inline(always)]
    fn step<W: Way>(way: &W) {
        way.leave(0, 0);
        way.enter(0, 1);
        way.leave(0, 1);
        way.enter(0, 0);
    }
}

/// A task waits, the CPU is idle, the same task goes on.
pub struct Idle;
impl Scene for Idle {
    #[inline(always)]
    fn step<W: Way>(way: &W) {
        way.leave(0, 0);
        way.idle(0);
        way.enter(0, 0);
    }
}

/// Kernel threads come between the task's runs; one of four uses the registers.
pub struct Threads;
impl Scene for Threads {
    #[inline(always)]
    fn step<W: Way>(way: &W) {
        for thread in 0..4 {
            way.leave(0, 0);
            if thread == 3 {
                way.section(0, 0);
            }
            way.enter(0, 0);
        }
    }
}

/// A system call in which the kernel uses the registers three times.
pub struct Sections;
impl Scene for Sections {
    #[inline(always)]
    fn step<W: Way>(way: &W) {
        way.section(0, 0);
        way.section(0, 0);
        way.section(0, 0);
        way.enter(0, 0);
    }
}

/// A system call without any use of the registers.
pub struct SystemCall;
impl Scene for SystemCall {
    #[inline(always)]
    fn step<W: Way>(way: &W) {
        way.enter(0, 0);
    }
}

/// Three exits of a virtual CPU that its host thread handles in the kernel, then back to user mode.
pub struct Guest;
impl Scene for Guest {
    #[inline(always)]
    fn step<W: Way>(way: &W) {
        way.guest(0, 0);
        way.guest(0, 0);
        way.guest(0, 0);
        way.guest_ends(0);
        way.enter(0, 0);
    }
}

unsafe extern "C" fn quiet_begin<W: Way>(way: *mut c_void) {
    // SAFETY: `steps` is given with a `W`.
    let way = unsafe { &*way.cast::<W>() };
    way.unknown(0);
    way.enter(0, 0);
}
unsafe extern "C" fn quiet_step<W: Way, S: Scene>(way: *mut c_void) {
    // SAFETY: `steps` is given with a `W`.
    S::step(unsafe { &*way.cast::<W>() });
}
unsafe extern "C" fn quiet_end<W: Way>(way: *mut c_void) {
    // SAFETY: `steps` is given with a `W`.
    unsafe { &*way.cast::<W>() }.ends(0, 0);
}

/// Begin, step and end of a scenario under a way; each takes a pointer to the way.
pub fn steps<W: Way, S: Scene>() -> [Step; 3] {
    [quiet_begin::<W>, quiet_step::<W, S>, quiet_end::<W>]
}

/// A task that two CPUs run in turn.
pub struct Moved<W> {
    /// Its way.
    pub way: W,
    /// Whose turn it is: CPU 0 at even numbers.
    pub turn: AtomicU32,
    /// The numbers end here.
    pub last: u32,
    /// Ticks of entering user mode, per turn.
    pub ticks: Box<[AtomicU64]>,
}

/// Between the hint that a task was picked and its way to user mode: switching stacks and address spaces.
const PICKED: u64 = 300;

/// Takes this CPU's turns. With `HINT`, the scheduler says which task it has picked.
///
/// # Safety
///
/// `moved` points to a `Moved<W>`; this thread is CPU number `CPU` of it.
pub unsafe extern "C" fn quiet_moves<W: Way, const CPU: usize, const HINT: bool>(
    moved: *mut c_void,
) {
    // SAFETY: the caller's promise.
    let moved = unsafe { &*moved.cast::<Moved<W>>() };
    let mut turn = CPU as u32;
    moved.way.unknown(CPU);
    while turn < moved.last {
        while moved.turn.load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
        if HINT {
            let picked = quiet_ticks();
            moved.way.picked(CPU, 0);
            while quiet_ticks() - picked < PICKED {}
        }
        let from = quiet_ticks();
        moved.way.enter(CPU, 0);
        let to = quiet_ticks();
        moved.way.leave(CPU, 0);
        if let Some(ticks) = moved.ticks.get(turn as usize) {
            ticks.store(to - from, Ordering::Relaxed);
        }
        moved.turn.store(turn + 1, Ordering::Release);
        turn += 2;
    }
}
