//! The findings of a measurement.

use core::fmt;

use crate::components::Components;

/// How a CPU deviates from the plan.
///
/// ```
/// use fpu_x86::{Components, Measured};
/// let why = Measured::Elsewhere { component: Components::AVX, at: 576 };
/// assert_eq!(why.to_string(), "AVX is not saved to byte 576");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measured {
    /// The restore raised an exception.
    RestoreFault {
        /// The vector of the exception.
        vector: u32,
        /// The components that were present in the image.
        present: Components,
    },
    /// The save raised an exception.
    SaveFault {
        /// The vector of the exception.
        vector: u32,
    },
    /// A component is not where the layout has it.
    Elsewhere {
        /// The component.
        component: Components,
        /// The first byte of the area that should hold it and does not.
        at: u32,
    },
    /// Something was written where no component is, or where another one is.
    Outside {
        /// The components in use.
        present: Components,
        /// The first such byte, from the beginning of the area.
        at: u32,
    },
    /// By the header of the saved image, components that were loaded are initial.
    Absent {
        /// The components.
        missing: Components,
    },
    /// The header of the saved image is not the format's.
    Header {
        /// The components in use.
        present: Components,
    },
    /// The area is too large to be tried; no CPU has an area of this size.
    TooLarge {
        /// The component whose end lies furthest.
        component: Components,
    },
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestoreFault { vector, present } if present.is_empty() => {
                write!(f, "restoring the initial state raised exception {vector}")
            }
            Self::RestoreFault { vector, present } => {
                write!(f, "restoring {} raised exception {vector}", present.list())
            }
            Self::SaveFault { vector } => write!(f, "saving raised exception {vector}"),
            Self::Elsewhere { component, at } => {
                write!(f, "{} is not saved to byte {at}", component.list())
            }
            Self::Outside { present, at } => {
                write!(f, "saving {} writes byte {at}", present.list())
            }
            Self::Absent { missing } => write!(f, "{} is saved as initial", missing.list()),
            Self::Header { present } => {
                write!(f, "saving {} writes a wrong header", present.list())
            }
            Self::TooLarge { component } => {
                write!(f, "{} ends where no CPU has it", component.list())
            }
        }
    }
}
