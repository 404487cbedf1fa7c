//! Contexts that are bound to a CPU and move when they are unbound, in every interleaving.

use fpu_models::model::{bound, check};

#[test]
fn unbound_task_moves() {
    check(&bound::MOVES);
}
#[test]
fn wrong_kernel_hands_over_unbound() {
    check(&bound::UNORDERED);
}
