//! Virtual CPUs' state in the form of KVM's calls, against the host's KVM: what goes out of a context here KVM takes and
//! gives back, what KVM gives goes into a context here, and what one refuses the other refuses.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_core::{Area, CpuFpu, CpuLifecycle, TaskFpu, TheBackend};
use fpu_hosted_test::{real::random_image, Random};
use fpu_x86::{
    Components, ForeignImage, Format, GuestControls, GuestFormat, Plan, ProtectionKeys,
    SaveInstruction,
};

#[allow(dead_code)] // other tests use all of it
mod support {
    pub mod frames;
    pub mod kvm;
}
use support::{
    frames::plan,
    kvm::{Guest, PAGE},
};

/// All user components that have a name.
const NAMED: u64 = 0xE_02FF;
static KEYS: ProtectionKeys = ProtectionKeys::new();

/// A kernel whose contexts are in memory only.
struct Cpu<'k>(&'k CpuFpu, &'k TheBackend<Plan>);
fpu_core::witness! {
    // SAFETY: K2 to K8: one thread, its words and plan, no interrupts. K9: no context is ever in registers.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: Plan = |cpu| cpu.1,
        words: CpuFpu = |cpu| cpu.0,
    }
}
type Context = TaskFpu<Plan, Area<16384>>;

/// One virtual CPU here, and one of the host's KVM, to which the same is offered.
struct Pair<'k> {
    cpu: Cpu<'k>,
    plan: &'k Plan,
    format: GuestFormat<'k>,
    context: Context,
    controls: GuestControls,
    theirs: Guest,
}

impl Pair<'_> {
    fn write(&mut self) -> Vec<u8> {
        let mut out = vec![0xEE; self.format.xsave_len()];
        let session = self.context.open_saved(&mut self.cpu).unwrap();
        self.format.write_xsave(&session.image(), &self.controls, &mut out).unwrap();
        out
    }
    fn set(&mut self, bytes: &[u8]) -> bool {
        let session = self.context.open_saved(&mut self.cpu).unwrap();
        self.format.set_xsave(&mut self.controls, session, &mut bytes.to_vec()).is_ok()
    }
    /// The context gets these bytes, which a process may have but this virtual CPU perhaps may not.
    fn put(&mut self, bytes: &mut [u8]) {
        let session = self.context.open_saved(&mut self.cpu).unwrap();
        let valid = ForeignImage::in_private(bytes).validate(self.plan).unwrap();
        session.make_memory_valid_write().image_mut().replace_with(&valid).unwrap();
    }
}

/// What may be offered to a virtual CPU on this host.
fn offers(plan: &Plan) -> Vec<Components> {
    let host = GuestControls::offered(plan, &KEYS).bits();
    let user = plan.user_format();
    let sets = (0..=NAMED).filter(|set| set & !host == 0).map(Components::from_bits_retain);
    sets.filter(|set| user.for_guest(&KEYS, *set).is_ok()).collect()
}

