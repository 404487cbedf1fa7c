//! One line of a batch: the request, or its fault and its identifier.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::words::{hex, quoted, Words};

/// A line that can be answered.
#[derive(Debug)]
pub struct Request<'a> {
    /// Any JSON value, as it was written.
    pub id: &'a str,
    /// The CPU.
    pub cpuid: Words,
    /// The components.
    pub bitmap: u64,
    /// The bitmap as it was written.
    pub bitmap_text: &'a str,
}

/// A line that cannot be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The identifier, as far as it could be read.
    pub id: Option<&'a str>,
    /// The reason.
    pub why: String,
}

/// The values of the keys that are known, not yet looked at: a wrong one must not hide the
/// identifier behind it.
#[derive(Default)]
struct Raw<'a> {
    id: Option<&'a RawValue>,
    cpuid: Option<&'a RawValue>,
    bitmap: Option<&'a RawValue>,
    brand: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    xcr0: Option<&'a RawValue>,
}

/// Fills in `Raw` as far as the text is JSON.
struct Fill<'r, 'a>(&'r mut Raw<'a>);

impl<'a> Visitor<'a> for Fill<'_, 'a> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => self.0.id = Some(map.next_value()?),
                "cpuid" => self.0.cpuid = Some(map.next_value()?),
                "bitmap" => self.0.bitmap = Some(map.next_value()?),
                "brand" => self.0.brand = Some(map.next_value()?),
                "name" => self.0.name = Some(map.next_value()?),
                "xcr0" => self.0.xcr0 = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn fill<'a>(text: &'a str, raw: &mut Raw<'a>) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Fill(raw))?;
    json.end()
}

/// The error without the position, which is always in line 1.
fn plain(why: &serde_json::Error) -> String {
    let text = why.to_string();
    let short = text.split(" at line ").next().unwrap_or(&text);
    format!("not a JSON object: {short} at column {}", why.column())
}

/// Reads one line.
///
/// # Errors
///
/// What is wrong, with the identifier if it came before what is not JSON.
pub fn read(line: &[u8]) -> Result<Request<'_>, Refused<'_>> {
    let mut raw = Raw::default();
    let read = match std::str::from_utf8(line) {
        Ok(text) => fill(text, &mut raw).map_err(|why| plain(&why)),
        Err(why) => {
            let (good, _) = line.split_at(why.valid_up_to());
            // The identifier may be in front of it; that the text then ends early is known.
            let _ends_early = std::str::from_utf8(good).map(|text| fill(text, &mut raw));
            Err(format!("not UTF-8 at column {}", why.valid_up_to() + 1))
        }
    };
    let id = raw.id.map(RawValue::get);
    let refused = |why| Refused { id, why };
    read.map_err(refused)?;
    let missing = |key: &str| refused(format!("missing key: {key}"));
    let whose = id.ok_or_else(|| missing("id"))?;
    let cpuid = raw.cpuid.ok_or_else(|| missing("cpuid"))?;
    let bitmap = raw.bitmap.ok_or_else(|| missing("bitmap"))?;
    Ok(Request {
        id: whose,
        cpuid: Words::from_json(cpuid).map_err(refused)?,
        bitmap: self::bitmap(bitmap).map_err(refused)?,
        bitmap_text: bitmap.get(),
    })
}

fn bitmap(raw: &RawValue) -> Result<u64, String> {
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| String::from("bitmap is no string of the form \"0x..\""))?;
    hex(&text, true).ok_or_else(|| format!("bitmap {} is no hex number of 64 bits", quoted(&text)))
}

/// One CPU from a file of `--cpuid`.
#[derive(Debug)]
pub struct Recorded {
    /// The CPU's words.
    pub words: Words,
    /// The components that are enabled, if the file says so.
    pub bitmap: Option<u64>,
    /// The CPU's name, if it has one.
    pub brand: Option<String>,
}

