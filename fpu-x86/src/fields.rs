//! The fixed fields of an image (SDM vol. 1, 10.5.1 and 13.4), and bytes.

use crate::{components::Components, error::ImageError, layout::HEADER};

pub(crate) const FCW: usize = 0;
pub(crate) const FSW: usize = 2;
pub(crate) const TAG: usize = 4;
pub(crate) const FOP: usize = 6;
pub(crate) const FIP: usize = 8;
pub(crate) const FDP: usize = 16;
pub(crate) const MXCSR: usize = 24;
pub(crate) const MXCSR_MASK: usize = 28;
pub(crate) const ST: usize = 32;
pub(crate) const XMM: usize = 160;
pub(crate) const XMM_END: usize = 416;
pub(crate) const XSTATE_BV: usize = HEADER;
pub(crate) const XCOMP_BV: usize = HEADER + 8;
/// XCOMP_BV's bit that says "compacted".
pub(crate) const COMPACTED: u64 = 1 << 63;

pub(crate) const INITIAL_FCW: u16 = 0x37F;
pub(crate) const INITIAL_MXCSR: u32 = 0x1F80;

/// The two parts that x87 has in the legacy region; MXCSR lies between them.
pub(crate) const X87_PARTS: [(usize, usize); 2] = [(FCW, MXCSR), (ST, XMM)];

pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.get(..N)?.try_into().ok()
}
pub(crate) fn part(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..)?.get(..len)
}
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<(), ImageError> {
    let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len()));
    let (component, len) = (Components::LEGACY, value.len());
    place.ok_or(ImageError::OutOfRange { component, at, len })?.copy_from_slice(value);
    Ok(())
}
pub(crate) fn clear(bytes: &mut [u8], from: usize, to: usize) {
    if let Some(bytes) = bytes.get_mut(from..to) {
        bytes.fill(0);
    }
}
/// Every area has the places that are asked for here, so 0 stands for nothing.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}
pub(crate) fn set<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    let done = put(bytes, at, &value);
    debug_assert!(done.is_ok(), "every area has its fixed fields");
}

/// Numbers of components.
pub(crate) const AVX: u32 = Components::AVX.bits().trailing_zeros();
pub(crate) const OPMASK: u32 = Components::OPMASK.bits().trailing_zeros();
pub(crate) const ZMM_HI256: u32 = Components::ZMM_HI256.bits().trailing_zeros();
pub(crate) const HI16_ZMM: u32 = Components::HI16_ZMM.bits().trailing_zeros();
