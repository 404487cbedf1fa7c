//! Names of registers, as a mismatch reports them.

use std::fmt;

use super::RegFile;

/// One word of one register: `zmm17[5]` (the sixth 8 bytes), `st3`, `k2`, `mxcsr`, `fcw`.
///
/// ```
/// use fpu_hosted_test::real::RegisterName;
/// assert_eq!(RegisterName::Vector { register: 17, word: 5 }.to_string(), "zmm17[5]");
/// assert_eq!(RegisterName::Vector { register: 3, word: 1 }.to_string(), "xmm3[1]");
/// assert_eq!(RegisterName::X87(3).to_string(), "st3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterName {
    /// A vector register's 8-byte word, 0 the lowest.
    Vector {
        /// 0 to 31.
        register: u8,
        /// 0 to 7.
        word: u8,
    },
    /// A mask register, K0-7.
    Mask(u8),
    /// ST(n), n counted from the top of the stack.
    X87(u8),
    /// The x87 control word.
    Fcw,
    /// The x87 status word.
    Fsw,
    /// The x87 tag byte: which of the eight registers are not empty.
    Ftw,
    /// The SIMD control and status word.
    Mxcsr,
}

impl RegisterName {
    /// The value that a file has for it: of ST(n), the significand.
    #[must_use]
    pub fn value(self, file: &RegFile) -> u64 {
        match self {
            Self::Vector { register, word } => file.vector(register.into())[usize::from(word)],
            Self::Mask(n) => file.mask(n.into()),
            Self::X87(n) => file.x87(n.into()).0,
            Self::Fcw => file.fcw().into(),
            Self::Fsw => file.fsw().into(),
            Self::Ftw => file.ftw().into(),
            Self::Mxcsr => file.mxcsr().into(),
        }
    }
}

impl fmt::Display for RegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            // The name of the narrowest register that has the word.
            Self::Vector { register, word } => {
                let width = match (register, word) {
                    (16.., _) | (_, 4..) => 'z',
                    (_, 2..) => 'y',
                    _ => 'x',
                };
                write!(f, "{width}mm{register}[{word}]")
            }
            Self::Mask(n) => write!(f, "k{n}"),
            Self::X87(n) => write!(f, "st{n}"),
            Self::Fcw => f.write_str("fcw"),
            Self::Fsw => f.write_str("fsw"),
            Self::Ftw => f.write_str("ftw"),
            Self::Mxcsr => f.write_str("mxcsr"),
        }
    }
}
