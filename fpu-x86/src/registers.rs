//! The control registers that decide over the FPU's state, and their bits.

use core::fmt;

pub(crate) const CR0_MP: u64 = 1 << 1;
pub(crate) const CR0_EM: u64 = 1 << 2;
pub(crate) const CR0_TS: u64 = 1 << 3;
pub(crate) const CR0_NE: u64 = 1 << 5;
/// The bits of CR0 that this crate decides.
pub(crate) const CR0_OURS: u64 = CR0_MP | CR0_EM | CR0_TS | CR0_NE;
/// WAIT looks at TS, the x87 unit is there, x87 errors raise #MF. TS stays clear for ever: no restore
/// waits for #NM, because speculation reads the old registers before the fault (CVE-2018-3665).
pub(crate) const CR0_SET: u64 = CR0_MP | CR0_NE;

pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
/// The bits of CR4 that this crate decides.
pub(crate) const CR4_OURS: u64 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;

/// Protection keys; not among [`CR4_OURS`], which every plan has.
pub(crate) const CR4_PKE: u64 = 1 << 22;

/// A register in a [`ControlMismatch`](crate::ControlMismatch).
///
/// ```
/// assert_ne!(fpu_x86::ControlRegister::Cr0, fpu_x86::ControlRegister::Xcr0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlRegister {
    /// MP, EM, TS, NE.
    Cr0,
    /// OSFXSR, OSXMMEXCPT, OSXSAVE.
    Cr4,
    /// What tasks can use.
    Xcr0,
    /// IA32_XSS.
    Xss,
    /// IA32_XFD.
    Xfd,
}

impl fmt::Display for ControlRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cr0 => "CR0",
            Self::Cr4 => "CR4",
            Self::Xcr0 => "XCR0",
            Self::Xss => "IA32_XSS",
            Self::Xfd => "IA32_XFD",
        })
    }
}
