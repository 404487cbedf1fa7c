//! Signal frames, register sets and images through every way in: for the plan of each rung that the machine offers, and
//! for one recorded CPU's, which the input chooses.
#![no_main]

use std::cell::RefCell;

use fpu_hosted_test::real::{Entry, Subject};

#[path = "../../../fpu-hosted-test/tests/support/recorded.rs"]
mod recorded;

thread_local! {
    static OWN: RefCell<Vec<Subject>> = RefCell::new(Subject::of_this_cpu());
    static RECORDED: RefCell<Vec<Subject>> = RefCell::new({
        let plans = recorded::plans();
        let others = plans.iter().cycle().skip(7);
        plans.iter().zip(others).map(|((_, plan), (_, it))| Subject::new(plan.clone(), it.clone())).collect()
    });
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let all = |subject: &mut Subject| {
        for entry in Entry::ALL {
            let _answer = subject.check(entry, bytes);
        }
    };
    OWN.with(|own| own.borrow_mut().iter_mut().for_each(all));
    RECORDED.with(|recorded| {
        let mut recorded = recorded.borrow_mut();
        let sum = bytes
            .iter()
            .fold(bytes.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        let chosen = sum % recorded.len();
        all(&mut recorded[chosen]);
    });
});
