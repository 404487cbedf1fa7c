//! `xstate decode` as a function of bytes.
#![allow(dead_code)] // each of the tests uses a part

use std::{convert::Infallible, sync::OnceLock};

use fpu_examples::{
    report::Style,
    xstate::{
        bytes::Malformed,
        decode::{self, Form, Known},
        input::Input,
        whose::Whose,
        words::Words,
    },
};
use fpu_x86::{CpuidInfo, ForeignLayout, Plan};

pub fn facts() -> CpuidInfo {
    // Under a hypervisor each CPUID takes long.
    static FACTS: OnceLock<CpuidInfo> = OnceLock::new();
    FACTS.get_or_init(|| CpuidInfo::from_cpuid(Words::of_this_cpu()).expect("a CPU")).clone()
}

/// What is printed, and what is refused.
pub fn decode_as(
    input: &Input,
    layout: Option<ForeignLayout>,
    plan: Option<&Plan>,
    form: Form,
) -> (String, Vec<Malformed>) {
    let whose = Whose::new(&facts(), layout);
    let mut all = String::new();
    let wrong = decode::decode(input, &Known { whose: &whose, plan }, form, |text| {
        all += text;
        Ok::<(), Infallible>(())
    });
    let Ok(wrong) = wrong;
    (all, wrong)
}

pub fn decode(
    bytes: Vec<u8>,
    layout: Option<ForeignLayout>,
    plan: Option<&Plan>,
) -> (String, Vec<Malformed>) {
    decode_as(&Input::from(bytes), layout, plan, Form::Show(Style::plain()))
}

pub fn decoded(bytes: &[u8]) -> (String, Vec<Malformed>) {
    decode(bytes.to_vec(), None, None)
}

pub fn shown(bytes: &[u8]) -> String {
    let (shown, wrong) = decoded(bytes);
    assert_eq!(wrong, []);
    shown
}
