//! Which public functions of the core the search has called.

use std::cell::Cell;

/// Makes the list, each entry with its name as the source has it: the type, as in the `impl`, and the method.
macro_rules! calls {
    ($($call:ident $name:literal)*) => {
        /// A public function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the name beside each
        pub enum Call { $($call),* }
        /// All of them, by name.
        pub const CALLS: &[(Call, &str)] = &[$((Call::$call, $name)),*];
    };
}

calls! {
    New "TaskFpu::new"
    Address "TaskFpu::address"
    Context "TaskFpu::context"
    IntoArea "TaskFpu::into_area"
    RegistersValid "TaskFpu::registers_valid"
    Prefetch "TaskFpu::prefetch"
    Prepare "TaskFpu::switch_prepare"
    Return "TaskFpu::switch_return"
    SwitchIn "TaskFpu::switch_in"
    Switch "switch::switch"
    Adopt "TaskFpu::adopt"
    Reset "TaskFpu::reset"
    Fork "TaskFpu::fork_into"
    Open "TaskFpu::open"
    OpenSaved "TaskFpu::open_saved"
    Stopped "TaskFpu::stopped"
    Verify "TaskFpu::verify_registers"
    BeginUser "TaskFpu::begin_user"
    BeginOut "TaskFpu::begin_switch_out"
    StateRead "TaskState::make_memory_valid_read"
    StateWrite "TaskState::make_memory_valid_write"
    StateLoad "TaskState::make_registers_valid"
    StateName "TaskState::name"
    ReadImage "ReadSession::image"
    ReadWrite "ReadSession::make_memory_valid_write"
    ReadFork "ReadSession::fork_into"
    SessionImage "Session<S>::image"
    SessionImageMut "Session<S>::image_mut"
    SessionLoad "Session<S>::make_registers_valid"
    SessionRead "Session<S>::make_memory_valid_read"
    SessionPrepare "Session<S>::switch_prepare"
    SessionInvalidate "Session<S>::invalidate_registers"
    RegistersWrite "Session<RegistersOnly>::make_memory_valid_write"
    BothWrite "Session<Both>::make_memory_valid_write"
    BothReturn "Session<Both>::switch_return"
    MemoryWrite "Session<MemoryOnly>::make_memory_valid_write"
    MemoryReturn "Session<MemoryOnly>::switch_return"
    WritableReturn "Session<MemoryWritable>::switch_return"
    StoppedImage "StoppedTask::image"
    StoppedWrite "StoppedTask::make_memory_valid_write"
    StoppedMutImage "StoppedImageMut::image"
    StoppedImageMut "StoppedImageMut::image_mut"
    Section "KernelFpu::kernel_fpu"
    SectionCpu "Section::cpu"
    WithSection "KernelFpu::with_kernel_fpu"
    Persistent "KernelFpu::run_guest"
    Online "CpuLifecycle::fpu_online"
    Offline "CpuLifecycle::fpu_offline"
    Invalidate "CpuLifecycle::invalidate_registers"
    Resume "CpuLifecycle::fpu_resume"
    Idle "CpuLifecycle::fpu_idle"
    UserSteps "PendingUser::steps"
    UserRestored "PendingUser::restored"
    UserRoundTrip "PendingUser::round_trip_done"
    UserFailed "PendingUser::failed"
    OutSteps "PendingSave::steps"
    OutSaved "PendingSave::saved"
    SwitchSteps "SwitchSteps::begin"
    SwitchDone "SwitchSteps::done"
    SectionBegin "PendingSection::begin"
    SectionSteps "PendingSection::steps"
    SectionSaved "PendingSection::saved"
    GuestBegin "PendingGuest::begin"
    GuestSteps "PendingGuest::steps"
    GuestDone "PendingGuest::done"
    GuestFailed "PendingGuest::failed"
    RawOut "raw::switch_out"
    RawSaved "raw::saved"
    RawReturn "raw::switch_return"
    RawRestored "raw::restored"
    Replace "TaskFpu::replace_area"
    Room "TaskFpu::room"
    ScratchNew "Scratch::new"
    ScratchIntoArea "Scratch::into_area"
    BoundNew "BoundCpu::new"
    Bind "BoundCpu::bind"
    SettleDue "BoundCpu::settle_due"
    Settle "BoundCpu::settle"
    BoundReturn "BoundFpu::switch_return"
    BoundIn "BoundFpu::switch_in"
    BoundValid "BoundFpu::registers_valid"
    BoundAddress "BoundFpu::address"
    BoundOpen "BoundFpu::open"
    BoundReset "BoundFpu::reset"
    Unbind "BoundFpu::unbind"
}

/// A set of them.
#[derive(Default)]
pub(super) struct Called(Cell<u128>);

const _: () = assert!(CALLS.len() <= 128);

impl Called {
    pub(super) fn note(&self, call: Call) {
        self.0.set(self.0.get() | 1 << call as u32);
    }
    /// The names of those in it.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let called = |(call, _): &&(Call, _)| self.0.get() >> *call as u32 & 1 != 0;
        CALLS.iter().filter(called).map(|(_, name)| *name).collect()
    }
}
