//! The checks. Each takes a fresh seed, so that nothing left by another looks like its own.

use super::{
    absent,
    bench::{same, Bench, Why},
    compare, idle,
    memory::Memory,
    trap, unchanged, Check, Harness, Report, Step, Verdict,
};
use alloc::{format, string::ToString};
use fpu_core::{KernelUnits, RawFpu};

type Body<H> = fn(&mut Bench<'_, H>) -> Result<(), Why>;

pub(super) fn all<H: Harness>(harness: &mut H) -> Report {
    let checks: [(&'static str, &'static str, Body<H>); 30] = [
        ("size-is-constant", "B1", size_is_constant),
        ("stays-inside", "B1", stays_inside),
        ("save-writes-everything", "B2", save_writes_everything),
        ("save-keeps-registers", "B2", save_keeps_registers),
        ("restore-loads-everything", "B3", restore_loads_everything),
        ("restore-clears-absent", "B3", restore_clears_absent),
        ("old-bytes-stay-unseen", "B3", old_bytes_stay_unseen),
        ("initial-over-anything", "B3", initial_over_anything),
        ("absent-over-old-bytes", "B3", absent::absent_over_old_bytes),
        ("restore-leaves-image", "B3", absent::restore_leaves_the_image),
        ("refused-image-unchanged", "B4", refused_image_unchanged),
        ("good-image-after-refused", "B4", good_image_after_refused),
        ("own-images-accepted", "B5", own_images_accepted),
        ("no-allocation-no-panic", "B6", no_allocation_no_panic),
        ("unchanged-since-restore", "B7", unchanged_since_restore),
        ("save-left-out", "B17", unchanged::after_a_restore),
        ("save-after-adoption", "B17", unchanged::after_an_adoption),
        ("child-inherits-the-right", "B5", child_inherits_the_right),
        ("child-leaves-parent", "B5", absent::child_leaves_the_parent),
        ("kernel-defaults", "I5", kernel_defaults),
        ("section-end", "B3", section_end),
        ("view-shows-registers", "I8", view_shows_registers),
        ("view-write-is-loaded", "B5", view_write_is_loaded),
        ("compare-writes-nothing", "B8", compare::writes_nothing),
        ("compare-sees-every-change", "B9", compare::sees_every_change),
        ("compare-ignores-the-bytes", "B10", compare::ignores_the_bytes),
        ("idle-asks-the-hardware", "B11", idle::asks_the_hardware),
        ("idle-gives-up-no-more", "B12", idle::gives_up_no_more),
        ("trap-covers-everything", "B18", trap::covers_everything),
        ("trap-changes-nothing", "B19", trap::changes_nothing),
    ];
    let mut report = Report::default();
    for (nth, (name, duty, body)) in checks.into_iter().enumerate() {
        let mut bench = Bench::new(harness, 1000 * (nth as u64 + 1));
        let verdict = match caught(|| body(&mut bench)) {
            Ok(()) => Verdict::Passed,
            Err(Why::Failed(why)) => Verdict::Failed(why),
            Err(Why::Skipped(why)) => Verdict::Skipped(why),
        };
        report.checks.push(Check { name, duty, verdict });
    }
    report
}

/// Runs a check; one that panics has failed.
#[cfg(feature = "std")]
fn caught(check: impl FnOnce() -> Result<(), Why>) -> Result<(), Why> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check))
        .unwrap_or_else(|_| Err(Why::Failed("it panicked (B6)".into())))
}
/// Runs a check; the target reports a panic.
#[cfg(not(feature = "std"))]
fn caught(check: impl FnOnce() -> Result<(), Why>) -> Result<(), Why> {
    check()
}

fn size_is_constant<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    if !b.align.is_power_of_two() {
        return Err(format!("an alignment of {}", b.align).into());
    }
    for set in b.sets() {
        let now = (b.harness.fpu().area_len(), b.harness.fpu().area_align());
        same(&now, &(b.len, b.align), "length and alignment")?;
        let registers = b.pattern(set);
        drop(b.saved(&registers));
    }
    Ok(())
}

fn stays_inside<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let registers = b.pattern(set);
        let mut memory = b.saved(&registers);
        memory.canaries()?;
        b.restored(memory.base())?;
        b.child(&mut memory).canaries()?;
        b.write(&mut memory, &registers);
        memory.canaries()?;
    }
    Ok(())
}

fn save_writes_everything<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let registers = b.pattern(set);
        let mut memory = b.saved(&registers);
        b.restores(memory.base(), &registers, &format!("components {set:#b}"))?;
    }
    Ok(())
}

