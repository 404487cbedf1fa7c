//! The checks of a backend that tells which saves are not needed. One that always says no passes them too.

use super::{
    bench::{same, Bench, Why},
    Harness, Step,
};
use alloc::format;

/// Whatever changes after a restore is in the area after the next save, or after the answer that none is needed.
pub(super) fn after_a_restore<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for before in b.sets() {
        for set in b.sets() {
            let (one, two, other) = (b.pattern(before), b.pattern(set), b.pattern(b.every()));
            let what = format!("components {before:#b}, then {set:#b}");
            let mut memory = b.saved(&one);
            let at = memory.base();
            let untouched = [Step::Load(&other), Step::Restore(at), Step::SaveIfChanged(at)];
            same(&b.run(&untouched).registers, &one, &format!("{what}: asked"))?;
            b.restores(at, &one, &format!("{what}: not changed"))?;
            let changed = [Step::Restore(at), Step::Load(&two), Step::SaveIfChanged(at)];
            same(&b.run(&changed).registers, &two, &format!("{what}: changed, and asked"))?;
            b.restores(at, &two, &format!("{what}: changed"))?;
            // What a save has written counts as what a restore has loaded.
            let mut memory = b.saved(&one);
            let at = memory.base();
            let back = [Step::Restore(at), Step::Load(&two), Step::SaveIfChanged(at)];
            let once_more = [Step::Load(&one), Step::SaveIfChanged(at), Step::SaveIfChanged(at)];
            b.run(&[&back[..], &once_more[..]].concat());
            b.restores(at, &one, &format!("{what}: changed, saved, changed back"))?;
            memory.canaries()?;
        }
    }
    Ok(())
}

/// Registers that become another context's as they are, are not in its area, whether they were loaded or written.
pub(super) fn after_an_adoption<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for before in b.sets() {
        for set in b.sets() {
            let (one, two) = (b.pattern(before), b.pattern(set));
            let (mut from, mut to) = (b.saved(&two), b.saved(&one));
            let (from, to) = (from.base(), to.base());
            let loaded = [Step::Restore(from), Step::Adopt(to), Step::SaveIfChanged(to)];
            let adopted = b.run(&loaded).restored;
            adopted.map_err(|why| format!("refused to load or to adopt: {why}"))?;
            b.restores(to, &two, &format!("{set:#b} loaded, adopted over {before:#b}"))?;
            let mut to = b.saved(&one);
            let to = to.base();
            let ends = [Step::Adopt(to), Step::SaveIfChanged(to), Step::SaveIfChanged(to)];
            b.run(
                &[&[Step::Restore(from), Step::Load(&one), Step::Load(&two)], &ends[..]].concat(),
            );
            b.restores(to, &two, &format!("{set:#b} written, adopted over {before:#b}"))?;
        }
    }
    Ok(())
}
