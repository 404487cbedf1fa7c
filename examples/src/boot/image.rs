//! The disk image: the kernel's loaded bytes as they lie in memory from 1 MiB on.
//!
//! The kernel is linked so that its first sector there is the one that a BIOS starts. Behind that sector is room for
//! the boot parameters.

use std::{error, fmt};

/// The address at which the kernel is loaded.
pub const BASE: u64 = 0x10_0000;
/// The boot sector reads to below this; above are the BIOS's own areas.
pub const LARGEST: usize = 480 * 1024;
const SECTOR: usize = 512;
/// Bytes of the boot parameters, with a NUL; `link.ld` has the same number.
pub const PARAMETERS: usize = 4096;
/// The geometry of disks, as the BIOS sees them.
pub const HEADS: usize = 16;
/// See [`HEADS`].
pub const SECTORS: usize = 63;

const PT_LOAD: u32 = 1;
const EHDR: usize = 64;
const PHDR: usize = 56;

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The file is not an executable for x86-64, 64 bits, little-endian.
    NotAnElf,
    /// The file ends before a part that it announces.
    CutOff(&'static str),
    /// A part is not where the boot sector puts the kernel.
    Outside {
        /// The address.
        address: u64,
        /// The part's bytes.
        size: u64,
    },
    /// The image is longer than the boot sector can read.
    TooLarge(u64),
    /// The first sector does not end in 55 AA.
    NoBootSector,
    /// The boot parameters do not fit, or are no text.
    Parameters(usize),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnElf => f.write_str("the kernel is not an ELF executable for x86-64"),
            Self::CutOff(what) => write!(f, "the kernel's file ends within its {what}"),
            Self::Outside { address, size } => {
                let top = BASE + LARGEST as u64;
                write!(f, "{size} bytes at {address:#x} are not within {BASE:#x}..{top:#x}")
            }
            Self::TooLarge(size) => {
                write!(f, "an image of {size} bytes; the boot sector reads {LARGEST}")
            }
            Self::NoBootSector => f.write_str(
                "the first sector at 1 MiB does not end in 55 AA: the kernel's linker script must \
                 put the boot sector first",
            ),
            Self::Parameters(size) => {
                write!(f, "{size} bytes of boot parameters; {} fit, without NUL", PARAMETERS - 1)
            }
        }
    }
}

impl error::Error for ImageError {}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}
fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

/// A part of the file that is loaded.
struct Segment<'a> {
    address: u64,
    bytes: &'a [u8],
}

fn segments(elf: &[u8]) -> Result<Vec<Segment<'_>>, ImageError> {
    const HEADER: ImageError = ImageError::CutOff("header");
    const TABLE: ImageError = ImageError::CutOff("program headers");
    let header = elf.get(..EHDR).ok_or(HEADER)?;
    // Magic, 64 bits, little-endian; executable, x86-64.
    let kind = bytes(header, 16).map(u16::from_le_bytes);
    let machine = bytes(header, 18).map(u16::from_le_bytes);
    if !header.starts_with(b"\x7fELF\x02\x01") || (kind, machine) != (Some(2), Some(62)) {
        return Err(ImageError::NotAnElf);
    }
    let table = u64_at(header, 32).and_then(|at| usize::try_from(at).ok()).ok_or(TABLE)?;
    let size = bytes(header, 54).map_or(0, u16::from_le_bytes);
    let count = bytes(header, 56).map_or(0, u16::from_le_bytes);
    if usize::from(size) != PHDR {
        return Err(ImageError::NotAnElf);
    }
    let end = table.checked_add(usize::from(count) * PHDR).ok_or(TABLE)?;
    let table = elf.get(table..end).ok_or(TABLE)?;
    let mut found = Vec::new();
    for entry in table.chunks_exact(PHDR) {
        let field = |at| u64_at(entry, at).unwrap_or(0);
        let (from, address, size) = (field(8), field(24), field(32));
        if bytes(entry, 0).map(u32::from_le_bytes) != Some(PT_LOAD) || size == 0 {
            continue;
        }
        let part = usize::try_from(from).ok().zip(usize::try_from(size).ok());
        let part = part.and_then(|(from, size)| elf.get(from..from.checked_add(size)?));
        found.push(Segment { address, bytes: part.ok_or(ImageError::CutOff("segments"))? });
    }
    Ok(found)
}

/// Checks that a loader or a disk can pass these boot parameters.
///
/// # Errors
///
/// [`ImageError::Parameters`].
pub fn fits(params: &str) -> Result<(), ImageError> {
    if params.len() >= PARAMETERS || params.contains('\0') {
        return Err(ImageError::Parameters(params.len()));
    }
    Ok(())
}

/// The disk image that boots `elf` and tells it `params`.
///
/// # Errors
///
/// What is wrong with the file or the text.
pub fn disk(elf: &[u8], params: &str) -> Result<Vec<u8>, ImageError> {
    let mut image = Vec::new();
    for Segment { address, bytes } in segments(elf)? {
        let size = bytes.len() as u64;
        let outside = ImageError::Outside { address, size };
        let from = address.checked_sub(BASE).ok_or(outside.clone())?;
        let end = from.checked_add(size).ok_or(outside)?;
        if end > LARGEST as u64 {
            return Err(ImageError::TooLarge(end));
        }
        // Both are below the bound now.
        let (from, end) = (from as usize, end as usize);
        if image.len() < end {
            image.resize(end, 0);
        }
        image[from..end].copy_from_slice(bytes);
    }
    if image.get(SECTOR - 2..SECTOR) != Some(&[0x55, 0xAA]) {
        return Err(ImageError::NoBootSector);
    }
    let cylinder = HEADS * SECTORS * SECTOR;
    image.resize(image.len().max(SECTOR + PARAMETERS).next_multiple_of(cylinder), 0);
    fits(params)?;
    let room = &mut image[SECTOR..][..PARAMETERS];
    room.fill(0);
    room[..params.len()].copy_from_slice(params.as_bytes());
    Ok(image)
}

/// Cylinders of an image that [`disk`] made.
#[must_use]
pub fn cylinders(image: &[u8]) -> usize {
    image.len() / (HEADS * SECTORS * SECTOR)
}