/// Reads the first line of a file of `--cpuid` that is not empty.
///
/// # Errors
///
/// The reason.
pub fn read_cpu(text: &str) -> Result<Recorded, String> {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut raw = Raw::default();
    fill(line, &mut raw).map_err(|why| plain(&why))?;
    let words = Words::from_json(raw.cpuid.ok_or("missing key: cpuid")?)?;
    // Without the words of leaf 1, those of leaf 0xd are all that is known.
    if words.get(1, 0).is_none() {
        words.check_leaf()?;
    }
    let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let brand: Option<String> = text(raw.brand).or_else(|| text(raw.name));
    // It goes to a terminal.
    let brand = brand.map(|name| name.chars().filter(|c| !c.is_control()).take(60).collect());
    // What the recorder found enabled is of no form that is promised.
    let found = raw.xcr0.and_then(|raw| bitmap(raw).ok());
    Ok(Recorded { words, bitmap: raw.bitmap.map(bitmap).transpose()?.or(found), brand })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &[u8]) -> (Option<&str>, String) {
        let Refused { id, why } = read(line).expect_err("a bad line");
        (id, why)
    }

    #[test]
    fn identifiers_are_kept_as_written() {
        for id in ["7", "null", "\"a\\u0041\"", "[1, 2]", "{\"b\":1,\"a\":2}", "1e999", "-0.10"] {
            let line = format!("{{\"x\":[{{}}],\"bitmap\":\"0x7\",\"id\":{id},\"cpuid\":{{}}}}");
            let request = read(line.as_bytes()).expect("a request");
            assert_eq!((request.id, request.bitmap), (id, 7));
            assert_eq!(request.bitmap_text, "\"0x7\"");
        }
    }

    #[test]
    fn a_bad_line_keeps_the_identifier_if_it_came_first() {
        assert_eq!(
            refused(b""),
            (None, "not a JSON object: EOF while parsing a value at column 0".into())
        );
        let (id, why) = refused(b"{\"id\":5,\"cpuid\":{");
        assert_eq!((id, why.starts_with("not a JSON object: EOF")), (Some("5"), true), "{why}");
        let (id, why) = refused(b"{\"id\":5,\"x\":\"\xff\"}");
        assert_eq!((id, why.as_str()), (Some("5"), "not UTF-8 at column 14"));
        let (id, _) = refused(b"{\"x\":\"\xff\",\"id\":5}");
        assert_eq!(id, None);
        let (id, why) = refused(b"{\"id\":5,\"cpuid\":{},\"bitmap\":\"0x7\"} x");
        assert_eq!((id, why.contains("trailing")), (Some("5"), true), "{why}");
        for (line, id) in [("[]", None), ("7", None), ("\"id\"", None), ("{\"id\":[1,]}", None)] {
            assert_eq!(refused(line.as_bytes()).0, id, "{line}");
        }
    }

    #[test]
    fn wrong_types_do_not_hide_an_identifier_behind_them() {
        for (line, why) in [
            (r#"{"cpuid":5,"bitmap":"0x7","id":3}"#, "cpuid is no object"),
            (r#"{"cpuid":{},"bitmap":7,"id":3}"#, "bitmap is no string"),
            (r#"{"cpuid":{},"bitmap":"7","id":3}"#, "bitmap \"7\" is no hex number"),
            (r#"{"cpuid":{},"bitmap":"0x1ffffffffffffffff","id":3}"#, "is no hex number"),
            (r#"{"cpuid":{},"id":3}"#, "missing key: bitmap"),
            (r#"{"bitmap":"0x7","id":3}"#, "missing key: cpuid"),
        ] {
            let (id, said) = refused(line.as_bytes());
            assert!(id == Some("3") && said.contains(why), "{line}: {said}");
        }
        let (id, why) = refused(br#"{"bitmap":"0x7","cpuid":{}}"#);
        assert_eq!((id, why.as_str()), (None, "missing key: id"));
    }
}
