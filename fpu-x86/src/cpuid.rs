//! CPUID's words, read once.

use raw_cpuid::{CpuId, CpuIdReader};

use crate::{
    components::{Components, NUMBERS},
    error::PlanError,
    save_instruction::SaveInstruction,
};

/// How CPUID(0xD, i) describes component i.
///
/// ```
/// # use fpu_x86::CpuidInfo;
/// # use raw_cpuid::CpuIdResult;
/// # let words = |leaf, sub| match (leaf, sub) {
/// #     (0xD, 0) => CpuIdResult { eax: 7, ebx: 832, ecx: 832, edx: 0 },
/// #     (0xD, 2) => CpuIdResult { eax: 256, ebx: 576, ecx: 0, edx: 0 },
/// #     _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
/// # };
/// let avx = CpuidInfo::from_xsave_leaf(words)?.described(2).ok_or("no AVX")?;
/// assert_eq!((avx.size, avx.offset, avx.align), (256, 576, false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Described {
    /// Size in bytes, in both formats.
    pub size: u32,
    /// In the standard format, from the beginning of the area; of no meaning for supervisor
    /// components.
    pub offset: u32,
    /// Enabled through IA32_XSS, not XCR0.
    pub supervisor: bool,
    /// In the compacted format it begins at a multiple of 64.
    pub align: bool,
    /// IA32_XFD can disable it.
    pub xfd: bool,
}

/// What is odd about leaf 0xD as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// [`Quirk::NoXsaveLeaf`](crate::Quirk::NoXsaveLeaf).
    None { last: u32 },
    /// [`Quirk::EmptyXsaveLeaf`](crate::Quirk::EmptyXsaveLeaf).
    Empty { eax: u32 },
}

/// CPUID's words about XSAVE. A plan and a [layout](crate::Layout) are made from these words alone.
///
/// The words say what the CPU *supports*, so the value can be made from recorded words. A kernel that must not execute
/// CPUID makes it from a table that its firmware left. The exceptions are the CPU's own sizes, which depend on what was
/// enabled at the time, and [XCR0](Self::xcr0), which a caller that knows it adds.
///
/// ```
/// use fpu_x86::{Components, CpuidInfo, PlanError};
/// use raw_cpuid::{CpuIdReader, CpuIdResult};
/// // Recorded words, here of a CPU that has FXSAVE and SSE and no XSAVE.
/// let words = |leaf, _subleaf| match leaf {
///     0 => CpuIdResult { eax: 2, ebx: 0, ecx: 0, edx: 0 },
///     1 => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 3 << 24 },
///     _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
/// };
/// let facts = CpuidInfo::from_cpuid(words)?;
/// assert!(!facts.xsave());
/// assert_eq!(facts.supported_user(), Components::LEGACY);
/// # Ok::<(), PlanError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias = "Facts")]
pub struct CpuidInfo {
    xsave: bool,
    osxsave: bool,
    xsaveopt: bool,
    xsavec: bool,
    xgetbv1: bool,
    tsc: bool,
    xsaves: bool,
    xfd: bool,
    xsaves_erratum: bool,
    keeps_x87_pointers: bool,
    xcr0: Option<u64>,
    leaf: Option<Leaf>,
    user: u64,
    supervisor: u64,
    standard_enabled: u32,
    standard_supported: u32,
    compacted_enabled: u32,
    described: [Described; NUMBERS],
}

const LEAF: u32 = 0xD;
/// What every CPU with XSAVE lists: x87 and SSE.
const LISTED: u64 = Components::LEGACY.bits();

/// CPUID 80000008:EBX\[2\], if there is such a leaf.
fn restores_error_pointers<R: CpuIdReader>(reader: &R) -> bool {
    const CAPACITY: u32 = 0x8000_0008;
    reader.cpuid1(0x8000_0000).eax >= CAPACITY && reader.cpuid1(CAPACITY).ebx & 1 << 2 != 0
}

/// The family by CPUID.1:EAX, up to 0x10E, which does not fit the 8 bits that `raw_cpuid` adds up in (APM vol. 3, E.3.2).
fn family(signature: u32) -> u32 {
    match signature >> 8 & 0xF {
        0xF => 0xF + (signature >> 20 & 0xFF),
        base => base,
    }
}

