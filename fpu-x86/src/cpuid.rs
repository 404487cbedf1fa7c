//! What the CPU says about itself, read once.

use raw_cpuid::{CpuId, CpuIdReader};

use crate::{components::SLOTS, PlanError};

/// How CPUID(0xD, i) describes component i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) size: u32,
    /// In the standard format.
    pub(crate) offset: u32,
    /// Managed through IA32_XSS, not XCR0.
    pub(crate) supervisor: bool,
    /// In the compacted format it begins at a multiple of 64.
    pub(crate) align: bool,
}

/// All that a plan is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// XSAVE, and the operating system has enabled it (CPUID.1:ECX.OSXSAVE).
    pub(crate) xsave: bool,
    pub(crate) xsaveopt: bool,
    pub(crate) xsavec: bool,
    pub(crate) xsaves: bool,
    /// What is enabled; x87 and SSE without XSAVE.
    pub(crate) xcr0: u64,
    /// What can be enabled in XCR0.
    pub(crate) xcr0_supported: u64,
    /// What can be enabled in IA32_XSS.
    pub(crate) xss_supported: u64,
    /// CPUID(0xD,0).EBX: standard format, for XCR0.
    pub(crate) standard_size: u32,
    /// CPUID(0xD,1).EBX: compacted format, for XCR0 | IA32_XSS.
    pub(crate) compacted_size: u32,
    pub(crate) described: [Described; SLOTS],
    /// MXCSR bits that may be set.
    pub(crate) mxcsr_mask: u32,
}

const LEAF: u32 = 0xD;

impl Facts {
    /// Reads CPUID through `reader`; `xgetbv` is called if XSAVE is enabled.
    pub(crate) fn read<R: CpuIdReader>(
        reader: R,
        xgetbv: impl FnOnce() -> u64,
        mxcsr_mask: u32,
    ) -> Result<Self, PlanError> {
        let cpuid = CpuId::with_cpuid_reader(reader.clone());
        let features = cpuid.get_feature_info().ok_or(PlanError::NoFxsave)?;
        if !features.has_fxsave_fxstor() || !features.has_sse() {
            return Err(PlanError::NoFxsave);
        }
        let mut facts = Self {
            xsave: features.has_xsave() && features.has_oxsave(),
            xsaveopt: false,
            xsavec: false,
            xsaves: false,
            xcr0: 0b11,
            xcr0_supported: 0b11,
            xss_supported: 0,
            standard_size: 0,
            compacted_size: 0,
            described: [Described::default(); SLOTS],
            mxcsr_mask,
        };
        if !facts.xsave {
            return Ok(facts);
        }
        if cpuid.get_extended_state_info().is_none() {
            return Err(PlanError::NoXsaveLeaf);
        }
        let main = reader.cpuid2(LEAF, 0);
        if main.eax == 0 && main.ebx == 0 {
            return Err(PlanError::EmptyXsaveLeaf);
        }
        let sub = reader.cpuid2(LEAF, 1);
        facts.xcr0 = xgetbv();
        facts.xcr0_supported = u64::from(main.edx) << 32 | u64::from(main.eax);
        facts.xss_supported = u64::from(sub.edx) << 32 | u64::from(sub.ecx);
        facts.standard_size = main.ebx;
        facts.compacted_size = sub.ebx;
        facts.xsaveopt = sub.eax & 1 << 0 != 0;
        facts.xsavec = sub.eax & 1 << 1 != 0;
        facts.xsaves = sub.eax & 1 << 3 != 0;
        // Subleaves of components that the CPU does not have are reserved; a few parts answer them
        // with another leaf's words.
        let known = facts.xcr0_supported | facts.xss_supported;
        for (number, slot) in facts.described.iter_mut().enumerate().skip(2) {
            if known >> number & 1 != 0 {
                let words = reader.cpuid2(LEAF, number as u32);
                *slot = Described {
                    size: words.eax,
                    offset: words.ebx,
                    supervisor: words.ecx & 1 != 0,
                    align: words.ecx & 2 != 0,
                };
            }
        }
        Ok(facts)
    }
}
