//! Restores that the real CPU refuses return errors, and lose nothing.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::ptr::NonNull;
use fpu_core::RestoreFault;
use fpu_hosted_test::{
    conformance::{Harness, Step},
    real::refuses,
};
use fpu_x86::Format;

#[path = "support/real.rs"]
mod support;
use support::*;

/// Ways to damage an image that every CPU refuses (SDM vol. 1, 13.8).
fn damages(format: Format) -> Vec<(&'static str, usize, u64)> {
    let mxcsr = ("a reserved bit of MXCSR", 24, 1 << 31);
    let mut all = vec![mxcsr];
    if format != Format::Legacy {
        all.push(("a component that is not enabled", HEADER, 1 << 62));
        all.push(("a reserved byte of the header", HEADER + 16, 1));
        all.push(("XCOMP_BV that names another set", HEADER + 8, 1 << 61));
    }
    if format == Format::Compacted {
        all.push(("XCOMP_BV without its own component", HEADER + 8, 1));
        all.push(("a reserved byte at the end of the header", HEADER + 56, 1 << 63));
    }
    all
}

#[test]
fn a_refused_image_is_an_error_and_the_next_one_loads() {
    for_each_rung(|h| {
        let (one, two) = (h.pattern(6, every(h)), h.pattern(7, every(h)));
        let mut good = saved(h, &one);
        for (what, at, bits) in damages(h.fpu().format()) {
            let what = format!("{:?}, {what}", h.fpu().save_instruction());
            let mut bad = saved(h, &two);
            let word = bad.word(at) ^ bits;
            bad.0[at..at + 8].copy_from_slice(&word.to_le_bytes());
            if !refuses(&bad.0, h.fpu().format() != Format::Legacy) {
                println!("SKIP: {what}: this CPU accepts it");
                continue;
            }
            let before = bad.0;
            let answer = attempt(h, &[Step::Load(&one), Step::Restore(bad.base())]);
            assert_eq!(answer.restored, Err(RestoreFault(13)), "{what}");
            assert!(bad.0 == before, "{what}: the image was changed");
            assert!(attempt(h, &[Step::Restore(bad.base())]).restored.is_err());
            let steps = [Step::Restore(bad.base()), Step::Restore(good.base())];
            let after = run(h, &steps);
            same(&after, &one.0, &format!("after {what}"));
            // A save to where a restore came from long ago, the last one having failed.
            let steps = [Step::Restore(bad.base()), Step::Load(&two), Step::Save(good.base())];
            assert!(attempt(h, &steps).restored.is_err());
            let after = run(h, &[Step::Restore(good.base())]);
            same(&after, &two.0, &format!("saved after {what}"));
            good = saved(h, &one);
        }
    });
}

#[test]
fn memory_that_is_not_there_is_an_error_too() {
    for_each_rung(|h| {
        // SAFETY: a new mapping of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                16384,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        let nowhere = NonNull::new(page.cast()).unwrap();
        let one = h.pattern(8, every(h));
        // Not C9, which is what is tried: the memory is this test's, only not readable.
        let answer = attempt(h, &[Step::Load(&one), Step::Restore(nowhere)]);
        assert_eq!(answer.restored, Err(RestoreFault(14)), "{:?}", h.fpu().save_instruction());
        let mut good = saved(h, &one);
        let after = run(h, &[Step::Restore(good.base())]);
        same(&after, &one.0, "after a page fault");
        // SAFETY: the mapping made above.
        assert_eq!(unsafe { libc::munmap(page, 16384) }, 0);
    });
}

#[test]
fn other_faults_still_end_the_process() {
    fpu_hosted_test::real::serve_fixups();
    // SAFETY: the child only does what is safe after fork: it faults.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: not at all: the fault is what the child is for. If nothing came of it, it would
            // leave at once.
            unsafe {
                libc::alarm(10);
                core::ptr::null::<u8>().wrapping_add(8).read_volatile();
                libc::_exit(0)
            }
        }
        child => {
            assert!(child > 0, "fork");
            let mut status = 0;
            // SAFETY: our child; the status is a local.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFSIGNALED(status), "status {status:#x}");
            assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
        }
    }
}
