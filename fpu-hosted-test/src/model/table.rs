//! Which model must catch which fault, and with what words.

use super::{
    fault::{Backend, Embedder, Seeded},
    idle, lifetime, migrate, power, restore, section, stopped, switch, verify, wrong, Model,
};
use crate::seeded::{seen, Seen};
use fpu_core::seam::Fault;

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The fault.
    pub fault: Seeded,
    /// What it takes away.
    pub removes: &'static str,
    /// The model that must catch it.
    pub model: &'static Model,
    /// The invariant of the design that it breaks.
    pub breaks: &'static str,
    /// What the violation must be called.
    pub message: &'static str,
    /// The fewest preemptions that lead to it.
    pub preemptions: usize,
}

impl Row {
    /// The layer and the name of the fault.
    #[must_use]
    pub fn name(&self) -> (&'static str, String) {
        match self.fault {
            Seeded::Protocol(fault) => ("protocol", format!("{fault:?}")),
            Seeded::Backend(fault) => ("backend", format!("{fault:?}")),
            Seeded::Embedder(fault) => ("kernel", format!("{fault:?}")),
        }
    }
}

/// Makes the rows, and a `match` without wildcard: a fault that has no row does not compile.
macro_rules! rows {
    ($list:ident, $layer:ident($faults:ident): $(
        $fault:ident, $removes:literal => $model:expr, $breaks:literal, $message:literal, $preemptions:literal;
    )*) => {
        /// The rows of this layer.
        pub const $list: &[Row] = &[$(Row {
            fault: Seeded::$layer($faults::$fault),
            removes: $removes,
            model: &$model,
            breaks: $breaks,
            message: $message,
            preemptions: $preemptions,
        }),*];
        const _: fn($faults) = |fault| match fault { $($faults::$fault => {})* };
    };
}

