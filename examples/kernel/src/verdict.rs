//! What was seen, and the verdict: the last line on the serial port.
//!
//! Only comparisons that agreed return, so text may be formatted.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use fpu_core::{observe::Totals, trap::TrapFpu, verify::VerifyError, Error, RestoreFault};
use fpu_x86::{Plan, SaveInstruction};

use crate::{
    counts::{self, count},
    cpu::{self, this_cpu, PerCpu},
    cpuid,
    entry::Frame,
    faults::Fault,
    files, fpu, hw,
    params::{self, rung_name, Params},
    regs::{RegFile, RegisterName},
    seeded, serial, steps,
    task::{self, Kind, Task},
    user::UserBlock,
    vmcb,
};

static ENDED: AtomicBool = AtomicBool::new(false);

/// A task has looked at its registers: they are what it put there, or (new) initial.
pub fn compare(task: &Task, cpu: &PerCpu, block: &mut UserBlock, new: bool) {
    count(&counts::CHECKS);
    let (child, execed) = (task.forked.replace(false), task.execed.replace(false));
    let who = match (new, child) {
        (true, _) if execed => "the new program of task",
        (true, _) => "new task",
        (_, true) => "forked task",
        _ => "task",
    };
    // A new task's `want` is initial, and so is always that of one which leaves the FPU alone.
    let difference = block.want.quiet_first_difference(&block.seen);
    if let Some(name) = RegFile::register_of(difference) {
        register(who, task, cpu, name, &block.want, &block.seen);
    }
    if hw::has_pkru() && block.pkru_want != block.pkru_seen {
        differs(who, task, cpu, "pkru", block.pkru_want.into(), block.pkru_seen.into());
    }
    if hw::has_ssp() {
        let seen = hw::read_ssp();
        if seen != task.ssp.get() {
            differs(who, task, cpu, "ssp", task.ssp.get(), seen);
        }
    }
    counts::FORKS.fetch_add(child.into(), Relaxed);
    counts::TRACE_EDITS.fetch_add(task.traced.replace(0).into(), Relaxed);
    counts::EXECS.fetch_add(execed.into(), Relaxed);
    counts::EDITS.fetch_add(core::mem::take(&mut block.edits).into(), Relaxed);
}

/// A signal handler has looked at its registers: they are initial, except for what belongs to the thread.
pub fn handler(task: &Task, cpu: &PerCpu, block: &UserBlock, pkru: u32) {
    let who = "the signal handler of task";
    let want = files::initial();
    if let Some(name) = RegFile::register_of(want.quiet_first_difference(&block.handler_seen)) {
        register(who, task, cpu, name, want, &block.handler_seen);
    }
    if hw::has_pkru() && block.handler_pkru != pkru {
        differs(who, task, cpu, "pkru", pkru.into(), block.handler_pkru.into());
    }
    if hw::has_ssp() && hw::read_ssp() != task.ssp.get() {
        differs(who, task, cpu, "ssp", task.ssp.get(), hw::read_ssp());
    }
}

/// What the way from user mode has found.
pub fn tiles(found: Result<(), &'static str>) {
    if let Err(why) = found {
        let task = task::current().slot;
        fail(format_args!("task {task} on CPU {}: {why}", this_cpu().number.get()));
    }
}

/// A section holds what it put into the registers.
pub fn section(cpu: &PerCpu, want: &RegFile, seen: &RegFile) {
    let difference = want.quiet_first_difference(seen);
    if let Some(name) = RegFile::register_of(difference) {
        count(&counts::MISMATCHES);
        fail(format_args!(
            "kernel section on CPU {}: register {name} is {:#x} and should be {:#x}",
            cpu.number.get(),
            name.value(seen),
            name.value(want)
        ));
    }
}

/// A guest finds in its registers what it left there.
pub fn guest(number: usize, cpu: &PerCpu, left: &RegFile, seen: &RegFile) {
    let difference = left.quiet_first_difference(seen);
    if let Some(name) = RegFile::register_of(difference) {
        count(&counts::MISMATCHES);
        fail(format_args!(
            "guest {number} on CPU {}: register {name} is {:#x} and should be {:#x}",
            cpu.number.get(),
            name.value(seen),
            name.value(left)
        ));
    }
}

/// A word of what a debugger reads.
pub fn traced(task: &Task, what: &str, expected: u64, seen: u64) {
    if expected != seen {
        differs("the debugger of task", task, this_cpu(), what, expected, seen);
    }
}

