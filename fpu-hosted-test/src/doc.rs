//! What the documentation examples of `fpu-core` stand on: a small kernel over the simulated CPU.
