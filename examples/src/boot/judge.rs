//! The verdict on a run. The host does not trust the kernel's own verdict: it compares the figures with the goals once
//! more.

use fpu_x86::CpuidInfo;

use crate::xstate::words::hex;

use super::{
    child::Ended,
    cpuid::Recorded,
    faults::Fault,
    machines::{Emulator, Enables, Machine, AVX, AVX512, RUNGS},
    params::{Params, SWITCHES},
    serial::{self, Counts, Report, SerialError},
};

/// QEMU's exit codes for what the kernel writes to its debug port.
const QEMU_PASS: i32 = 33;
const QEMU_FAIL: i32 = 35;

/// How QEMU and Bochs log one.
const TRIPLE_FAULTS: [&str; 2] = ["Triple fault", "exception with no resolution"];

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The run ended as it must, without a fault.
    Pass,
    /// The kernel found something wrong, or did and saw too little.
    Fail(String),
    /// The host had to end the run.
    Hung(String),
    /// This host cannot run the machine.
    Skip(String),
}

impl Verdict {
    /// The name in documents.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::Hung(_) => "hung",
            Self::Skip(_) => "skip",
        }
    }
    /// The reason.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Pass => None,
            Self::Fail(why) | Self::Hung(why) | Self::Skip(why) => Some(why),
        }
    }
}

