//! From every recorded CPU's plan to every other's, in every format: what is read is what was written, or a refusal that says
//! what the other one lacks; and no bytes are read with the wrong machine's offsets.

use std::{collections::BTreeSet, format, println, string::String, vec, vec::Vec};

use crate::{
    components::{extended, Components},
    error::ImageError,
    foreign::{Beyond, ForeignError, ForeignImage, ForeignRules},
    image::{write_initial, Image, ImageMut},
    origin::ForeignLayout,
    plan::Plan,
    regset::tests::{random_area, same, some},
    tests::{
        corpus,
        sample::{self, Random},
    },
    x87::Selectors,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Frame,
    Narrow,
    Xstate,
    Prfpreg,
    /// A page of KVM's, or several: the standard format, zeros behind it, and no word of software's.
    Pages,
    Compacted,
}
const KINDS: [Kind; 6] =
    [Kind::Frame, Kind::Narrow, Kind::Xstate, Kind::Prfpreg, Kind::Pages, Kind::Compacted];

/// Bytes of an image, as that machine has them.
fn write(kind: Kind, plan: &Plan, image: &Image<'_>, pkru: Option<u32>) -> Vec<u8> {
    let (format, mut out) = (plan.user_format(), vec![0xEE; 16384]);
    let len = match kind {
        Kind::Frame => format.write_frame(image, pkru, &mut out),
        Kind::Narrow => format.write_frame_32(image, Selectors::default(), pkru, &mut out),
        Kind::Xstate => format.write_xstate(image, pkru, &mut out),
        Kind::Prfpreg => {
            image.to_fxsave((&mut out[..512]).try_into().unwrap());
            Ok(512)
        }
        Kind::Pages => image.to_standard(&mut out),
        Kind::Compacted => image.to_compacted(&mut out),
    };
    out.truncate(len.unwrap());
    if kind == Kind::Pages {
        out.resize(out.len().next_multiple_of(4096), 0);
    }
    out
}

/// A task's image of `plan` that has been given those bytes, its rights, and what was left out.
type Read = (Vec<u8>, Option<u32>, Components);

fn read(
    kind: Kind,
    plan: &Plan,
    bytes: &[u8],
    rules: &ForeignRules<'_>,
    random: &mut Random,
) -> Result<Read, ForeignError> {
    let (format, mut private) = (plan.user_format(), bytes.to_vec());
    // What it was before does not matter.
    let mut area = random_area(plan, some(plan, random), random);
    let mut task = ImageMut::new(&mut area, plan);
    let given = match kind {
        Kind::Frame => {
            let frame = format.read_frame_by(rules, &mut private)?;
            task.replace_with(frame.valid()).unwrap();
            (frame.pkru(), frame.valid().beyond())
        }
        Kind::Narrow => {
            let frame = format.read_frame_32_by(rules, &mut private)?;
            task.replace_with(frame.valid()).unwrap();
            (frame.pkru(), frame.valid().beyond())
        }
        _ => {
            let valid = ForeignImage::in_private(&mut private).validate_by(rules, plan)?;
            task.replace_with(&valid).unwrap();
            (valid.pkru(), valid.beyond())
        }
    };
    Ok((area, given.0, given.1))
}

/// Where components lie, which is what tells plans apart here.
fn plans() -> Vec<(String, Plan)> {
    let mut kinds = BTreeSet::new();
    let mut plans = corpus::plans();
    plans.extend(sample::plans().into_iter().map(|plan| ("made up".into(), plan)));
    plans.push(("a shadow stack".into(), sample::kernel()));
    plans.retain(|(_, plan)| {
        let layout = ForeignLayout::of(plan);
        let places: Vec<_> = extended(plan.components()).map(|n| layout.described(n)).collect();
        let pkru = (plan.carries_pkru(), layout.described(9));
        kinds.insert(format!("{:?} {:?} {places:?} {pkru:?}", plan.components(), plan.format()))
    });
    plans
}

/// Registers of the components that both may have, or of all that one has, so that a 32-bit frame holds them.
fn registers(from: &Plan, to: &Plan, kind: Kind, random: &mut Random) -> Vec<u8> {
    let mut present = some(from, random);
    if random.below(2) == 0 {
        present &= to.components();
    }
    if kind == Kind::Prfpreg {
        present &= Components::LEGACY;
    }
    let mut area = random_area(from, present, random);
    let mut image = ImageMut::new(&mut area, from);
    if image.as_image().present().contains(Components::X87) {
        let mut x87 = image.as_image().x87();
        if kind == Kind::Narrow {
            (x87.fip, x87.fdp) = (x87.fip & 0xFFFF_FFFF, x87.fdp & 0xFFFF_FFFF);
        }
        image.set_x87(&x87);
    }
    area
}

