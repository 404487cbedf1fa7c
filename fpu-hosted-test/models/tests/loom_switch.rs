//! Switching and migrating, in every interleaving.

use fpu_models::model::{check, switch};

#[test]
fn switch_migrate_return() {
    check(&switch::SWITCH);
}
#[test]
fn three_cpus() {
    check(&switch::THREE_CPUS);
}
#[test]
fn two_tasks_alternate() {
    check(&switch::ALTERNATE);
}
#[test]
fn idle_and_kernel_thread_bounce() {
    check(&switch::BOUNCE);
}
