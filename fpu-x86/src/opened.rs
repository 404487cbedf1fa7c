//! A task's state, opened, with its image in memory: what delivery, return and a debugger's calls take.

#[cfg(test)]
#[path = "tests/opened.rs"]
mod tests;

use fpu_core::{session::ReadSession, Pinned, RawFpu, StoppedTask};

use crate::image::{Image, ImageMut};

/// A backend whose images are this crate's: a [`Plan`](crate::Plan), and what a kernel wraps around one.
///
/// ```
/// fn is_one<B: fpu_x86::XsaveImages>() {}
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
/// is_one::<fpu_x86::Plan>();
/// ```
pub trait XsaveImages:
    'static + for<'a> RawFpu<Image<'a> = Image<'a>, ImageMut<'a> = ImageMut<'a>>
{
}
impl<B> XsaveImages for B where
    B: 'static + for<'a> RawFpu<Image<'a> = Image<'a>, ImageMut<'a> = ImageMut<'a>>
{
}

/// A task's state, opened, with its image in memory. Writing ends the claims of registers first.
///
/// | the task | is opened by |
/// |---|---|
/// | is current here, in a soft-float kernel | `task.open(&mut cpu)?.make_memory_valid_read()` |
/// | is current here, in a kernel compiled with vector instructions | `task.open_saved(&mut cpu)?` |
/// | is stopped, and a debugger looks at it | `task.stopped(&mut proof)?` |
///
/// ```
/// use fpu_core::{session::ReadSession, Pinned, StoppedTask};
/// use fpu_x86::{InMemory, XsaveImages};
/// fn is_one(_task: impl InMemory) {}
/// fn current<C: Pinned>(session: ReadSession<'_, C>)
/// where
///     C::Backend: XsaveImages,
/// {
///     is_one(session);
/// }
/// fn stopped<B: XsaveImages>(task: StoppedTask<'_, B>) {
///     is_one(task);
/// }
/// ```
///
/// As it is opened, the state may be in registers only:
///
/// ```compile_fail,E0277
/// use fpu_core::{session::TaskState, Pinned};
/// use fpu_x86::{InMemory, XsaveImages};
/// fn is_one(_task: impl InMemory) {}
/// fn current<C: Pinned>(state: TaskState<'_, C>)
/// where
///     C::Backend: XsaveImages,
/// {
///     is_one(state); // a session has to be read: `.make_memory_valid_read()`
/// }
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "`{Self}` is no task whose image is in memory",
        label = "not a session whose image is in memory, and not a stopped task",
        note = "`task.open(&mut cpu)?.make_memory_valid_read()`, `task.open_saved(&mut cpu)?` or `task.stopped(&mut proof)?` gives one, of a backend whose images are those of `fpu-x86`"
    )
)]
pub trait InMemory: private::Opened {}

impl<C: Pinned> InMemory for ReadSession<'_, C> where C::Backend: XsaveImages {}
impl<B: XsaveImages> InMemory for StoppedTask<'_, B> {}

pub(crate) mod private {
    use super::*;

    pub trait Opened {
        fn user_image(&self) -> Image<'_>;
        /// Ends the claims of registers, changes the image, and ends the session.
        fn change<R>(self, change: impl FnOnce(ImageMut<'_>) -> R) -> R;
    }

    impl<C: Pinned> Opened for ReadSession<'_, C>
    where
        C::Backend: XsaveImages,
    {
        fn user_image(&self) -> Image<'_> {
            self.image()
        }
        fn change<R>(self, change: impl FnOnce(ImageMut<'_>) -> R) -> R {
            change(self.make_memory_valid_write().image_mut())
        }
    }

    impl<B: XsaveImages> Opened for StoppedTask<'_, B> {
        fn user_image(&self) -> Image<'_> {
            self.image()
        }
        fn change<R>(self, change: impl FnOnce(ImageMut<'_>) -> R) -> R {
            change(self.make_memory_valid_write().image_mut())
        }
    }
}
