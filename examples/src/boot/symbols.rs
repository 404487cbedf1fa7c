//! Names for addresses of the kernel, from its symbol table.

/// Where an exception in the kernel's own verdict was raised.
const PLACE: &str = " in the kernel at 0x";
const SYMTAB: u32 = 2;
/// Types of symbols that are code: labels of assembly, and functions.
const CODE: [u8; 2] = [0, 2];

/// The verdict with the function in which an exception was raised, if it says an address.
#[must_use]
pub fn named(elf: &[u8], why: &str) -> String {
    let place = why.split_once(PLACE).and_then(|(before, rest)| {
        let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let address = u64::from_str_radix(&rest[..digits], 16).ok()?;
        Some((before.len() + PLACE.len() + digits, symbol(elf, address)?))
    });
    match place {
        Some((end, symbol)) => format!("{} in {symbol}{}", &why[..end], &why[end..]),
        None => why.to_owned(),
    }
}

/// The nearest symbol of code that is not above an address, and how far above that it is.
#[must_use]
pub fn symbol(elf: &[u8], address: u64) -> Option<String> {
    let word = |at: u64, bytes: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    };
    // Of the header: where the sections are described, how long each description is, and how many there are.
    let (sections, length, count) = (word(0x28, 8)?, word(0x3A, 2)?, word(0x3C, 2)?);
    let section = |number: u64| sections.checked_add(number.checked_mul(length)?);
    let is_table = |at: &u64| word(at + 4, 4) == Some(SYMTAB.into());
    let table = (0..count).filter_map(section).find(is_table)?;
    let strings = word(section(word(table + 0x28, 4)?)? + 0x18, 8)?;
    let (from, size) = (word(table + 0x18, 8)?, word(table + 0x20, 8)?);
    let mut best: Option<(u64, u64)> = None;
    for at in (from..from.checked_add(size)?).step_by(24) {
        let (name, kind, value) = (word(at, 4)?, word(at + 4, 1)? as u8 & 15, word(at + 8, 8)?);
        let is_code = CODE.contains(&kind) && name != 0 && word(at + 6, 2)? != 0;
        if is_code && value <= address && best.is_none_or(|(nearest, _)| nearest <= value) {
            best = Some((value, name));
        }
    }
    let (value, name) = best?;
    let name = elf.get(usize::try_from(strings.checked_add(name)?).ok()?..)?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(format!("{}+{:#x}", readable(&String::from_utf8_lossy(name)), address - value))
}

/// The identifiers of a mangled name, without the crate `kernel`; another name as it is.
fn readable(name: &str) -> String {
    let mangled = name.strip_prefix("_R").or(name.strip_prefix("_ZN"));
    let Some(mut rest) = mangled else { return name.to_owned() };
    let mut parts: Vec<&str> = Vec::new();
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let next = match (first, rest[..digits].parse::<usize>()) {
            (_, Ok(length)) => {
                let ident = rest[digits..].strip_prefix('_').unwrap_or(&rest[digits..]);
                let Some(part) = ident.get(..length) else { break };
                parts.push(part);
                &ident[length..]
            }
            // A number in letters and digits, up to an underscore: of a crate, or of an earlier part.
            ('s' | 'B', _) => rest.split_once('_').map_or("", |(_, rest)| rest),
            _ => rest.get(first.len_utf8()..).unwrap_or(""),
        };
        rest = next;
    }
    // The hash at the end of older names.
    parts.retain(|part| !(part.len() == 17 && part.starts_with('h')));
    if parts.len() > 1 && parts[0] == "kernel" {
        parts.remove(0);
    }
    if parts.is_empty() {
        name.to_owned()
    } else {
        parts.join("::")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_manglings_are_read_and_other_names_left_alone() {
        for (name, shown) in [
            ("_RNvNtCsl0aBc1_6kernel5crash9undefined", "crash::undefined"),
            ("_ZN6kernel5crash9undefined17h0123456789abcdefE", "crash::undefined"),
            (
                "_RNvMs1_NtNtCsgEm2I1S_4core3fmt8buildersNtB5_11DebugStruct5field",
                "core::fmt::builders::DebugStruct::field",
            ),
            ("trap_common", "trap_common"),
            ("_R", "_R"),
            ("_R9", "_R9"),
        ] {
            assert_eq!(readable(name), shown);
        }
    }

    /// This test's own executable has a symbol table.
    #[test]
    fn an_address_is_named_and_damage_is_survived() {
        let path = std::env::current_exe().expect("a path");
        let elf = std::fs::read(path).expect("readable");
        let name = |n: u64| symbol(&elf, n);
        assert_eq!(name(0), None, "below everything");
        let last = name(u64::MAX).expect("the last symbol");
        assert!(last.contains("+0x"), "{last}");
        let why = "exception 6 in the kernel at 0xffffffffffffffff on CPU 0";
        assert!(
            named(&elf, why).starts_with(&format!("{} in ", &why[..47])),
            "{}",
            named(&elf, why)
        );
        assert_eq!(named(&elf, "register xmm0 is 0x1"), "register xmm0 is 0x1");
        assert_eq!(named(&[], why), why);
        for end in (0..elf.len()).step_by(elf.len() / 64) {
            assert!(named(&elf[..end], why).len() >= why.len());
        }
    }
}
