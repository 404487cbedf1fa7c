//! Names of registers, as a mismatch reports them.

use core::fmt;

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
    /// The name in pieces, without `core::fmt`, which is compiled with vector instructions.
    pub(crate) fn put(self, out: &mut dyn FnMut(&str)) {
        match self {
            // The name of the narrowest register that has the word.
            Self::Vector { register, word } => {
                out(match (register, word) {
                    (16.., _) | (_, 4..) => "zmm",
                    (_, 2..) => "ymm",
                    _ => "xmm",
                });
                put_number(register, out);
                out("[");
                put_number(word, out);
                out("]");
            }
            Self::Mask(n) => {
                out("k");
                put_number(n, out);
            }
            Self::X87(n) => {
                out("st");
                put_number(n, out);
            }
            Self::Fcw => out("fcw"),
            Self::Fsw => out("fsw"),
            Self::Ftw => out("ftw"),
            Self::Mxcsr => out("mxcsr"),
        }
    }
}

fn put_number(n: u8, out: &mut dyn FnMut(&str)) {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    if n >= 10 {
        put_number(n / 10, out);
    }
    out(DIGITS[usize::from(n % 10)]);
}

impl fmt::Display for RegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.put(&mut |piece| {
            if result.is_ok() {
                result = f.write_str(piece);
            }
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for n in 0..=u8::MAX {
            assert_eq!(RegisterName::Mask(n).to_string(), format!("k{n}"));
        }
    }
}
