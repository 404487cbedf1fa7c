//! Images in memory: formats into one another, absent components, and values that are refused.

use std::{vec, vec::Vec};

use super::*;
use crate::{
    components::{self, extended, one, Components},
    error::ImageError,
    fields::*,
    foreign::ForeignImage,
    layout::Places,
    plan::Plan,
    save_instruction::{Format, SaveInstruction},
    tests::sample,
    tests::sample::Random,
    x87::X87,
};

fn initial(plan: &Plan) -> Vec<u8> {
    let mut area = vec![0; plan.area_len()];
    write_initial(&mut area, plan);
    area
}
fn image<'a>(area: &'a [u8], plan: &'a Plan) -> Image<'a> {
    Image::new(area, plan)
}

/// Registers of the components `present` random, the rest absent and every byte there poisoned, as
/// after saves.
pub(super) fn random_area(plan: &Plan, present: Components, random: &mut Random) -> Vec<u8> {
    let mut area = vec![0; plan.area_len()];
    random.fill(&mut area);
    let mut mxcsr = random.word() as u32 & 0xFFFF;
    if plan.format() != Format::Legacy {
        area[XSTATE_BV..576].fill(0);
        set(&mut area, XSTATE_BV, present.bits().to_le_bytes());
    }
    if plan.format() == Format::Compacted {
        set(&mut area, XCOMP_BV, (COMPACTED | plan.mask).to_le_bytes());
        if !present.contains(Components::SSE) {
            mxcsr = 0xDEAD_BEEF; // absent with SSE
        }
    }
    set(&mut area, MXCSR, mxcsr.to_le_bytes());
    area
}

/// Every register of both, and every byte of what has no registers of its own here.
fn same(one: &Image<'_>, other: &Image<'_>, what: &str) {
    assert_eq!(one.x87(), other.x87(), "{what}");
    assert_eq!(one.mxcsr(), other.mxcsr(), "{what}");
    for n in 0..16 {
        assert_eq!(one.xmm(n), other.xmm(n), "{what}: xmm{n}");
    }
    for number in 2..63 {
        let component = components::one(number);
        let size = one.plan().place(component).map_or(0, |(_, size)| size);
        let (mut left, mut right) = (vec![1; size], vec![2; size]);
        let from = one.read(component, 0, &mut left);
        if other.plan().place(component).is_some() {
            assert_eq!(from, other.read(component, 0, &mut right), "{what}: {component:?}");
            assert_eq!(left, right, "{what}: {component:?}");
        }
    }
}

/// What the target held before is gone, not only hidden by the header.
fn no_residue(image: &Image<'_>, what: &str) {
    let absent = image.plan().components().difference(image.present());
    for number in extended(absent) {
        let (offset, size) = image.plan().place(one(number)).unwrap();
        let bytes = &image.bytes()[offset..offset + size];
        assert!(bytes.iter().all(|byte| *byte == 0), "{what}: component {number}");
    }
    if absent.contains(Components::SSE) {
        assert!(image.bytes()[XMM..XMM_END].iter().all(|byte| *byte == 0), "{what}: XMM");
    }
    if absent.contains(Components::X87) {
        assert!(image.bytes()[ST..XMM].iter().all(|byte| *byte == 0), "{what}: x87");
    }
}

/// The same set with every instruction.
fn instructions(set: Components) -> Vec<Plan> {
    let instructions = [
        SaveInstruction::Xsavec,
        SaveInstruction::Xsaveopt,
        SaveInstruction::Xsave,
        SaveInstruction::Fxsave,
    ];
    instructions
        .into_iter()
        .filter_map(|instruction| sample::plan(set).with_save_instruction(instruction).ok())
        .collect()
}

fn sets() -> [Components; 4] {
    let avx512 = Components::LEGACY | Components::AVX | Components::AVX512;
    [
        Components::LEGACY,
        Components::LEGACY | Components::AVX,
        avx512 | Components::MPX | Components::TILECFG | Components::TILEDATA,
        avx512 | Components::APX,
    ]
}

