//! x87 and SSE control, status and values in words.

/// The exception flags and masks, by bit, the same in FCW, FSW and MXCSR.
const EXCEPTIONS: [&str; 6] =
    ["invalid", "denormal", "divide by zero", "overflow", "underflow", "inexact"];

fn exceptions(bits: u32) -> String {
    let set = EXCEPTIONS.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

fn rounding(bits: u32) -> &'static str {
    ["to nearest", "down", "up", "to zero"][(bits & 3) as usize]
}

fn masks(bits: u32) -> String {
    match !bits & 0x3F {
        0 => "all exceptions masked".into(),
        unmasked => format!("unmasked: {}", exceptions(unmasked)),
    }
}

/// The control word.
#[must_use]
pub fn control(fcw: u16) -> String {
    let bits = u32::from(fcw);
    let precision = ["24-bit", "reserved", "53-bit", "64-bit"][(bits >> 8 & 3) as usize];
    format!("{}, {precision} precision, rounding {}", masks(bits), rounding(bits >> 10))
}

/// The status word.
#[must_use]
pub fn status(fsw: u16) -> String {
    let bits = u32::from(fsw);
    let mut text = format!("TOP {}", bits >> 11 & 7);
    set(&mut text, bits, &[(8, "C0"), (9, "C1"), (10, "C2"), (14, "C3")]);
    set(&mut text, bits, &[(6, "stack fault"), (7, "exception pending"), (15, "busy")]);
    text + &flags(bits)
}

/// MXCSR.
#[must_use]
pub fn mxcsr(bits: u32) -> String {
    let mut text = format!("{}, rounding {}", masks(bits >> 7), rounding(bits >> 13));
    let names =
        [(6, "denormals are zero"), (15, "flush to zero"), (17, "misaligned access allowed")];
    set(&mut text, bits, &names);
    text + &flags(bits)
}

/// Names of the bits that are set.
fn set(text: &mut String, bits: u32, names: &[(u32, &str)]) {
    for (_, name) in names.iter().filter(|(bit, _)| bits >> bit & 1 != 0) {
        *text += &format!(", {name}");
    }
}

/// Exceptions that have happened.
fn flags(bits: u32) -> String {
    if bits & 0x3F == 0 {
        return String::new();
    }
    format!("; flags: {}", exceptions(bits))
}

/// The value of a register: exactly if it says nothing else, `~` if rounded.
#[must_use]
pub fn value(register: [u8; 10]) -> String {
    let [m0, m1, m2, m3, m4, m5, m6, m7, e0, e1] = register;
    let mantissa = u64::from_le_bytes([m0, m1, m2, m3, m4, m5, m6, m7]);
    let head = u16::from_le_bytes([e0, e1]);
    let sign = if head >> 15 != 0 { "-" } else { "" };
    let exponent = i32::from(head & 0x7FFF);
    let integer = mantissa >> 63 != 0;
    match (exponent, mantissa) {
        (0, 0) => return format!("{sign}0"),
        (0x7FFF, 0x8000_0000_0000_0000) => return format!("{sign}infinity"),
        (0x7FFF, _) if integer => {
            let kind = if mantissa >> 62 & 1 != 0 { "quiet" } else { "signalling" };
            return format!("{sign}NaN, {kind}");
        }
        (1.., _) if !integer => return "no number: its integer bit is clear".into(),
        _ => {}
    }
    // A denormal has the exponent of the smallest normal number.
    let power = exponent.max(1) - 16383 - 63;
    let top = power + 63 - mantissa.leading_zeros() as i32;
    if (-1000..1000).contains(&top) {
        let rounded = mantissa as f64;
        let exact = mantissa.trailing_zeros() + mantissa.leading_zeros() >= 11;
        // In two steps, as the power alone may be below what an f64 can hold.
        let value = rounded * 2f64.powi(power / 2) * 2f64.powi(power - power / 2);
        let mark = if exact { "" } else { "~" };
        if (1e-5..1e16).contains(&value) {
            format!("{mark}{sign}{value}")
        } else {
            format!("{mark}{sign}{value:e}")
        }
    } else {
        let log = (mantissa as f64).log10() + f64::from(power) * std::f64::consts::LOG10_2;
        format!("~{sign}{:.8}e{}", 10f64.powf(log - log.floor()), log.floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: u16, mantissa: u64) -> String {
        let mut register = [0; 10];
        register[..8].copy_from_slice(&mantissa.to_le_bytes());
        register[8..].copy_from_slice(&head.to_le_bytes());
        value(register)
    }

    #[test]
    fn values_in_decimal() {
        for (head, mantissa, text) in [
            (0, 0, "0"),
            (0x8000, 0, "-0"),
            (0x3FFF, 1 << 63, "1"),
            (0xC000, 3 << 62, "-3"),
            (0x4000, 0xC90F_DAA2_2168_C235, "~3.141592653589793"),
            (0x3FFD, 0xAAAA_AAAA_AAAA_AAAB, "~0.3333333333333333"),
            (0x7FFF, 1 << 63, "infinity"),
            (0xFFFF, 1 << 63, "-infinity"),
            (0xFFFF, 3 << 62, "-NaN, quiet"),
            (0x7FFF, 5 << 61, "NaN, signalling"),
            (0x7FFF, 1, "no number: its integer bit is clear"),
            (0x3FFF, 1, "no number: its integer bit is clear"),
            // The largest, the smallest normal and the smallest of all.
            (0x7FFE, u64::MAX, "~1.18973150e4932"),
            (0x0001, 1 << 63, "~3.36210314e-4932"),
            (0x0000, 1, "~3.64519953e-4951"),
        ] {
            assert_eq!(of(head, mantissa), text, "{head:#x} {mantissa:#x}");
        }
    }

    #[test]
    fn words_in_words() {
        assert_eq!(control(0x37F), "all exceptions masked, 64-bit precision, rounding to nearest");
        assert_eq!(control(0xE7B), "unmasked: divide by zero, 53-bit precision, rounding to zero",);
        assert_eq!(status(0x3881), "TOP 7, exception pending; flags: invalid");
        assert_eq!(mxcsr(0x1F80), "all exceptions masked, rounding to nearest");
        assert_eq!(
            mxcsr(0xFDE1),
            "unmasked: divide by zero, rounding to zero, denormals are zero, flush to zero; \
             flags: invalid, inexact",
        );
    }
}
