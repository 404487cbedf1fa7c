//! Plans made from CPUID words that are made up to be wrong in one way each.

use raw_cpuid::CpuIdResult;
use std::collections::BTreeMap;

use crate::{
    components::Components,
    cpuid::CpuidInfo,
    error::{ImageError, PlanError},
    image::{self, Image, ImageMut},
    plan::Plan,
    save_instruction::{Format, SaveInstruction},
};

/// Words by leaf and subleaf; all others read as zero.
#[derive(Clone, Default)]
pub(crate) struct Words {
    pub(crate) cpuid: BTreeMap<(u32, u32), [u32; 4]>,
    pub(crate) xcr0: u64,
}

pub(crate) const FXSR_SSE: u32 = 1 << 24 | 1 << 25;
pub(crate) const XSAVE: u32 = 1 << 26;
pub(crate) const OSXSAVE: u32 = 1 << 27;

impl Words {
    pub(crate) fn cpuid_info(&self) -> Result<CpuidInfo, PlanError> {
        let words = self.cpuid.clone();
        let reader = move |leaf, subleaf| {
            let [eax, ebx, ecx, edx] = words.get(&(leaf, subleaf)).copied().unwrap_or_default();
            CpuIdResult { eax, ebx, ecx, edx }
        };
        CpuidInfo::from_cpuid(reader)
    }
    pub(crate) fn user(&self, wanted: Components, left_out: Components) -> Result<Plan, PlanError> {
        let facts = self.cpuid_info()?.with_xcr0(Components::from_bits_retain(self.xcr0));
        Plan::user(facts, 0xFFFF, wanted, left_out)
    }
    pub(crate) fn plan(&self) -> Result<Plan, PlanError> {
        self.user(Components::all(), Components::empty())
    }
    /// The plan for ring 0.
    pub(crate) fn kernel(&self, wanted: Components) -> Result<Plan, PlanError> {
        Plan::for_kernel(self.cpuid_info()?, 0xFFFF, wanted)
    }
    pub(crate) fn with(mut self, leaf: u32, subleaf: u32, words: [u32; 4]) -> Self {
        self.cpuid.insert((leaf, subleaf), words);
        self
    }
    pub(crate) fn xcr0(mut self, xcr0: u64) -> Self {
        self.xcr0 = xcr0;
        self
    }
}

/// An AVX-512 server part with PKRU, XSAVEC and XSAVES, whose system enables no supervisor state.
pub(crate) fn server() -> Words {
    Words::default()
        .with(0, 0, [0x16, 0, 0, 0])
        .with(1, 0, [0, 0, XSAVE | OSXSAVE, FXSR_SSE])
        .with(0xD, 0, [0x2E7, 2696, 2696, 0])
        .with(0xD, 1, [0xF, 2440, 0x100, 0])
        .with(0xD, 2, [256, 576, 0, 0])
        .with(0xD, 5, [64, 1088, 0, 0])
        .with(0xD, 6, [512, 1152, 0, 0])
        .with(0xD, 7, [1024, 1664, 0, 0])
        .with(0xD, 8, [128, 0, 1, 0])
        .with(0xD, 9, [8, 2688, 0, 0])
        .xcr0(0x2E7)
}

/// With AMX, whose components are aligned in the compacted format.
pub(crate) fn tiles() -> Words {
    server()
        .with(0xD, 0, [0x6_02E7, 11008, 11008, 0])
        .with(0xD, 1, [0xF, 10752, 0, 0])
        .with(0xD, 17, [64, 2752, 2, 0])
        .with(0xD, 18, [8192, 2816, 6, 0])
        .xcr0(0x6_02E7)
}

/// Leaf 0 of vendors, leaf 1 with a family.
pub(crate) fn cpu(vendor: [u32; 3], signature: u32) -> Words {
    let [ebx, ecx, edx] = vendor;
    Words::default()
        .with(0, 0, [0x16, ebx, ecx, edx])
        .with(1, 0, [signature, 0, XSAVE | OSXSAVE, FXSR_SSE])
        .with(0xD, 2, [256, 576, 0, 0])
        .xcr0(7)
}
pub(crate) const AMD: [u32; 3] = [0x6874_7541, 0x444D_4163, 0x6974_6E65];
pub(crate) const INTEL: [u32; 3] = [0x756E_6547, 0x6C65_746E, 0x4965_6E69];