impl CpuidInfo {
    /// Reads CPUID through `reader`: the CPU itself (`raw_cpuid::CpuIdReaderNative`) or recorded
    /// words.
    ///
    /// A CPU that says XSAVE and does not describe it (the leaves end before 0xD, or 0xD is zero, as
    /// firmware and hypervisors leave it) is one without XSAVE, whose plans have a [`Quirk`](crate::Quirk).
    ///
    /// # Errors
    ///
    /// [`PlanError::NoFxsave`].
    pub fn from_cpuid<R: CpuIdReader>(reader: R) -> Result<Self, PlanError> {
        let cpuid = CpuId::with_cpuid_reader(reader.clone());
        let features = cpuid.get_feature_info().ok_or(PlanError::NoFxsave)?;
        if !features.has_fxsave_fxstor() || !features.has_sse() {
            return Err(PlanError::NoFxsave);
        }
        let vendor = cpuid.get_vendor_info();
        let amd = vendor
            .as_ref()
            .is_some_and(|name| matches!(name.as_str(), "AuthenticAMD" | "HygonGenuine"));
        let last = reader.cpuid1(0).eax;
        let mut facts = Self::without_xsave();
        if features.has_xsave() {
            let eax = if last < LEAF { 0 } else { reader.cpuid2(LEAF, 0).eax };
            if last < LEAF {
                facts.leaf = Some(Leaf::None { last });
            } else if u64::from(eax) & LISTED != LISTED {
                facts.leaf = Some(Leaf::Empty { eax });
            } else {
                facts = Self::from_xsave_leaf(reader.clone())?;
            }
            facts.osxsave = features.has_oxsave();
        }
        facts.tsc = features.has_tsc();
        facts.keeps_x87_pointers = amd && !restores_error_pointers(&reader);
        let family = family(reader.cpuid1(1).eax);
        facts.xsaves_erratum = facts.xsave && amd && matches!(family, 0x17 | 0x18);
        Ok(facts)
    }

    /// Reads leaf 0xD alone, for words that were recorded without leaves 0 and 1: enough for layouts. The
    /// CPU is taken to have XSAVE, and no operating system to have enabled it.
    ///
    /// # Errors
    ///
    /// [`PlanError::EmptyXsaveLeaf`].
    pub fn from_xsave_leaf<R: CpuIdReader>(reader: R) -> Result<Self, PlanError> {
        let main = reader.cpuid2(LEAF, 0);
        if main.eax == 0 && main.ebx == 0 {
            return Err(PlanError::EmptyXsaveLeaf);
        }
        let sub = reader.cpuid2(LEAF, 1);
        let mut facts = Self {
            xsave: true,
            xsaveopt: sub.eax & 1 << 0 != 0,
            xsavec: sub.eax & 1 << 1 != 0,
            xgetbv1: sub.eax & 1 << 2 != 0,
            xsaves: sub.eax & 1 << 3 != 0,
            xfd: sub.eax & 1 << 4 != 0,
            user: u64::from(main.edx) << 32 | u64::from(main.eax),
            supervisor: u64::from(sub.edx) << 32 | u64::from(sub.ecx),
            standard_enabled: main.ebx,
            standard_supported: main.ecx,
            compacted_enabled: sub.ebx,
            ..Self::without_xsave()
        };
        // Subleaves of components that the CPU does not have are reserved; a few parts answer them
        // with another leaf's words.
        let known = facts.user | facts.supervisor;
        for (number, slot) in facts.described.iter_mut().enumerate().skip(2) {
            if known >> number & 1 != 0 {
                let words = reader.cpuid2(LEAF, number as u32);
                *slot = Described {
                    size: words.eax,
                    offset: words.ebx,
                    supervisor: words.ecx & 1 != 0,
                    align: words.ecx & 2 != 0,
                    xfd: words.ecx & 4 != 0,
                };
            }
        }
        Ok(facts)
    }

    fn without_xsave() -> Self {
        Self {
            xsave: false,
            osxsave: false,
            xsaveopt: false,
            xsavec: false,
            xgetbv1: false,
            tsc: false,
            xsaves: false,
            xfd: false,
            xsaves_erratum: false,
            keeps_x87_pointers: false,
            xcr0: None,
            leaf: None,
            user: Components::LEGACY.bits(),
            supervisor: 0,
            standard_enabled: 0,
            standard_supported: 0,
            compacted_enabled: 0,
            described: [Described::default(); NUMBERS],
        }
    }

    /// Tells whether FXRSTOR and XRSTOR leave the last instruction's and operand's addresses of the previous task in
    /// the x87 unit unless an exception is pending: AMD CPUs without the fix (APM vol. 2, 11.4.4.3; CPUID
    /// 80000008:EBX\[2\] clear). A plan then scrubs these addresses on every restore.
    #[doc(alias = "X86_BUG_FXSAVE_LEAK")]
    #[doc(alias = "XSAVEERPTR")]
    #[must_use]
    pub fn keeps_x87_pointers(&self) -> bool {
        self.keeps_x87_pointers
    }

    /// The components that XCR0 can enable; x87 and SSE without XSAVE.
    #[must_use]
    pub fn supported_user(&self) -> Components {
        Components::from_bits_retain(self.user)
    }

    /// The components that IA32_XSS can enable, if the CPU has [XSAVES](Self::xsaves).
    #[must_use]
    pub fn supported_supervisor(&self) -> Components {
        Components::from_bits_retain(self.supervisor)
    }