rows! { PROTOCOL, Protocol(Fault):
    PrepareSkipsSave, "the save on switching out" => switch::SWITCH, "I1", "stale registers", 0;
    PrepareForgetsMemory, "the mark after it" => switch::SWITCH, "I1", "unsaved state", 0;
    PrepareMarksBeforeSave, "its order: marks first" => wrong::IN, "I1", "Causality violation", 0;
    PrepareMarkRelaxed, "the release of the mark" => wrong::IN, "I1", "Causality violation", 0;
    PrepareIgnoresElsewhere, "the comparison before a save" => wrong::LOST, "I1", "not reported", 0;
    ReturnLoadRelaxed, "the acquire of a task's word" => wrong::IN, "I1", "Causality violation", 0;
    ReturnIgnoresElsewhere, "the refusal of a task live elsewhere" => wrong::ELSEWHERE, "I1", "stale registers", 0;
    ReturnTrustsStale, "the count from the comparison: any stamp of this CPU will do" => switch::ALTERNATE, "I2", "another task's residue", 0;
    ReturnSkipsMark, "the mark that registers are the only copy" => switch::BOUNCE, "I1", "stale registers", 0;
    ReturnClaimsBeforeRestore, "the order of restore and claim" => restore::FAILED, "I4", "undefined registers", 0;
    ReturnReusesStamp, "the new stamp for a load" => switch::ALTERNATE, "I2", "another task's residue", 0;
    ReturnClaimsAfterFailure, "the error path: claims the registers" => restore::FAILED, "I4", "undefined registers", 0;
    ReturnKeepsCpuStamp, "the CPU's half of a claim" => switch::SWITCH, "I1", "unsaved state lost", 0;
    ReturnMovesCpuLate, "the order: the CPU's word moves after the restore" => restore::FAILED, "I4", "undefined registers", 0;
    SectionSkipsSave, "the save before a section" => section::TASK, "I1", "unsaved state lost", 0;
    SectionMarksBeforeSave, "the order of that save and its mark" => wrong::IN_SECTION, "I1", "Causality violation", 0;
    SectionMarkRelaxed, "the release of that mark" => wrong::IN_SECTION, "I1", "Causality violation", 0;
    SectionKeepsStamp, "the invalidation by a section" => section::TASK, "I5, I11", "kernel residue", 0;
    SectionSkipsGate, "the closing for a section" => section::INTERRUPT, "I3, I5", "kernel residue", 0;
    SectionNests, "the refusal inside a section or session" => section::INTERRUPT, "I5", "kernel residue", 0;
    SectionRefusedStaysClosed, "the reopening after a refusal" => wrong::ELSEWHERE, "liveness", "Busy", 0;
    CloseReadsBeforeGate, "the order of gate and word" => section::LIFECYCLE, "I3", "kernel residue", 0;
    CloseKeepsWordOpen, "the closing of the word behind the gate" => wrong::INSIDE, "I5", "not reported", 0;
    PersistentTrustsStale, "the comparison before a persistent run" => section::PERSISTENT, "I2, I11", "residue", 0;
    PersistentSkipsSave, "the save after it" => section::PERSISTENT, "I1", "stale registers", 0;
    PersistentKeepsStamp, "the new stamp for its load" => section::PERSISTENT, "I2", "another task's residue", 0;
    PersistentSkipsMark, "the mark of a context that runs" => wrong::TWICE, "I1", "not reported", 0;
    PersistentMarkRelaxed, "the release of the mark after it" => wrong::IN_PERSISTENT, "I1", "Causality violation", 0;
    PlanMarkRelaxed, "the release of the mark of an executed plan" => wrong::IN_PLAN, "I1", "Causality violation", 0;
    RawMarkRelaxed, "the release of the mark by `raw::saved`" => wrong::IN_RAW, "I1", "Causality violation", 0;
    SessionMarkRelaxed, "the release of the mark after a session's save" => wrong::IN_SESSION, "I1", "Causality violation", 0;
    WriteKeepsClaim, "the invalidation before a session writes memory" => section::SESSION, "I1", "lost write", 0;
    WriteKeepsOtherClaim, "the invalidation before a session writes what another CPU claims" => migrate::WRITE, "I1", "lost write", 1;
    WriteSkipsSave, "the save before a session reads memory" => section::SESSION, "I1", "stale registers", 0;
    SessionSkipsGate, "the closing for a session" => section::INTERRUPT, "I3", "kernel residue", 0;
    SessionReloadKeepsStamp, "the new stamp for a session's load" => section::SESSION, "I2", "another task's residue", 0;
    SessionReturnSkipsMark, "the mark on return from a session" => section::SESSION, "I1", "stale registers", 0;
    StoppedWriteKeepsClaim, "the invalidation before a debugger writes" => stopped::WRITE, "I1", "lost write", 0;
    StoppedIgnoresLive, "the refusal of a task that runs" => wrong::STOPS, "I1", "Causality violation", 0;
    OnlineResetsCounter, "the count kept over offline" => power::OFFLINE, "I2", "another task's residue", 0;
    OfflineKeepsOpen, "the closing of an offline CPU" => power::OFFLINE, "I2", "offline CPU used", 0;
    OfflineReadsBeforeGate, "the order of gate and word in going offline" => power::OFFLINE_INTERRUPTED, "I2", "undefined registers", 0;
    OfflineTrustsForgotten, "the refusal to go offline where a guard was forgotten" => power::OFFLINE_FORGOTTEN, "I2, I5", "residue", 0;
    ResumeKeepsStamp, "the invalidation at resume" => power::RESUME, "I2", "undefined registers", 0;
    ForkSkipsSave, "the save before a fork" => lifetime::FORK, "I13", "stale registers", 0;
    ForkCopiesClaim, "the child's being nowhere" => lifetime::FORK, "I2, I13", "stale registers", 0;
    ForkKeepsChildClaim, "the invalidation of a child's earlier life" => lifetime::RECYCLED, "I2, I13", "stale registers", 3;
    NewSkipsInitial, "the initial image of a new context" => lifetime::REUSE, "I8, I11", "residue", 0;
    ResetKeepsClaim, "the invalidation at exec" => lifetime::EXEC, "I1, I13", "residue", 0;
    CounterWraps, "the end of the stamps" => power::EXHAUSTED, "I2", "another task's residue", 0;
    VerifySkipsSave, "the save before registers are compared with memory" => verify::RIGHT, "no false alarm", "false alarm", 0;
    VerifyKeepsClaim, "the invalidation after they disagree" => verify::BROKEN, "I1, I11", "kernel residue", 0;
    IdleKeepsClaim, "the invalidation after an idle CPU gave up registers" => idle::BETWEEN, "I1, I2", "torn state", 0;
    IdleReopensEarly, "the order: the CPU is open again before they are given up" => idle::INTERRUPT, "I2, I3", "torn state", 0;
}

