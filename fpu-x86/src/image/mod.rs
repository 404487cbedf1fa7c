//! Typed views of an image in memory.
//!
//! A component whose XSTATE_BV bit is clear is in its initial state, whatever bytes lie in its place
//! (SDM vol. 1, 13.8): reading gives the initial value, and a write first puts the initial value
//! there and then sets the bit. The rest of the header cannot be reached.

mod convert;
mod fields;
mod legal;
mod places;
mod read;
mod same;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod whole;
mod write;

pub(crate) use fields::*;
pub(crate) use legal::first_illegal;
pub(crate) use places::{extended, one, standard_len, Where};
pub use read::Image;
pub(crate) use whole::{disinherit, write_initial};
pub use write::ImageMut;