/// A word of a task's image in memory.
pub fn word(task: &Task, what: &'static str, expected: u64, seen: u64) {
    if expected != seen {
        differs("task", task, this_cpu(), what, expected, seen);
    }
}

#[cold]
fn register(
    who: &str,
    task: &Task,
    cpu: &PerCpu,
    name: RegisterName,
    want: &RegFile,
    seen: &RegFile,
) -> ! {
    count(&counts::MISMATCHES);
    fail(format_args!(
        "{who} {} on CPU {}: register {name} is {:#x} and should be {:#x}",
        task.slot,
        cpu.number.get(),
        name.value(seen),
        name.value(want)
    ));
}

#[cold]
fn differs(who: &str, task: &Task, cpu: &PerCpu, what: &str, want: u64, seen: u64) -> ! {
    count(&counts::MISMATCHES);
    fail(format_args!(
        "{who} {} on CPU {}: register {what} is {seen:#x} and should be {want:#x}",
        task.slot,
        cpu.number.get()
    ));
}

/// The library refused what it should have done.
#[cold]
pub fn refused(task: &Task, why: Error) -> ! {
    fail(format_args!("task {} on CPU {}: {why}", task.slot, this_cpu().number.get()));
}

/// A spoilt image was refused, by #GP or, where the handler has not told it, by an unknown vector.
pub fn refused_as_it_should(task: &Task, fault: RestoreFault) {
    match fault.0 {
        13 => count(&counts::BAD_IMAGES),
        255 => count(&counts::RIP_ONLY),
        _ => refused(task, Error::RestoreFailed(fault)),
    }
}

/// The registers do not hold what the words claim.
#[cold]
pub fn disagree(task: &Task, cpu: &PerCpu, why: VerifyError) -> ! {
    count(&counts::MISMATCHES);
    fail(format_args!("task {} on CPU {}: {why}", task.slot, cpu.number.get()));
}

/// A fault in kernel mode that no handler resolves.
#[cold]
pub fn kernel_exception(frame: &Frame) -> ! {
    fail(format_args!(
        "exception {} in the kernel at {:#x} on CPU {}, task {}, error {:#x}",
        frame.vector,
        frame.rip,
        this_cpu().number.get(),
        task::current().slot,
        frame.error
    ));
}

/// A fault of a task, none of which does what faults.
#[cold]
pub fn user_exception(frame: &Frame) -> ! {
    let (cpu, current) = (this_cpu().number.get(), task::current());
    let task = current.slot;
    if frame.vector == 6 && current.raises() {
        fail(format_args!("task {task} on CPU {cpu}: register fsw has lost an x87 error"));
    }
    fail(format_args!(
        "exception {} in task {} at {:#x} on CPU {}, error {:#x}",
        frame.vector, task, frame.rip, cpu, frame.error
    ));
}

