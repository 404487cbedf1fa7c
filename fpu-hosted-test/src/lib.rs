#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

pub mod conformance;
pub mod doc;
pub mod real;
pub mod sim;

// The integration on the front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
