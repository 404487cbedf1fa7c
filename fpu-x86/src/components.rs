//! The state components by number and name, and which sets of them are legal.

bitflags::bitflags! {
    /// State components, as numbered by XCR0 and IA32_XSS (SDM vol. 1, 13.1 and 13.3), under the SDM's
    /// names.
    ///
    /// Bits without a name are kept, never dropped: a plan refuses them by name of the bit
    /// ([`PlanError::Unsupported`](crate::PlanError::Unsupported)), and a
    /// [layout](crate::Layout) places them like any other.
    ///
    /// ```
    /// use fpu_x86::Components;
    /// let enabled = Components::from_bits_retain(0xE7);
    /// assert!(enabled.contains(Components::AVX | Components::AVX512));
    /// ```
    #[doc(alias = "XFEATURE_MASK_FP")]
    #[doc(alias = "XCR0")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Components: u64 {
        /// x87: the stack, its control and status words, the last instruction and operand pointers.
        const X87 = 1 << 0;
        /// XMM0 to XMM15 and MXCSR.
        const SSE = 1 << 1;
        /// The upper halves of YMM0 to YMM15.
        const AVX = 1 << 2;
        /// MPX: the bound registers.
        const BNDREGS = 1 << 3;
        /// MPX: BNDCFGU and BNDSTATUS.
        const BNDCSR = 1 << 4;
        /// AVX-512: K0 to K7.
        const OPMASK = 1 << 5;
        /// AVX-512: the upper halves of ZMM0 to ZMM15.
        const ZMM_HI256 = 1 << 6;
        /// AVX-512: ZMM16 to ZMM31.
        const HI16_ZMM = 1 << 7;
        /// Processor Trace, supervisor.
        const PT = 1 << 8;
        /// The protection-key rights of user pages. No plan has this component: see the crate documentation.
        const PKRU = 1 << 9;
        /// The address space that a task's ENQCMD names, supervisor.
        const PASID = 1 << 10;
        /// Control-flow enforcement in ring 3, with its shadow-stack pointer; supervisor.
        const CET_U = 1 << 11;
        /// The shadow-stack pointers of rings 0 to 2, supervisor.
        const CET_S = 1 << 12;
        /// Hardware duty cycling, supervisor. It is a setting of the CPU and not of a task, so no plan has it.
        const HDC = 1 << 13;
        /// User interrupts, supervisor. XSAVES switches them off, so no plan has them.
        const UINTR = 1 << 14;
        /// Last-branch records, supervisor. As for [`UINTR`](Self::UINTR).
        const LBR = 1 << 15;
        /// Hardware-controlled performance, supervisor. As for [`HDC`](Self::HDC).
        const HWP = 1 << 16;
        /// AMX: the tile configuration.
        const TILECFG = 1 << 17;
        /// AMX: the tiles.
        const TILEDATA = 1 << 18;
        /// APX: R16 to R31.
        const APX = 1 << 19;
        /// AMD's lightweight profiling. No plan has this component: see the crate documentation.
        const LWP = 1 << 62;

        /// The components that FXSAVE can hold.
        const LEGACY = Self::X87.bits() | Self::SSE.bits();
        /// The two components of MPX, enabled together.
        const MPX = Self::BNDREGS.bits() | Self::BNDCSR.bits();
        /// The three components of AVX-512, enabled together.
        const AVX512 = Self::OPMASK.bits() | Self::ZMM_HI256.bits() | Self::HI16_ZMM.bits();
        /// The two components of AMX, enabled together.
        const AMX = Self::TILECFG.bits() | Self::TILEDATA.bits();
        /// The named components that IA32_XSS enables; XCR0 enables the others.
        #[doc(alias = "XFEATURE_MASK_SUPERVISOR_ALL")]
        const SUPERVISOR = Self::PT.bits() | Self::PASID.bits() | Self::CET_U.bits()
            | Self::CET_S.bits() | Self::HDC.bits() | Self::UINTR.bits() | Self::LBR.bits()
            | Self::HWP.bits();
        /// The named components that XCR0 enables, PKRU and LWP among them, except MPX: compilers and
        /// kernels have dropped MPX, and a kernel that wants it asks by name.
        #[doc(alias = "XFEATURE_MASK_USER_SUPPORTED")]
        const USER = Self::LEGACY.bits() | Self::AVX.bits() | Self::AVX512.bits()
            | Self::PKRU.bits() | Self::AMX.bits() | Self::APX.bits() | Self::LWP.bits();
    }
}

