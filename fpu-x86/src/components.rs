//! The state components that a user program can hold, and which sets of them are legal.

bitflags::bitflags! {
    /// State components, as numbered by XCR0 (SDM vol. 1, 13.1 and 13.3), under the SDM's names.
    ///
    /// Bits without a name are kept, never dropped: a plan refuses them by name of the bit
    /// ([`PlanError::Unsupported`](crate::PlanError::Unsupported)).
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
        /// The protection-key rights of user pages. No part of a plan: see the crate documentation.
        const PKRU = 1 << 9;
        /// AMX: the tile configuration.
        const TILECFG = 1 << 17;
        /// AMX: the tiles.
        const TILEDATA = 1 << 18;
        /// APX: R16 to R31.
        const APX = 1 << 19;

        /// What FXSAVE can hold.
        const LEGACY = Self::X87.bits() | Self::SSE.bits();
        /// The two of MPX, enabled together.
        const MPX = Self::BNDREGS.bits() | Self::BNDCSR.bits();
        /// The three of AVX-512, enabled together.
        const AVX512 = Self::OPMASK.bits() | Self::ZMM_HI256.bits() | Self::HI16_ZMM.bits();
        /// The two of AMX, enabled together.
        const AMX = Self::TILECFG.bits() | Self::TILEDATA.bits();
    }
}

/// Bits that the layout tables have room for.
pub(crate) const SLOTS: usize = 20;

impl Components {
    /// Is this a value that XSETBV accepts, given a CPU that has all of it (SDM vol. 1, 13.3)?
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

    /// Size in bytes where the registers fix it, so that views can index them.
    pub(crate) const fn fixed_size(number: usize) -> Option<u32> {
        match number {
            2 => Some(256),
            5 => Some(64),
            6 => Some(512),
            7 => Some(1024),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::const_assert;

    const_assert!(Components::all().bits() < 1 << SLOTS);

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
