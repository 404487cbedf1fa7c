//! CPUs that go online and offline, restores that fail, and the forms for assembly, in every interleaving.

use fpu_models::model::{check, power, restore};

#[test]
fn offline_online_and_back() {
    check(&power::OFFLINE);
}
#[test]
fn offline_interrupted_at_every_step() {
    check(&power::OFFLINE_INTERRUPTED);
}
#[test]
fn offline_where_a_session_was_forgotten() {
    check(&power::OFFLINE_FORGOTTEN);
}
#[test]
fn resume() {
    check(&power::RESUME);
}
#[test]
fn stamps_run_out() {
    check(&power::EXHAUSTED);
}
#[test]
fn failed_restore() {
    check(&restore::FAILED);
}
#[test]
fn steps_form() {
    check(&restore::USER_STEPS);
}

#[test]
fn switch_steps() {
    check(&restore::STEPS);
}
#[test]
fn section_and_guest_steps() {
    check(&restore::SECTION_STEPS);
}
#[test]
fn raw_layer() {
    check(&restore::RAW);
}
