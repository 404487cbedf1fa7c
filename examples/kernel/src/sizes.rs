//! What a CPU computes for the two words of CPUID leaf 0xD that follow what is enabled (SDM vol. 1, 13.2
//! and 13.4.3), from its other words.
//!
//! The program that boots the kernel compiles this file too: it says which recorded words follow.

/// Legacy area and header.
const EXTENDED: u32 = 576;

/// The extended components of a bitmap, with their words.
fn extended(enabled: u64, words: impl Fn(u32) -> [u32; 4]) -> impl Iterator<Item = [u32; 4]> {
    (2..63).filter(move |number| enabled >> number & 1 != 0).map(words)
}

/// CPUID(0xD,0).EBX: where the last component ends in the standard format.
pub fn standard(xcr0: u64, words: impl Fn(u32) -> [u32; 4]) -> u32 {
    let end = |[size, offset, ..]: [u32; 4]| offset.saturating_add(size);
    extended(xcr0, words).map(end).fold(EXTENDED, u32::max)
}

/// CPUID(0xD,1).EBX: the same in the compacted format. 0 where there is neither XSAVEC nor XSAVES.
pub fn compacted(xcr0: u64, xss: u64, words: impl Fn(u32) -> [u32; 4]) -> u32 {
    const XSAVEC_OR_XSAVES: u32 = 1 << 1 | 1 << 3;
    const ALIGN: u32 = 1 << 1;
    if words(1)[0] & XSAVEC_OR_XSAVES == 0 {
        return 0;
    }
    extended(xcr0 | xss, words).fold(EXTENDED, |end, [size, _, flags, _]| {
        let from = if flags & ALIGN != 0 { end.saturating_add(63) & !63 } else { end };
        from.saturating_add(size)
    })
}
