//! A guest's control registers: which values it may have, and the moves over registers that are a test's.

use std::{
    cell::{Cell, RefCell},
    vec::Vec,
};

use super::{
    controls::{legal_xcr0, offer, GuestControls, GuestError},
    moves::{enter, exit, GuestRefused, Registers},
};
use crate::{
    components::Components,
    pkru::{Pkru, ProtectionKeys},
    plan::Plan,
    registers::ControlRegister as R,
    save_instruction::SaveInstruction,
    tests::{
        sample::Random,
        words::{server, tiles},
    },
};

/// AMX behind IA32_XFD, and a shadow-stack pointer by XSAVES.
fn with_xfd() -> Plan {
    let words = tiles().with(0xD, 1, [0x1F, 10752, 0x800, 0]).with(0xD, 11, [16, 0, 1, 0]);
    let plan = words.kernel(Components::all()).unwrap();
    assert!(plan.writes_xfd && plan.xss() == Components::CET_U);
    plan
}

/// A plan for FXSAVE, on a CPU that has more.
fn fxsave() -> Plan {
    let legacy = server().kernel(Components::LEGACY).unwrap();
    legacy.with_save_instruction(SaveInstruction::Fxsave).unwrap()
}

/// The next set of bits of `of` behind `set`, in the order of numbers.
fn next_subset(set: u64, of: u64) -> u64 {
    (set | !of).wrapping_add(1) & of
}

/// PKRU is offered beside the plan's components where its keys are on and an image has a place for it.
#[test]
fn pkru_is_offered_where_keys_are_on() {
    let plan = with_xfd();
    let place = plan.user_format().components().contains(Components::PKRU);
    assert!(place && !plan.xcr0().contains(Components::PKRU));
    assert_eq!(offer(&plan, true), plan.xcr0() | Components::PKRU);
    assert_eq!(offer(&plan, false), plan.xcr0());
    assert!(offer(&fxsave(), true).is_empty() && offer(&fxsave(), false).is_empty());
    // After reset x87 alone is on, and a write of IA32_XFD exits.
    let reset = GuestControls::new();
    assert_eq!((reset.xcr0, reset.xss, reset.xfd, reset.xfd_err, reset.pkru), (1, 0, 0, 0, 0));
    assert!(!reset.changes_xfd);
}

