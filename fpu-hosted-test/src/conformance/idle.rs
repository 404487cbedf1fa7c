//! The checks of a backend that can give up registers before a core sleeps.

use super::{
    bench::{same, Bench, Why},
    Harness,
};
use alloc::format;

/// The backend's answer about these registers, and the registers after that: given up if the answer is true.
fn idle<H: Harness>(
    b: &mut Bench<'_, H>,
    registers: &H::Registers,
) -> Result<(bool, H::Registers), Why> {
    let idled = b.harness.idle(registers);
    idled.ok_or(Why::Skipped("the backend gives up no registers when idle"))
}

pub(super) fn asks_the_hardware<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let awake = b.harness.keeps_awake();
    for set in b.sets() {
        let registers = b.pattern(set);
        match idle(b, &registers)? {
            (false, _) if set & awake != 0 => {
                return Err(format!("components {set:#b}: it says that the core can sleep").into());
            }
            (false, after) => same(&after, &registers, &format!("only asked, {set:#b}"))?,
            (true, _) => {}
        }
    }
    Ok(())
}

pub(super) fn gives_up_no_more<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let awake = b.harness.keeps_awake();
    for set in b.sets() {
        let seed = b.seed();
        let registers = b.harness.pattern(seed, set);
        if let (true, after) = idle(b, &registers)? {
            let expect = b.harness.pattern(seed, set & !awake);
            same(&after, &expect, &format!("given up, components {set:#b}"))?;
        }
    }
    Ok(())
}
