//! The checks of a backend that can compare images.

use alloc::{format, string::ToString, vec};
use fpu_core::KernelUnits;

use super::{
    bench::{Answer, Bench, Why},
    memory::Memory,
    Harness, Step,
};

type Compared = Result<(), fpu_core::verify::Difference>;

/// Compares by the backend, in both orders, whose answers must agree on whether there is a difference.
fn compare<H: Harness>(
    b: &Bench<'_, H>,
    one: &mut Memory,
    other: &mut Memory,
) -> Result<Compared, Why> {
    let (one, other) = (one.base(), other.base());
    // SAFETY: C9, C11: two areas of `Memory` with images in them, which no other code has.
    let answers = unsafe { (b.harness.compare(one, other), b.harness.compare(other, one)) };
    let (Some(answer), Some(back)) = answers else {
        return Err(Why::Skipped("the backend does not compare images"));
    };
    if answer.is_ok() != back.is_ok() {
        return Err(format!("it depends on the order: {answer:?}, {back:?}").into());
    }
    Ok(answer)
}

fn expect(same: bool, answer: Compared, what: &str) -> Answer {
    match (same, answer) {
        (true, Err(difference)) => Err(format!("{what}: {difference}")),
        (false, Ok(())) => Err(format!("{what}: no difference was seen")),
        _ => Ok(()),
    }
}

/// Checks that a backend which compares images finds no difference between this image and one of these registers.
pub(super) fn agree<H: Harness>(
    b: &mut Bench<'_, H>,
    memory: &mut Memory,
    registers: &H::Registers,
    what: &str,
) -> Result<(), Why> {
    let mut saved = b.saved(registers);
    match compare(b, memory, &mut saved) {
        Ok(answer) => Ok(expect(true, answer, what)?),
        Err(Why::Skipped(_)) => Ok(()),
        Err(why) => Err(why),
    }
}

pub(super) fn writes_nothing<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    for set in b.sets() {
        let (registers, full) = (b.pattern(set), b.pattern(b.every()));
        let (mut one, mut other) = (b.saved(&registers), b.saved(&full));
        let before = (one.image().to_vec(), other.image().to_vec());
        let _ = compare(b, &mut one, &mut other)?;
        one.canaries()?;
        other.canaries()?;
        if one.image() != before.0 || other.image() != before.1 {
            return Err("an image was changed".to_string().into());
        }
    }
    Ok(())
}

pub(super) fn sees_every_change<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let mut fresh = b.fresh();
    for component in 0..b.harness.components() {
        let registers = b.pattern(1 << component);
        let mut other = b.saved(&registers);
        let what = format!("component {component} beside the initial image");
        expect(false, compare(b, &mut fresh, &mut other)?, &what)?;
    }
    for set in b.sets() {
        let seed = b.seed();
        let registers = b.harness.pattern(seed, set);
        let mut one = b.saved(&registers);
        // One component is initial in the one and not in the other.
        for component in 0..b.harness.components() {
            let changed = b.harness.pattern(seed, set ^ 1 << component);
            let mut other = b.saved(&changed);
            let what = format!("components {set:#b}, number {component} changed");
            expect(false, compare(b, &mut one, &mut other)?, &what)?;
        }
        // One holds something else.
        for component in (0..b.harness.components()).filter(|c| set >> c & 1 != 0) {
            let single = 1 << component;
            let (first, second) = (b.pattern(single), b.pattern(single));
            let (mut first, mut second) = (b.saved(&first), b.saved(&second));
            let what = format!("two contents of component {component}");
            expect(false, compare(b, &mut first, &mut second)?, &what)?;
        }
    }
    Ok(())
}

pub(super) fn ignores_the_bytes<H: Harness>(b: &mut Bench<'_, H>) -> Result<(), Why> {
    let (initial, mut fresh) = (b.pattern(0), b.fresh());
    let mut saved = b.saved(&initial);
    expect(true, compare(b, &mut fresh, &mut saved)?, "the initial image, and one saved")?;
    // Initial values that were written by an instruction may be present.
    let units = Step::Defaults(KernelUnits::ALL);
    let after = b.run(&[Step::Load(&initial), units, Step::Save(saved.base())]).registers;
    if after == initial {
        expect(true, compare(b, &mut fresh, &mut saved)?, "initial, but written")?;
    }
    for set in b.sets() {
        let (registers, full) = (b.pattern(set), b.pattern(b.every()));
        let mut one = b.saved(&registers);
        // Over old bytes.
        let mut over = b.saved(&full);
        b.run(&[Step::Load(&registers), Step::Save(over.base())]);
        // After a restore, and what a save to its address leaves out.
        let (mut again, mut elsewhere) = (b.saved(&registers), b.saved(&full));
        b.run(&[
            Step::Load(&full),
            Step::Restore(again.base()),
            Step::Save(elsewhere.base()),
            Step::Save(again.base()),
        ]);
        // Through the view, over anything.
        let mut written = b.saved(&full);
        let mut ways = vec![
            ("saved over other bytes", &mut over),
            ("saved after a restore", &mut elsewhere),
            ("saved where it was restored from", &mut again),
        ];
        if b.write(&mut written, &registers) {
            ways.push(("written through the view", &mut written));
        }
        for (what, other) in ways {
            let what = format!("components {set:#b}, {what}");
            expect(true, compare(b, &mut one, other)?, &what)?;
        }
    }
    Ok(())
}
