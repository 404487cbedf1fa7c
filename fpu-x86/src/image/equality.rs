//! The comparison of the states that two images hold.
//!
//! The comparison covers what the architecture promises that a restore loads. It leaves out:
//!
//! * the header, reserved bytes and MXCSR_MASK: an absent component is one with its initial value (SDM
//!   vol. 1, 13.8);
//! * bits of FCW that hold nothing, and ES and B of FSW, which are computed from the flags and their masks
//!   (SDM vol. 1, 8.1.3 and 8.1.5);
//! * FIP, FDP and FOP unless an exception is pending: AMD CPUs save and load them only then (APM vol. 2,
//!   11.4.4.3), and others may set them by exceptions only (SDM vol. 1, 8.1.8). Of the two addresses bits
//!   48 and up are left out too: nothing says what is kept of one that is not canonical. (With 57-bit linear
//!   addresses a difference in bits 48 to 56 alone is not seen.)
//!
//! The x87 registers that are empty by their tags are compared: they are saved and loaded like the others.

use fpu_core::verify::Difference;

use super::read::Image;
use crate::fields::*;

const X87: u32 = 0;
const SSE: u32 = 1;
/// The bits of FCW that hold anything.
const FCW_HELD: u16 = 0x1F3F;
/// Those of FSW that are not computed.
const FSW_HELD: u16 = !0x8080;
/// Exception flags in FSW and, in the same places, their masks in FCW.
const EXCEPTIONS: u16 = 0x3F;
const ADDRESS: u64 = (1 << 48) - 1;
const FOP_HELD: u16 = 0x7FF;

