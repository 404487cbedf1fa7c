//! Kernels that break the rules, in every interleaving.

use fpu_models::model::{check, wrong};

#[test]
fn wrong_kernel_switches_in() {
    check(&wrong::IN);
}
#[test]
fn wrong_kernel_during_section() {
    check(&wrong::IN_SECTION);
}
#[test]
fn wrong_kernel_during_steps() {
    check(&wrong::IN_STEPS);
}
#[test]
fn wrong_kernel_during_raw_save() {
    check(&wrong::IN_RAW);
}
#[test]
fn wrong_kernel_during_session() {
    check(&wrong::IN_SESSION);
}
#[test]
fn wrong_kernel_during_write_and_load() {
    check(&wrong::IN_WRITE);
}
#[test]
fn wrong_kernel_during_write_in_memory() {
    check(&wrong::IN_MEMORY_WRITE);
}
#[test]
fn wrong_kernel_during_stopped_write() {
    check(&wrong::IN_STOPPED_WRITE);
}
#[test]
fn wrong_kernel_during_persistent_run() {
    check(&wrong::IN_PERSISTENT);
}
#[test]
fn wrong_kernel_stops_running_task() {
    check(&wrong::STOPS);
}
#[test]
fn wrong_kernel_uses_task_elsewhere() {
    check(&wrong::ELSEWHERE);
}
#[test]
fn wrong_kernel_runs_persistent_twice() {
    check(&wrong::TWICE);
}
#[test]
fn wrong_kernel_switches_inside_section() {
    check(&wrong::INSIDE);
}
#[test]
fn wrong_kernel_sleeps_with_live_task() {
    check(&wrong::LOST);
}
