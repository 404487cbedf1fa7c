//! A virtual CPU of the host's KVM: its image and its XCR0.

use std::{ffi::c_int, fs::File, io, os::fd::AsRawFd, os::fd::FromRawFd};

const API: libc::c_ulong = 0xAE00;
const CREATE_VM: libc::c_ulong = 0xAE01;
const CREATE_VCPU: libc::c_ulong = 0xAE41;
const GET_SUPPORTED_CPUID: libc::c_ulong = 0xC008_AE05;
const SET_CPUID2: libc::c_ulong = 0x4008_AE90;
const GET_CPUID2: libc::c_ulong = 0xC008_AE91;
const GET_XSAVE: libc::c_ulong = 0x9000_AEA4;
const SET_XSAVE: libc::c_ulong = 0x5000_AEA5;
const GET_XCRS: libc::c_ulong = 0x8188_AEA6;
const SET_XCRS: libc::c_ulong = 0x4188_AEA7;
const CHECK_EXTENSION: libc::c_ulong = 0xAE03;
const GET_XSAVE2: libc::c_ulong = 0x9000_AECF;
/// How long the newer image is, where there is one.
const CAP_XSAVE2: usize = 208;
/// What the older two always move.
pub const PAGE: usize = 4096;

/// A virtual CPU that never runs.
pub struct Guest {
    cpu: File,
    _machine: File,
    /// Bytes of the newer image.
    pub newer: usize,
    /// The user components that its CPUID lists.
    pub offered: u64,
}

fn ioctl(file: &File, request: libc::c_ulong, argument: *mut u8) -> io::Result<c_int> {
    // SAFETY: the callers pass what the request is for: nothing, or memory of its size.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

impl Guest {
    /// One that has what the host has, or of the user components these only.
    pub fn new(offered: Option<u64>) -> io::Result<Self> {
        let none = std::ptr::null_mut();
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        ioctl(&kvm, API, none)?;
        let opened = |file: &File, request| {
            // SAFETY: the request gives a file that no other code has.
            ioctl(file, request, none).map(|fd| unsafe { File::from_raw_fd(fd) })
        };
        let machine = opened(&kvm, CREATE_VM)?;
        let cpu = opened(&machine, CREATE_VCPU)?;
        // How many entries follow, and forty bytes for each.
        let mut words = vec![0; 8 + 40 * 256];
        words[..4].copy_from_slice(&256u32.to_le_bytes());
        ioctl(&kvm, GET_SUPPORTED_CPUID, words.as_mut_ptr())?;
        if let (Some(offered), Some(entry)) = (offered, listing(&mut words)) {
            put(entry, EAX, word(entry, EAX) & offered as u32);
            put(entry, EDX, word(entry, EDX) & (offered >> 32) as u32);
        }
        ioctl(&cpu, SET_CPUID2, words.as_mut_ptr())?;
        // KVM may list what it likes.
        put(&mut words, 0, 256);
        ioctl(&cpu, GET_CPUID2, words.as_mut_ptr())?;
        let offered = listing(&mut words)
            .map_or(0, |entry| u64::from(word(entry, EAX)) | u64::from(word(entry, EDX)) << 32);
        // A number instead of memory; an older kernel does not know it.
        let newer = ioctl(&machine, CHECK_EXTENSION, CAP_XSAVE2 as *mut u8).unwrap_or(0);
        Ok(Self { cpu, _machine: machine, newer: newer as usize, offered })
    }
    pub fn get(&self) -> Vec<u8> {
        let mut page = vec![0xEE; PAGE];
        ioctl(&self.cpu, GET_XSAVE, page.as_mut_ptr()).unwrap();
        page
    }
    /// What KVM_GET_XSAVE2 gives.
    pub fn get_newer(&self) -> Option<Vec<u8>> {
        let mut image = vec![0xEE; self.newer + 64];
        (self.newer != 0).then(|| {
            ioctl(&self.cpu, GET_XSAVE2, image.as_mut_ptr()).unwrap();
            assert_eq!(image[self.newer..], [0xEE; 64], "written behind its end");
            image.truncate(self.newer);
            image
        })
    }
    pub fn set(&self, page: &mut [u8]) -> bool {
        assert_eq!(page.len(), PAGE);
        ioctl(&self.cpu, SET_XSAVE, page.as_mut_ptr()).is_ok()
    }
    pub fn xcrs(&self) -> [u8; 392] {
        let mut bytes = [0xEE; 392];
        ioctl(&self.cpu, GET_XCRS, bytes.as_mut_ptr()).unwrap();
        bytes
    }
    pub fn set_xcrs(&self, bytes: &mut [u8; 392]) -> bool {
        ioctl(&self.cpu, SET_XCRS, bytes.as_mut_ptr()).is_ok()
    }
}

/// Where an entry has them.
const EAX: usize = 12;
const EDX: usize = 24;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The entry of leaf 0xD, subleaf 0: the user components.
fn listing(words: &mut [u8]) -> Option<&mut [u8]> {
    let count = word(words, 0) as usize;
    let mut entries = words[8..].chunks_mut(40).take(count);
    entries.find(|entry| (word(entry, 0), word(entry, 4)) == (0xD, 0))
}
