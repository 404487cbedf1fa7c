//! Where a context is: with its task, or with the CPU that owns it.

use core::ops::{Deref, DerefMut};

use fpu_core::BoundFpu;

use super::{
    backend::{Context, Symbolic},
    image::Area,
};

/// A context that a CPU owns.
pub(super) type Bound = BoundFpu<'static, Symbolic, Area>;

/// Where a context is.
pub(super) enum Holder {
    /// With its task.
    Own(Context),
    /// With a CPU, or nowhere for a moment.
    Bound(Option<Bound>),
}
impl Deref for Holder {
    type Target = Context;
    fn deref(&self) -> &Context {
        match self {
            Self::Own(context) => context,
            Self::Bound(Some(bound)) => {
                // SAFETY: rests on no duty: a context is where it says, and its slot is taken while the handle lives.
                unsafe { &*(bound.address() as *const Context) }
            }
            Self::Bound(None) => unreachable!("it is put back at once"),
        }
    }
}
impl DerefMut for Holder {
    fn deref_mut(&mut self) -> &mut Context {
        match self {
            Self::Own(context) => context,
            Self::Bound(_) => unreachable!("a CPU owns it"),
        }
    }
}
