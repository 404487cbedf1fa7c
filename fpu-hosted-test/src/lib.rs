#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(missing_docs)]

extern crate alloc;

pub mod conformance;
#[cfg(feature = "std")]
pub mod doc;
#[cfg(feature = "std")]
mod random;
#[cfg(feature = "std")]
pub mod real;
#[cfg(feature = "std")]
pub mod sim;

#[cfg(feature = "std")]
pub use random::Random;

// The integration on the front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;

// So do the examples of the page about state that leaves a kernel and returns.
#[cfg(doctest)]
#[doc = include_str!("../../docs/signal-frames.md")]
struct SignalFrames;