rows! { BACKEND, Backend(Backend):
    SaveOmitsComponent, "B2: a component from the save" => switch::SWITCH, "I6", "torn state", 0;
    SaveClobbers, "B2: the registers kept by a save" => switch::BOUNCE, "I1", "undefined registers", 0;
    RestoreLeavesResidue, "B3: the initial value of an absent component" => switch::SWITCH, "I8, I11", "residue", 0;
    RestoreHidesFailure, "B4: the error of a restore" => restore::FAILED, "I4", "undefined registers", 0;
    FailedRestoreWritesImage, "B4: the image kept by a failed restore" => restore::FAILED, "I4", "undefined registers", 0;
    InitialKeepsOldBytes, "a component from the initial image" => lifetime::REUSE, "I8, I11", "another task's residue", 1;
    KernelDefaultsMissing, "the control words a section begins with" => section::TASK, "I5", "section without defaults", 0;
    ChildCopyOmits, "a component from the child's copy" => lifetime::FORK, "I6, I13", "torn state", 0;
    ReplaceOmitsComponent, "a component from a state that replaces another" => migrate::REPLACE, "I6, I13", "torn state", 0;
    CopyLoadsOldBytes, "the absence of a component in an image that is copied" => migrate::COPY, "I8", "torn state", 0;
    CompareOmitsComponent, "V2: a component from the comparison" => verify::BROKEN, "I11", "not found", 0;
}

rows! { EMBEDDER, Embedder(Embedder):
    NoPrepare, "`switch_prepare` on the way out" => switch::SWITCH, "I1", "unsaved state", 0;
    PreparesNext, "it for the right task" => switch::ALTERNATE, "I1", "unsaved state", 0;
    HandsOverBeforePrepare, "P4: the order of save and hand-over" => switch::SWITCH, "I1", "unsaved state elsewhere", 0;
    RelaxedHandOver, "P4: release and acquire of the run queue" => switch::SWITCH, "I1", "Causality violation", 0;
    NoReturn, "`switch_return`" => switch::SWITCH, "I1", "another task's residue", 0;
    IgnoresReturnError, "the stop after its error" => restore::FAILED, "I4", "undefined registers", 0;
    ClobbersAfterReturn, "the use of its answer at once: a section comes between" => switch::SWITCH, "I3", "kernel residue", 0;
    StaleToken, "P1: the pin; the token is another CPU's" => switch::SWITCH, "I3", "stale registers", 0;
    InterruptsOnInSwitch, "E1: interrupts off in a switch" => section::INTERRUPT, "I3", "unsaved state lost", 0;
    NmiSaidToBeIrq, "P5: the level of an NMI" => section::NMI, "I5", "unsaved state lost", 0;
    KernelUsesRegisters, "F1: soft-float code between two calls" => switch::BOUNCE, "I5, I11", "kernel residue", 0;
    SectionToldNobody, "the current task from a section's arguments" => section::TASK, "I1, I5", "unsaved state lost", 0;
    SectionToldOther, "the right task from them" => section::TASK, "I1, I5", "unsaved state lost", 0;
    WordsZeroed, "W1: words kept while offline" => power::OFFLINE, "I2", "another task's residue", 0;
    SharedCpuNumber, "O1: one number for each CPU; the third has the first one's" => switch::THREE_CPUS, "I2", "another task's residue", 1;
    OfflineNotCalled, "`fpu_offline`" => power::OFFLINE, "I2, I10", "undefined registers", 0;
    ResumeNotCalled, "`fpu_resume`" => power::RESUME, "I2", "undefined registers", 0;
    StoppedWhileRunning, "T1: the stop" => stopped::READ, "I1", "Causality violation", 0;
    RecyclesContext, "`new` for a new task" => lifetime::REUSE, "I2, I11", "residue", 0;
    NoReset, "`reset` at exec" => lifetime::EXEC, "I13", "residue", 0;
    VectorCodeAfterPlan, "L2: registers unchanged from plan to user mode" => restore::PLAN, "I3", "kernel residue", 0;
    CommitsWithoutRestore, "L1: the planned restore" => restore::PLAN, "I1", "stale registers", 0;
    CommitsAfterFailure, "L1: its success" => restore::PLAN, "I4", "undefined registers", 0;
    SavesLate, "L4: the save before other code" => restore::PLAN, "I3", "kernel residue", 0;
    RawForgetsCommit, "R2: `saved` after the save" => restore::RAW, "I1", "unsaved state elsewhere", 0;
}

