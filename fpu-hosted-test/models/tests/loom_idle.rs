//! Idle CPUs that give up registers, in every interleaving.

use fpu_models::model::{check, idle};

#[test]
fn idle_between_tasks() {
    check(&idle::BETWEEN);
}
#[test]
fn idle_interrupted_at_every_step() {
    check(&idle::INTERRUPT);
}