#[test]
fn formats_convert_into_one_another_without_loss() {
    let mut random = Random(1);
    for set in sets() {
        for from in instructions(set) {
            for _ in 0..60 {
                let present = Components::from_bits_retain(random.word()) & set;
                let area = random_area(&from, present, &mut random);
                let source = image(&area, &from);
                for to in instructions(set) {
                    let what = std::format!(
                        "{present:?}, {:?} to {:?}",
                        from.save_instruction(),
                        to.save_instruction()
                    );
                    let mut target = random_area(&to, to.components(), &mut random);
                    // SAFETY: C24: nothing is restored.
                    let done =
                        unsafe { ImageMut::new(&mut target, &to).copy_with_tiles_from(&source) };
                    assert_eq!(done, Ok(()), "{what}");
                    let copy = image(&target, &to);
                    same(&source, &copy, &what);
                    no_residue(&copy, &what);
                    // Absent stays absent, except SSE where the compacted format has MXCSR only with it.
                    let mut expect = source.present();
                    if to.format() == Format::Compacted && source.mxcsr() != INITIAL_MXCSR {
                        expect |= Components::SSE;
                    }
                    if to.format() != Format::Legacy {
                        assert_eq!(copy.present(), expect, "{what}");
                    }
                }
            }
        }
    }
}

/// The export has one form for one state: whatever lay under clear bits, in gaps and reserved bytes.
#[test]
fn no_byte_of_an_absent_component_leaves() {
    let mut random = Random(2);
    for set in sets() {
        for plan in instructions(set).into_iter().filter(|plan| plan.format() != Format::Legacy) {
            for _ in 0..60 {
                let present = Components::from_bits_retain(random.word()) & set;
                let area = random_area(&plan, present, &mut random);
                let mut clean = initial(&plan);
                let source = image(&area, &plan);
                // SAFETY: C24: nothing is restored.
                unsafe { ImageMut::new(&mut clean, &plan).copy_with_tiles_from(&source) }.unwrap();
                let (mut one, mut two) = (vec![0xAA; 12000], vec![0x55; 12000]);
                for compacted in [false, true] {
                    one.fill(0xAA);
                    let export = |image: Image<'_>, out: &mut [u8]| match compacted {
                        true => image.to_compacted(out),
                        false => image.to_standard(out),
                    };
                    let len = export(source, &mut one).unwrap();
                    assert_eq!(export(image(&clean, &plan), &mut two), Ok(len));
                    assert!(one[..len] == two[..len], "{present:?}, {:?}", plan.save_instruction());
                    assert!(one[len..].iter().all(|byte| *byte == 0xAA));
                    assert!(one[416..512].iter().all(|byte| *byte == 0), "reserved");
                    assert!(one[528..576].iter().all(|byte| *byte == 0), "reserved");
                    let short = export(source, &mut one[..len - 1]);
                    assert_eq!(short, Err(ImageError::TooShort { need: len }));
                    let places = if compacted {
                        Places::new(Format::Compacted, set, plan.cpuid_info()).unwrap()
                    } else {
                        Places::new(Format::Standard, set, plan.cpuid_info()).unwrap()
                    };
                    let mut gaps = vec![true; len];
                    gaps[..576].fill(false);
                    for number in extended(source.present()) {
                        let slot = places.slot(number).unwrap();
                        gaps[slot.offset as usize..][..slot.size as usize].fill(false);
                    }
                    let quiet = one.iter().zip(gaps).all(|(byte, gap)| !gap || *byte == 0);
                    assert!(quiet, "{present:?}: bytes between components");
                }
                let (mut one, mut two) = ([0xAA; 512], [0x55; 512]);
                let lost = source.to_fxsave(&mut one);
                assert_eq!(lost, source.present().difference(Components::LEGACY));
                image(&clean, &plan).to_fxsave(&mut two);
                assert_eq!(one, two);
            }
        }
    }
}

