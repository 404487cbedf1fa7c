//! Tests that look inside: plans of words that are made up ([`words`], [`sample`]), of CPUs that are known to be odd
//! ([`oddities`]), of recorded ones ([`corpus`]), of random ones ([`random`]), of good ones that were spoilt
//! ([`spoilt`]), and the manuals' numbers ([`literal`]). CPUs with registers in memory are in [`simulated`].
//!
//! The other files in this folder are the tests of one module each, and its children.

pub(crate) mod corpus;
#[cfg(fpu_instructions)]
mod literal;
mod oddities;
mod pairs;
mod random;
mod refusals;
pub(crate) mod sample;
pub(crate) mod simulated;
mod spoilt;
pub(crate) mod words;
