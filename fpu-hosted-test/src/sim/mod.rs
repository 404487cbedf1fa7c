//! A simulated CPU.
