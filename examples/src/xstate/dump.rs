//! A core file of threads without memory, as debuggers open it.

use super::elf::{EM_X86_64, MAGIC};

/// Bytes of Linux's NT_PRSTATUS, and where the thread's number stands in it.
const STATUS: usize = 336;
const ID: usize = 32;
/// Bytes of the ELF header, and of one program header.
const HEADERS: [u64; 2] = [64, 56];

/// The notes of a core file.
#[derive(Clone, Debug, Default)]
pub struct Notes(Vec<u8>);

impl Notes {
    /// A thread begins: its NT_PRSTATUS.
    pub fn status(&mut self, id: u32) {
        let mut status = [0; STATUS];
        status[ID..ID + 4].copy_from_slice(&id.to_le_bytes());
        self.add("CORE", 1, &status);
    }

    /// One note.
    pub fn add(&mut self, owner: &str, kind: u32, contents: &[u8]) {
        for word in [owner.len() as u32 + 1, contents.len() as u32, kind] {
            self.0.extend(word.to_le_bytes());
        }
        self.0.extend(owner.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The file.
    #[must_use]
    pub fn file(self) -> Vec<u8> {
        let [header, program_header] = HEADERS;
        let mut file = MAGIC.to_vec();
        file.extend([2, 1, 1]); // 64 bits, little-endian, version 1
        file.resize(16, 0);
        for short in [4, EM_X86_64] {
            file.extend(u16::to_le_bytes(short)); // a core file, of this architecture
        }
        file.extend(1u32.to_le_bytes());
        for long in [0, header, 0] {
            file.extend(u64::to_le_bytes(long)); // no entry; program headers; no section headers
        }
        file.extend(0u32.to_le_bytes());
        for short in [header, program_header, 1, 0, 0, 0] {
            file.extend((short as u16).to_le_bytes());
        }
        file.extend([4, 0, 0, 0, 0, 0, 0, 0]); // notes
        for long in [header + program_header, 0, 0, self.0.len() as u64, 0, 4] {
            file.extend(u64::to_le_bytes(long));
        }
        file.extend(self.0);
        file
    }
}
