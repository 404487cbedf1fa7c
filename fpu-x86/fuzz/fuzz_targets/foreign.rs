//! Foreign images through validation and a real restore, on every rung that the machine offers.
#![no_main]

use std::cell::RefCell;

use fpu_hosted_test::real::{fuzz_foreign, ForeignBench};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static BENCHES: RefCell<Vec<ForeignBench>> = RefCell::new(ForeignBench::all());
}

fuzz_target!(|bytes: &[u8]| {
    BENCHES.with(|benches| fuzz_foreign(&mut benches.borrow_mut(), bytes));
});
