#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(missing_docs)]

extern crate alloc;

// The simulated CPU and what runs on it need the core's real atomics; the models replace them.
#[cfg(not(fpu_loom))]
pub mod conformance;
#[cfg(all(feature = "std", not(fpu_loom)))]
pub mod doc;
#[cfg(all(feature = "std", not(fpu_loom)))]
pub mod explore;
#[cfg(all(feature = "std", fpu_loom))]
pub mod model;
#[cfg(all(feature = "std", not(fpu_loom)))]
pub mod real;
#[cfg(feature = "std")]
pub mod seeded;
#[cfg(all(feature = "std", not(fpu_loom)))]
pub mod sim;

// The integration on the front page compiles.
#[cfg(all(doctest, not(fpu_loom)))]
#[doc = include_str!("../../README.md")]
struct FrontPage;
