//! The size of the machine, and what its kernel can do.

/// CPUs of the machine.
pub(super) const CPUS: usize = 2;
/// Contexts that were never used at first.
pub(super) const TASKS: usize = 2;

/// What a kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// A context becomes current, by `switch_return`; the current one leaves.
    Takes,
    Leaves,
    /// The same by `switch`, from none, to another, and to none.
    SwitchesIn,
    Switches,
    SwitchesOut,
    /// The current task runs, and uses no register; looks at them; writes them.
    Scalar,
    Looks,
    Writes,
    /// Its first use cannot load.
    UseFails,
    /// A section under the current task, or none.
    Section,
    /// Code that may use the context exclusively, or as the current one, writes its image.
    Debugger,
    Fork,
    Exec,
    Exit,
    Idle,
    Offline,
    Online,
}

pub(super) const OPS: [Op; 17] = [
    Op::Takes,
    Op::Leaves,
    Op::SwitchesIn,
    Op::Switches,
    Op::SwitchesOut,
    Op::Scalar,
    Op::Looks,
    Op::Writes,
    Op::UseFails,
    Op::Section,
    Op::Debugger,
    Op::Fork,
    Op::Exec,
    Op::Exit,
    Op::Idle,
    Op::Offline,
    Op::Online,
];

/// An operation on a CPU about a context, with an interrupt at one of its steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) cpu: usize,
    pub(super) op: Op,
    pub(super) which: usize,
    pub(super) irq: Option<u32>,
}
