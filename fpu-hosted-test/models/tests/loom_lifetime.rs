//! Exit, fork, exec, and access to stopped tasks, in every interleaving.

use fpu_models::model::{check, lifetime, stopped};

#[test]
fn exit_and_reuse() {
    check(&lifetime::REUSE);
}
#[test]
fn fork() {
    check(&lifetime::FORK);
}
#[test]
fn fork_into_used_context() {
    check(&lifetime::RECYCLED);
}
#[test]
fn exec_reset() {
    check(&lifetime::EXEC);
}
#[test]
fn area_grows() {
    check(&lifetime::GROW);
}
#[test]
fn stopped_read_against_wakeup() {
    check(&stopped::READ);
}
#[test]
fn stopped_write_against_wakeup() {
    check(&stopped::WRITE);
}