/// Runs a test for each set that may be offered, with this CPU's plan of each instruction.
fn for_each_offer(test: impl Fn(&mut Pair<'_>)) {
    // SAFETY: C45: no value is written.
    let _off = unsafe { KEYS.use_those_of_system() };
    let best = plan();
    if best.foreign_len() > PAGE || best.format() == Format::Legacy {
        println!("SKIP: an image of this CPU has {} bytes, not a page", best.foreign_len());
        return;
    }
    for offered in offers(&best) {
        for instruction in [SaveInstruction::Xsavec, SaveInstruction::Xsave] {
            let Ok(plan) = best.clone().with_save_instruction(instruction) else { continue };
            let theirs = match Guest::new(Some(offered.bits())) {
                Ok(guest) => guest,
                Err(why) => {
                    println!("SKIP: no guests by /dev/kvm: {why}");
                    return;
                }
            };
            if theirs.offered != offered.bits() {
                let (asked, lists) = (offered.bits(), theirs.offered);
                println!("SKIP: KVM lists {lists:#x} for its guest, whatever is asked: {asked:#x}");
                break;
            }
            // SAFETY: K1: the one of this kernel.
            let backend = unsafe { TheBackend::new(plan.clone()) };
            let words = CpuFpu::new();
            let mut cpu = Cpu(&words, &backend);
            // SAFETY: K15, K16: the only CPU of this kernel, its words new.
            unsafe { cpu.fpu_online(0) }.unwrap();
            let context = TaskFpu::new(&backend, Area::new()).unwrap();
            let format = plan.user_format().for_guest(&KEYS, offered).unwrap();
            let controls = GuestControls::new();
            test(&mut Pair { cpu, plan: &plan, format, context, controls, theirs });
        }
    }
}

/// A legal image with random registers of the components `present`.
fn image_with(plan: &Plan, present: Components, random: &mut Random) -> Vec<u8> {
    let mut image = vec![0; PAGE];
    random.fill(&mut image);
    image[464..PAGE.min(576)].fill(0);
    image[512..520].copy_from_slice(&present.bits().to_le_bytes());
    let mxcsr = random.word() as u32 & plan.mxcsr_mask();
    image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    image
}

/// Every set of components that may be present, under every offer: the context's image is taken by KVM, which gives it
/// back byte by byte, and what KVM gives makes the same context.
#[test]
fn an_image_goes_to_kvm_and_comes_back() {
    for_each_offer(|pair| {
        let mut random = Random::new(20_271_130);
        let offered = pair.format.offered();
        let has = (offered | Components::LEGACY).bits();
        let (mut present, mut images) = (0, 0);
        loop {
            for _ in 0..20 {
                let set = Components::from_bits_retain(present);
                pair.put(&mut image_with(pair.plan, set, &mut random));
                let ours = pair.write();
                assert!(pair.theirs.set(&mut ours.clone()), "KVM refuses {set:?} of {offered:?}");
                let theirs = pair.theirs.get();
                let differs = ours.iter().zip(&theirs).position(|(one, other)| one != other);
                assert_eq!(differs, None, "{set:?} of {offered:?}: byte that KVM gives back");
                if let Some(newer) = pair.theirs.get_newer() {
                    assert!(newer == theirs, "KVM_GET_XSAVE2");
                }
                // Another state, and then KVM's.
                pair.put(&mut image_with(pair.plan, offered, &mut random));
                assert!(pair.set(&theirs), "{set:?} of {offered:?}");
                assert!(pair.write() == ours, "{set:?} of {offered:?}: what KVM gives");
                images += 1;
            }
            present = (present | !has).wrapping_add(1) & has;
            if present == 0 {
                break;
            }
        }
        println!("{:#x} offered: {images} images there and back", offered.bits());
    });
}

/// Images that are wrong in some way, or have what is not offered: both take them or both refuse them, with the same
/// registers afterwards. We take what has nothing but initial values beyond the offer; KVM does not.
#[test]
fn what_kvm_refuses_is_refused() {
    for_each_offer(|pair| {
        let (mut random, rounds) = (Random::new(20_271_131), 5000);
        let has = (pair.format.offered() | Components::LEGACY).bits();
        let (mut taken, mut refused, mut initial, mut mxcsr) = (0, 0, 0, 0);
        let mut page = Vec::new();
        let start = pair.theirs.get();
        assert!(pair.set(&start));
        for round in 0..rounds {
            if round % 3 == 0 {
                let set = random.word() & GuestControls::offered(pair.plan, &KEYS).bits();
                page = image_with(pair.plan, Components::from_bits_retain(set), &mut random);
            } else {
                random_image(pair.plan, &mut random, &mut page);
                // A part of a structure, whatever lies behind.
                page.resize(PAGE, 0);
            }
            let before = pair.write();
            let (ours, theirs) = (pair.set(&page), pair.theirs.set(&mut page.clone()));
            let present = u64::from_le_bytes(page[512..520].try_into().unwrap());
            match (ours, theirs) {
                (true, true) => taken += 1,
                (false, false) => {
                    assert!(pair.write() == before, "round {round}: refused, and changed");
                    refused += 1;
                }
                (true, false) if present & !has != 0 => {
                    let held = pair.write();
                    assert!(pair.theirs.set(&mut held.clone()));
                    initial += 1;
                }
                _ => panic!("round {round}: we {ours}, KVM {theirs}, XSTATE_BV {present:#x}"),
            }
            let (ours, mut theirs) = (pair.write(), pair.theirs.get());
            // No instruction reads MXCSR_MASK, and KVM gives back what it was given.
            theirs[28..32].copy_from_slice(&ours[28..32]);
            if ours.get(24..28) != theirs.get(24..28) {
                // While the virtual CPU does not run, KVM shows the MXCSR of an image without SSE.
                assert!(present & 2 == 0 && theirs[512] & 2 == 0, "round {round}: MXCSR");
                theirs[24..28].copy_from_slice(&ours[24..28]);
                assert!(pair.theirs.set(&mut ours.clone()));
                mxcsr += 1;
            }
            let differs = ours.iter().zip(&theirs).position(|(one, other)| one != other);
            assert_eq!(differs, None, "round {round}, XSTATE_BV {present:#x}");
        }
        println!(
            "{has:#x} held: both take {taken}, both refuse {refused}, initial {initial}, MXCSR {mxcsr}"
        );
        assert!(taken > rounds / 10 && refused > rounds / 10);
    });
}

/// Every value of the named components, each other bit, every count and every flag: KVM takes the structure with XCR0 and we
/// do, or neither does; and both have the same XCR0 afterwards, in the same bytes.
#[test]
fn xcr0_is_taken_and_refused_as_kvm_does() {
    for_each_offer(|pair| {
        let (mut taken, mut refused) = (0, 0);
        let mut both = |pair: &mut Pair<'_>, bytes: &[u8; 392]| {
            let before = pair.controls.clone();
            let ours = pair.format.set_xcrs(&mut pair.controls, bytes);
            let theirs = pair.theirs.set_xcrs(&mut bytes.clone());
            assert_eq!(ours.is_ok(), theirs, "{:x?}: {ours:?}", &bytes[..24]);
            if theirs {
                taken += 1;
            } else {
                assert_eq!(pair.controls, before);
                refused += 1;
            }
            let mut written = [0xEE; 392];
            pair.format.write_xcrs(&pair.controls, &mut written);
            assert_eq!(written, pair.theirs.xcrs());
        };
        let with = |value: u64| {
            let mut bytes = [0; 392];
            bytes[0] = 1;
            bytes[16..24].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        for value in (0..=NAMED).filter(|value| value & !NAMED == 0) {
            both(pair, &with(value));
        }
        let offered = pair.format.offered().bits();
        for bit in 0..64 {
            both(pair, &with(offered ^ 1 << bit));
            both(pair, &with(1 | 1 << bit));
        }
        for count in 0..20u32 {
            for place in 0..17 {
                let mut bytes = with(u64::MAX);
                bytes[..4].copy_from_slice(&count.to_le_bytes());
                for slot in 0..16 {
                    let (at, value) = (8 + 16 * slot, if slot == place { offered } else { 1 });
                    bytes[at] = u8::from(slot < place);
                    bytes[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
                }
                both(pair, &bytes);
            }
        }
        for bit in 0..32 {
            let mut bytes = with(1);
            bytes[4..8].copy_from_slice(&(1u32 << bit).to_le_bytes());
            both(pair, &bytes);
        }
        println!("{offered:#x} offered: both take {taken}, both refuse {refused}");
        assert!(taken > 20 && refused > 4000);
    });
}
