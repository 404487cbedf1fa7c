//! Registers against claims, in every interleaving.

use fpu_models::model::{check, verify};

#[test]
fn verified_before_every_return() {
    check(&verify::RIGHT);
}
#[test]
fn wrong_kernel_found_by_verify() {
    check(&verify::BROKEN);
}