#[test]
fn mxcsr_follows_each_formats_rule() {
    for plan in instructions(Components::LEGACY | Components::AVX) {
        let mut area = initial(&plan);
        set(&mut area, MXCSR, 0x7F80u32.to_le_bytes());
        let compacted = plan.format() == Format::Compacted;
        let expect = if compacted { INITIAL_MXCSR } else { 0x7F80 };
        assert_eq!(image(&area, &plan).mxcsr(), expect);
        let mut standard = vec![0; plan.standard_len()];
        image(&area, &plan).to_standard(&mut standard).unwrap();
        assert_eq!((u32_at(&standard, MXCSR), standard[XSTATE_BV] & 2), (expect, 0));
        let mut packed = vec![0; plan.standard_len()];
        image(&area, &plan).to_compacted(&mut packed).unwrap();
        let present = if compacted { 0 } else { 2 };
        assert_eq!((u32_at(&packed, MXCSR), packed[XSTATE_BV] & 2), (expect, present));
        assert!(packed[XMM..XMM_END].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_the_target_cannot_hold_is_refused_whole() {
    let wide = sample::plan(Components::LEGACY | Components::AVX);
    let narrow = sample::plan(Components::LEGACY);
    let mut area = initial(&wide);
    ImageMut::new(&mut area, &wide).set_ymm_hi(0, [1; 16]).unwrap();
    ImageMut::new(&mut area, &wide).set_xmm(0, [1; 16]).unwrap();
    let mut target = initial(&narrow);
    let before = target.clone();
    let done = ImageMut::new(&mut target, &narrow).copy_from(&image(&area, &wide));
    assert_eq!(done, Err(ImageError::NotManaged { component: Components::AVX }));
    assert_eq!(target, before);
    let tiles = sample::plan(sets()[2]);
    let mut area = initial(&tiles);
    set(&mut area, XSTATE_BV, Components::TILEDATA.bits().to_le_bytes());
    let mut target = initial(&tiles);
    let before = target.clone();
    let done = ImageMut::new(&mut target, &tiles).copy_from(&image(&area, &tiles));
    let component = Components::TILEDATA;
    assert_eq!((done, target), (Err(ImageError::NotWritable { component }), before));
}

#[test]
fn a_merge_leaves_the_rest() {
    let plan = sample::plan(sets()[1]);
    for plan in [plan.clone(), plan.with_save_instruction(SaveInstruction::Xsave).unwrap()] {
        let mut area = initial(&plan);
        let mut target = ImageMut::new(&mut area, &plan);
        target.set_ymm_hi(2, [2; 16]).unwrap();
        target.set_xmm(2, [3; 16]).unwrap();
        let mut frame = [0; 512];
        frame[24..28].copy_from_slice(&0x3F80u32.to_le_bytes());
        frame[XMM] = 5;
        let valid = ForeignImage::in_private(&mut frame).validate(&plan).unwrap();
        target.merge(&valid, Components::LEGACY).unwrap();
        let now = target.as_image();
        assert_eq!((now.ymm_hi(2), now.xmm(2)), (Some([2; 16]), Some([0; 16])));
        assert_eq!((now.xmm(0).unwrap()[0], now.mxcsr()), (5, 0x3F80));
        target.replace_with(&valid).unwrap();
        assert_eq!(target.as_image().ymm_hi(2), Some([0; 16]));
        assert!(!target.as_image().present().contains(Components::AVX));
    }
}

#[test]
fn control_components_take_legal_values_only() {
    for plan in instructions(sets()[2]) {
        let mut area = initial(&plan);
        let before = area.clone();
        let mut image = ImageMut::new(&mut area, &plan);
        let mut config = [0; 64];
        (config[0], config[16], config[48]) = (1, 64, 17);
        let component = Components::TILECFG;
        let refused = image.write(component, 0, &config);
        assert_eq!(refused, Err(ImageError::IllegalValue { component, at: 48, value: 17 }));
        let refused = image.write(Components::BNDCSR, 0, &[4]);
        let component = Components::BNDCSR;
        assert_eq!(refused, Err(ImageError::IllegalValue { component, at: 0, value: 4 }));
        let component = Components::TILEDATA;
        let refused = image.write(component, 0, &[0]);
        assert_eq!(refused, Err(ImageError::NotWritable { component }));
        assert!(image.bytes == before, "a refused write changes nothing");
        config[48] = 16;
        image.write(Components::TILECFG, 0, &config).unwrap();
        image.write(Components::BNDREGS, 63, &[0xFF]).unwrap();
        let mut read = [0; 64];
        image.as_image().read(Components::TILECFG, 0, &mut read).unwrap();
        assert_eq!(read, config);
        // The tiles' heights alone would not be legal without their widths.
        let refused = image.write(Components::TILECFG, 16, &[0]);
        assert!(matches!(refused, Err(ImageError::IllegalValue { at: 16, .. })));
    }
}

#[test]
fn the_whole_x87_unit_goes_in_and_comes_out() {
    let mut random = Random(3);
    for plan in instructions(sets()[1]) {
        for _ in 0..100 {
            let mut bytes = [0; 512];
            random.fill(&mut bytes);
            let x87 = X87::from_fxsave(&bytes);
            let mut area = initial(&plan);
            let mut image = ImageMut::new(&mut area, &plan);
            image.set_x87(&x87);
            assert_eq!(image.as_image().x87(), x87);
            let mut fxsave = [0xEE; 512];
            image.as_image().to_fxsave(&mut fxsave);
            let mut direct = fxsave;
            direct[..24].fill(0xEE);
            x87.to_fxsave(&mut direct);
            assert_eq!(fxsave, direct);
            assert_eq!(X87::from_fxsave(&fxsave), x87);
        }
    }
}

#[test]
fn supervisor_state_survives_foreign_images() {
    let plan = sample::kernel();
    assert_eq!((plan.save_instruction(), plan.xss()), (SaveInstruction::Xsaves, Components::CET_U));
    let mut area = random_area(&plan, plan.components(), &mut Random(6));
    let shadow_stack = |area: &[u8]| {
        let mut bytes = [0; 16];
        image(area, &plan).read(Components::CET_U, 0, &mut bytes).unwrap();
        bytes
    };
    let before = shadow_stack(&area);
    assert_ne!(before, [0; 16]);
    // FXSAVE's, and one with nothing present.
    for len in [512, 576] {
        let mut frame = vec![0; len];
        frame[24..28].copy_from_slice(&INITIAL_MXCSR.to_le_bytes());
        let valid = ForeignImage::in_private(&mut frame).validate(&plan).unwrap();
        ImageMut::new(&mut area, &plan).replace_with(&valid).unwrap();
        assert_eq!(shadow_stack(&area), before, "{len}");
        assert_eq!(image(&area, &plan).ymm_hi(0), Some([0; 16]));
    }
    // It does not leave either, and is not to be written.
    let mut out = vec![0xEE; plan.standard_len()];
    assert_eq!(image(&area, &plan).to_standard(&mut out), Ok(832));
    assert_eq!(u64_at(&out, XSTATE_BV), 0);
    let why = ImageMut::new(&mut area, &plan).write(Components::CET_U, 0, &[1]);
    assert_eq!(why, Err(ImageError::NotWritable { component: Components::CET_U }));
}

/// A kernel switches PKRU by itself, and what its tasks show has it all the same.
#[test]
fn what_a_task_shows_fits_the_buffer_for_foreign_images() {
    let mut larger = 0;
    for (name, plan) in crate::tests::corpus::plans() {
        let (shown, room) = (plan.user_format().xstate_len(), plan.foreign_len());
        assert!(shown <= room, "{name}: {shown} bytes, room for {room}");
        larger += usize::from(plan.is_for_kernel() && shown > plan.standard_len());
    }
    assert!(larger > 10, "{larger}");
}
