//! Changed in memory where another CPU's registers still claim the task, in every interleaving.

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