/// A client CPU with small cores beside, which have no AVX-512; supervisor components, HWP among them.
pub(crate) fn big_core() -> Words {
    cpu(INTEL, 0x0009_0672)
        .with(0xD, 0, [0x2E7, 0x340, 0xA88, 0])
        .with(0xD, 1, [0xF, 0x340, 0x1_9900, 0])
        .with(0xD, 5, [64, 1088, 0, 0])
        .with(0xD, 6, [512, 1152, 0, 0])
        .with(0xD, 7, [1024, 1664, 0, 0])
        .with(0xD, 8, [128, 0, 1, 0])
        .with(0xD, 9, [8, 2688, 0, 0])
        .with(0xD, 11, [16, 0, 1, 0])
        .with(0xD, 12, [24, 0, 1, 0])
        .with(0xD, 15, [808, 0, 1, 0])
        .with(0xD, 16, [8, 0, 1, 0])
}

#[test]
fn the_plan_is_what_is_enabled_but_for_pkru() {
    let plan = server().plan().unwrap();
    assert_eq!(
        (plan.components().bits(), plan.save_instruction()),
        (0xE7, SaveInstruction::Xsavec)
    );
    let places = |plan: &Plan| {
        [Components::AVX, Components::OPMASK, Components::ZMM_HI256, Components::HI16_ZMM]
            .map(|component| plan.place(component).unwrap().0)
    };
    assert_eq!((places(&plan), plan.area_len()), ([576, 832, 896, 1408], 2432));
    let plan = plan.with_save_instruction(SaveInstruction::Xsaveopt).unwrap();
    assert_eq!((places(&plan), plan.area_len()), ([576, 1088, 1152, 1664], 2688));
    assert_eq!(plan.place(Components::PKRU), None);
    assert_eq!(plan.place(Components::SSE), None);
    assert_eq!(plan.place(Components::AVX512), None);
    let missing = Components::AVX | Components::AVX512;
    assert_eq!(
        plan.with_save_instruction(SaveInstruction::Fxsave),
        Err(PlanError::TooNarrow { missing })
    );
}

#[test]
fn aligned_components_begin_at_64_in_the_compacted_format() {
    // PKRU is enabled but not in the plan, so only CPUID's own size has its 8 bytes and the 56 of
    // the gap behind it.
    let plan = tiles().plan().unwrap();
    assert_eq!(plan.place(Components::TILECFG), Some((2432, 64)));
    assert_eq!(plan.place(Components::TILEDATA), Some((2496, 8192)));
    assert_eq!(plan.area_len(), 10688);
    let odd = server().with(0xD, 2, [256, 576, 2, 0]).plan();
    assert!(odd.is_ok(), "576 is a multiple of 64");
}

#[test]
fn offsets_need_not_rise_with_the_numbers() {
    let plan = server()
        .with(0xD, 2, [256, 2432, 0, 0])
        .with(0xD, 5, [64, 576, 0, 0])
        .with(0xD, 6, [512, 640, 0, 0])
        .with(0xD, 7, [1024, 1152, 0, 0])
        .plan()
        .and_then(|plan| plan.with_save_instruction(SaveInstruction::Xsave))
        .unwrap();
    assert_eq!((plan.place(Components::AVX), plan.area_len()), (Some((2432, 256)), 2688));
}

#[test]
fn what_is_wanted_must_cover_what_is_enabled() {
    let words = server();
    let wanted = Components::LEGACY | Components::AVX;
    assert_eq!(
        words.user(wanted, Components::empty()),
        Err(PlanError::Uncovered { missing: Components::AVX512 })
    );
    let plan = words.user(wanted, Components::AVX512).unwrap();
    assert_eq!((plan.components(), plan.area_len()), (wanted, 832));
    for legacy in [Components::X87, Components::SSE] {
        assert_eq!(
            words.user(Components::all(), legacy),
            Err(PlanError::Uncovered { missing: legacy })
        );
    }
    let plan = words.user(Components::all(), !Components::LEGACY).unwrap();
    let plan = plan.with_save_instruction(SaveInstruction::Fxsave).unwrap();
    assert_eq!((plan.area_len(), plan.format()), (512, Format::Legacy));
}