fn save_keeps_registers<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let (registers, mut memory) = (b.pattern(set), b.fresh());
        let after = b.run(&[Step::Load(&registers), Step::Save(memory.base())]).registers;
        same(&after, &registers, &format!("registers after a save, components {set:#b}"))?;
    }
    Ok(())
}

fn restore_loads_everything<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let registers = b.pattern(set);
        let mut memory = b.saved(&registers);
        for before in b.sets() {
            let other = b.pattern(before);
            let steps = [Step::Load(&other), Step::Restore(memory.base())];
            let after = b.run(&steps).registers;
            same(&after, &registers, &format!("{set:#b} over {before:#b}"))?;
        }
    }
    Ok(())
}

fn restore_clears_absent<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let (initial, mut memory) = (b.pattern(0), b.fresh());
    b.restores(memory.base(), &initial, "residue of the previous holder")?;
    Ok(())
}

fn old_bytes_stay_unseen<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let (full, registers) = (b.pattern(b.every()), b.pattern(set));
        let mut memory = b.saved(&full);
        b.run(&[Step::Load(&registers), Step::Save(memory.base())]);
        b.restores(memory.base(), &registers, &format!("{set:#b} saved over everything"))?;
    }
    Ok(())
}

fn initial_over_anything<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let (initial, full) = (b.pattern(0), b.pattern(b.every()));
    for mut memory in [b.memory(0xFF), b.memory(0), b.memory(0x5A), b.saved(&full)] {
        // SAFETY: C9: as in `fresh`.
        unsafe { b.harness.fpu().write_initial(memory.base()) };
        b.restores(memory.base(), &initial, "the initial image")?;
        memory.canaries()?;
    }
    Ok(())
}

/// A spoiled image of `registers`.
fn spoiled<H: Harness>(b: &mut Bench<'_, H>, registers: &H::Registers) -> Option<Memory> {
    let mut memory = b.saved(registers);
    b.harness.spoil(memory.image()).then_some(memory)
}

const REFUSES_NONE: Why = Why::Skipped("the hardware refuses no image");

fn refused_image_unchanged<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let full = b.pattern(b.every());
    let mut memory = spoiled(b, &full).ok_or(REFUSES_NONE)?;
    let before = memory.image().to_vec();
    let other = b.pattern(b.every());
    let answer = b.run(&[Step::Load(&other), Step::Restore(memory.base())]).restored;
    same(&answer.is_err(), &true, "an illegal image is refused")?;
    if memory.image() != before {
        return Err("the refused image was changed".to_string().into());
    }
    Ok(())
}

fn good_image_after_refused<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let full = b.pattern(b.every());
    let mut bad = spoiled(b, &full).ok_or(REFUSES_NONE)?;
    for set in b.sets() {
        let registers = b.pattern(set);
        let mut good = b.saved(&registers);
        b.run(&[Step::Restore(bad.base())]);
        let after = b.run(&[Step::Restore(bad.base()), Step::Restore(good.base())]);
        same(&(after.restored, after.registers), &(Ok(()), registers), "after a refused one")?;
        // A save to the refused image's address must not believe that anything was loaded.
        let (next, mut again) = (b.pattern(b.every()), b.fresh());
        let steps = [Step::Restore(bad.base()), Step::Load(&next), Step::Save(again.base())];
        b.run(&steps);
        b.restores(again.base(), &next, "saved after a refused restore")?;
    }
    Ok(())
}

fn own_images_accepted<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let registers = b.pattern(set);
        let mut first = b.saved(&registers);
        let mut child = b.child(&mut first);
        b.write(&mut first, &registers);
        for memory in [&mut b.fresh(), &mut first, &mut child] {
            b.restored(memory.base())?;
        }
    }
    Ok(())
}

fn no_allocation_no_panic<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let (registers, mut memory) = (b.pattern(set), b.fresh());
        let before = b.harness.allocations();
        b.run(&[
            Step::Load(&registers),
            Step::Save(memory.base()),
            Step::Restore(memory.base()),
            Step::Defaults(KernelUnits::ALL),
        ]);
        match (before, b.harness.allocations()) {
            (Some(before), Some(after)) if before != after => {
                return Err(format!("{} allocations", after - before).into());
            }
            _ => {}
        }
    }
    Ok(())
}

