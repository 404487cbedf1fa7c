#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

// The simulated CPU and what runs on it need the core's real atomics; the models replace them.
#[cfg(not(fpu_loom))]
pub mod conformance;
#[cfg(not(fpu_loom))]
pub mod doc;
#[cfg(not(fpu_loom))]
pub mod explore;
#[cfg(fpu_loom)]
pub mod model;
#[cfg(not(fpu_loom))]
pub mod real;
pub mod seeded;
#[cfg(not(fpu_loom))]
pub mod sim;

// The integration on the front page compiles.
#[cfg(all(doctest, not(fpu_loom)))]
#[doc = include_str!("../../README.md")]
struct FrontPage;

// So do the examples of the page about what leaves a kernel and comes back.
#[cfg(all(doctest, not(fpu_loom)))]
#[doc = include_str!("../../docs/signal-frames.md")]
struct SignalFrames;