/// Passes if all goals are reached, fails if they will not be, and returns if it is too early to say.
pub fn judge(params: &Params, now: u64) {
    if now < params.seconds * 1_000_000 {
        return;
    }
    let late = now > params.limit.max(2 * params.seconds) * 1_000_000;
    let least = |of: fn(&Task) -> &AtomicU64| {
        task::users().iter().map(|task| of(task).load(Relaxed)).min().unwrap_or(0)
    };
    let several = u64::from(params.cpus > 1);
    let virtual_cpus = u64::from(vmcb::available());
    let xsave = u64::from(fpu::plan().save_instruction() != SaveInstruction::Fxsave);
    let demand = u64::from(fpu::on_demand().is_some());
    let totals = totals();
    let goals = [
        ("switches", least(|t| &t.switches), params.switches),
        ("migrations", least(|t| &t.migrations), several * params.migrations),
        ("preemptions", least(|t| &t.preemptions), params.switches / 10),
        ("deferred preemptions", least(|t| &t.deferred), 1),
        ("sections in interrupts", counts::IRQ_SECTIONS.load(Relaxed), params.switches),
        ("sections", counts::SECTIONS.load(Relaxed), params.switches),
        ("refused sections", counts::BUSY.load(Relaxed), 10),
        ("refused sections in workers", counts::WORKER_BUSY.load(Relaxed), 5),
        ("NMIs", counts::NMIS.load(Relaxed), 20),
        ("single steps", counts::STEPS.load(Relaxed), 1000),
        ("sections after single steps", counts::STEP_SECTIONS.load(Relaxed), 100),
        ("refusals after single steps", step_busy(), 100),
        ("exits", counts::EXITS.load(Relaxed), 20),
        ("forks", counts::FORKS.load(Relaxed), 20),
        ("execs", counts::EXECS.load(Relaxed), 5),
        ("x87 errors", counts::X87_ERRORS.load(Relaxed), 10),
        (
            "accesses refused by keys",
            counts::KEYED.load(Relaxed),
            100 * u64::from(hw::keys_apply()),
        ),
        ("CPUs taken down", counts::OFFLINE.load(Relaxed), several * 6),
        ("resumes", counts::RESUMES.load(Relaxed), 10),
        ("refused images", counts::BAD_IMAGES.load(Relaxed), 5 * u64::from(hw::bad_images())),
        (
            "refused images by RIP only",
            counts::RIP_ONLY.load(Relaxed),
            5 * u64::from(hw::bad_images()),
        ),
        ("skipped restores", totals.skipped, params.switches / 4),
        ("signals", counts::RETURNS.load(Relaxed), 30),
        ("signals after a fault", counts::RETRIES.load(Relaxed), 5),
        ("edits of frames", counts::EDITS.load(Relaxed), 10),
        ("ends by refused frames", counts::JUNK.load(Relaxed), 3),
        ("reads of a debugger", counts::TRACE_READS.load(Relaxed), 20),
        ("writes of a debugger", counts::TRACE_WRITES.load(Relaxed), 10),
        ("edits of a debugger", counts::TRACE_EDITS.load(Relaxed), 5),
        ("rounds of guests", counts::GUESTS.load(Relaxed), 100),
        ("rounds of virtual CPUs", counts::VM_ROUNDS.load(Relaxed), 100 * virtual_cpus),
        ("migrations of virtual CPUs", vm_migrations(), 10 * several * virtual_cpus),
        ("XCR0s of virtual CPUs", counts::VM_XCR0.load(Relaxed), 20 * virtual_cpus * xsave),
        ("refused XCR0s", counts::VM_REFUSED.load(Relaxed), 5 * virtual_cpus * xsave),
        ("saves avoided", vm_avoided(&counts::VM_SAVES), 50 * virtual_cpus),
        ("restores avoided", vm_avoided(&counts::VM_RESTORES), 50 * virtual_cpus),
        ("areas with tiles", counts::TILES_GIVEN.load(Relaxed), 20 * demand),
        ("uses of tiles refused", counts::TILES_REFUSED.load(Relaxed), 10 * demand),
        ("uses of tiles without memory", counts::TILES_RETRIED.load(Relaxed), 5 * demand),
        ("ends without memory for tiles", counts::TILES_ENDED.load(Relaxed), 2 * demand),
        ("areas given back by exec", counts::TILES_SHRUNK.load(Relaxed), 2 * demand),
        ("comparisons of tiles", counts::TILE_CHECKS.load(Relaxed), 100 * demand),
        ("forks with tiles", counts::TILE_FORKS.load(Relaxed), 2 * demand),
        (
            "first uses",
            counts::FIRST_USES.load(Relaxed),
            counts::COMPUTING * u64::from(fpu::plan().traps()),
        ),
        ("idle times", counts::IDLE.load(Relaxed), 20),
        ("verified claims", counts::VERIFIED.load(Relaxed), 50 * u64::from(params.check)),
    ];
    match goals.iter().find(|(_, have, want)| have < want) {
        None => verdict_end(None),
        Some((what, have, want)) if late => fail(format_args!("too few {what}: {have} of {want}")),
        Some(_) => {}
    }
}

/// A hypervisor that swaps at each exit makes one save and one restore an entry, of the guest alone.
fn vm_avoided(done: &AtomicU64) -> u64 {
    counts::VM_ENTRIES.load(Relaxed).saturating_sub(done.load(Relaxed))
}
fn vm_migrations() -> u64 {
    let vcpus = task::all().iter().filter(|task| task.vcpu().is_some());
    vcpus.map(|task| task.migrations.load(Relaxed)).sum()
}

fn step_busy() -> u64 {
    counts::STEP_ASKED.load(Relaxed).saturating_sub(counts::STEP_SECTIONS.load(Relaxed))
}

fn totals() -> Totals {
    let mut sum = Totals::default();
    for one in cpu::all().iter().map(|cpu| cpu.counters.totals()) {
        sum.saved += one.saved;
        sum.restored += one.restored;
        sum.skipped += one.skipped;
        sum.failed += one.failed;
    }
    sum
}