    /// These facts with what XCR0 held when the words were read, which XGETBV with ECX = 0 tells: a plan
    /// for ring 3 is made from that.
    ///
    /// ```
    /// use fpu_x86::{Components, CpuidInfo};
    /// # use raw_cpuid::CpuIdResult;
    /// # let words = |leaf, sub| match (leaf, sub) {
    /// #     (0xD, 0) => CpuIdResult { eax: 7, ebx: 832, ecx: 832, edx: 0 },
    /// #     (0xD, 2) => CpuIdResult { eax: 256, ebx: 576, ecx: 0, edx: 0 },
    /// #     _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
    /// # };
    /// let facts = CpuidInfo::from_xsave_leaf(words)?;
    /// assert_eq!(facts.xcr0(), None);
    /// let facts = facts.with_xcr0(Components::LEGACY | Components::AVX);
    /// assert_eq!(facts.xcr0(), Some(Components::LEGACY | Components::AVX));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn with_xcr0(self, xcr0: Components) -> Self {
        Self { xcr0: Some(xcr0.bits()), ..self }
    }

    /// What XCR0 held when the words were read, if that is known.
    #[must_use]
    pub fn xcr0(&self) -> Option<Components> {
        self.xcr0.map(Components::from_bits_retain)
    }

    /// What is odd about the leaf as a whole.
    pub(crate) fn leaf(&self) -> Option<Leaf> {
        self.leaf
    }

    /// Removes the description of a component, which is not to be trusted.
    pub(crate) fn forget(&mut self, number: u32) {
        if let Some(described) = self.described.get_mut(number as usize) {
            *described = Described::default();
        }
    }

    /// Tells whether the CPU has XSAVE (CPUID.1:ECX\[26\]), and describes it.
    #[must_use]
    pub fn xsave(&self) -> bool {
        self.xsave
    }

    /// Tells whether the system had enabled XSAVE when the words were read (CPUID.1:ECX\[27\]).
    #[must_use]
    pub fn osxsave(&self) -> bool {
        self.osxsave
    }

    /// Tells whether the CPU has XSAVEOPT.
    #[must_use]
    pub fn xsaveopt(&self) -> bool {
        self.xsaveopt
    }

    /// Tells whether the CPU has XSAVEC, and XRSTOR for the compacted format.
    #[must_use]
    pub fn xsavec(&self) -> bool {
        self.xsavec
    }

    /// Tells whether the CPU has XGETBV(1), which tells the components in use. XSAVES does not imply it.
    #[must_use]
    pub fn xgetbv1(&self) -> bool {
        self.xgetbv1
    }

    /// Tells whether the CPU has a time-stamp counter.
    #[cfg(fpu_instructions)]
    pub(crate) fn tsc(&self) -> bool {
        self.tsc
    }

    /// Tells whether the CPU has XSAVES, XRSTORS and IA32_XSS.
    #[must_use]
    pub fn xsaves(&self) -> bool {
        self.xsaves
    }

    /// Tells whether the CPU has IA32_XFD.
    #[must_use]
    pub fn xfd(&self) -> bool {
        self.xfd
    }

    /// Tells whether the CPU's XSAVES may leave out XMM registers that are in use: AMD family 17h (erratum 1386)
    /// and Hygon's of the same design. These CPUs have no supervisor components, so XSAVEC saves as much, and a plan
    /// takes XSAVEC.
    #[must_use]
    pub fn xsaves_erratum(&self) -> bool {
        self.xsaves_erratum
    }

    pub(crate) fn offers_xsaves(&self) -> bool {
        self.xsaves && !self.xsaves_erratum
    }

    /// Tells whether the CPU has the instruction, without a known erratum. Whether this ring may use it is not asked.
    pub(crate) fn offers(&self, instruction: SaveInstruction) -> bool {
        match instruction {
            SaveInstruction::Fxsave => true,
            SaveInstruction::Xsave => self.xsave,
            SaveInstruction::Xsaveopt => self.xsave && self.xsaveopt,
            SaveInstruction::Xsavec => self.xsave && self.xsavec,
            SaveInstruction::Xsaves => self.xsave && self.offers_xsaves(),
        }
    }

    /// How a component is described: `None` if the CPU does not have it, or gives it no bytes, and for
    /// x87 and SSE, whose place is fixed.
    #[must_use]
    pub fn described(&self, number: u32) -> Option<Described> {
        let described = *self.described.get(number as usize)?;
        (described.size != 0).then_some(described)
    }

    /// CPUID(0xD,0).EBX: bytes of the standard format for what XCR0 enabled when the words were read.
    #[must_use]
    pub fn standard_enabled(&self) -> u32 {
        self.standard_enabled
    }

    /// CPUID(0xD,0).ECX: bytes of the standard format for all that XCR0 can enable.
    #[must_use]
    pub fn standard_supported(&self) -> u32 {
        self.standard_supported
    }

    /// CPUID(0xD,1).EBX: bytes of the compacted format for what XCR0 and IA32_XSS enabled when the
    /// words were read. Never a size of the standard format.
    #[must_use]
    pub fn compacted_enabled(&self) -> u32 {
        self.compacted_enabled
    }
}