fn unchanged_since_restore<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let (one, two, three) = (b.pattern(b.every()), b.pattern(set), b.pattern(b.every()));
        // Nothing, then everything, then the first contents again since the restore.
        let mut a = b.saved(&one);
        b.run(&[Step::Restore(a.base()), Step::Save(a.base())]);
        b.restores(a.base(), &one, "saved where it came from, untouched")?;
        let (to, back) = (Step::Load(&two), Step::Load(&one));
        b.run(&[Step::Restore(a.base()), to, Step::Save(a.base())]);
        b.restores(a.base(), &two, "saved where it came from, changed")?;
        let mut a = b.saved(&one);
        let (at, to) = (a.base(), Step::Load(&two));
        b.run(&[Step::Restore(at), to, Step::Save(at), back, Step::Save(at)]);
        b.restores(at, &one, "changed, saved, changed back, saved")?;
        // Another restore in between.
        let (mut a, mut c) = (b.saved(&one), b.saved(&three));
        b.run(&[Step::Restore(a.base()), Step::Restore(c.base()), Step::Save(a.base())]);
        b.restores(a.base(), &three, "saved to an earlier restore's address")?;
        // Memory changed in between, so the second restore from there is needed.
        let mut a = b.saved(&one);
        b.run(&[Step::Restore(a.base())]);
        if b.write(&mut a, &two) {
            let after = b.run(&[Step::Restore(a.base())]).registers;
            same(&after, &two, "restored again after the image was written")?;
            b.run(&[Step::Restore(a.base()), Step::Save(a.base())]);
            b.restores(a.base(), &two, "and saved there")?;
        }
    }
    Ok(())
}

fn child_inherits_the_right<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let seed = b.seed();
        let parent = b.harness.pattern(seed, set);
        let expect = b.harness.pattern(seed, set & b.harness.inherited());
        let mut from = b.saved(&parent);
        let mut to = b.child(&mut from);
        b.restores(to.base(), &expect, &format!("the child of {set:#b}"))?;
        b.restores(from.base(), &parent, "the parent")?;
    }
    Ok(())
}

fn kernel_defaults<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let each = (0..b.harness.units()).map(KernelUnits::unit);
    for units in each.chain([KernelUnits::ALL]) {
        let user = b.pattern(b.every());
        let after = b.run(&[Step::Load(&user), Step::Defaults(units)]).registers;
        if !b.harness.defaults_hold(&after, units) {
            return Err(format!("{units:?}: {after:?}").into());
        }
    }
    let user = b.pattern(b.every());
    let after = b.run(&[Step::Load(&user), Step::Defaults(KernelUnits::NONE)]).registers;
    same(&after, &user, "no unit asked for")?;
    Ok(())
}

fn section_end<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let each = (0..b.harness.units()).map(KernelUnits::unit);
    for units in each.chain([KernelUnits::NONE, KernelUnits::ALL]) {
        let (task, other) = (b.pattern(b.every()), b.pattern(b.every()));
        let (mut memory, mut after) = (b.saved(&task), b.fresh());
        let (from, to) = (memory.base(), after.base());
        let ends = [Step::Load(&other), Step::Defaults(units), Step::End(units)];
        let outcome = b.run(&[&ends[..], &[Step::Restore(from), Step::Save(to)]].concat());
        outcome.restored.map_err(|why| format!("refused after {units:?}: {why}"))?;
        same(&outcome.registers, &task, &format!("restored after {units:?}"))?;
        b.restores(to, &task, &format!("saved after {units:?}"))?;
    }
    Ok(())
}

fn view_shows_registers<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let (initial, mut fresh) = (b.pattern(0), b.fresh());
    let shown = b.view(&mut fresh).ok_or(Why::Skipped("the view does not show registers"))?;
    same(&shown, &initial, "the initial image")?;
    for set in b.sets() {
        let (full, registers) = (b.pattern(b.every()), b.pattern(set));
        let mut memory = b.saved(&full);
        b.run(&[Step::Load(&registers), Step::Save(memory.base())]);
        let shown = b.view(&mut memory).ok_or("shown once, then not".to_string())?;
        same(&shown, &registers, &format!("components {set:#b} over everything"))?;
    }
    Ok(())
}

fn view_write_is_loaded<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let registers = b.pattern(set);
        for before in b.sets() {
            let old = b.pattern(before);
            let mut memory = b.saved(&old);
            if !b.write(&mut memory, &registers) {
                return Err(Why::Skipped("the view cannot be written"));
            }
            b.restores(memory.base(), &registers, "written through the view")?;
        }
    }
    Ok(())
}
