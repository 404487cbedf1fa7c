//! The hosted demo: `fpu-core` and `fpu-x86` switching tasks on this machine's real registers.
//!
//! Two pinned threads stand for CPUs, arrays of small operations for what a scheduler, its tasks and
//! its interrupts do. Each script runs under the kernel built on `fpu-core` and under an eager one.
//!
//! [`cooperative`] is a scheduler in a program that uses the registers itself. [`xstate`] is another program: the save area in a table, a picture and a file. [`boot`] starts the
//! example kernel on emulated CPUs.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod args;
pub mod boot;
pub mod bound;
pub mod canvas;
pub mod cooperative;
pub mod demo;
pub mod eager;
pub mod faults;
pub mod json;
pub mod options;
pub mod quiet;
pub mod rare;
pub mod ratios;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod script;
pub mod stats;
pub mod svg;
pub mod terminal;
pub mod timeline;
pub mod trip;
pub mod world;
pub mod xstate;
