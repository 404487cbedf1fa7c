//! Typed views of an image in memory.
//!
//! A component whose XSTATE_BV bit is clear is in its initial state, whatever bytes lie in its place
//! (SDM vol. 1, 13.8): reading gives the initial value, and a write first puts the initial value
//! there and then sets the bit. The rest of the header cannot be reached.

mod convert;
mod equality;
mod extended;
mod initial;
mod read;
#[cfg(test)]
#[path = "../tests/image.rs"]
pub(crate) mod tests;
mod validity;
mod write;

pub(crate) use extended::{standard_len, Where};
pub(crate) use initial::{disinherit, write_initial, NOT_INHERITED};
pub use read::Image;
pub(crate) use validity::first_illegal;
pub use write::ImageMut;
