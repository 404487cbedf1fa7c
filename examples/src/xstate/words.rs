//! CPUID words, of this machine or recorded, behind the one interface that the library reads.

use std::collections::BTreeMap;

use fpu_x86::Components;
use raw_cpuid::{native_cpuid, CpuIdReader, CpuIdResult};
use serde_json::value::RawValue;

/// The leaf that describes XSAVE.
pub const LEAF: u32 = 0xD;
/// Component numbers that CPUID can describe; bit 63 of a bitmap has another meaning.
pub const NUMBERS: u32 = 63;

/// CPUID words by leaf and subleaf. What is not there reads as zeros, as on a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(BTreeMap<(u32, u32), [u32; 4]>);

impl CpuIdReader for Words {
    fn cpuid2(&self, leaf: u32, subleaf: u32) -> CpuIdResult {
        let [eax, ebx, ecx, edx] = self.0.get(&(leaf, subleaf)).copied().unwrap_or_default();
        CpuIdResult { eax, ebx, ecx, edx }
    }
}

impl Words {
    /// What the CPU says that this runs on.
    #[must_use]
    pub fn of_this_cpu() -> Self {
        let reader = native_cpuid::CpuIdReaderNative;
        let mut words = Self::default();
        let last = reader.cpuid2(0, 0).eax;
        for leaf in [0, 1, LEAF].into_iter().filter(|leaf| *leaf <= last) {
            for subleaf in 0..if leaf == LEAF { NUMBERS } else { 1 } {
                let CpuIdResult { eax, ebx, ecx, edx } = reader.cpuid2(leaf, subleaf);
                words.set(leaf, subleaf, [eax, ebx, ecx, edx]);
            }
        }
        words
    }

    /// Sets the words of one subleaf.
    pub fn set(&mut self, leaf: u32, subleaf: u32, words: [u32; 4]) {
        self.0.insert((leaf, subleaf), words);
    }

    /// The words of one subleaf, if they were recorded.
    #[must_use]
    pub fn get(&self, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
        self.0.get(&(leaf, subleaf)).copied()
    }

    /// The words that say which components there are were recorded, and are not all zero.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check_leaf(&self) -> Result<(), String> {
        match self.get(LEAF, 0) {
            None => Err("cpuid has no words 0xd.0: which components there are is not known".into()),
            Some([0, 0, 0, 0]) => Err("cpuid 0xd.0 is all zero: there is no XSAVE".into()),
            Some(_) => Ok(()),
        }
    }

    /// Reads `{"0xLEAF.SUBLEAF":["0x..","0x..","0x..","0x.."], ...}`. Keys of another form are ignored.
    ///
    /// # Errors
    ///
    /// What is wrong, with the key.
    pub fn from_json(raw: &RawValue) -> Result<Self, String> {
        let keys: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())
            .map_err(|_| String::from("cpuid is no object of CPUID words"))?;
        let mut words = Self::default();
        for (key, value) in keys {
            let Some((leaf, subleaf)) = leaf_and_subleaf(&key) else { continue };
            let four = match four(value) {
                Ok(four) => four,
                // Nothing is asked of the other leaves' words that their absence would not answer.
                Err(_) if leaf != LEAF => continue,
                Err(why) => return Err(format!("cpuid {key}: {why}")),
            };
            let before = words.0.insert((leaf, subleaf), four);
            if before.is_some_and(|before| before != four) {
                return Err(format!("cpuid {key}: given twice, with different words"));
            }
        }
        Ok(words)
    }
}

/// `0xd.2` is leaf 13, subleaf 2.
fn leaf_and_subleaf(key: &str) -> Option<(u32, u32)> {
    let (leaf, subleaf) = key.split_once('.')?;
    let leaf = leaf.strip_prefix("0x").or_else(|| leaf.strip_prefix("0X"))?;
    if !leaf.bytes().all(|c| c.is_ascii_hexdigit()) || !subleaf.bytes().all(|c| c.is_ascii_digit())
    {
        return None;
    }
    Some((u32::from_str_radix(leaf, 16).ok()?, subleaf.parse().ok()?))
}

