//! The models of `fpu-core`: loom's, the explorer, and the seeded faults that both must notice.
//!
//! What runs here is a copy of the core's source, which the build makes (`core/build.rs`), so that no line of the core
//! is there for a test. A seeded fault is a row of `src/protocol.rs`: a few edits of that copy. The build makes these
//! edits if `FPU_FAULT` names the fault.
//!
//! ```text
//! cargo run --release -p fpu-models --bin faults                  every fault, each in a build of its own
//! FPU_FAULT=ReturnSkipsMark cargo test --release -p fpu-models    one of them, to see what fails
//! ```
//!
//! There are two copies, in two packages with one build script. `fpu-core-loom` has loom's atomics in the place of
//! `sync.rs`, for [`model`]; `fpu-core-copy` has the core's own, for [`explore`]. One package with a feature would not
//! do: within one build a package has all the features that any dependent asks for. With a `--cfg` for one of them,
//! cargo would build everything twice, and no build could run both.
//!
//! This crate uses nothing else of the repository, so that a fault costs about a second.
#![deny(missing_docs)]

pub mod edit;
pub mod explore;
pub mod model;
pub mod seeded;
pub mod trapped;
