//! Idle CPUs that give up registers, in every interleaving.
#![cfg(fpu_loom)]

use fpu_hosted_test::model::{check, idle};

#[test]
fn idle_between_tasks() {
    check(&idle::BETWEEN);
}
#[test]
fn idle_interrupted_at_every_step() {
    check(&idle::INTERRUPT);
}
