//! This machine's own registers, in user mode.
