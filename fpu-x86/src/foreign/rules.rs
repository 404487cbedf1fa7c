//! The rules for bytes that hold more than a task here may have.

use crate::origin::ForeignLayout;

/// What to do with components that are present and not the plan's: those that this CPU lacks or the kernel does not
/// enable, and tiles without permission.
///
/// Each rule treats a component that is present with its initial value as absent. Each rule refuses supervisor
/// components in the standard format, and a wrong value of anything that is taken.
///
/// ```
/// assert_eq!(fpu_x86::Beyond::default(), fpu_x86::Beyond::Refuse);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beyond {
    /// The whole image is refused, and the error names the components.
    #[default]
    Refuse,
    /// The components are left out without a report: the task goes on without them.
    Drop,
    /// The components are left out, and [`ValidImage::beyond`](crate::ValidImage::beyond) names them and
    /// [`bytes_beyond`](crate::ValidImage::bytes_beyond) has their bytes.
    Report,
}

/// How foreign bytes are read: whose layout they have, which formats are taken, and what is done with components that
/// are not the plan's.
///
/// ```
/// use fpu_x86::{Beyond, ForeignImage, ForeignLayout, ForeignRules, Plan};
/// fn migrate_in(plan: &Plan, bytes: &[u8], private: &mut [u8], from: &ForeignLayout) -> bool {
///     let rules = ForeignRules::new().layout(from).compacted().beyond(Beyond::Report);
///     match ForeignImage::copy(bytes, private).and_then(|it| it.validate_by(&rules, plan)) {
///         Ok(valid) if valid.beyond().is_empty() => true,
///         Ok(valid) => {
///             println!("without {:?}", valid.beyond());
///             true
///         }
///         Err(why) => {
///             println!("{why}");
///             false
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ForeignRules<'l> {
    pub(crate) layout: Option<&'l ForeignLayout>,
    pub(crate) beyond: Beyond,
    pub(crate) compacted: bool,
}

impl<'l> ForeignRules<'l> {
    /// The rules of [`ForeignImage::validate`](crate::ForeignImage::validate): the standard format and FXSAVE's, of the
    /// machine that the bytes themselves tell, or else of this one; nothing beyond the plan.
    #[must_use]
    pub const fn new() -> Self {
        Self { layout: None, beyond: Beyond::Refuse, compacted: false }
    }

    /// Reads the bytes in this layout, whatever the bytes say.
    #[must_use]
    pub const fn layout(self, layout: &'l ForeignLayout) -> Self {
        Self { layout: Some(layout), ..self }
    }

    /// Sets what is done with components that are present and not the plan's.
    #[must_use]
    pub const fn beyond(self, beyond: Beyond) -> Self {
        Self { beyond, ..self }
    }

    /// Takes the compacted format too, as XSAVEC and XSAVES write it. Programs do not use that format: Linux takes it
    /// neither from a signal frame nor from a debugger.
    #[must_use]
    pub const fn compacted(self) -> Self {
        Self { compacted: true, ..self }
    }
}