/// Every set of the named user components, and each reserved bit beside a legal one, against several offers.
#[test]
fn a_guest_gets_the_legal_subsets_of_what_is_offered() {
    use Components as C;
    let named = (C::USER | C::MPX).bits();
    let avx = C::LEGACY | C::AVX;
    let offers = [C::LEGACY, avx, avx | C::AVX512 | C::PKRU, C::USER, C::USER | C::MPX];
    let mut taken = 0;
    for offered in offers {
        let mut value = 0;
        loop {
            let asked = C::from_bits_retain(value);
            match legal_xcr0(value, offered) {
                Ok(()) => {
                    assert!(asked.is_legal_xcr0() && offered.contains(asked));
                    taken += 1;
                }
                Err(GuestError::Xcr0Beyond(bits)) => {
                    assert_eq!(bits, asked.difference(offered));
                    assert!(!bits.is_empty());
                }
                Err(GuestError::Xcr0Lacks(bits)) => {
                    assert!(!bits.is_empty() && !asked.intersects(bits));
                    // All that has to be added, and nothing else.
                    let legal =
                        |set: C| set.is_legal_xcr0() || set.difference(C::APX).is_legal_xcr0();
                    assert!(legal(asked | bits), "{asked:?} {bits:?}");
                    for number in bits.numbers() {
                        let less = bits.difference(C::from_bits_retain(1 << number));
                        assert!(!legal(asked | less), "{asked:?} does not need {number}");
                    }
                }
                Err(GuestError::Xcr0Excludes(bits)) => {
                    assert!(bits.contains(C::APX) && bits.contains(C::MPX));
                    assert!(!asked.is_legal_xcr0());
                }
                Err(why) => panic!("{why}"),
            }
            value = next_subset(value, named);
            if value == 0 {
                break;
            }
        }
    }
    assert!(taken > 40);
    for bit in (0..64).filter(|bit| named >> bit & 1 == 0) {
        let beyond = Err(GuestError::Xcr0Beyond(C::from_bits_retain(1 << bit)));
        assert_eq!(legal_xcr0(3 | 1 << bit, C::USER), beyond);
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let (plan, keys) = (with_xfd(), ProtectionKeys::new());
    let mut guest = GuestControls::new();
    assert_eq!(GuestControls::offered(&plan, &keys), plan.xcr0());
    guest.set_xcr0(&plan, &keys, 0x6_0007).unwrap();
    guest.set_xss(&plan, 0x800).unwrap();
    guest.set_xfd(&plan, 1 << 18).unwrap();
    guest.set_xfd_err(&plan, 1 << 18).unwrap();
    let before = guest.clone();
    let bits = Components::from_bits_retain;
    assert_eq!(guest.set_xcr0(&plan, &keys, 0x2_0007), Err(GuestError::Xcr0Lacks(bits(1 << 18))));
    // PKRU is the host's to offer, and its keys are off.
    assert_eq!(guest.set_xcr0(&plan, &keys, 0x207), Err(GuestError::Xcr0Beyond(bits(1 << 9))));
    assert_eq!(guest.set_pkru(&keys, Pkru::INITIAL), Err(GuestError::KeysOff));
    assert_eq!(guest.set_xss(&plan, 0x1900), Err(GuestError::XssBeyond(bits(0x1100))));
    assert_eq!(guest.set_xfd(&plan, 3 << 17), Err(GuestError::XfdBeyond(bits(1 << 17))));
    assert_eq!(guest.set_xfd_err(&plan, 1), Err(GuestError::XfdBeyond(bits(1))));
    assert_eq!(guest, before);

    // Without XSAVES there is no IA32_XSS, without XSAVE no XCR0; and no IA32_XFD.
    let server = server().kernel(Components::USER).unwrap();
    let plain = fxsave();
    for plan in [&server, &plain] {
        assert_eq!(guest.set_xfd(plan, 1 << 18), Err(GuestError::XfdBeyond(bits(1 << 18))));
    }
    assert_eq!(guest.set_xcr0(&plain, &keys, 3), Err(GuestError::Xcr0Beyond(bits(3))));
    assert_eq!(guest, before);
}

/// Where the test runs with protection keys, guests are offered them.
#[test]
fn protection_keys_are_offered_where_they_are_on() {
    let keys = ProtectionKeys::new();
    // SAFETY: C45: no value is written.
    if let Err(why) = unsafe { keys.use_those_of_system() } {
        std::println!("SKIP: {why}");
        return;
    }
    let (plan, mut guest) = (with_xfd(), GuestControls::new());
    guest.set_xcr0(&plan, &keys, 0x207).unwrap();
    guest.set_pkru(&keys, Pkru::LINUX_DEFAULT).unwrap();
    assert_eq!((guest.xcr0().bits(), guest.pkru()), (0x207, Pkru::LINUX_DEFAULT));
}

/// One CPU's registers; writes are noted.
#[derive(Default)]
struct Cpu {
    xcr0: Cell<u64>,
    xss: Cell<u64>,
    xfd: Cell<u64>,
    xfd_err: Cell<u64>,
    pkru: Cell<Option<u32>>,
    log: RefCell<Vec<&'static str>>,
    /// The register that takes only what it held when the test began.
    refuses: Cell<Option<(&'static str, u64)>>,
}

impl Cpu {
    fn write(&self, name: &'static str, register: &Cell<u64>, value: u64) -> u32 {
        if self.refuses.get().is_some_and(|(which, only)| which == name && only != value) {
            return 13;
        }
        self.log.borrow_mut().push(name);
        register.set(value);
        0
    }
    fn all(&self) -> (u64, u64, u64, u64, Option<u32>) {
        let pkru = self.pkru.get();
        (self.xcr0.get(), self.xss.get(), self.xfd.get(), self.xfd_err.get(), pkru)
    }
    fn take_log(&self) -> Vec<&'static str> {
        core::mem::take(&mut self.log.borrow_mut())
    }
}

impl Registers for Cpu {
    fn set_xcr0(&self, value: u64) -> u32 {
        self.write("xcr0", &self.xcr0, value)
    }
    fn set_xss(&self, value: u64) -> u32 {
        self.write("xss", &self.xss, value)
    }
    fn xfd(&self) -> u64 {
        self.xfd.get()
    }
    fn set_xfd(&self, value: u64) -> u32 {
        self.write("xfd", &self.xfd, value)
    }
    fn xfd_err(&self) -> u64 {
        self.xfd_err.get()
    }
    fn set_xfd_err(&self, value: u64) -> u32 {
        self.write("xfd_err", &self.xfd_err, value)
    }
    fn pkru(&self) -> Option<u32> {
        self.pkru.get()
    }
    fn set_pkru(&self, value: u32) {
        self.log.borrow_mut().push("pkru");
        self.pkru.set(Some(value));
    }
}

/// A CPU on which the host of a plan runs a thread with some PKRU and some IA32_XFD.
fn host(plan: &Plan, random: &mut Random, keys: bool) -> Cpu {
    let cpu = Cpu::default();
    cpu.xcr0.set(plan.xcr0().bits());
    cpu.xss.set(plan.xss().bits());
    cpu.xfd.set(if plan.writes_xfd { random.below(2) << 18 } else { 0 });
    cpu.pkru.set(keys.then(|| random.word() as u32));
    cpu
}

/// What a guest of the plan may have, at random.
fn some_guest(plan: &Plan, random: &mut Random, host: &Cpu) -> GuestControls {
    let (mut guest, keys) = (GuestControls::new(), ProtectionKeys::new());
    for value in [1, 3, 7, 0xE7, 0x6_0007, plan.xcr0().bits()] {
        if random.below(2) == 0 {
            let _beyond = guest.set_xcr0(plan, &keys, value);
        }
    }
    if plan.writes_xss {
        guest.set_xss(plan, plan.xss().bits() * random.below(2)).unwrap();
    }
    if plan.writes_xfd {
        guest.set_xfd(plan, random.below(2) << 18).unwrap();
        guest.set_xfd_err(plan, random.below(2) << 18).unwrap();
        guest.let_change_xfd(random.below(2) == 0);
    }
    if let Some(own) = host.pkru.get() {
        guest.pkru = if random.below(3) == 0 { own } else { random.word() as u32 };
    }
    guest
}

/// From the entry to the exit the guest has its values, PKRU loaded last; what it changes without an exit is its own
/// afterwards; the host has what it had; and nothing is written that is there already.
#[test]
fn guest_and_host_have_their_own() {
    let server = server().kernel(Components::USER).unwrap();
    let plain = fxsave();
    let (best, mut random) = (with_xfd(), Random(0x6E57));
    let mut refused = 0;
    for round in 0..20_000 {
        let plan = [&best, &server, &plain][round % 3];
        let cpu = host(plan, &mut random, round % 2 == 0);
        let before = cpu.all();
        let mut guest = some_guest(plan, &mut random, &cpu);
        let stays = if guest.changes_xfd { 0 } else { guest.xfd };
        let no_room = Components::from_bits_retain(before.2 & guest.xcr0 & !stays);
        let saved = match enter(&cpu, plan, &guest) {
            Ok(saved) => saved,
            Err(why) => {
                assert_eq!(why, GuestRefused::NoRoom(no_room));
                assert_eq!((cpu.all(), cpu.take_log().len()), (before, 0));
                refused += 1;
                continue;
            }
        };
        assert!(no_room.is_empty());
        let entered = cpu.take_log();
        let (xsave, asked) = (plan.save_instruction() != SaveInstruction::Fxsave, &guest);
        let due = [
            ("xss", plan.writes_xss && before.1 != asked.xss),
            ("xcr0", xsave && before.0 != asked.xcr0),
            ("xfd", plan.writes_xfd && before.2 != asked.xfd),
            ("xfd_err", plan.writes_xfd && asked.xfd_err != 0),
            ("pkru", before.4.is_some_and(|own| own != asked.pkru)),
        ];
        let due: Vec<_> = due.iter().filter(|(_, due)| *due).map(|(name, _)| *name).collect();
        assert_eq!(entered, due);
        if xsave {
            assert_eq!(cpu.xcr0.get(), guest.xcr0);
        }
        if plan.writes_xfd {
            assert_eq!((cpu.xfd.get(), cpu.xfd_err.get()), (guest.xfd, guest.xfd_err));
        }
        // What the guest does.
        let mut own = guest.clone();
        if cpu.pkru.get().is_some() && random.below(2) == 0 {
            own.pkru = random.word() as u32;
            cpu.pkru.set(Some(own.pkru));
        }
        if plan.writes_xfd && guest.changes_xfd && random.below(2) == 0 {
            own.xfd ^= 1 << 18;
            cpu.xfd.set(own.xfd);
        }
        if own.xfd != 0 && random.below(2) == 0 {
            own.xfd_err = 1 << 18; // a #NM
            cpu.xfd_err.set(own.xfd_err);
        }
        let inside = cpu.all();
        exit(&cpu, &saved, &mut guest);
        assert_eq!(guest, own);
        assert_eq!(cpu.all(), before);
        // Each register once, and those only that differed.
        let differs = [
            ("pkru", inside.4 != before.4),
            ("xfd", inside.2 != before.2),
            ("xfd_err", inside.3 != 0),
            ("xcr0", inside.0 != before.0),
            ("xss", inside.1 != before.1),
        ];
        let due: Vec<_> = differs.iter().filter(|(_, due)| *due).map(|(name, _)| *name).collect();
        assert_eq!(cpu.take_log(), due);
    }
    assert!(refused > 1000, "{refused}");
}

/// A CPU that refuses one of the values names the register, and the host's are in force.
#[test]
fn a_refused_value_leaves_the_hosts() {
    let (plan, keys) = (with_xfd(), ProtectionKeys::new());
    for (name, register) in [("xss", R::Xss), ("xcr0", R::Xcr0), ("xfd", R::Xfd)] {
        let cpu = host(&plan, &mut Random(3), true);
        cpu.xfd.set(0);
        let before = cpu.all();
        let mut guest = GuestControls::new();
        guest.set_xcr0(&plan, &keys, 3).unwrap();
        guest.set_xfd(&plan, 1 << 18).unwrap();
        guest.pkru = !before.4.unwrap();
        let only = match name {
            "xss" => before.1,
            "xcr0" => before.0,
            _ => before.2,
        };
        cpu.refuses.set(Some((name, only)));
        let refused = enter(&cpu, &plan, &guest);
        assert_eq!(refused.err(), Some(GuestRefused::Value { register, vector: 13 }));
        assert_eq!(cpu.all(), before, "{name}");
    }
}