#[test]
fn rungs_follow_cpuid() {
    let old = Words::default().with(0, 0, [2, 0, 0, 0]).with(1, 0, [0, 0, 0, FXSR_SSE]);
    let disabled = server().with(1, 0, [0, 0, XSAVE, FXSR_SSE]);
    for words in [old, disabled] {
        let plan = words.plan().unwrap();
        assert_eq!((plan.save_instruction(), plan.area_len()), (SaveInstruction::Fxsave, 512));
        assert_eq!(plan.components(), Components::LEGACY);
        for instruction in
            [SaveInstruction::Xsave, SaveInstruction::Xsaveopt, SaveInstruction::Xsavec]
        {
            assert_eq!(
                plan.clone().with_save_instruction(instruction),
                Err(PlanError::Unavailable(instruction))
            );
        }
    }
    for (flags, best) in
        [(0, SaveInstruction::Xsave), (1, SaveInstruction::Xsaveopt), (2, SaveInstruction::Xsavec)]
    {
        let plan = server().with(0xD, 1, [flags, 2440, 0, 0]).plan().unwrap();
        assert_eq!(plan.save_instruction(), best);
        assert_eq!(
            plan.with_save_instruction(SaveInstruction::Xsaveopt).is_ok(),
            flags & 1 != 0,
            "XSAVEC does not imply XSAVEOPT"
        );
    }
}

#[test]
fn a_child_starts_without_tiles() {
    let plan = tiles().plan().unwrap();
    let mut bytes = std::vec![0; plan.area_len()];
    image::write_initial(&mut bytes, &plan);
    bytes[512..520].copy_from_slice(&plan.components().bits().to_le_bytes());
    image::disinherit(&mut bytes, &plan);
    let image = Image::new(&bytes, &plan);
    assert_eq!(image.present(), plan.components().difference(Components::AMX));
}

#[test]
fn a_child_starts_without_supervisor_state() {
    let plan = big_core().kernel(Components::all()).unwrap();
    let supervisor = Components::CET_U | Components::CET_S;
    assert_eq!((plan.save_instruction(), plan.xss()), (SaveInstruction::Xsaves, supervisor));
    let mut bytes = std::vec![0; plan.area_len()];
    image::write_initial(&mut bytes, &plan);
    let compacted = 1 << 63 | plan.components().bits();
    assert_eq!(bytes[520..528], u64::to_le_bytes(compacted), "XRSTORS refuses less");
    bytes[512..520].copy_from_slice(&plan.components().bits().to_le_bytes());
    image::disinherit(&mut bytes, &plan);
    assert_eq!(bytes[512..520], u64::to_le_bytes(plan.xcr0().bits()));
}

#[test]
fn bytes_of_absent_tiles_read_as_zero() {
    let plan = tiles().plan().unwrap();
    let mut bytes = std::vec![0xEE; plan.area_len()];
    bytes[512..520].copy_from_slice(&Components::TILECFG.bits().to_le_bytes());
    let image = Image::new(&bytes, &plan);
    let mut out = [1; 4];
    assert_eq!(image.read(Components::TILEDATA, 8188, &mut out), Ok(()));
    assert_eq!(out, [0; 4]);
    assert_eq!(image.read(Components::TILECFG, 60, &mut out), Ok(()));
    assert_eq!(out, [0xEE; 4]);
    for (component, at) in [
        (Components::TILEDATA, 8189),
        (Components::TILEDATA, usize::MAX),
        (Components::PKRU, 0),
        (Components::SSE, 0),
        (Components::AMX, 0),
    ] {
        let why = match at {
            0 => ImageError::NotManaged { component },
            _ => ImageError::OutOfRange { component, at, len: 4 },
        };
        assert_eq!(image.read(component, at, &mut out), Err(why), "{component:?}");
        assert_eq!(out, [0xEE; 4]);
    }
    let mut image = ImageMut::new(&mut bytes, &plan);
    let component = Components::TILEDATA;
    let why = image.write(component, 0, &[0; 4]);
    assert_eq!(
        why,
        Err(ImageError::NotWritable { component }),
        "a restore refuses it where XFD is set"
    );
}
