//! Which model must catch which fault, and with what words.

use super::{
    bound,
    fault::{Backend, Embedder, Seeded},
    idle, inside, lifetime, migrate, power, restore, section, stopped, switch, verify, wrong,
    Model,
};
use crate::{
    edit::Edit,
    seeded::{
        Seen::{self, At, Not},
        COST, EVENT, ORDERING, REASON, SCENARIO,
    },
};

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The fault's name.
    pub name: &'static str,
    /// The fault.
    pub fault: Seeded,
    /// What it takes away.
    pub removes: &'static str,
    /// What must catch it.
    pub by: By,
    /// The invariant of the design that it breaks.
    pub breaks: &'static str,
    /// What the violation must be called.
    pub message: &'static str,
    /// For a fault of the protocol: what the explorer makes of it, and the edits of the core.
    pub edits: Option<(Seen, &'static [Edit])>,
}

/// What must catch a fault.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// This model, which needs at least so many preemptions to come to the violation.
    Model(&'static Model, usize),
    /// The explorer alone, for this reason.
    Explorer(&'static str),
}

impl Row {
    /// The model that must catch it, if one must.
    #[must_use]
    pub fn model(&self) -> Option<&'static Model> {
        match self.by {
            By::Model(model, _) => Some(model),
            By::Explorer(_) => None,
        }
    }
}

macro_rules! by {
    ($model:path, $preemptions:literal) => {
        By::Model(&$model, $preemptions)
    };
    ($why:path) => {
        By::Explorer($why)
    };
}

macro_rules! rows {
    ($name:ident: $($fault:ident, $removes:literal => $($model:path)? $([$why:path])?, $breaks:literal, $message:literal,
        $($preemptions:literal,)? $seen:ident($how:tt), $($file:literal: $before:literal => $after:literal),+;)*) => {
        const $name: &[Row] = &[$(Row {
            name: stringify!($fault),
            fault: Seeded::Protocol(stringify!($fault)),
            removes: $removes,
            by: by!($($model, $preemptions)? $($why)?),
            breaks: $breaks,
            message: $message,
            edits: Some(($seen($how), &[$(($file, $before, $after)),+])),
        }),*];
    };
}
macro_rules! protocol {
    ($($row:tt)*) => { rows! { FIRST: $($row)* } };
}
macro_rules! bound {
    ($($row:tt)*) => { rows! { BOUND: $($row)* } };
}
include!("../protocol.rs");
include!("../bound.rs");

/// The rows of the protocol.
pub const PROTOCOL: &[Row] = &{
    let mut all = [FIRST[0]; FIRST.len() + BOUND.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < FIRST.len() { FIRST[at] } else { BOUND[at - FIRST.len()] };
        at += 1;
    }
    all
};

/// Makes the rows, and a `match` without wildcard: a fault that has no row does not compile.
macro_rules! rows {
    ($list:ident, $layer:ident($faults:ident): $(
        $fault:ident, $removes:literal => $model:expr, $breaks:literal, $message:literal, $preemptions:literal;
    )*) => {
        /// The rows of this layer.
        pub const $list: &[Row] = &[$(Row {
            name: stringify!($fault),
            fault: Seeded::$layer($faults::$fault),
            removes: $removes,
            by: By::Model(&$model, $preemptions),
            breaks: $breaks,
            message: $message,
            edits: None,
        }),*];
        const _: fn($faults) = |fault| match fault { $($faults::$fault => {})* };
    };
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
    CompareOmitsComponent, "B9: a component from the comparison" => verify::BROKEN, "I11", "not found", 0;
    UnchangedGuesses, "B17: the comparison" => switch::UNCHANGED, "I1", "stale registers", 0;
}