impl Image<'_> {
    /// The first difference from another image of the same plan: the lowest component, and the register
    /// or byte in this image.
    pub(crate) fn same_state(&self, other: &Image<'_>) -> Result<(), Difference> {
        for component in self.plan().components().numbers() {
            let at = match component {
                X87 => self.x87_differs(other),
                SSE => self.sse_differs(other),
                number => self.extended_differs(number, other),
            };
            if let Some(offset) = at {
                return Err(Difference { component, offset: offset as u32 }); // an area fits 32 bits
            }
        }
        Ok(())
    }

    fn x87_differs(&self, other: &Image<'_>) -> Option<usize> {
        if (self.fcw() ^ other.fcw()) & FCW_HELD != 0 {
            return Some(FCW);
        }
        if (self.fsw() ^ other.fsw()) & FSW_HELD != 0 {
            return Some(FSW);
        }
        if self.tags() != other.tags() {
            return Some(TAG);
        }
        if self.fsw() & !self.fcw() & EXCEPTIONS != 0 {
            if (self.fop() ^ other.fop()) & FOP_HELD != 0 {
                return Some(FOP);
            }
            if (self.fip() ^ other.fip()) & ADDRESS != 0 {
                return Some(FIP);
            }
            if (self.fdp() ^ other.fdp()) & ADDRESS != 0 {
                return Some(FDP);
            }
        }
        (0..8).find(|n| self.st(*n) != other.st(*n)).map(|n| ST + 16 * n)
    }

    fn sse_differs(&self, other: &Image<'_>) -> Option<usize> {
        if self.mxcsr() != other.mxcsr() {
            return Some(MXCSR);
        }
        (0..16).find(|n| self.xmm(*n) != other.xmm(*n)).map(|n| XMM + 16 * n)
    }

    /// Compares one extended component. The initial value of each is all zero.
    fn extended_differs(&self, number: u32, other: &Image<'_>) -> Option<usize> {
        let (offset, _) = self.place(number)?;
        let at = match (self.component(number), other.component(number)) {
            (Some(one), Some(other)) => one.iter().zip(other).position(|(a, b)| a != b),
            (Some(only), None) | (None, Some(only)) => only.iter().position(|byte| *byte != 0),
            (None, None) => None,
        };
        Some(offset + at?)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::{
        components::Components,
        image::{tests::random_area, write_initial},
        plan::Plan,
        save_instruction::Format,
        tests::sample::*,
    };

    fn every_plan() -> Vec<Plan> {
        let mut all = plans();
        all.push(kernel());
        all
    }
    fn compare(one: &[u8], other: &[u8], plan: &Plan) -> Result<(), Difference> {
        let (one, other) = (Image::new(one, plan), Image::new(other, plan));
        let answer = one.same_state(&other);
        let back = other.same_state(&one);
        assert_eq!(answer, back, "it depends on the order");
        answer
    }
    fn initial(plan: &Plan) -> Vec<u8> {
        let mut area = std::vec![0; plan.area_len()];
        write_initial(&mut area, plan);
        area
    }

    /// The bits of a byte that a restore brings back, of components that are all present, by the SDM's
    /// figures; and the component and the first byte of the register.
    fn meaning(plan: &Plan, at: usize, pending: bool) -> (u8, u32, usize) {
        let pointer = |bits: u8, of: usize| (if pending { bits } else { 0 }, 0, of);
        match at {
            0 => (0x3F, 0, 0),
            1 => (0x1F, 0, 0),
            2 | 3 => (0x7F, 0, 2),
            4 => (0xFF, 0, 4),
            6 => pointer(0xFF, 6),
            7 => pointer(0x07, 6),
            8..=13 => pointer(0xFF, 8),
            16..=21 => pointer(0xFF, 16),
            24..=27 => (0xFF, 1, 24),
            32..=159 if (at - 32) % 16 < 10 => (0xFF, 0, at - at % 16),
            160..=415 => (0xFF, 1, at - at % 16),
            _ => {
                let here = |number: &u32| {
                    plan.place(Components::from_bits_retain(1 << number))
                        .is_some_and(|(offset, size)| (offset..offset + size).contains(&at))
                };
                let component = plan.components().numbers().find(here);
                component.map_or((0, 0, 0), |number| (0xFF, number, at))
            }
        }
    }

    #[test]
    fn every_bit_counts_that_a_restore_brings_back_and_no_other() {
        let mut random = Random(7);
        for plan in every_plan() {
            for pending in [false, true] {
                let mut area = random_area(&plan, plan.components(), &mut random);
                set(&mut area, FCW, 0x37Eu16.to_le_bytes()); // all masked but one
                set(&mut area, FSW, (0x3800 | u16::from(pending)).to_le_bytes());
                let mut seen = 0;
                for at in (0..area.len()).filter(|at| !(512..576).contains(at)) {
                    // Of the extended components one bit of each byte, of the tiles of some.
                    let all = at < 512 && area.len() < 4096;
                    if at > 2816 && at % 61 != 0 {
                        continue;
                    }
                    for bit in if all { 0..8 } else { at % 8..at % 8 + 1 } {
                        // The mask of this flag, or the flag: whether one is pending changes with them.
                        if bit == 0 && (at == FCW || at == FSW) {
                            continue;
                        }
                        let mut other = area.clone();
                        other[at] ^= 1 << bit;
                        let (bits, component, offset) = meaning(&plan, at, pending);
                        let difference = Difference { component, offset: offset as u32 };
                        let expect = if bits >> bit & 1 != 0 { Err(difference) } else { Ok(()) };
                        seen += u32::from(expect.is_err());
                        let got = compare(&area, &other, &plan);
                        assert_eq!(
                            got,
                            expect,
                            "{:?}: byte {at}, bit {bit}",
                            plan.save_instruction()
                        );
                    }
                }
                assert!(seen > 2000, "{seen} bits count");
            }
        }
    }

    #[test]
    fn each_flag_that_is_not_masked_makes_the_pointers_count() {
        let plan = &plans()[0];
        for bit in 0..6 {
            let mut area = initial(plan);
            set(&mut area, XSTATE_BV, 1u64.to_le_bytes());
            set(&mut area, FCW, (0x37F & !(1u16 << bit)).to_le_bytes());
            set(&mut area, FSW, (1u16 << bit).to_le_bytes());
            let mut other = area.clone();
            other[FIP] ^= 1;
            assert!(compare(&area, &other, plan).is_err(), "exception {bit}");
        }
    }

    #[test]
    fn a_flag_and_its_mask_count() {
        let plan = &plans()[0];
        for at in [FCW, FSW] {
            for bit in 0..6 {
                let (area, mut other) = (initial(plan), initial(plan));
                set(&mut other, XSTATE_BV, 1u64.to_le_bytes());
                assert_eq!(compare(&area, &other, plan), Ok(()));
                other[at] ^= 1 << bit;
                let difference = Difference { component: 0, offset: at as u32 };
                assert_eq!(compare(&area, &other, plan), Err(difference));
            }
        }
    }

    #[test]
    fn absent_is_the_initial_value_whatever_bytes_lie_there() {
        let mut random = Random(8);
        for plan in every_plan().into_iter().filter(|plan| plan.format() != Format::Legacy) {
            let fresh = initial(&plan);
            for number in plan.components().numbers() {
                let one = Components::from_bits_retain(1 << number);
                // Present with its initial value.
                let mut there = fresh.clone();
                set(&mut there, XSTATE_BV, one.bits().to_le_bytes());
                assert_eq!(compare(&fresh, &there, &plan), Ok(()), "{one:?}");
                // Absent over old bytes, beside others that are present.
                let others = plan.components().difference(one);
                let absent = random_area(&plan, others, &mut random);
                let mut cleared = absent.clone();
                match plan.place(one) {
                    Some((offset, size)) => clear(&mut cleared, offset, offset + size),
                    None if one == Components::SSE => {
                        if plan.format() == Format::Compacted {
                            set(&mut cleared, MXCSR, INITIAL_MXCSR.to_le_bytes());
                        }
                        clear(&mut cleared, XMM, XMM_END);
                    }
                    None => {
                        for (from, to) in X87_PARTS {
                            clear(&mut cleared, from, to);
                        }
                        set(&mut cleared, FCW, INITIAL_FCW.to_le_bytes());
                    }
                }
                set(&mut cleared, XSTATE_BV, plan.mask.to_le_bytes());
                let what = std::format!("{:?} without {one:?}", plan.save_instruction());
                assert_eq!(compare(&absent, &cleared, &plan), Ok(()), "{what}");
                // The same bytes, and the header says that they count.
                let mut counting = absent.clone();
                set(&mut counting, XSTATE_BV, plan.mask.to_le_bytes());
                for other in [&cleared, &absent] {
                    let found = compare(&counting, other, &plan).map_err(|found| found.component);
                    assert_eq!(found, Err(number), "{what}");
                }
            }
        }
    }
}
