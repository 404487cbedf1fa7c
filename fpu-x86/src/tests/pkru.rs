//! PKRU: the value, and the register's moves over one that is a word of the test's.

mod pkru_orders;
mod pkru_world;

use std::{cell::Cell, format, string::ToString, vec::Vec};

use super::{
    register::{self, Register, Scope},
    task::TaskPkru,
    value::{KeyRights, Pkru, ProtectionKey},
};

impl Register for Cell<u32> {
    fn read(&self) -> u32 {
        self.get()
    }
    fn write(&self, value: u32) {
        self.set(value);
    }
}

const OTHER: Pkru = Pkru::from_bits(0x1234_5678);
const ANOTHER: Pkru = Pkru::from_bits(0x8765_4320);

/// The architecture's: bit 2i is access disable of key i, bit 2i + 1 write disable (SDM vol. 3, 4.6.2).
#[test]
fn a_value_has_two_bits_a_key() {
    let numbers: Vec<u8> = ProtectionKey::all().map(ProtectionKey::number).collect();
    assert_eq!(numbers, (0..16).collect::<Vec<u8>>());
    assert!((16..=255).all(|number| ProtectionKey::new(number).is_none()));
    let mut random = crate::tests::sample::Random(9);
    for _ in 0..1000 {
        let value = Pkru::from_bits(random.word() as u32);
        for key in ProtectionKey::all() {
            let shift = 2 * u32::from(key.number());
            let (access, write) = (value.bits() >> shift & 1, value.bits() >> (shift + 1) & 1);
            let expected = match (access, write) {
                (1, _) => KeyRights::None,
                (_, 1) => KeyRights::ReadOnly,
                _ => KeyRights::All,
            };
            assert_eq!(value.rights(key), expected);
            for rights in [KeyRights::All, KeyRights::ReadOnly, KeyRights::None] {
                let with = value.with(key, rights);
                assert_eq!(with.rights(key), rights);
                assert_eq!((with.bits() ^ value.bits()) & !(3 << shift), 0, "other keys stay");
            }
        }
    }
}

#[test]
fn values_say_what_they_are() {
    assert_eq!(Pkru::INITIAL.bits(), 0);
    let mut default = Pkru::INITIAL;
    for key in ProtectionKey::all().filter(|key| *key != ProtectionKey::DEFAULT) {
        default = default.with(key, KeyRights::None);
    }
    assert_eq!(default, Pkru::LINUX_DEFAULT);
    assert_eq!(default, Pkru::default());
    assert_eq!(Pkru::INITIAL.to_string(), "0x00000000: all keys");
    let two = Pkru::from_bits(0x24);
    assert_eq!(two.to_string(), "0x00000024: key 1 no access, key 2 read only");
    assert_eq!(Pkru::LINUX_DEFAULT.to_string(), "0x55555554: keys 1 to 15 no access");
    let groups = Pkru::from_bits(0xC000_A00A);
    let said = "0xc000a00a: keys 0 to 1 read only, keys 6 to 7 read only, key 15 no access";
    assert_eq!(groups.to_string(), said);
    assert_eq!(format!("{two:?}"), "Pkru(0x00000024)");
}

/// WRPKRU is slower than the comparison: it is left out wherever it would change nothing.
#[test]
fn a_switch_writes_only_what_differs() {
    struct Counted(Cell<u32>, Cell<u32>, Cell<u32>);
    impl Register for Counted {
        fn read(&self) -> u32 {
            self.1.set(self.1.get() + 1);
            self.0.get()
        }
        fn write(&self, value: u32) {
            self.2.set(self.2.get() + 1);
            self.0.set(value);
        }
    }
    let (one, same, other) = (TaskPkru::new(OTHER), TaskPkru::new(OTHER), TaskPkru::new(ANOTHER));
    let cpu = Counted(Cell::new(OTHER.bits()), Cell::new(0), Cell::new(0));
    let count = |prev, next, writes| {
        cpu.1.set(0);
        cpu.2.set(0);
        register::switch(&cpu, prev, next);
        assert_eq!((cpu.1.get(), cpu.2.get()), (1, writes));
    };
    count(Some(&one), Some(&same), 0);
    count(Some(&same), None, 0);
    count(None, Some(&one), 0);
    count(Some(&one), Some(&other), 1);
    count(Some(&other), None, 0);
    count(None, Some(&one), 1);
    assert_eq!((one.value(), same.value(), other.value()), (OTHER, OTHER, ANOTHER));
}

/// Ends early, with an error.
fn two_scopes(cpu: &Cell<u32>, task: &TaskPkru) -> Result<(), u32> {
    let _outer = Scope::open(cpu, task, ANOTHER);
    assert_eq!((cpu.get(), register::current(cpu, task)), (ANOTHER.bits(), OTHER));
    let _inner = Scope::open(cpu, task, Pkru::INITIAL);
    assert_eq!((cpu.get(), register::current(cpu, task)), (0, OTHER));
    // A debugger, while the task sleeps.
    register::switch(cpu, Some(task), None);
    task.set_value(Pkru::LINUX_DEFAULT);
    cpu.set(77);
    register::switch(cpu, None, Some(task));
    assert_eq!(cpu.get(), 0, "the scope's rights stay");
    Err(5)
}

#[test]
fn a_scope_ends_with_what_the_task_has_however_it_ends() {
    let cpu = Cell::new(OTHER.bits());
    let task = TaskPkru::new(Pkru::INITIAL);
    assert_eq!(two_scopes(&cpu, &task), Err(5));
    assert_eq!((cpu.get(), task.word().scopes), (Pkru::LINUX_DEFAULT.bits(), 0));
}
