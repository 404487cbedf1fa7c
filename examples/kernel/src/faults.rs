//! Faults that a boot parameter seeds (`fault=NAME`): each must end in a verdict that names what broke.
//!
//! The program that boots the kernel compiles this file too, so it is the one list of names.

/// One step of the integration left out or done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// See [`Fault::about`]; so for all.
    SkipRestore,
    SkipSave,
    ForgetPrepare,
    FewComponents,
    VectorKernel,
    NoSection,
    IgnoreBusy,
    NmiUses,
    NmiWithoutIst,
    NoResume,
    StaleWords,
    ClearedWords,
    SameNumber,
    StaleSlot,
    ForkStale,
    ForkInherits,
    ExecKeeps,
    TraceClaim,
    TraceRunning,
    NoFixup,
    IgnoreFailure,
    ControlDrift,
    NoPkru,
    FrameLacks,
    FrameStale,
    FrameElsewhere,
    EditLost,
    JunkIgnored,
    PkruDelivered,
    PkruOfHandler,
    PkruKept,
    LatePkru,
    GuestUnsaved,
    GuestNoted,
    GuestXcr0,
    GuestPkru,
    TrapUnarmed,
    TrapUntold,
    NoTimer,
    NoResched,
    NoMigration,
    NoIrqSections,
    MaskedWorkers,
    ShortArea,
    MovedComponent,
    LegacyRestore,
    UserRestore,
    Exception,
    NoTable,
    StandStill,
    XfdUnwritten,
    AreaKept,
    PermissionIgnored,
}

/// What a machine must have for the fault to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Protection keys.
    Pku,
    /// A CPU that refuses a bad image.
    BadImage,
    /// AVX, saved in the standard format.
    Standard,
    /// AVX-512, saved in the standard format.
    Standard512,
    /// Supervisor state, which XSAVES alone saves.
    Supervisor,
    /// XRSTORS without a scrub, and supervisor state.
    Unscrubbed,
    /// Guests of SVM.
    Svm,
    /// And AVX in XCR0.
    SvmAvx,
    /// And protection keys.
    SvmPku,
    /// A plan all of whose registers CR0.TS covers.
    Trap,
    /// Another CPU.
    SecondCpu,
    /// Tiles on demand.
    Demand,
}

impl Fault {
    pub const ALL: [Self; 53] = [
        Self::SkipRestore,
        Self::SkipSave,
        Self::ForgetPrepare,
        Self::FewComponents,
        Self::VectorKernel,
        Self::NoSection,
        Self::IgnoreBusy,
        Self::NmiUses,
        Self::NmiWithoutIst,
        Self::NoResume,
        Self::StaleWords,
        Self::ClearedWords,
        Self::SameNumber,
        Self::StaleSlot,
        Self::ForkStale,
        Self::ForkInherits,
        Self::ExecKeeps,
        Self::TraceClaim,
        Self::TraceRunning,
        Self::NoFixup,
        Self::IgnoreFailure,
        Self::ControlDrift,
        Self::NoPkru,
        Self::FrameLacks,
        Self::FrameStale,
        Self::FrameElsewhere,
        Self::EditLost,
        Self::JunkIgnored,
        Self::PkruDelivered,
        Self::PkruOfHandler,
        Self::PkruKept,
        Self::LatePkru,
        Self::GuestUnsaved,
        Self::GuestNoted,
        Self::GuestXcr0,
        Self::GuestPkru,
        Self::TrapUnarmed,
        Self::TrapUntold,
        Self::NoTimer,
        Self::NoResched,
        Self::NoMigration,
        Self::NoIrqSections,
        Self::MaskedWorkers,
        Self::ShortArea,
        Self::MovedComponent,
        Self::LegacyRestore,
        Self::UserRestore,
        Self::Exception,
        Self::NoTable,
        Self::StandStill,
        Self::XfdUnwritten,
        Self::AreaKept,
        Self::PermissionIgnored,
    ];

