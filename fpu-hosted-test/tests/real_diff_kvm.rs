//! Guests' images against the host's KVM: what it gives we read, what it takes or refuses we take or refuse.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_hosted_test::real::{random_image, registers_of, settled, Classes, RegFile};
use fpu_hosted_test::Random;
use fpu_x86::{ForeignImage, Plan};

#[allow(dead_code)] // other tests use all of it
mod support {
    pub mod frames;
    pub mod kvm;
}
use support::{
    frames::plan,
    kvm::{Guest, PAGE},
};

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
    let guest = match Guest::new(None) {
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
