//! Runs of the kernel, as many at a time as the host has CPUs for.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc, Condvar, Mutex, PoisonError,
    },
    time::Duration,
};

use super::{
    child::{self, Patience, Scratch},
    host::Host,
    image,
    judge::{caught, judge, Verdict},
    machines::{Emulator, Machine},
    params::Params,
    qemu::{self, DISK, RESETS},
    serial::Report,
    symbols,
};

/// QEMU's log line of a triple fault.
const TRIPLE: &[u8] = b"Triple fault";

/// The kernel, built.
#[derive(Debug)]
pub struct Kernel {
    /// The ELF file.
    pub elf: PathBuf,
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Where cargo builds; runs have their files there.
    pub target: PathBuf,
}

/// One run to do.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The machine.
    pub machine: &'static Machine,
    /// The boot parameters.
    pub params: Params,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The run that was to be done.
    pub job: Job,
    /// The verdict.
    pub verdict: Verdict,
    /// The kernel's figures.
    pub report: Option<Report>,
    /// The time that the run took.
    pub seconds: f64,
}

impl Run {
    /// Checks that a seeded fault was noticed as it must be. The error says what happened instead.
    #[must_use]
    pub fn caught(&self) -> Option<Result<(), String>> {
        let fault = self.job.params.fault?;
        Some(caught(fault, &self.verdict, self.report.as_ref()))
    }
}

/// A machine's own time may pass more slowly than the host's, most of all where the host is busy, or has
/// fewer CPUs. On a busy host of two, two took 2.5 seconds for one of their own, four took 4, eight 12; with
/// four other processes that never rest, two took more than 6. A run that starves must come to the kernel's
/// own verdict: this is only for one that stands still.
fn patience(job: &Job, host: &Host) -> Patience {
    // Host seconds: until its first line; for one of its own; the same for each of its CPUs that share one
    // of the host's.
    let (first, pace, crowded) = match job.machine.emulator {
        // It interprets all in one thread.
        Emulator::Bochs => (30, 6, 12),
        Emulator::Tcg => (30, 12, 12),
        // Where it does not run ring 0 natively, it takes as long as that to find out.
        Emulator::Kvm => (15, 1, 4),
    };
    let crowd = u64::from(job.params.cpus).div_ceil(host.cpus as u64);
    let pace = if crowd > 1 { crowded * crowd } else { pace };
    // When the kernel itself gives up.
    let late = job.params.limit.max(2 * job.params.seconds);
    let whole = Duration::from_secs(30 + pace * late);
    // It gives four signs of life in a second of its own: one in 20 s, or twice as slow as the whole allows for.
    let next = Duration::from_secs((pace / 2).max(20));
    Patience { first: Duration::from_secs(first), next, whole }
}

/// Boots the kernel once; `show` gets what it says, line by line. Files or processes that cannot be
/// handled are a failure too: nothing was shown.
pub fn boot(kernel: &Kernel, host: &Host, job: Job, show: &dyn Fn(&str)) -> Run {
    try_boot(kernel, host, job, show).unwrap_or_else(|why| {
        let verdict = Verdict::Fail(format!("it could not be run: {why}"));
        Run { job, verdict, report: None, seconds: 0.0 }
    })
}

fn try_boot(kernel: &Kernel, host: &Host, job: Job, show: &dyn Fn(&str)) -> io::Result<Run> {
    /// Two runs of one machine at a time must not share a directory.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let Job { machine, params } = job;
    let Machine { trusts_tiles: trust, demand, unscrubbed, .. } = *machine;
    let params = Params { trust, demand, unscrubbed, ..params };
    if let Err(why) = host.can_run(machine, &params) {
        return Ok(Run { job, verdict: Verdict::Skip(why), report: None, seconds: 0.0 });
    }
    image::fits(&params.to_string()).map_err(io::Error::other)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let scratch = Scratch::new(&kernel.target, &format!("{}-{number}", machine.name))?;
    let dir = scratch.path();
    let mut disk = Vec::new();
    if machine.disk {
        disk = image::disk(&kernel.bytes, &params.to_string()).map_err(io::Error::other)?;
        fs::write(dir.join(DISK), &disk)?;
    }
    let command = match (machine.emulator, &host.bochs) {
        (Emulator::Bochs, Ok(bochs)) => bochs.command(machine, &params, &disk, dir)?,
        _ => qemu::command(machine, &params, &kernel.elf),
    };
    let mut ended = child::run(command, &scratch, patience(&job, host), show)?;
    if machine.emulator == Emulator::Bochs {
        // Why it ended is at the end of its log; its output is the screen of its debugger.
        ended.stderr = log_of(dir);
    }
    if fs::read(dir.join(RESETS)).is_ok_and(|log| log.windows(12).any(|part| part == TRIPLE)) {
        ended.stderr += "Triple fault\n";
    }
    let (verdict, report) = judge(&ended, machine, &params);
    let verdict = match verdict {
        Verdict::Fail(why) => Verdict::Fail(symbols::named(&kernel.bytes, &why)),
        other => other,
    };
    Ok(Run { job, verdict, report, seconds: ended.seconds })
}