    /// As the boot parameter has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SkipRestore => "skip-restore",
            Self::SkipSave => "skip-save",
            Self::ForgetPrepare => "forget-prepare",
            Self::FewComponents => "few-components",
            Self::VectorKernel => "vector-kernel",
            Self::NoSection => "no-section",
            Self::IgnoreBusy => "ignore-busy",
            Self::NmiUses => "nmi-uses",
            Self::NmiWithoutIst => "nmi-without-ist",
            Self::NoResume => "no-resume",
            Self::StaleWords => "stale-words",
            Self::ClearedWords => "cleared-words",
            Self::SameNumber => "same-number",
            Self::StaleSlot => "stale-slot",
            Self::ForkStale => "fork-stale",
            Self::ForkInherits => "fork-inherits",
            Self::ExecKeeps => "exec-keeps",
            Self::TraceClaim => "trace-claim",
            Self::TraceRunning => "trace-running",
            Self::NoFixup => "no-fixup",
            Self::IgnoreFailure => "ignore-failure",
            Self::ControlDrift => "control-drift",
            Self::NoPkru => "no-pkru",
            Self::FrameLacks => "frame-lacks",
            Self::FrameStale => "frame-stale",
            Self::FrameElsewhere => "frame-elsewhere",
            Self::EditLost => "edit-lost",
            Self::JunkIgnored => "junk-ignored",
            Self::PkruDelivered => "pkru-delivered",
            Self::PkruOfHandler => "pkru-of-handler",
            Self::PkruKept => "pkru-kept",
            Self::LatePkru => "late-pkru",
            Self::GuestUnsaved => "guest-unsaved",
            Self::GuestNoted => "guest-noted",
            Self::GuestXcr0 => "guest-xcr0",
            Self::GuestPkru => "guest-pkru",
            Self::TrapUnarmed => "trap-unarmed",
            Self::TrapUntold => "trap-untold",
            Self::NoTimer => "no-timer",
            Self::NoResched => "ignore-resched",
            Self::NoMigration => "no-migration",
            Self::NoIrqSections => "no-irq-sections",
            Self::MaskedWorkers => "masked-workers",
            Self::ShortArea => "short-area",
            Self::MovedComponent => "moved-component",
            Self::LegacyRestore => "legacy-restore",
            Self::UserRestore => "user-restore",
            Self::Exception => "kernel-fault",
            Self::NoTable => "triple-fault",
            Self::StandStill => "stand-still",
            Self::XfdUnwritten => "xfd-unwritten",
            Self::AreaKept => "area-kept",
            Self::PermissionIgnored => "permit-anybody",
        }
    }

    /// What it does, for people.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::SkipRestore => "user mode is entered without the restore that is due",
            Self::SkipSave => "registers are not saved when their task leaves",
            Self::ForgetPrepare => "the scheduler does not call switch_prepare",
            Self::FewComponents => "saves leave out what is above x87 and SSE (without XSAVE: XMM)",
            Self::VectorKernel => {
                "a system call's code uses a vector register outside of a section"
            }
            Self::NoSection => "an interrupt handler uses the registers without a section",
            Self::IgnoreBusy => "an interrupt handler is refused a section, and goes on",
            Self::NmiUses => "a non-maskable interrupt is refused a section, and goes on",
            Self::NmiWithoutIst => "non-maskable interrupts have no stack of their own",
            Self::NoResume => "registers are lost in a suspend, and fpu_resume is not called",
            Self::StaleWords => "a CPU that comes back gets the words that it had before it left",
            Self::ClearedWords => {
                "a CPU that comes back starts with its words cleared, again and again"
            }
            Self::SameNumber => "all CPUs come online under one number, with copies of one block",
            Self::StaleSlot => "a new task gets the state of the task whose memory it got",
            Self::ForkStale => "a fork copies the parent's image without saving its registers",
            Self::TraceClaim => {
                "a debugger writes the image of a stopped task, and claims of registers stay"
            }
            Self::TraceRunning => "a debugger takes a task for stopped that runs",
            Self::ExecKeeps => "a task that begins another program keeps its registers",
            Self::ForkInherits => "a child inherits supervisor state and tiles",
            Self::NoFixup => "the fault handlers do not ask fpu_x86::fixup",
            Self::IgnoreFailure => "user mode is entered although the restore failed",
            Self::ControlDrift => "something changes CR4 behind the plan",
            Self::NoPkru => "PKRU is not switched",
            Self::FrameLacks => "signal frames leave out SSE and AVX",
            Self::FrameStale => {
                "signal frames have what memory holds, though the registers are newer"
            }
            Self::FrameElsewhere => {
                "frames are written, without a session, of tasks that run on another CPU"
            }
            Self::EditLost => "a return from a signal takes the kernel's own copy of the frame",
            Self::JunkIgnored => {
                "a return from a signal by junk is taken for one that changes nothing"
            }
            Self::PkruDelivered => "a signal handler starts with the PKRU of what it interrupts",
            Self::PkruOfHandler => "signal frames have the PKRU with which the handler starts",
            Self::PkruKept => "a frame without PKRU is read as one that leaves it alone",
            Self::LatePkru => "PKRU is switched on the way to user mode only",
            Self::GuestUnsaved => "a virtual CPU's thread is switched out without a save",
            Self::GuestNoted => "a virtual CPU counts as loaded where it ran last",
            Self::GuestXcr0 => "a virtual CPU is saved while its own XCR0 is in force",
            Self::GuestPkru => "a guest runs with the host's PKRU",
            Self::TrapUnarmed => {
                "a thread that was never seen to use a register runs without the trap"
            }
            Self::TrapUntold => {
                "an interrupt's section is told of no thread while the trap is armed for one"
            }
            Self::NoTimer => "the timer does not preempt",
            Self::NoResched => "a preemption that had to wait is forgotten",
            Self::NoMigration => "tasks stay on the CPU that they began on",
            Self::NoIrqSections => "interrupt handlers never ask for a section",
            Self::MaskedWorkers => "kernel threads use the registers with interrupts off",
            Self::ShortArea => "CPUID packs AVX-512 behind AVX, so that areas are too short",
            Self::MovedComponent => "CPUID has AVX elsewhere than the CPU saves it",
            Self::LegacyRestore => "FXRSTOR restores what XSAVES has saved",
            Self::UserRestore => "XRSTORS is not asked for supervisor components",
            Self::Exception => "a function of the kernel executes UD2",
            Self::NoTable => "it does so without an interrupt table",
            Self::StandStill => "the first CPU spins with interrupts off, for ever",
            Self::XfdUnwritten => {
                "the restore of a task without room for tiles does not write IA32_XFD"
            }
            Self::AreaKept => "a task may use tiles, and keeps an area without room for them",
            Self::PermissionIgnored => "a task without permission is given room for tiles",
        }
    }

    /// What the verdict must say: it holds one of these.
    #[must_use]
    pub const fn signs(self) -> &'static [&'static str] {
        match self {
            Self::PkruDelivered => &["the signal handler of task"],
            Self::EditLost => &["register ", "returns by junk"],
            Self::GuestNoted => &["register "],
            Self::GuestXcr0 => &["register ymm"],
            Self::GuestPkru => &["register pkru"],
            Self::ForgetPrepare | Self::GuestUnsaved => {
                &["live in the registers of CPU", "given away before"]
            }
            Self::StaleSlot => &["new task"],
            Self::ForkStale => &["forked task"],
            Self::TraceRunning => &["live in the registers of CPU", "register "],
            Self::ExecKeeps => &["the new program of task", "for which the area has no room"],
            Self::ForkInherits => &["the child of task"],
            Self::NoFixup => &["exception 13 in the kernel"],
            Self::ControlDrift => &["CR4 should be"],
            Self::NmiWithoutIst => &["an NMI is not on its own stack"],
            Self::TrapUnarmed => &["was not trapped", "register "],
            Self::TrapUntold => &["a section or session is open"],
            Self::NoTimer => &["too few preemptions"],
            Self::NoResched => &["with a preemption due"],
            Self::NoMigration => &["too few migrations"],
            Self::NoIrqSections => &["too few sections in interrupts"],
            Self::MaskedWorkers => &["too few refused sections in workers"],
            Self::NoPkru | Self::LatePkru => &["register pkru", "an access with the wrong rights"],
            Self::PkruOfHandler | Self::PkruKept => &["register pkru"],
            Self::ShortArea => &["HI16_ZMM: measured: "],
            Self::MovedComponent => &["AVX: measured: "],
            Self::XfdUnwritten => &["IA32_XFD should be", "has used tiles without", "register tmm"],
            Self::AreaKept => &["has used tiles without room", "register tmm"],
            Self::PermissionIgnored => &["has used tiles without permission"],
            Self::Exception => &["in crash::undefined_instruction"],
            Self::NoTable => &["a triple fault"],
            Self::StandStill => &["stands still"],
            // Before the task sees it, with `check=1`.
            _ => &["register ", "the registers do not hold"],
        }
    }

    #[must_use]
    pub const fn needs(self) -> Needs {
        match self {
            Self::NoPkru
            | Self::LatePkru
            | Self::PkruDelivered
            | Self::PkruOfHandler
            | Self::PkruKept => Needs::Pku,
            Self::GuestUnsaved | Self::GuestNoted => Needs::Svm,
            Self::GuestXcr0 => Needs::SvmAvx,
            Self::GuestPkru => Needs::SvmPku,
            Self::TrapUnarmed | Self::TrapUntold => Needs::Trap,
            Self::NoFixup | Self::IgnoreFailure => Needs::BadImage,
            Self::ForkInherits => Needs::Supervisor,
            Self::ShortArea => Needs::Standard512,
            Self::MovedComponent => Needs::Standard,
            Self::LegacyRestore | Self::UserRestore => Needs::Unscrubbed,
            Self::StaleWords
            | Self::ClearedWords
            | Self::SameNumber
            | Self::NoMigration
            | Self::FrameElsewhere
            | Self::TraceRunning => Needs::SecondCpu,
            Self::XfdUnwritten | Self::AreaKept | Self::PermissionIgnored => Needs::Demand,
            _ => Needs::Nothing,
        }
    }

    /// Tells whether the program that boots the kernel says it, and not the kernel (alone).
    #[must_use]
    pub const fn is_seen_from_outside(self) -> bool {
        matches!(self, Self::Exception | Self::NoTable | Self::StandStill)
    }

    /// Tells whether it is of the threads whose first use of a register traps.
    #[must_use]
    pub const fn is_of_trap(self) -> bool {
        matches!(self, Self::TrapUnarmed | Self::TrapUntold)
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}
