//! Sessions that change a task in memory while another CPU's registers still claim that task, in every interleaving.

use fpu_models::model::{check, migrate};

#[test]
fn session_write_after_migration() {
    check(&migrate::WRITE);
}
#[test]
fn session_replace_after_migration() {
    check(&migrate::REPLACE);
}
#[test]
fn session_copy_after_migration() {
    check(&migrate::COPY);
}