rows! { EMBEDDER, Embedder(Embedder):
    NoPrepare, "`switch_prepare` on the way out" => switch::SWITCH, "I1", "unsaved state", 0;
    PreparesNext, "`switch_prepare` for the right task" => switch::ALTERNATE, "I1", "unsaved state", 0;
    HandsOverBeforePrepare, "K5: the order of save and hand-over" => switch::SWITCH, "I1", "unsaved state elsewhere", 0;
    RelaxedHandOver, "K5: release and acquire of the run queue" => switch::SWITCH, "I1", "Causality violation", 0;
    NoReturn, "`switch_return`" => switch::SWITCH, "I1", "another task's residue", 0;
    IgnoresReturnError, "the stop after an error of `switch_return`" => restore::FAILED, "I4", "undefined registers", 0;
    ClobbersAfterReturn, "the use of the answer of `switch_return` at once: a section comes between" => switch::SWITCH, "I3", "kernel residue", 0;
    StaleToken, "K2: the pin (the token is another CPU's)" => switch::SWITCH, "I3", "stale registers", 0;
    InterruptsOnInSwitch, "K8: interrupts off in a switch" => section::INTERRUPT, "I3", "unsaved state lost", 0;
    NmiSaidToBeIrq, "K6: the level of an NMI" => section::NMI, "I5", "unsaved state lost", 0;
    KernelUsesRegisters, "K9: soft-float code between two calls" => switch::BOUNCE, "I5, I11", "kernel residue", 0;
    SectionToldNobody, "the current task from a section's arguments" => section::TASK, "I1, I5", "unsaved state lost", 0;
    SectionToldOther, "the right task from a section's arguments" => section::TASK, "I1, I5", "unsaved state lost", 0;
    WordsZeroed, "K13: words kept while offline" => power::OFFLINE, "I2", "another task's residue", 0;
    SharedCpuNumber, "K15: one number for each CPU (the third has the number of the first)" => switch::THREE_CPUS, "I2", "another task's residue", 1;
    OfflineNotCalled, "`fpu_offline`" => power::OFFLINE, "I2, I10", "undefined registers", 0;
    ResumeNotCalled, "`fpu_resume`" => power::RESUME, "I2", "undefined registers", 0;
    StoppedWhileRunning, "K10: the stop" => stopped::READ, "I1", "Causality violation", 0;
    RecyclesContext, "`new` for a new task" => lifetime::REUSE, "I2, I11", "residue", 0;
    NoReset, "`reset` at exec" => lifetime::EXEC, "I13", "residue", 0;
    VectorCodeAfterSteps, "C13: registers unchanged from the steps to user mode" => restore::USER_STEPS, "I3", "kernel residue", 0;
    CommitsWithoutRestore, "C12: the restore of the steps" => restore::USER_STEPS, "I1", "stale registers", 0;
    CommitsAfterFailure, "C12: the success of the restore of the steps" => restore::USER_STEPS, "I4", "undefined registers", 0;
    SavesLate, "C15: the save before other code" => restore::USER_STEPS, "I3", "kernel residue", 0;
    SwitchForgetsSave, "C39: the save of a switch's steps" => restore::STEPS, "I1", "stale registers", 0;
    SwitchForgetsCommit, "C39: the commit of the save of a switch's steps" => restore::STEPS, "I1", "unsaved state", 0;
    SwitchForgetsRestore, "C39: the restore of a switch's steps" => restore::STEPS, "I1, I11", "residue", 0;
    SwitchSavesLate, "C40: the save before other code" => restore::STEPS, "I3", "kernel residue", 0;
    SectionForgetsSave, "C42: the save of a section's steps" => restore::SECTION_STEPS, "I1", "stale registers", 0;
    GuestForgetsHost, "C43: the save of a guest's host" => restore::SECTION_STEPS, "I1", "stale registers", 0;
    GuestForgetsSave, "C43: the save of a guest" => restore::SECTION_STEPS, "I1", "stale registers", 0;
    RawForgetsCommit, "C17: `saved` after the save" => restore::RAW, "I1", "unsaved state elsewhere", 0;
}

