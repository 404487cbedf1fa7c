//! Reads a command line, argument by argument, for all programs.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

/// Arguments that are not read yet, and the one that was read last.
///
/// Every error is one line that begins with the option's name, or that quotes the argument if it is none.
#[derive(Debug)]
pub struct Options<I> {
    args: I,
    name: String,
    attached: Option<OsString>,
}

/// As it was given, on one line.
fn quoted(text: &OsStr) -> String {
    format!("{text:?}")
}

impl<I: Iterator<Item = OsString>> Options<I> {
    /// Of the arguments after the program's name.
    pub fn new(args: I) -> Self {
        Self { args, name: String::new(), attached: None }
    }

    /// The next argument; of `--name=value` the name. `None`: there is none.
    ///
    /// # Errors
    ///
    /// The argument is not UTF-8, or the one before has a value that was not asked for.
    pub fn next_name(&mut self) -> Result<Option<String>, String> {
        self.flag()?;
        let Some(arg) = self.args.next() else { return Ok(None) };
        let bytes = arg.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let (name, attached) = match equals {
            Some(at) if bytes.starts_with(b"--") => {
                (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..])))
            }
            _ => (arg.as_os_str(), None),
        };
        self.attached = attached.map(OsStr::to_owned);
        self.name = name.to_str().ok_or_else(|| self.unknown(name))?.to_owned();
        Ok(Some(self.name.clone()))
    }

    /// Refuses a value for the option that was read last.
    ///
    /// # Errors
    ///
    /// The option has one.
    pub fn flag(&self) -> Result<(), String> {
        match self.attached {
            Some(_) => Err(format!("{} takes no value", self.name)),
            None => Ok(()),
        }
    }

    /// The value of the option that was read last.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn value(&mut self) -> Result<OsString, String> {
        let value = self.attached.take().or_else(|| self.args.next());
        value.ok_or_else(|| format!("{} needs a value", self.name))
    }

    /// The value, as text.
    ///
    /// # Errors
    ///
    /// There is none, or it is not UTF-8.
    pub fn text(&mut self) -> Result<String, String> {
        self.value()?.into_string().map_err(|value| self.wrong("not UTF-8", &value))
    }

    /// The value, as a number in decimal, or in hexadecimal after `0x`.
    ///
    /// # Errors
    ///
    /// There is none, or it is not from `least` to `most`.
    pub fn number(&mut self, least: u64, most: u64) -> Result<u64, String> {
        let value = self.value()?;
        let number = value.to_str().and_then(number).filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| self.wrong(&format!("not a number from {least} to {most}"), &value))
    }

    /// The value, as a file's path. It need not be UTF-8.
    ///
    /// # Errors
    ///
    /// There is none, or it is empty or `-`.
    pub fn file(&mut self) -> Result<PathBuf, String> {
        let value = self.attached.take().or_else(|| self.args.next());
        let value = value.filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("{} needs a file", self.name))?;
        if value == "-" {
            return Err(self.wrong("a file is needed, not standard input or output", &value));
        }
        Ok(value.into())
    }

    /// The value, as a file's path, where `-` is standard input or output.
    ///
    /// # Errors
    ///
    /// There is none, or it is empty, or looks like an option.
    pub fn file_or_pipe(&mut self) -> Result<PathBuf, String> {
        let value = self.attached.take().or_else(|| self.args.next());
        let value = value.filter(|value| !value.is_empty() && !value.as_bytes().starts_with(b"--"));
        value.map(PathBuf::from).ok_or_else(|| format!("{} needs a file", self.name))
    }

    /// The error for a value of the option that was read last.
    #[must_use]
    pub fn wrong(&self, what: &str, value: &OsStr) -> String {
        format!("{}: {what}: {}", self.name, quoted(value))
    }

    /// The error for an argument that the program does not know.
    #[must_use]
    pub fn unknown(&self, arg: &OsStr) -> String {
        format!("unknown argument: {} (--help lists them)", quoted(arg))
    }
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // A sign is no digit, though the standard library takes one.
    let signed = digits.starts_with(['+', '-']);
    u64::from_str_radix(digits, radix).ok().filter(|_| !signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_sign() {
        for (text, expected) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("0x10", Some(16)),
            ("18446744073709551616", None),
            ("0x", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("0x-1", None),
            ("0x+1", None),
            (" 1", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