/// The goals: each event, how often it happened, and how often it must have happened, for all goals of the kernel that
/// its last line counts.
fn goals(
    n: &Counts,
    rung: &str,
    machine: &Machine,
    params: &Params,
) -> [(&'static str, u64, u64); 50] {
    /// Tasks with registers; each must have been preempted at every tenth of its switches.
    const TASKS: u64 = 7;
    let several = u64::from(params.cpus > 1);
    let own = params.rung.is_none() && params.cpuid.is_none();
    let refuses = u64::from(machine.refuses_bad_images((!own).then_some(rung)));
    let demand = u64::from(own && machine.demand);
    let svm = u64::from(machine.has_svm());
    let svm_xsave = svm * u64::from(rung != "fxsave");
    [
        ("switches of a task", n.least_switches, SWITCHES),
        ("migrations of a task", n.least_migrations, params.migrations()),
        ("preemptions", n.preemptions, TASKS * SWITCHES / 10),
        ("deferred preemptions of a task", n.least_deferred, 1),
        ("checks of registers", n.checks, 1000),
        ("sections in interrupts", n.irq_sections, SWITCHES),
        ("sections", n.sections, SWITCHES),
        ("refused sections", n.busy, 10),
        ("refused sections in workers", n.worker_busy, 5),
        ("non-maskable interrupts", n.nmis, 20),
        ("single steps", n.steps, 1000),
        ("sections after single steps", n.step_sections, 100),
        ("exits of tasks", n.exits, 20),
        ("forks", n.forks, 20),
        ("execs", n.execs, 5),
        ("x87 errors", n.x87_errors, 10),
        ("signals", n.signal_returns, 30),
        ("signals after a fault", n.signal_retries, 5),
        ("edits of signal frames", n.signal_edits, 10),
        ("ends by refused frames", n.junk_frames, 3),
        ("reads of a debugger", n.trace_reads, 20),
        ("writes of a debugger", n.trace_writes, 10),
        ("edits of a debugger", n.trace_edits, 5),
        ("CPUs taken down", n.offline, 6 * several),
        ("resumes", n.resumes, 10),
        ("refused images", n.bad_images, 5 * refuses),
        ("refused images by RIP only", n.rip_only, 5 * refuses),
        ("saves", n.saves, 1),
        ("restores", n.restores, 1),
        ("skipped restores", n.skipped, SWITCHES / 4),
        ("rounds of guests", n.guests, 100),
        ("rounds of virtual CPUs", n.vm_rounds, 100 * svm),
        ("interrupts in virtual CPUs", n.vm_interrupts, 20 * svm),
        ("migrations of virtual CPUs", n.vm_migrations, 10 * several * svm),
        ("values of a virtual CPU's XCR0", n.vm_xcr0, 20 * svm_xsave),
        ("refused values of a virtual CPU's XCR0", n.vm_refused, 5 * svm_xsave),
        ("saves of virtual CPUs avoided", n.vm_saves_avoided, 50 * svm),
        ("restores of virtual CPUs avoided", n.vm_restores_avoided, 50 * svm),
        ("areas with tiles", n.tiles_given, 20 * demand),
        ("uses of tiles refused", n.tiles_refused, 10 * demand),
        ("uses of tiles without memory", n.tiles_retried, 5 * demand),
        ("ends without memory for tiles", n.tiles_ended, 2 * demand),
        ("areas given back by exec", n.tiles_shrunk, 2 * demand),
        ("comparisons of tiles", n.tile_checks, 100 * demand),
        ("forks with tiles", n.tile_forks, 2 * demand),
        ("first uses", n.first_uses, 2 * u64::from(own && machine.traps())),
        ("sections of trapped threads", n.trap_sections, 5 * u64::from(own && machine.traps())),
        ("idle times", n.idle, 20),
        ("times that tiles were given up", n.released, u64::from(own && params.trust)),
        ("comparisons at switches", n.verified, 50 * u64::from(params.check)),
    ]
}

/// The fault of what the kernel enables, if that is not what the machine is there for.
fn enables_another(report: &Report, machine: &Machine) -> Option<String> {
    let expected = machine.enables?;
    let hex = |value: u64| format!("{value:#x}");
    [
        ("XCR0", report.xcr0.as_deref(), expected.xcr0.map(hex)),
        ("IA32_XSS", report.xss.as_deref(), Some(hex(expected.xss))),
    ]
    .into_iter()
    .find(|(_, seen, expected)| *seen != expected.as_deref())
    .map(|(register, seen, expected)| {
        let (seen, expected) = (seen.unwrap_or("nothing"), expected.unwrap_or("nothing".into()));
        format!("it enables {seen} in {register}, and should enable {expected}")
    })
}

/// Of components in the standard format, those that the emulators save elsewhere than the words say. The library
/// measures that, and leaves them out: processors differ in where they have AVX-512.
fn elsewhere(facts: &CpuidInfo) -> u64 {
    const PLACES: [(u32, u32, u64); 4] =
        [(2, 576, AVX | AVX512), (5, 1088, AVX512), (6, 1152, AVX512), (7, 1664, AVX512)];
    let moved = |(number, at, _): &(u32, u32, u64)| {
        facts.described(*number).is_some_and(|described| described.offset != *at)
    };
    PLACES.into_iter().filter(moved).fold(0, |all, (_, _, lost)| all | lost)
}

/// The first deviation from the plan for the recorded words, less what the machine lacks: the best instruction that
/// both have, and the components that both have and the machine saves.
fn unlike_words(report: &Report, machine: &Machine, recorded: &Recorded) -> Option<String> {
    let plan = recorded.plan()?;
    let read = |text: &Option<String>, without| match text {
        Some(text) => hex(text, true).unwrap_or(u64::MAX),
        None => without,
    };
    let sets = [
        ("XCR0", read(&report.xcr0, 3), plan.xcr0().bits()),
        ("IA32_XSS", read(&report.xss, 0), plan.xss().bits()),
    ];
    for (register, seen, allowed) in sets {
        if seen & !allowed != 0 {
            return Some(format!(
                "it enables {seen:#x} in {register}, and CPUID allows {allowed:#x}"
            ));
        }
    }
    let Enables { xcr0, xss } = machine.enables?;
    let facts = plan.cpuid_info();
    let planned = format!("{:?}", plan.save_instruction()).to_lowercase();
    let offered = |rung: &str| match rung {
        "xsaves" => facts.xsaves() && !facts.xsaves_erratum(),
        "xsavec" => facts.xsavec(),
        "xsaveopt" => facts.xsaveopt(),
        _ => true,
    };
    let mut lesser = RUNGS.into_iter().skip_while(|rung| *rung != planned);
    let most = lesser.find(|rung| machine.executes(rung) && offered(rung))?;
    let mut ours = [xcr0.unwrap_or(3), if most == "xsaves" { xss } else { 0 }];
    match most {
        "fxsave" => ours[0] = 3,
        "xsave" | "xsaveopt" => ours[0] &= !elsewhere(facts),
        _ => {}
    }
    // FXSAVE is the best of all for x87 and SSE alone, without protection keys.
    let keys = plan.user_format().components().contains(fpu_x86::Components::PKRU);
    let few = plan.xcr0().bits() & ours[0] == 3 && plan.xss().bits() & ours[1] == 0;
    let legacy = few && !keys;
    let rung = if legacy { "fxsave" } else { most };
    if rung != report.rung {
        return Some(format!("it saves with {}, and should with {rung}", report.rung));
    }
    let due = sets.into_iter().zip(ours).map(|((register, seen, allowed), ours)| {
        let due = allowed & ours;
        (seen != due)
            .then(|| format!("it enables {seen:#x} in {register}, and should enable {due:#x}"))
    });
    due.flatten().next()
}

/// The first thing that a passing run must show and this one does not.
#[must_use]
pub fn missed(report: &Report, machine: &Machine, params: &Params) -> Option<String> {
    let counts = &report.counts;
    let expected = params.rung.or(machine.rung.filter(|_| params.cpuid.is_none()));
    if let Some(rung) = expected.filter(|rung| *rung != report.rung) {
        return Some(format!("it saves with {}, and should with {rung}", report.rung));
    }
    let own = params.rung.is_none() && params.cpuid.is_none();
    if let Some(why) = enables_another(report, machine).filter(|_| own) {
        return Some(why);
    }
    let by_words = params.cpuid.filter(|_| params.rung.is_none());
    if let Some(why) = by_words.and_then(|recorded| unlike_words(report, machine, recorded)) {
        return Some(why);
    }
    if machine.unscrubbed && report.whole.get("scrubs") != Some(&false.into()) {
        return Some("its restores scrub, and should not".into());
    }
    if report.cpus != u64::from(params.cpus) {
        return Some(format!("{} CPUs of {} took part", report.cpus, params.cpus));
    }
    if counts.mismatches > 0 {
        return Some(format!("passed with {} mismatches", counts.mismatches));
    }
    let goals = goals(counts, &report.rung, machine, params);
    let missed = goals.iter().find(|(_, count, goal)| count < goal);
    missed.map(|(what, count, goal)| format!("too few {what}: {count} of {goal}"))
}

/// The verdict, and the figures if there are any.
#[must_use]
pub fn judge(ended: &Ended, machine: &Machine, params: &Params) -> (Verdict, Option<Report>) {
    let serial = ended.serial.as_str();
    let report = match serial::read(serial) {
        Ok(report) => report,
        Err(why) => return (without_result(ended, machine, &why), None),
    };
    let verdict = match (report.passed, &report.why) {
        (false, why) => Verdict::Fail(why.clone().unwrap_or_else(|| "no reason given".into())),
        (true, Some(why)) => Verdict::Fail(format!("passed, and yet: {why}")),
        (true, None) => match missed(&report, machine, params) {
            Some(why) => Verdict::Fail(why),
            None => Verdict::Pass,
        },
    };
    let off = switched_off(ended, machine, report.passed);
    // A kernel that fails may say so in any way; one that passes must do all of it.
    let verdict = match (verdict, off) {
        (Verdict::Pass, Some(why)) => Verdict::Fail(why),
        (verdict, _) => verdict,
    };
    (verdict, Some(report))
}

fn without_result(ended: &Ended, machine: &Machine, why: &SerialError) -> Verdict {
    let serial = ended.serial.as_str();
    let last = serial::tail(serial, 3);
    if machine.emulator == Emulator::Kvm {
        if ended.stderr.contains("KVM internal error") {
            let why =
                "the accelerator ended with an internal error in ring 0, which it emulates here";
            return Verdict::Skip(why.into());
        }
        if *why == SerialError::Silent {
            let said = ended.stderr.lines().last().unwrap_or("it said nothing");
            let said = said.strip_prefix("qemu-system-x86_64: ").unwrap_or(said);
            return Verdict::Skip(format!("KVM did not come to the kernel's first line: {said}"));
        }
    }
    let said = if last.is_empty() { String::new() } else { format!(", last serial lines: {last}") };
    if let Some(quiet) = ended.still {
        let quiet = quiet.as_secs();
        return Verdict::Hung(format!("stands still: nothing came for {quiet} s{said}"));
    }
    if ended.late {
        return Verdict::Hung(format!("hung for {:.0} s{said}", ended.seconds));
    }
    // Bochs says it at the end of its log, QEMU on its standard error.
    let emulator = serial::tail(&ended.stderr, 2);
    let by = if emulator.is_empty() { String::new() } else { format!("; it said: {emulator}") };
    let (emulator, code) = (machine.emulator.name(), ended.code);
    let code = code.map_or("a signal".into(), |code| code.to_string());
    if TRIPLE_FAULTS.iter().any(|sign| ended.stderr.contains(sign)) {
        return Verdict::Fail(format!("a triple fault{said}; {emulator} ended with {code}"));
    }
    Verdict::Fail(format!("{why}{said}; {emulator} ended with {code}{by}"))
}

/// The fault of the machine's end.
fn switched_off(ended: &Ended, machine: &Machine, passed: bool) -> Option<String> {
    if ended.late {
        return Some("the machine did not switch itself off after the result".into());
    }
    let expected = if passed { QEMU_PASS } else { QEMU_FAIL };
    match (machine.emulator, ended.code) {
        // Its exit code is always the same.
        (Emulator::Bochs, _) => None,
        (_, Some(code)) if code == expected => None,
        (_, code) => {
            let code = code.map_or("by a signal".into(), |code| format!("with {code}"));
            Some(format!("the result says pass, and QEMU ended {code}, not with {expected}"))
        }
    }
}

/// Checks that a seeded fault ended as it must: in the kernel's own verdict, with a sign of the fault.
///
/// # Errors
///
/// One line.
pub fn caught(fault: Fault, verdict: &Verdict, report: Option<&Report>) -> Result<(), String> {
    let own = report.filter(|report| !report.passed).and_then(|report| report.why.as_deref());
    let signs = fault.signs();
    let outside = verdict.why().filter(|_| fault.is_seen_from_outside());
    match (verdict, own) {
        (Verdict::Fail(_) | Verdict::Hung(_), _)
            if outside.is_some_and(|why| signs.iter().any(|sign| why.contains(sign))) =>
        {
            Ok(())
        }
        (Verdict::Fail(_), Some(why)) if signs.iter().any(|sign| why.contains(sign)) => Ok(()),
        (Verdict::Fail(_), Some(why)) => {
            Err(format!("failed otherwise, without \"{}\": {why}", signs.join("\" or \"")))
        }
        (Verdict::Fail(why), None) => Err(format!("failed, and not by its own verdict: {why}")),
        (Verdict::Pass, _) => Err("passed: nobody noticed".into()),
        (Verdict::Hung(why) | Verdict::Skip(why), _) => Err(why.clone()),
    }
}