/// All models. Each must catch at least one fault.
pub const MODELS: &[&Model] = &[
    &switch::SWITCH,
    &switch::UNCHANGED,
    &switch::THREE_CPUS,
    &switch::ALTERNATE,
    &switch::BOUNCE,
    &inside::ADOPT,
    &inside::SWITCH,
    &inside::RETURN,
    &inside::HELD,
    &lifetime::REUSE,
    &lifetime::FORK,
    &lifetime::RECYCLED,
    &lifetime::EXEC,
    &lifetime::GROW,
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
    &restore::USER_STEPS,
    &restore::STEPS,
    &restore::SECTION_STEPS,
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
    &bound::MOVES,
    &bound::UNORDERED,
    &wrong::IN,
    &wrong::IN_SECTION,
    &wrong::IN_STEPS,
    &wrong::IN_RAW,
    &wrong::IN_SESSION,
    &wrong::IN_WRITE,
    &wrong::IN_MEMORY_WRITE,
    &wrong::IN_STOPPED_WRITE,
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

Each fault takes one step out of the protocol (`fpu-core`), out of a backend, or out of a kernel,
and leaves everything else as it is. The named model must then fail, and name what was violated. Without the fault the same
model passes. Where \"caught by\" names no model, the explorer alone must find the fault, and name what was violated; that
column then has the reason. \"A cost\": contents stay right, and the fault costs a save, a restore or power. \"A refusal's
reason\": the core refuses a call, as it must, with the wrong error. \"An event\": the core tells its observer too early.
\"No scenario\": no model comes to the order of calls that shows the fault. No model may notice such a fault without a
preemption: the row must name a model that does. A fault that neither a model nor the explorer catches is a missing model.
Whether the core tells of an event at all is another question: the tests of `sim_events` compare what each operation tells.

A fault of the protocol is an edit of the core's source: the models are built over a copy with that edit, and must fail. A
build without a fault is the control. Faults of a backend or a kernel are code of the models, which a test switches on at
run time.

```text
cargo run --release -p fpu-models --bin faults                        the protocol's, by name if names follow
cargo test --release -p fpu-models --test 'loom_*' --test faults      the models, and the other faults
FPU_FAULT=NAME cargo test --release -p fpu-models --test 'loom_*'     how a fault looks
```

`-- --nocapture` prints how many executions each model explores. If the core does not have the text of an edit exactly once,
a copy does not build, or neither a model nor the explorer notices a fault, the run fails and names the fault. The models are in
`fpu-hosted-test/models`; the invariants (I1 to I15) are those of
[theory.md](theory.md). \"Bound\" is the model's bound on preemptions; \"none\" means every
interleaving that loom distinguishes. \"Preemptions\" is the fewest that one execution needs to show
the fault, and the test checks that number too. \"Explorer\" is the length of the shortest trace by which the
explorer (`src/explore`) finds the fault, or why the explorer cannot: \"ordering\" is weak memory, which only loom has. Each
model must explore a number of executions at least, and come to its cases in some of them; the last table has both. This
file is generated from `src/protocol.rs` and `src/model/table.rs`: `FPU_BLESS=1 cargo test -p fpu-models --test faults`
rewrites it.
";

/// What `docs/theory.md` says of the explorer's part in the faults of the protocol.
#[must_use]
pub fn explored() -> String {
    let edits = PROTOCOL.iter().filter_map(|row| Some((row.name, row.edits?.0)));
    let mut late: Vec<(usize, &str)> = Vec::new();
    let (mut soon, mut never) = (0, 0);
    for (name, seen) in edits {
        match seen {
            At(depth) if depth > 3 => late.push((depth, name)),
            At(_) => soon += 1,
            Not(_) => never += 1,
        }
    }
    late.sort_unstable();
    let alone = PROTOCOL.iter().filter(|row| row.model().is_none()).count();
    let found = soon + late.len();
    let late: Vec<_> = late.iter().map(|(depth, name)| format!("`{name}` after {depth}")).collect();
    format!(
        "Of {} it finds {found}, {alone} of them alone: {soon} within three moves from the beginning, {}. \
         The other {never} weaken an ordering",
        found + never,
        late.join(", ")
    )
}

/// The last column.
fn by_explorer(seen: Seen) -> String {
    match seen {
        At(depth) => format!(" at depth {depth} |"),
        Not(why) => format!(" no: {why} |"),
    }
}

/// The table as it stands in `docs/faults.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(INTRO);
    for (title, rows) in [("Protocol", PROTOCOL), ("Backend", BACKEND), ("Kernel", EMBEDDER)] {
        text += &format!("\n## {title} ({} faults)\n\n", rows.len());
        // The core's faults are the explorer's too.
        let (head, rule) = if title == "Protocol" { (" explorer |", "---|") } else { ("", "") };
        text += &format!(
            "| fault | takes away | caught by | invariant | as | preemptions | bound |{head}\n"
        );
        text += &format!("|---|---|---|---|---|---|---|{rule}\n");
        for row in rows {
            let (caught, preemptions, bound) = match row.by {
                By::Model(model, preemptions) => {
                    let bound = model.bound.map_or(String::from("none"), |b| b.to_string());
                    (format!("`{}`", model.name), preemptions.to_string(), bound)
                }
                By::Explorer(why) => (format!("explorer ({why})"), "-".into(), "-".into()),
            };
            text += &format!(
                "| `{}` | {} | {caught} | {} | {} | {preemptions} | {bound} |{}\n",
                row.name,
                row.removes,
                row.breaks,
                row.message,
                row.edits.map_or(String::new(), |(seen, _)| by_explorer(seen))
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
