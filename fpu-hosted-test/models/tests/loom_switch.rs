//! Switching and migrating, in every interleaving; and restoring inside the switch.

use fpu_models::model::{check, inside, switch};

#[test]
fn switch_migrate_return() {
    check(&switch::SWITCH);
}
#[test]
fn switch_without_save() {
    check(&switch::UNCHANGED);
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
#[test]
fn adopted_registers() {
    check(&inside::ADOPT);
}
#[test]
fn one_call_for_both_tasks() {
    check(&inside::SWITCH);
}
#[test]
fn restored_inside_the_switch() {
    check(&inside::RETURN);
}
#[test]
fn exclusive_access_against_wakeup() {
    check(&inside::HELD);
}
