//! Guests' images against the host's KVM: what it gives we read, what it takes or refuses we take or refuse.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{ffi::c_int, fs::File, io, os::fd::AsRawFd, os::fd::FromRawFd};

use fpu_hosted_test::real::{random_image, registers_of, settled, Classes, RegFile};
use fpu_hosted_test::Random;
use fpu_x86::{ForeignImage, Plan};

#[allow(dead_code)] // the tests of frames use all of it
mod support {
    pub mod frames;
}
use support::frames::plan;

const API: libc::c_ulong = 0xAE00;
const CREATE_VM: libc::c_ulong = 0xAE01;
const CREATE_VCPU: libc::c_ulong = 0xAE41;
const GET_SUPPORTED_CPUID: libc::c_ulong = 0xC008_AE05;
const SET_CPUID2: libc::c_ulong = 0x4008_AE90;
const GET_XSAVE: libc::c_ulong = 0x9000_AEA4;
const SET_XSAVE: libc::c_ulong = 0x5000_AEA5;
const CHECK_EXTENSION: libc::c_ulong = 0xAE03;
const GET_XSAVE2: libc::c_ulong = 0x9000_AECF;
/// How long the newer image is, where there is one.
const CAP_XSAVE2: usize = 208;
/// What the older two always move.
const PAGE: usize = 4096;

/// A virtual CPU that has what the host has, and never runs.
struct Guest {
    cpu: File,
    _machine: File,
    /// Bytes of the newer image.
    newer: usize,
}

fn ioctl(file: &File, request: libc::c_ulong, argument: *mut u8) -> io::Result<c_int> {
    // SAFETY: the callers pass what the request is for: nothing, or memory of its size.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

impl Guest {
    fn new() -> io::Result<Self> {
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
        ioctl(&cpu, SET_CPUID2, words.as_mut_ptr())?;
        // A number instead of memory; an older kernel does not know it.
        let newer = ioctl(&machine, CHECK_EXTENSION, CAP_XSAVE2 as *mut u8).unwrap_or(0);
        Ok(Self { cpu, _machine: machine, newer: newer as usize })
    }
    fn get(&self) -> Vec<u8> {
        let mut page = vec![0xEE; PAGE];
        ioctl(&self.cpu, GET_XSAVE, page.as_mut_ptr()).unwrap();
        page
    }
    /// What KVM_GET_XSAVE2 gives.
    fn get_newer(&self) -> Option<Vec<u8>> {
        let mut image = vec![0xEE; self.newer + 64];
        (self.newer != 0).then(|| {
            ioctl(&self.cpu, GET_XSAVE2, image.as_mut_ptr()).unwrap();
            assert_eq!(image[self.newer..], [0xEE; 64], "written behind its end");
            image.truncate(self.newer);
            image
        })
    }
    fn set(&self, page: &mut [u8]) -> bool {
        assert_eq!(page.len(), PAGE);
        ioctl(&self.cpu, SET_XSAVE, page.as_mut_ptr()).is_ok()
    }
}

fn registers(bytes: &[u8], plan: &Plan, classes: Classes) -> Option<RegFile> {
    let mut private = bytes.to_vec();
    let valid = ForeignImage::in_private(&mut private).validate(plan).ok()?;
    Some(settled(registers_of(&valid.image(), classes)))
}

/// The same image as we write it.
fn rewritten(bytes: &[u8], plan: &Plan) -> Vec<u8> {
    let mut private = bytes.to_vec();
    let valid = ForeignImage::in_private(&mut private).validate(plan).unwrap();
    let mut page = vec![0; PAGE];
    plan.user_format().write_xstate(&valid.image(), valid.pkru(), &mut page).unwrap();
    page
}

#[test]
fn kvm_takes_what_we_take_and_gives_it_back() {
    let (plan, classes) = (plan(), Classes::detect());
    let guest = match Guest::new() {
        Ok(guest) => guest,
        Err(why) => {
            println!("SKIP: no guests by /dev/kvm: {why}");
            return;
        }
    };
    if plan.foreign_len() > PAGE || plan.foreign_len() <= 512 {
        println!("SKIP: an image of this CPU has {} bytes, not a page", plan.foreign_len());
        return;
    }
    let mut words = Random::new(20_261_129);
    let (mut taken, mut refused, mut mxcsr) = (0, 0, 0);
    let rounds = 20_000;
    let mut held = registers(&guest.get(), &plan, classes).unwrap();
    for round in 0..rounds {
        let mut page = Vec::new();
        random_image(&plan, &mut words, &mut page);
        // FXSAVE's alone is none here; nor is what would be another machine's XCR0.
        page.resize(PAGE, 0);
        page[464..472].fill(0);
        let ours = registers(&page, &plan, classes);
        if ours.is_some() && round % 2 == 0 {
            page = rewritten(&page, &plan);
        }
        let theirs = guest.set(&mut page);
        let after = registers(&guest.get(), &plan, classes).unwrap();
        let present = u64::from_le_bytes(page[512..520].try_into().unwrap());
        let same = |file: &RegFile| file.first_difference(&after).is_none();
        match (ours, theirs) {
            (None, false) => {
                assert!(same(&held), "round {round}: refused, and something was changed");
                refused += 1;
            }
            (Some(ours), true) if same(&ours) => taken += 1,
            // KVM keeps guests' images as Linux keeps tasks': MXCSR goes with SSE.
            (ours, true) if present & 2 == 0 => {
                page[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
                let ours = ours.or_else(|| registers(&page, &plan, classes));
                let mut ours = ours.unwrap_or_else(|| panic!("round {round}: we refuse it"));
                ours.set_mxcsr(after.mxcsr());
                assert!(same(&ours), "round {round}");
                mxcsr += 1;
            }
            (ours, theirs) => panic!("round {round}: {theirs}, {ours:?}, {after:?}"),
        }
        if let Some(newer) = guest.get_newer() {
            let newer = registers(&newer, &plan, classes).unwrap();
            assert!(newer.first_difference(&after).is_none(), "round {round}: KVM_GET_XSAVE2");
        }
        held = after;
    }
    match guest.newer {
        0 => println!("SKIP: this KVM has no KVM_GET_XSAVE2"),
        len => println!("the same by KVM_GET_XSAVE2, of {len} bytes"),
    }
    println!(
        "{rounds} images: both take {taken}, both refuse {refused}, MXCSR without SSE {mxcsr}"
    );
    assert!(taken > rounds / 10 && refused > rounds / 10);
}
