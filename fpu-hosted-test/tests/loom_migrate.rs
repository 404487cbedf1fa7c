//! Changed in memory where another CPU's registers still claim the task, in every interleaving.
#![cfg(fpu_loom)]

use fpu_hosted_test::model::{check, migrate};

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
