//! The source of bytes: a file that is read where it is needed, or standard input.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
};

/// Of a pipe, or of anything else in which no byte can be skipped, more is not read.
pub const MOST: u64 = 64 << 20;

/// Bytes by offset. No more is read or held than is asked for, except of a pipe.
#[derive(Debug)]
pub struct Input {
    source: Source,
    len: u64,
}

#[derive(Debug)]
enum Source {
    File(File),
    Bytes(Vec<u8>),
}

impl Input {
    /// The file of this name; standard input for `-`.
    ///
    /// # Errors
    ///
    /// Those of the system; a pipe that has more than [`MOST`] bytes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match path.as_os_str() == "-" {
            true => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            false => File::open(path)?,
        };
        let about = file.metadata()?;
        // Files of /proc say that they are empty.
        if about.is_file() && about.len() > 0 {
            return Ok(Self { source: Source::File(file), len: about.len() });
        }
        let mut bytes = Vec::new();
        file.take(MOST + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 {
            len if len > MOST => Err(io::Error::other(format!(
                "a pipe of more than {MOST} bytes: give a file, which is read only where it is needed"
            ))),
            len => Ok(Self { source: Source::Bytes(bytes), len }),
        }
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Tells whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Up to `most` bytes from `at`: fewer where the file ends, or the system cannot read on.
    #[must_use]
    pub fn bytes(&self, at: u64, most: usize) -> Vec<u8> {
        let there = self.len.saturating_sub(at).min(most as u64) as usize;
        match &self.source {
            Source::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                bytes.get(from..).and_then(|rest| rest.get(..there)).unwrap_or_default().to_vec()
            }
            Source::File(file) => {
                let mut bytes = vec![0; there];
                let mut done = 0;
                while done < there {
                    match file.read_at(&mut bytes[done..], at + done as u64) {
                        Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                        Ok(0) | Err(_) => break,
                        Ok(more) => done += more,
                    }
                }
                bytes.truncate(done);
                bytes
            }
        }
    }

    /// `N` bytes from `at`, if they are there.
    #[must_use]
    pub fn array<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.bytes(at, N).try_into().ok()
    }

    /// All of it as text.
    ///
    /// # Errors
    ///
    /// It is longer than [`MOST`], or not UTF-8.
    pub fn text(&self) -> Result<String, String> {
        if self.len > MOST {
            return Err(format!("{} bytes of text, at most {MOST} are read", self.len));
        }
        let bytes = self.bytes(0, MOST as usize);
        String::from_utf8(bytes).map_err(|why| {
            let good = &why.as_bytes()[..why.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: not UTF-8")
        })
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len() as u64, source: Source::Bytes(bytes) }
    }
}
