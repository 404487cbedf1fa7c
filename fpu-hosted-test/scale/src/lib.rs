//! How many cache lines the core moves between CPUs, on 2 to 1,024 simulated CPUs.
//!
//! What runs is a copy of the core's source, made by the build, in which `sync.rs` alone is another: its atomics report
//! the address of each load and store ([`bus`]). A backend reports the lines of each image ([`machine`]). A directory of
//! lines ([`lines`]) knows which CPUs have a copy, as MESI protocols do, and counts what has to move. [`scenarios`] is
//! what the CPUs do; beside the core's words it runs two layouts that do not scale.
//!
//! ```text
//! cargo run --release -p fpu-scale                          the table
//! cargo run --release -p fpu-scale -- --svg docs/scale.svg  and the picture
//! ```
#![deny(missing_docs)]

pub mod bus;
#[path = "../../../examples/src/canvas.rs"]
pub mod canvas;
pub mod lines;
pub mod machine;
#[path = "../../../examples/src/options.rs"]
pub mod options;
pub mod picture;
#[path = "../../src/random.rs"]
pub mod random;
pub mod scenarios;
pub mod table;