/// Components are numbered 0 to 62: bit 63 of XCR0 is reserved, and in XCOMP_BV it names the format.
pub(crate) const NUMBERS: usize = 63;

/// Components that a plan switches, where `wanted` and the CPU have them.
///
/// PT, UINTR and LBR are not among them. XSAVES changes what it saves of them (TraceEn, UINV, LBREn; SDM vol. 1, 13.5.6
/// and 13.11), against B2. XRSTORS refuses to load them over what runs, against B5.
pub(crate) const SWITCHED: Components = Components::all()
    .difference(Components::PKRU)
    .difference(Components::LWP)
    .difference(Components::PT)
    .difference(Components::UINTR)
    .difference(Components::LBR)
    .difference(Components::HDC)
    .difference(Components::HWP);

/// One more than the highest number among [`SWITCHED`](Self::SWITCHED).
pub(crate) const MANAGED: usize = 20;

impl Components {
    /// Tells whether XSETBV accepts this value on a CPU that has all of these components (SDM vol. 1, 13.3).
    ///
    /// ```
    /// use fpu_x86::Components as C;
    /// assert!((C::X87 | C::SSE | C::AVX).is_legal_xcr0());
    /// assert!(!(C::X87 | C::AVX).is_legal_xcr0(), "AVX needs SSE");
    /// ```
    #[must_use]
    pub const fn is_legal_xcr0(self) -> bool {
        const fn all_or_none(of: Components, group: Components) -> bool {
            !of.intersects(group) || of.contains(group)
        }
        const fn needs(of: Components, what: Components, other: Components) -> bool {
            !of.intersects(what) || of.contains(other)
        }
        self.contains(Self::X87)
            && needs(self, Self::AVX, Self::SSE)
            && needs(self, Self::AVX512, Self::AVX)
            && all_or_none(self, Self::AVX512)
            && all_or_none(self, Self::MPX)
            && all_or_none(self, Self::AMX)
            && !(self.contains(Self::APX) && self.intersects(Self::MPX))
    }

    /// Tells whether a kernel can ask for this set. A CPU that has all of it accepts it in XSETBV, except
    /// MPX and APX together, which no CPU has.
    pub(crate) const fn is_whole(self) -> bool {
        self.difference(Self::APX).is_legal_xcr0()
    }

