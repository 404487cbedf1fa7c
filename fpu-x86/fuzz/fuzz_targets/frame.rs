//! Signal frames through the readers of 64-bit and 32-bit ones, for the plan of every rung that the machine offers.
#![no_main]

use std::sync::OnceLock;

use fpu_hosted_test::real::{fuzz_frame, ForeignBench};
use fpu_x86::Plan;

static PLANS: OnceLock<Vec<Plan>> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let plans = PLANS
        .get_or_init(|| ForeignBench::all().iter().map(|bench| bench.plan().clone()).collect());
    fuzz_frame(plans, bytes);
});
