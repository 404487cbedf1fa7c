//! Methods that cannot be called, so that the compiler says which call is missing.
//!
//! Without these methods a call in the wrong state ends in "no method named ..." and a similar name,
//! which is the wrong one (`image` for `image_mut`, `switch_prepare` for `switch_return`). Each method
//! asks for a trait that no type implements, and the trait's text is the message.

use super::{
    open::ReadSession,
    state::{MemoryWritable, RegistersOnly},
    typed::Session,
};
use crate::{
    backend::RawFpu,
    stopped::StoppedTask,
    task::UserReady,
    witness::{Pinned, SoftFloat},
};

macro_rules! hint {
    ($name:ident, $message:literal, $label:literal, $note:literal) => {
        #[cfg_attr(
                    fpu_diagnostics,
                    diagnostic::on_unimplemented(message = $message, label = $label, note = $note)
                )]
        #[doc(hidden)]
        pub trait $name: Sized {
            /// No type implements the trait, so no call reaches this.
            fn never<T>(self) -> T;
        }
    };
}

hint!(
    WriteWithoutDrop,
    "this session can only read: registers may still hold the task's state",
    "`make_memory_valid_write()` is missing before this",
    "`let mut session = session.make_memory_valid_write();` drops whatever claim stands first"
);
hint!(
    WriteStoppedWithoutDrop,
    "the registers of some CPU may still hold the stopped task's state: what is written would be lost",
    "`make_memory_valid_write()` is missing before this",
    "`let mut image = stopped.make_memory_valid_write();` drops that claim first"
);
hint!(
    ReturnWithoutEnd,
    "the registers are the task's only copy: nothing is to be loaded in this session",
    "end the session, then go to user mode by `TaskFpu::switch_return`",
    "`drop(session); enter_user(task.switch_return(&mut cpu)?);` finds that nothing is due"
);
hint!(
    WriteAlreadyPossible,
    "memory is the task's only copy: it can be written as it is",
    "leave this call out: `image_mut()` exists on this session",
    "the registers hold nothing of this task that could be saved or dropped"
);

impl<C: Pinned> ReadSession<'_, C> {
    #[doc(hidden)]
    pub fn image_mut(&mut self) -> <C::Backend as RawFpu>::ImageMut<'_>
    where
        for<'a> &'a mut Self: WriteWithoutDrop,
    {
        self.never()
    }
}

impl<B: RawFpu> StoppedTask<'_, B> {
    #[doc(hidden)]
    pub fn image_mut(&mut self) -> B::ImageMut<'_>
    where
        for<'a> &'a mut Self: WriteStoppedWithoutDrop,
    {
        self.never()
    }
}

impl<'s, C: SoftFloat> Session<'s, C, RegistersOnly> {
    #[doc(hidden)]
    pub fn switch_return(self) -> UserReady<'s, C>
    where
        Self: ReturnWithoutEnd,
    {
        self.never()
    }
}

impl<'s, C: Pinned> Session<'s, C, MemoryWritable> {
    #[doc(hidden)]
    pub fn make_memory_valid_write(self) -> Self
    where
        Self: WriteAlreadyPossible,
    {
        self.never()
    }
}
