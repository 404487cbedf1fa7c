//! What the way of a signal frame through an image and a buffer costs, beside one XSAVE to the stack and one XRSTOR
//! from it.
//!
//! ```text
//! cargo run --release -p fpu-x86 --example frames
//! ```
//!
//! Time-stamp counts, the least and the median of many, less those of two readings. "User memory" is an array here, so
//! that page faults, SMAP and the check of addresses, which every way has, are left out.
#![allow(missing_docs)]

use core::{
    arch::{asm, x86_64::_rdtsc},
    hint::black_box,
};

use fpu_core::{Area, RawFpu, SaveArea};
use fpu_x86::{Components, Plan, SaveInstruction};

const SAMPLES: usize = 20001;

#[repr(C, align(64))]
struct Bytes([u8; 16384]);

fn count() -> u64 {
    // SAFETY: RDTSC and LFENCE change no register that is not an operand.
    unsafe {
        asm!("lfence", options(nostack, preserves_flags));
        let count = _rdtsc();
        asm!("lfence", options(nostack, preserves_flags));
        count
    }
}

fn figures(mut step: impl FnMut()) -> String {
    let sorted = |samples: &mut [u64]| samples.sort_unstable();
    let mut samples = vec![0; SAMPLES];
    let mut empty = vec![0; SAMPLES];
    for (sample, nothing) in samples.iter_mut().zip(&mut empty) {
        let from = count();
        *nothing = count() - from;
        let from = count();
        step();
        *sample = count() - from;
    }
    sorted(&mut samples);
    sorted(&mut empty);
    let net = |at: usize| samples[at].saturating_sub(empty[0]);
    format!("{} / {}", net(0), net(SAMPLES / 2))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: C23: this program asks for no permission to use tiles.
    let plan = unsafe { Plan::detect_user_without(Components::AMX) }?;
    let straight = plan.clone().with_save_instruction(SaveInstruction::Xsave)?;
    let format = plan.user_format().without_pkru();
    let (area, direct) = (Area::<16384>::new(), Area::<16384>::new());
    let (mut user, mut buffer) = (Box::new(Bytes([0; 16384])), Box::new(Bytes([0; 16384])));
    let len = format.frame_len();
    // SAFETY: C9, C11: the areas are our own and large enough, and hold images from here on.
    let mut image = unsafe {
        plan.write_initial(area.base());
        straight.write_initial(direct.base());
        plan.image_mut(area.base())
    };
    for n in 0..16 {
        image.set_xmm(n, [n as u8 + 1; 16])?;
        // Where the plan has them.
        let _wide = image.set_ymm_hi(n, [n as u8 + 1; 16]);
        let _wider = image.set_zmm_hi256(n, [n as u8 + 1; 32]);
        let _high = image.set_zmm_hi16(n + 16, [n as u8 + 1; 64]);
    }
    format.write_frame(&image.as_image(), None, &mut user.0)?;

    println!("{:?}, frames of {len} bytes; least / median", plan.save_instruction());
    // SAFETY: C9: large enough, ours. C10: the compiler keeps nothing in the registers across a restore.
    let xsave = figures(|| unsafe { straight.save(black_box(direct.base())) });
    // SAFETY: C9, C10: the same.
    let xrstor = figures(|| unsafe { assert!(straight.restore(black_box(direct.base())).is_ok()) });
    // SAFETY: C9: the same.
    let save = figures(|| unsafe { plan.save(black_box(direct.base())) });
    let write = figures(|| {
        let done = format.write_frame(&image.as_image(), None, black_box(&mut buffer.0));
        assert!(done.is_ok());
    });
    let copy = figures(|| user.0[..len].copy_from_slice(black_box(&buffer.0[..len])));
    let read = figures(|| {
        buffer.0[..len].copy_from_slice(black_box(&user.0[..len]));
        assert!(format.read_frame(&mut buffer.0[..len]).is_ok());
    });
    let mut private = user.0.to_vec();
    let frame = format.read_frame(&mut private[..len])?;
    let put = figures(|| assert!(black_box(&mut image).replace_with(frame.valid()).is_ok()));
    let initial = figures(|| black_box(&mut image).make_initial());
    println!("XSAVE to the stack: {xsave}; XRSTOR from there: {xrstor}");
    println!("delivery: save {save}, frame {write}, copy {copy}, initial {initial}");
    println!("return: copy and check {read}, into the image {put}");
    Ok(())
}