/// All models; each must catch at least one fault.
pub const MODELS: &[&Model] = &[
    &switch::SWITCH,
    &switch::THREE_CPUS,
    &switch::ALTERNATE,
    &switch::BOUNCE,
    &lifetime::REUSE,
    &lifetime::FORK,
    &lifetime::RECYCLED,
    &lifetime::EXEC,
    &stopped::READ,
    &stopped::WRITE,
    &section::TASK,
    &section::INTERRUPT,
    &section::LIFECYCLE,
    &section::NMI,
    &section::PERSISTENT,
    &section::SESSION,
    &migrate::WRITE,
    &migrate::REPLACE,
    &migrate::COPY,
    &restore::FAILED,
    &restore::PLAN,
    &restore::RAW,
    &power::OFFLINE,
    &power::OFFLINE_INTERRUPTED,
    &power::OFFLINE_FORGOTTEN,
    &power::RESUME,
    &power::EXHAUSTED,
    &idle::BETWEEN,
    &idle::INTERRUPT,
    &verify::RIGHT,
    &verify::BROKEN,
    &wrong::IN,
    &wrong::IN_SECTION,
    &wrong::IN_PLAN,
    &wrong::IN_RAW,
    &wrong::IN_SESSION,
    &wrong::IN_PERSISTENT,
    &wrong::STOPS,
    &wrong::ELSEWHERE,
    &wrong::TWICE,
    &wrong::INSIDE,
    &wrong::LOST,
];

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Row> {
    [PROTOCOL, BACKEND, EMBEDDER].into_iter().flatten()
}

const INTRO: &str = "\
# Seeded faults

Each fault takes one step out of the protocol (`fpu_core`'s `Fault`), out of a backend, or out of a
kernel, and leaves everything else as it is. The named model must then fail, and name what was
violated; without the fault the same model passes. A fault that no model catches is a missing model.

The faults are switched at run time in one build:

```text
RUSTFLAGS=\"--cfg fpu_loom\" CARGO_TARGET_DIR=target/loom \\
    cargo test --release -p fpu-hosted-test --test 'loom_*' --test faults
```

`-- --nocapture` prints how many executions each model explores, and after how many each fault was
caught. The models are in `fpu-hosted-test/src/model`; the invariants (I1 to I13) are those of
[theory.md](theory.md). \"Bound\" is the model's bound on preemptions; \"none\" means every
interleaving that loom distinguishes; \"preemptions\" is the fewest that one execution needs to show
the fault, and the test checks that number too. \"Explorer\" is the length of the shortest trace by which the
explorer (`src/explore`) finds it, in a build with `--cfg fpu_seeded`, or why it cannot: \"ordering\" is weak memory,
which only loom has. Each model must explore a number of executions at least, and
come to its cases in some of them; the last table has both. This file is generated from `src/model/table.rs`: the same
command with `FPU_BLESS=1` rewrites it.
";

/// The last column.
fn by_explorer(name: &str) -> String {
    match seen(name) {
        Some(Seen::At(depth)) => format!(" at depth {depth} |"),
        Some(Seen::Not(why)) => format!(" no: {why} |"),
        None => panic!("{name} is not in `seeded.rs`"),
    }
}

/// The table as it stands in `docs/faults.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(INTRO);
    for (title, rows) in [("Protocol", PROTOCOL), ("Backend", BACKEND), ("Kernel", EMBEDDER)] {
        text += &format!("\n## {title} ({} faults)\n\n", rows.len());
        // The core's faults are the explorer's too.
        let explored = title == "Protocol";
        let (head, rule) = if explored { (" explorer |", "---|") } else { ("", "") };
        text += &format!(
            "| fault | takes away | caught by | invariant | as | preemptions | bound |{head}\n"
        );
        text += &format!("|---|---|---|---|---|---|---|{rule}\n");
        for row in rows {
            let bound = row.model.bound.map_or(String::from("none"), |b| b.to_string());
            text += &format!(
                "| `{}` | {} | `{}` | {} | {} | {} | {bound} |{}\n",
                row.name().1,
                row.removes,
                row.model.name,
                row.breaks,
                row.message,
                row.preemptions,
                if explored { by_explorer(&row.name().1) } else { String::new() }
            );
        }
    }
    text += &format!("\n## Models ({})\n\n", MODELS.len());
    text += "| model | guards | interrupts | explores at least | must come to |\n|---|---|---|---|---|\n";
    for model in MODELS {
        let interrupts = if model.interrupts { "at every step" } else { "none" };
        text += &format!(
            "| `{}` | {} | {interrupts} | {} | {} |\n",
            model.name,
            model.guards,
            model.floor,
            model.covers.join("; ")
        );
    }
    text
}