fn four(value: &RawValue) -> Result<[u32; 4], String> {
    let texts: Vec<String> = serde_json::from_str(value.get())
        .map_err(|_| String::from("not an array of four hex strings"))?;
    let texts: [String; 4] =
        texts.try_into().map_err(|list: Vec<_>| format!("{} words, not four", list.len()))?;
    let mut words = [0; 4];
    for (word, text) in words.iter_mut().zip(texts) {
        let value = hex(&text, false).ok_or_else(|| format!("{} is no hex word", quoted(&text)))?;
        *word = value.try_into().map_err(|_| format!("{} has over 32 bits", quoted(&text)))?;
    }
    Ok(words)
}

/// A number of up to 64 bits after `0x`, which may be left out unless it is `required`.
#[must_use]
pub fn hex(text: &str, required: bool) -> Option<u64> {
    let digits = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => digits,
        None if required => return None,
        None => text,
    };
    // `from_str_radix` alone would take a sign.
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// A piece of input as a JSON string, cut if it is long, with no character that a terminal obeys: U+007F to U+009F, and
/// those that turn the direction of text, are escaped too.
#[must_use]
pub fn quoted(text: &str) -> String {
    const MOST: usize = 40;
    let mut start: String = text.chars().take(MOST).collect();
    if start.len() < text.len() {
        start += "...";
    }
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let json = serde_json::Value::from(start).to_string();
    json.chars().fold(String::new(), |text, c| match obeyed(c) {
        true => format!("{text}\\u{:04x}", u32::from(c)),
        false => text + c.encode_utf8(&mut [0; 4]),
    })
}

/// The components of a bitmap by number, in order.
pub fn numbers(bitmap: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |number| bitmap >> number & 1 != 0)
}

/// The component's name, if it has one here.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    let one = Components::from_bits_retain(1 << number);
    Components::all().iter_names().find(|(_, flag)| *flag == one).map(|(name, _)| name)
}

/// `component 9 (PKRU)`.
#[must_use]
pub fn component(number: u32) -> String {
    match name(number) {
        Some(name) => format!("component {number} ({name})"),
        None => format!("component {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Words, String> {
        Words::from_json(serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn words_are_read_by_leaf_and_subleaf() {
        let words = read(
            r#"{"0xD.2":["0x100","0x240","0","0x0"],"0x1.0":["1","2","3","ffffffff"],
                "note":7,"0x80000000.0":"x","0xd.x":null,"0x.1":1,"13.2":[],"0xd":[]}"#,
        )
        .expect("words");
        assert_eq!(words.get(LEAF, 2), Some([0x100, 0x240, 0, 0]));
        assert_eq!(words.get(1, 0), Some([1, 2, 3, u32::MAX]));
        assert_eq!(words.0.len(), 2, "keys of another form");
        assert_eq!(words.cpuid2(LEAF, 3).eax, 0, "absent");
    }

    #[test]
    fn wrong_words_are_named() {
        for (text, why) in [
            ("[]", "cpuid is no object of CPUID words"),
            (r#"{"0xd.0":7}"#, "cpuid 0xd.0: not an array of four hex strings"),
            (r#"{"0xd.0":[1,2,3,4]}"#, "cpuid 0xd.0: not an array of four hex strings"),
            (r#"{"0xd.0":["1","2","3"]}"#, "cpuid 0xd.0: 3 words, not four"),
            (r#"{"0xd.0":["1","2","3","+4"]}"#, "cpuid 0xd.0: \"+4\" is no hex word"),
            (r#"{"0xd.0":["1","2","3","0x"]}"#, "cpuid 0xd.0: \"0x\" is no hex word"),
            (r#"{"0xd.0":["1","2","3","0x100000000"]}"#, "0xd.0: \"0x100000000\" has over 32 bits"),
            (
                r#"{"0xd.2":["1","2","3","4"],"0xD.2":["1","2","3","5"]}"#,
                "cpuid 0xd.2: given twice, with different words",
            ),
        ] {
            let said = read(text).expect_err(text);
            assert!(said.ends_with(why), "{text}: {said}");
        }
    }
}
