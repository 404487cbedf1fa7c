//! The checks of a backend that can trap the first use of its registers.

use super::{
    bench::{same, Bench, Why},
    harness::Trap,
    Harness,
};
use alloc::format;

/// Every component is written once with the trap armed, over every set of components.
fn each<H: Harness>(
    b: &mut Bench<'_, H>,
    mut judge: impl FnMut(u32, &H::Registers, Trap<H::Registers>) -> Result<(), Why>,
) -> Result<(), Why> {
    for set in b.sets() {
        let registers = b.pattern(set);
        for component in 0..b.harness.components() {
            let trap = b.harness.trap(&registers, component);
            judge(component, &registers, trap.ok_or(Why::Skipped("the backend cannot trap"))?)?;
        }
    }
    Ok(())
}

pub(super) fn covers_everything<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    each(b, |component, _, trap| match trap.armed {
        true => Ok(()),
        false => Err(format!("component {component} can be used with the trap armed").into()),
    })
}

pub(super) fn changes_nothing<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    each(b, |component, registers, trap| {
        same(&trap.registers, registers, &format!("trapped, component {component}"))?;
        match trap.disarmed {
            false => Ok(()),
            true => Err(format!("component {component} cannot be used any more").into()),
        }
    })
}