/// Says what CPUID says and the library does not believe, a line each. Before the first task.
pub fn quirks(plan: &Plan) {
    for quirk in plan.quirks() {
        // The port does not fail.
        let _written = writeln!(serial::lock(), "quirk: {quirk}");
    }
}

/// The same as a reason, for faults that must not be believed.
struct Quirks<'p>(&'p Plan);

impl fmt::Display for Quirks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, quirk) in self.0.quirks().enumerate() {
            write!(f, "{}{quirk}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// With a wrong description seeded, the library must have found it by now.
pub fn disbelieved(plan: &Plan) {
    if seeded::on(Fault::ShortArea) || seeded::on(Fault::MovedComponent) {
        match plan.quirks().count() {
            0 => fail(format_args!("a wrong description was believed")),
            _ => fail(format_args!("{}", Quirks(plan))),
        }
    }
}

/// Ends the run with a reason. The first to come is heard.
#[cold]
#[inline(never)]
pub fn fail(why: fmt::Arguments<'_>) -> ! {
    verdict_end(Some(why))
}

#[cold]
#[inline(never)]
fn verdict_end(why: Option<fmt::Arguments<'_>>) -> ! {
    x86_64::instructions::interrupts::disable();
    // Formatting may use vector registers, which no handler may take from now on.
    steps::stop_stepping();
    if ENDED.swap(true, Relaxed) {
        loop {
            x86_64::instructions::hlt();
        }
    }
    let pass = why.is_none();
    let mut line = serial::last();
    // The port does not fail.
    let _written = result(&mut line, why);
    serial::exit(pass)
}

/// Our messages hold nothing that JSON has to escape.
fn result(out: &mut impl Write, why: Option<fmt::Arguments<'_>>) -> fmt::Result {
    let params = params::given();
    let vendor = raw_cpuid::CpuId::with_cpuid_reader(cpuid::Reader).get_vendor_info();
    // Recorded words may hold what is no name.
    let vendor = vendor.as_ref().map(|vendor| vendor.as_str());
    let plain = |name: &&str| name.bytes().all(|c| c == b' ' || c.is_ascii_alphanumeric());
    let vendor = vendor.filter(plain).unwrap_or("unknown");
    write!(out, "\nRESULT {{\"verdict\":\"{}\",", if why.is_none() { "pass" } else { "fail" })?;
    match why {
        Some(why) => write!(out, "\"why\":\"{why}\",")?,
        None => write!(out, "\"why\":null,")?,
    }
    write!(out, "\"vendor\":\"{vendor}\",")?;
    if let Some(plan) = fpu::decided() {
        let rung = rung_name(plan.save_instruction());
        let least = fpu::on_demand().map_or(plan.area_len(), |small| small.area_len());
        write!(out, "\"rung\":\"{rung}\",\"area\":{least},")?;
        if least != plan.area_len() {
            write!(out, "\"area_with_tiles\":{},", plan.area_len())?;
        }
        match rung {
            "fxsave" => write!(out, "\"xcr0\":null,")?,
            _ => write!(out, "\"xcr0\":\"{:#x}\",", plan.xcr0())?,
        }
        let scrubs = plan.scrubs();
        write!(out, "\"xss\":\"{:#x}\",\"scrubs\":{scrubs},", plan.xss())?;
    } else {
        // The reason says why, and is heard.
        write!(out, "\"rung\":\"none\",\"area\":0,\"xcr0\":null,\"xss\":null,")?;
    }
    write!(out, "\"registers\":\"{}", hw::classes().describe())?;
    let tiles = fpu::decided().is_some() && fpu::on_demand().is_some();
    for (has, name) in
        [(hw::has_pkru(), ", PKRU"), (hw::has_ssp(), ", PL3_SSP"), (tiles, ", tmm0-7 on demand")]
    {
        if has {
            out.write_str(name)?;
        }
    }
    write!(out, "\",\"quirks\":{},", fpu::decided().map_or(0, |plan| plan.quirks().count()))?;
    write!(out, "\"cpus\":{},\"tasks\":{}", params.cpus, task::USERS)?;
    let (users, totals) = (task::users(), totals());
    let sum = |of: fn(&Task) -> &AtomicU64| -> u64 {
        task::all().iter().map(|task| of(task).load(Relaxed)).sum()
    };
    let least = |of: fn(&Task) -> &AtomicU64| {
        users.iter().map(|task| of(task).load(Relaxed)).min().unwrap_or(0)
    };
    let holders = users.iter().filter(|task| task.kind == Kind::Holder).count() as u64;
    for (name, value) in [
        ("holders", holders),
        ("milliseconds", counts::CLOCK.load(Relaxed) / 1000),
        ("ticks", counts::TICKS.load(Relaxed)),
        ("switches", sum(|t| &t.switches)),
        ("least_switches", least(|t| &t.switches)),
        ("migrations", sum(|t| &t.migrations)),
        ("least_migrations", least(|t| &t.migrations)),
        ("preemptions", sum(|t| &t.preemptions)),
        ("least_deferred", least(|t| &t.deferred)),
        ("checks", counts::CHECKS.load(Relaxed)),
        ("mismatches", counts::MISMATCHES.load(Relaxed)),
        ("saves", totals.saved),
        ("restores", totals.restored),
        ("skipped", totals.skipped),
        ("sections", counts::SECTIONS.load(Relaxed)),
        ("irq_sections", counts::IRQ_SECTIONS.load(Relaxed)),
        ("busy", counts::BUSY.load(Relaxed)),
        ("worker_busy", counts::WORKER_BUSY.load(Relaxed)),
        ("nmis", counts::NMIS.load(Relaxed)),
        ("steps", counts::STEPS.load(Relaxed)),
        ("step_sections", counts::STEP_SECTIONS.load(Relaxed)),
        ("bad_images", counts::BAD_IMAGES.load(Relaxed)),
        ("rip_only", counts::RIP_ONLY.load(Relaxed)),
        ("exits", counts::EXITS.load(Relaxed)),
        ("forks", counts::FORKS.load(Relaxed)),
        ("execs", counts::EXECS.load(Relaxed)),
        ("x87_errors", counts::X87_ERRORS.load(Relaxed)),
        ("signals", counts::SIGNALS.load(Relaxed)),
        ("signal_retries", counts::RETRIES.load(Relaxed)),
        ("signal_returns", counts::RETURNS.load(Relaxed)),
        ("signal_edits", counts::EDITS.load(Relaxed)),
        ("junk_frames", counts::JUNK.load(Relaxed)),
        ("trace_reads", counts::TRACE_READS.load(Relaxed)),
        ("trace_writes", counts::TRACE_WRITES.load(Relaxed)),
        ("trace_edits", counts::TRACE_EDITS.load(Relaxed)),
        ("offline", counts::OFFLINE.load(Relaxed)),
        ("resumes", counts::RESUMES.load(Relaxed)),
        ("guests", counts::GUESTS.load(Relaxed)),
        ("vm_entries", counts::VM_ENTRIES.load(Relaxed)),
        ("vm_interrupts", counts::VM_INTERRUPTS.load(Relaxed)),
        ("vm_rounds", counts::VM_ROUNDS.load(Relaxed)),
        ("vm_migrations", vm_migrations()),
        ("vm_xcr0", counts::VM_XCR0.load(Relaxed)),
        ("vm_refused", counts::VM_REFUSED.load(Relaxed)),
        ("vm_saves_avoided", vm_avoided(&counts::VM_SAVES)),
        ("vm_restores_avoided", vm_avoided(&counts::VM_RESTORES)),
        ("tiles_given", counts::TILES_GIVEN.load(Relaxed)),
        ("tiles_refused", counts::TILES_REFUSED.load(Relaxed)),
        ("tiles_retried", counts::TILES_RETRIED.load(Relaxed)),
        ("tiles_ended", counts::TILES_ENDED.load(Relaxed)),
        ("tiles_shrunk", counts::TILES_SHRUNK.load(Relaxed)),
        ("tile_checks", counts::TILE_CHECKS.load(Relaxed)),
        ("tile_forks", counts::TILE_FORKS.load(Relaxed)),
        ("first_uses", counts::FIRST_USES.load(Relaxed)),
        ("trap_sections", counts::TRAP_SECTIONS.load(Relaxed)),
        ("idle", counts::IDLE.load(Relaxed)),
        ("released", counts::RELEASED.load(Relaxed)),
        ("verified", counts::VERIFIED.load(Relaxed)),
    ] {
        write!(out, ",\"{name}\":{value}")?;
    }
    out.write_str("}\n")
}