    /// The component's number, if this is exactly one.
    ///
    /// ```
    /// use fpu_x86::Components;
    /// assert_eq!(Components::OPMASK.number(), Some(5));
    /// assert_eq!(Components::AVX512.number(), None);
    /// ```
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        if self.bits().is_power_of_two() {
            Some(self.bits().trailing_zeros())
        } else {
            None
        }
    }

    /// The component of a number, 0 to 62, named or not.
    ///
    /// ```
    /// use fpu_x86::Components;
    /// assert_eq!(Components::of_number(11), Some(Components::CET_U));
    /// assert_eq!(Components::of_number(63), None);
    /// ```
    #[must_use]
    pub const fn of_number(number: u32) -> Option<Self> {
        if (number as usize) < NUMBERS {
            Some(Self::from_bits_retain(1 << number))
        } else {
            None
        }
    }

    /// The numbers of the components in the set, ascending, named or not.
    ///
    /// ```
    /// use fpu_x86::Components;
    /// assert!((Components::SSE | Components::LWP).numbers().eq([1, 62]));
    /// ```
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        let bits = self.bits();
        (0..NUMBERS as u32).filter(move |number| bits >> number & 1 != 0)
    }

    /// The set without the components that IA32_XSS enables.
    pub(crate) const fn user_part(self) -> Self {
        self.difference(Self::SUPERVISOR)
    }

    /// The groups that are enabled together or not at all, in the order in which a plan takes them up:
    /// what another one needs, or excludes, comes first.
    pub(crate) const GROUPS: [Self; 8] = [
        Self::LEGACY,
        Self::AVX,
        Self::AVX512,
        Self::APX,
        Self::MPX,
        Self::AMX,
        Self::CET_U.union(Self::CET_S),
        Self::PASID,
    ];

    /// The groups of which XCR0 holds all or nothing.
    pub(crate) const WHOLE: Self = Self::AVX512.union(Self::MPX).union(Self::AMX);

    /// The set and all that cannot be enabled without it (SDM vol. 1, 13.3): the rest of each group, and
    /// AVX-512 with AVX. Each half of CET can be enabled alone. A plan leaves out both, because a CPU that
    /// describes one half wrongly is not to be trusted about the other.
    pub(crate) fn with_dependents(self) -> Self {
        let mut set = self;
        for group in Self::GROUPS {
            if set.intersects(group) {
                set = set.union(group);
            }
        }
        if set.intersects(Self::LEGACY) {
            set = set.union(Self::all());
        } else if set.contains(Self::AVX) {
            set = set.union(Self::AVX512);
        }
        set
    }

    /// Size in bytes of a component where its registers fix it, so that views can index them.
    pub(crate) const fn fixed_size(number: u32) -> Option<u32> {
        match number {
            2 => Some(256),
            3..=5 | 17 => Some(64),
            6 => Some(512),
            7 => Some(1024),
            19 => Some(128),
            _ => None,
        }
    }

    /// The bytes of a component that hold its registers, where CPUID may give it more: PKRU, PASID's MSR, CET's
    /// two for ring 3 and three for the other rings. 1 for the others: a component without a byte is not
    /// there.
    pub(crate) const fn least_size(number: u32) -> u32 {
        match number {
            9 => 4,
            10 => 8,
            11 => 16,
            12 => 24,
            _ => 1,
        }
    }
}

/// The component of a number, named or not.
pub(crate) const fn one(number: u32) -> Components {
    Components::from_bits_retain(1 << number)
}

/// The numbers of the components beyond x87 and SSE, ascending.
pub(crate) fn extended(set: Components) -> impl Iterator<Item = u32> {
    set.difference(Components::LEGACY).numbers()
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::const_assert;

    const_assert!(Components::all().bits() >> NUMBERS == 0);
    const_assert!(SWITCHED.bits() >> MANAGED == 0 && SWITCHED.bits() >> (MANAGED - 1) == 1);
    const_assert!(Components::SUPERVISOR.intersection(Components::USER).is_empty());
    const_assert!(
        Components::all().bits()
            == (Components::SUPERVISOR.bits() | Components::USER.bits() | Components::MPX.bits())
    );

    #[test]
    fn groups_come_whole() {
        use Components as C;
        let avx = C::LEGACY | C::AVX;
        for good in [C::X87, C::LEGACY, avx, avx | C::AVX512, avx | C::MPX, avx | C::PKRU] {
            assert!(good.is_legal_xcr0(), "{good:?}");
        }
        for bad in [
            C::empty(),
            C::SSE,
            C::X87 | C::AVX,
            C::LEGACY | C::AVX512,
            avx | C::OPMASK,
            avx | C::OPMASK | C::HI16_ZMM,
            avx | C::BNDREGS,
            avx | C::TILECFG,
            avx | C::MPX | C::APX,
        ] {
            assert!(!bad.is_legal_xcr0(), "{bad:?}");
        }
    }
}
