//! The checks of images that lack components over old bytes, and of what may write into an image.

use super::{
    bench::{same, Bench, Why},
    compare::agree,
    memory::Memory,
    Harness, Step,
};
use alloc::format;

/// An image that holds what this seed gives, without the components outside `set`, whose old bytes are
/// still there. A save may write zeros where a component is absent, so the harness removes the component afterwards.
fn without<H: Harness>(b: &mut Bench<'_, H>, seed: u64, set: u64) -> Option<Memory> {
    let every = b.every();
    let full = b.harness.pattern(seed, every);
    let mut memory = b.saved(&full);
    b.harness.omit(memory.image(), every & !set).then_some(memory)
}

/// Calls `body` with an image of each kind of these components: saved, over other bytes, and the initial one;
/// and, where the format can leave something out, without the components that are not in the set.
fn each_image<H: Harness>(
    b: &mut Bench<'_, H>,
    mut body: impl FnMut(&mut Bench<'_, H>, &str, &mut Memory) -> Result<(), Why>,
) -> Result<(), Why> {
    let mut fresh = b.fresh();
    body(b, "the initial image", &mut fresh)?;
    for set in b.sets() {
        let (registers, full) = (b.pattern(set), b.pattern(b.every()));
        let mut saved = b.saved(&registers);
        body(b, &format!("{set:#b} saved"), &mut saved)?;
        let mut over = b.saved(&full);
        b.run(&[Step::Load(&registers), Step::Save(over.base())]);
        body(b, &format!("{set:#b} saved over everything"), &mut over)?;
        let seed = b.seed();
        if let Some(mut memory) = without(b, seed, set) {
            body(b, &format!("{set:#b} without the rest"), &mut memory)?;
        }
    }
    Ok(())
}

fn unchanged(memory: &mut Memory, before: &[u8], what: &str) -> Result<(), Why> {
    memory.canaries()?;
    match memory.image().iter().zip(before).position(|(now, before)| now != before) {
        None => Ok(()),
        Some(at) => Err(format!("{what}: byte {at} of the image was changed").into()),
    }
}

pub(super) fn restore_leaves_the_image<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    each_image(b, |b, what, memory| {
        let before = memory.image().to_vec();
        let other = b.pattern(b.every());
        // Twice: the second one finds the address of the first.
        for _ in 0..2 {
            let answer = b.run(&[Step::Load(&other), Step::Restore(memory.base())]).restored;
            answer.map_err(|why| format!("{what}: refused: {why}"))?;
            unchanged(memory, &before, what)?;
        }
        Ok(())
    })
}

pub(super) fn child_leaves_the_parent<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    each_image(b, |b, what, memory| {
        let before = memory.image().to_vec();
        drop(b.child(memory));
        unchanged(memory, &before, what)
    })
}

pub(super) fn absent_over_old_bytes<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let full = b.pattern(b.every());
    for set in b.sets() {
        let seed = b.seed();
        let none = Why::Skipped("no image leaves out a component");
        let mut memory = without(b, seed, set).ok_or(none)?;
        let registers = b.harness.pattern(seed, set);
        let what = format!("{set:#b}, the rest absent over old bytes");
        if let Some(shown) = b.view(&mut memory) {
            same(&shown, &registers, &format!("the view of {what}"))?;
        }
        agree(b, &mut memory, &registers, &what)?;
        b.restores(memory.base(), &registers, &what)?;
        // A save may leave out what has not changed since a restore; here, and elsewhere.
        let mut elsewhere = b.saved(&full);
        let (here, there) = (memory.base(), elsewhere.base());
        b.run(&[Step::Load(&full), Step::Restore(here), Step::Save(there), Step::Save(here)]);
        b.restores(here, &registers, &format!("{what}, saved where it came from"))?;
        b.restores(there, &registers, &format!("{what}, saved elsewhere"))?;
        // What is inherited, and nothing that was absent.
        let inherited = b.harness.pattern(seed, set & b.harness.inherited());
        let mut child = b.child(&mut memory);
        b.restores(child.base(), &inherited, &format!("the child of {what}"))?;
        // Whatever is absent can be written again: the rest of it is then initial, not old.
        let next = b.pattern(b.every());
        if b.write(&mut memory, &next) {
            b.restores(memory.base(), &next, &format!("{what}, then written"))?;
        }
    }
    Ok(())
}