#[test]
fn what_one_machine_writes_another_reads_or_refuses_by_name() {
    // In a debug build, some of the pairs.
    let every = if cfg!(debug_assertions) { 7 } else { 1 };
    let mut random = Random(71);
    let plans = plans();
    let layouts: Vec<_> = plans.iter().map(|(_, plan)| ForeignLayout::of(plan)).collect();
    let (mut taken, mut refused, mut back, mut pairs) = (0, 0, 0, 0);
    for (number, (one, from)) in plans.iter().enumerate() {
        for (other, to) in plans.iter().skip(number % every).step_by(every) {
            pairs += 1;
            for kind in KINDS {
                let what = format!("{kind:?} of {one} for {other}");
                let area = registers(from, to, kind, &mut random);
                let image = Image::new(&area, from);
                let shows = matches!(kind, Kind::Frame | Kind::Narrow | Kind::Xstate);
                let has = shows && from.user_format().components().contains(Components::PKRU);
                // Absent, present and initial, or something.
                let pkru = has.then(|| [None, Some(0), Some(random.word() as u32 | 1)]);
                let pkru = pkru.and_then(|each| each[random.below(3) as usize]);
                let bytes = write(kind, from, &image, pkru);

                // The components that the other one has not, and the rights.
                let mut excess = image.present().user_part() & !to.components();
                if pkru > Some(0) && !to.carries_pkru() {
                    excess |= Components::PKRU;
                }
                let layout = &layouts[number];
                let rules = ForeignRules::new().layout(layout).compacted();
                let strict = read(kind, to, &bytes, &rules, &mut random);
                if excess.is_empty() {
                    let (got, rights, beyond) =
                        strict.unwrap_or_else(|why| panic!("{what}: {why}"));
                    same(&image, &Image::new(&got, to), &what);
                    assert_eq!(beyond, Components::empty(), "{what}");
                    if shows && to.carries_pkru() {
                        assert_eq!(rights, Some(pkru.unwrap_or(0)), "{what}");
                    }
                    taken += 1;
                    // And back, as the other one has it.
                    let image = Image::new(&got, to);
                    let bytes = write(kind, to, &image, pkru.filter(|_| to.carries_pkru()));
                    let layout = ForeignLayout::of(to);
                    let rules = ForeignRules::new().layout(&layout).compacted();
                    let (again, ..) = read(kind, from, &bytes, &rules, &mut random).unwrap();
                    same(&image, &Image::new(&again, from), &what);
                    back += 1;
                } else {
                    let bits = excess.bits();
                    assert_eq!(strict, Err(ForeignError::NotEnabled { bits }), "{what}");
                    refused += 1;
                    let rules = rules.beyond(Beyond::Report);
                    let (got, _, beyond) = read(kind, to, &bytes, &rules, &mut random).unwrap();
                    assert_eq!(beyond, excess, "{what}");
                    // Without those, it is the same.
                    let mut rest = vec![0; to.area_len()];
                    write_initial(&mut rest, to);
                    let mut rest = ImageMut::new(&mut rest, to);
                    rest.import(&image, to.components(), Components::all()).unwrap();
                    same(&rest.as_image(), &Image::new(&got, to), &what);
                }
                // By conversion, into what a save area of the other one holds.
                let mut converted = vec![0xEE; to.area_len()];
                let lacks = image.present() & !to.components();
                match image.to_plan(to, &mut converted) {
                    Ok(len) => {
                        assert_eq!((len, lacks), (to.area_len(), Components::empty()), "{what}");
                        same(&image, &Image::new(&converted, to), &what);
                    }
                    Err(why) => {
                        assert_eq!(why, ImageError::NotManaged { component: lacks }, "{what}");
                        assert!(converted.iter().all(|byte| *byte == 0xEE), "{what}");
                    }
                }
                // By what the bytes tell: right, or refused. Raw pages and compacted images tell nothing.
                if matches!(kind, Kind::Frame | Kind::Narrow | Kind::Xstate) && excess.is_empty() {
                    if let Ok((got, ..)) = read(kind, to, &bytes, &ForeignRules::new(), &mut random)
                    {
                        same(&image, &Image::new(&got, to), &format!("{what}, by itself"));
                    }
                }
            }
        }
    }
    println!("{} plans, {pairs} pairs: {taken} taken, {back} back, {refused} refused", plans.len());
    assert!(taken > 1000 && refused > 300 && plans.len() > 40);
}

/// XCOMP_BV has components that the image does not: supervisor state, and what this machine lacks. Where the others lie
/// follows from all of them.
#[test]
fn places_in_a_compacted_image_follow_from_all_that_it_could_hold() {
    let mut random = Random(72);
    let plan = sample::plan(Components::LEGACY | Components::AVX | Components::AVX512);
    let plain = ForeignRules::new().compacted();
    let all: Vec<_> = extended(Components::all()).filter(|number| *number < 20).collect();
    let size = |number: u32| match number {
        2 => 256,
        3..=5 | 17 => 64,
        6 => 512,
        7 => 1024,
        8 | 19 => 128,
        9 | 10 | 13 | 16 => 8,
        11 => 16,
        12 => 24,
        14 => 48,
        15 => 808,
        _ => 8192,
    };
    for _ in 0..2000 {
        let set = Components::from_bits_retain(random.word()) & Components::all();
        let set = set.difference(Components::LWP) | Components::LEGACY;
        let present = set & plan.components();
        let area = random_area(&plan, present, &mut random);
        let image = Image::new(&area, &plan);
        // By hand, by the definition of the format (SDM vol. 1, 13.4.3).
        let mut bytes = vec![0; 576];
        bytes[..512].copy_from_slice(&area[..512]);
        bytes[512..520].copy_from_slice(&present.bits().to_le_bytes());
        bytes[520..528].copy_from_slice(&(1 << 63 | set.bits()).to_le_bytes());
        for number in all.iter().filter(|number| set.bits() >> **number & 1 != 0) {
            if matches!(number, 17 | 18) {
                bytes.resize(bytes.len().next_multiple_of(64), 0xEE);
            }
            let at = bytes.len();
            bytes.resize(at + size(*number), 0xEE);
            let component = Components::of_number(*number).unwrap();
            if present.contains(component) {
                image.read(component, 0, &mut bytes[at..]).unwrap();
            }
        }
        let (got, ..) = read(Kind::Compacted, &plan, &bytes, &plain, &mut random).unwrap();
        same(&image, &Image::new(&got, &plan), &format!("{set:?}"));
    }
}
