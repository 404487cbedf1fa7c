//! Kernel FPU sections, sessions and interrupts, in every interleaving and at every step.

use fpu_models::model::{check, section};

#[test]
fn kernel_section_in_task_context() {
    check(&section::TASK);
}
#[test]
fn interrupt_at_every_step() {
    check(&section::INTERRUPT);
}
#[test]
fn interrupt_in_lifecycle_calls() {
    check(&section::LIFECYCLE);
}
#[test]
fn nmi_at_every_step() {
    check(&section::NMI);
}
#[test]
fn persistent_contexts() {
    check(&section::PERSISTENT);
}
#[test]
fn session_write() {
    check(&section::SESSION);
}