/// What Bochs logged as an error or worse.
fn log_of(dir: &Path) -> String {
    let log = fs::read(dir.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    let grave =
        |line: &&str| line.contains("p[") || line.contains("e[") || line.contains(">>PANIC");
    log.lines().filter(grave).map(|line| line.to_owned() + "\n").collect()
}

/// CPUs of the host that no run has taken.
struct Budget {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Budget {
    fn take(&self, cpus: usize) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = self.returned.wait_while(free, |free| *free < cpus);
        *enough.unwrap_or_else(PoisonError::into_inner) -= cpus;
    }
    fn put_back(&self, cpus: usize) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += cpus;
        self.returned.notify_all();
    }
}

/// Runs all, and gives each to `each` as soon as it and those before it are there.
pub fn all(
    kernel: &Kernel,
    host: &Host,
    jobs: &[Job],
    show: &(dyn Fn(&Job, &str) + Sync),
    mut each: impl FnMut(&Run),
) -> Vec<Run> {
    let budget = Budget { free: Mutex::new(host.cpus), returned: Condvar::new() };
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        let budget = &budget;
        scope.spawn(move || {
            for (index, job) in jobs.iter().enumerate() {
                let cpus = job.machine.weight(job.params.cpus).min(host.cpus);
                budget.take(cpus);
                let send = send.clone();
                scope.spawn(move || {
                    let run = boot(kernel, host, *job, &|line| show(job, line));
                    budget.put_back(cpus);
                    // The receiver listens until all have sent.
                    let _told = send.send((index, run));
                });
            }
        });
        let mut waiting: Vec<Option<Run>> = jobs.iter().map(|_| None).collect();
        let mut done = Vec::new();
        for (index, run) in receive {
            waiting[index] = Some(run);
            while let Some(run) = waiting.get_mut(done.len()).and_then(Option::take) {
                each(&run);
                done.push(run);
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::machines::ALL;

    #[test]
    fn a_starved_run_comes_to_the_kernels_own_verdict() {
        let host = Host {
            qemu: Ok("7.2".into()),
            bochs: Err("none".into()),
            kvm: Err("none".into()),
            cpus: 2,
        };
        // Seconds of a busy host of two for one of the machine's own, by its CPUs: half as much again as
        // was seen, and 6 at least.
        for (cpus, pace) in [(1, 6.0), (2, 6.0), (4, 6.0), (8, 18.0)] {
            for seconds in [0, 10, 600] {
                let params = Params { cpus, seconds, limit: 60 + seconds, ..Params::default() };
                for machine in ALL.iter().filter(|m| m.emulator != Emulator::Kvm) {
                    let whole = patience(&Job { machine, params }, &host).whole;
                    // The kernel gives a goal up after the limit, or twice the time it must run.
                    let late = params.limit.max(2 * seconds) as f64;
                    let least = late * pace;
                    // A quarter of one of its own is twice as long as was seen, and more.
                    let next = patience(&Job { machine, params }, &host).next.as_secs_f64();
                    assert!((20.0..=60.0).contains(&next) && next >= pace / 2.0, "{cpus} {next}");
                    assert!(whole.as_secs_f64() >= least, "{} {cpus} {seconds}", machine.name);
                }
            }
        }
    }
}
