//! Runs every seeded fault once, on a machine where it can show, to see that a failure would be noticed.

use super::{
    faults::{Fault, Needs},
    host::Host,
    judge::Verdict,
    machines::{named, Machine},
    params::{self, Params},
    run::{Job, Run},
};

/// The quickest first.
const TRIED: [&str; 5] = ["max", "icelake", "sapphire", "xrstors", "demand"];

/// Seconds of the machine's own time after which a goal is missed that a fault keeps from being reached:
/// several times what the others take.
const LIMIT: u64 = 6;
/// Seconds that the others may take to show: whether they do is decided by what meets what.
const SECONDS: u64 = 10;

/// All faults, each on the first machine where it can show: of those asked for, or of the quickest that
/// this host can run.
#[must_use]
pub fn jobs(host: &Host, params: &Params, asked: &[&'static Machine]) -> Vec<Job> {
    let quickest: Vec<_> = TRIED.iter().filter_map(|name| named(name)).collect();
    let machines = if asked.is_empty() { &quickest } else { asked };
    let job = |fault: Fault| {
        // The instruction without which it does not show.
        let rung = (fault.needs() == Needs::Standard512).then_some("xsaveopt");
        let rung = params.rung.or(rung);
        let told = Params { fault: Some(fault), rung, ..*params };
        let runs = machines.iter().find(|machine| host.can_run(machine, &told).is_ok());
        // If none can, the run says why.
        let machine = *runs.or(machines.first())?;
        let starves = fault.signs().iter().any(|sign| sign.starts_with("too few"));
        let seconds = if starves { params.seconds } else { params.seconds.max(SECONDS) };
        let limit = params.seconds + if starves { LIMIT } else { SECONDS + params::LIMIT };
        let params = Params { seconds, limit, ..told };
        Some(Job { machine, params })
    };
    Fault::ALL.into_iter().filter_map(job).collect()
}

/// The numbers of faults that were caught, were missed, or could not run.
#[must_use]
pub fn tally(runs: &[Run]) -> (usize, usize, usize) {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for run in runs {
        match (&run.verdict, run.caught()) {
            (Verdict::Skip(_), _) => skipped += 1,
            (_, Some(Ok(()))) => passed += 1,
            _ => failed += 1,
        }
    }
    (passed, failed, skipped)
}
