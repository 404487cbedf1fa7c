//! A virtual CPU's image and XCR0 in the form of KVM's calls, over every recorded plan and all that may be offered.

use std::{vec, vec::Vec};

use super::*;
use crate::{
    components::{self, extended},
    fields::{COMPACTED, MXCSR, XCOMP_BV, XSTATE_BV},
    origin::{MAGIC1, XFEATURES, XSTATE_SIZE},
    plan::Plan,
    regset::tests::{no_residue, random_area, same, some},
    save_instruction::Format,
    tests::{
        corpus,
        sample::{plans, Random},
        simulated::{self, Cpu, Soft, Task, Vector},
    },
};

const TILES: Components = Components::TILEDATA;
/// The named user components.
const NAMED: u64 = 0xE_02FF;

/// SDM vol. 1, 13.3, of XSETBV with ECX = 0: each condition as the manual has it, by numbers of bits.
fn legal_by_the_manual(xcr0: u64) -> bool {
    let bits = |high: u32, low: u32| xcr0 >> low & ((1 << (high - low + 1)) - 1);
    bits(0, 0) == 1
        && bits(2, 1) != 0b10
        && matches!(bits(4, 3), 0b00 | 0b11)
        && matches!(bits(7, 5), 0b000 | 0b111)
        && !(bits(7, 5) == 0b111 && bits(2, 1) != 0b11)
        && matches!(bits(18, 17), 0b00 | 0b11)
        && !(bits(19, 19) == 1 && bits(4, 3) != 0)
}

/// All sets of named components that may be offered, of which a plan or another set has all.
fn offers(within: Components) -> Vec<Components> {
    let mut all = vec![];
    let mut set = 0;
    loop {
        if legal_by_the_manual(set) {
            all.push(Components::from_bits_retain(set));
        }
        set = (set | !within.bits()).wrapping_add(1) & within.bits();
        if set == 0 {
            return all;
        }
    }
}

/// Every value of the named bits, under every set that may be offered: what is legal by the manual and offered is taken,
/// all else refused by its bits, and nothing is changed. Each other bit is refused beside each legal value.
#[test]
fn every_xcr0_is_what_the_manual_and_the_offer_say() {
    let sets = offers(Components::from_bits_retain(NAMED));
    assert_eq!(sets.len(), 48);
    let plan = &plans()[0];
    let user = plan.user_format();
    let (mut taken, mut refused) = (0, 0);
    for offered in &sets {
        // The format is a cell for the offer here, whatever the plan has.
        let format = GuestFormat { user, offered: *offered };
        let mut value = 0;
        loop {
            let (mut guest, new) = (GuestControls::new(), GuestControls::new());
            let done = format.set_xcr0(&mut guest, value);
            let asked = Components::from_bits_retain(value);
            let legal = legal_by_the_manual(value) && offered.contains(asked);
            assert_eq!(done.is_ok(), legal, "{value:#x} of {:#x}: {done:?}", offered.bits());
            if legal {
                assert_eq!(guest, GuestControls { xcr0: value, ..new });
                taken += 1;
            } else {
                assert_eq!(guest, new);
                refused += 1;
            }
            value = (value | !NAMED).wrapping_add(1) & NAMED;
            if value == 0 {
                break;
            }
        }
        for bit in (0..64).filter(|bit| NAMED >> bit & 1 == 0) {
            let beyond = GuestError::Xcr0Beyond(Components::from_bits_retain(1 << bit));
            let mut guest = GuestControls::new();
            assert_eq!(format.set_xcr0(&mut guest, offered.bits() | 1 << bit), Err(beyond));
            assert_eq!(guest, GuestControls::new());
        }
    }
    assert_eq!(taken + refused, 48 * 4096);
    assert!(taken > 48 * 4, "{taken}");
}

/// What may be offered is what the plan holds, and PKRU with the keys on.
#[test]
fn an_offer_is_of_what_the_plan_holds() {
    for (name, plan) in corpus::plans() {
        let user = plan.user_format();
        for keys in [false, true] {
            let mut most = plan.user_components();
            let xsave = plan.format() != Format::Legacy;
            most.set(Components::PKRU, keys && plan.carries_pkru());
            let mut value = 0;
            loop {
                let offered = Components::from_bits_retain(value);
                let may = xsave && legal_by_the_manual(value) && most.contains(offered);
                let may = may || !xsave && value == 0;
                let format = GuestFormat::of(user, keys, offered);
                assert_eq!(format.is_ok(), may, "{name}: {value:#x}");
                let without = GuestFormat::of(user.without_pkru(), keys, offered);
                let pkru = offered.contains(Components::PKRU);
                assert_eq!(without.is_ok(), may && !pkru, "{name}: {value:#x}");
                value = (value | !NAMED).wrapping_add(1) & NAMED;
                if value == 0 {
                    break;
                }
            }
        }
    }
}

fn write(format: &GuestFormat<'_>, cpu: &Cpu, task: &Task, guest: &GuestControls) -> Vec<u8> {
    let mut out = vec![0xA5; format.xsave_len() + 7];
    let mut cpu = Vector(cpu);
    let image = task.open_saved(&mut cpu).unwrap();
    let len = format.write_xsave(&image.image(), guest, &mut out).unwrap();
    assert_eq!(out.drain(len..).as_slice(), [0xA5; 7], "written behind its end");
    out
}
fn set_to(
    format: &GuestFormat<'_>,
    cpu: &Cpu,
    task: &Task,
    guest: &mut GuestControls,
    bytes: &[u8],
) -> Result<(), ForeignError> {
    let mut pin = Vector(cpu);
    format.set_xsave(guest, task.open_saved(&mut pin).unwrap(), &mut bytes.to_vec())
}
/// A context that has run with these registers.
fn context(cpu: &Cpu, registers: &[u8]) -> Task {
    let task = cpu.task();
    cpu.enter(&task);
    cpu.load(registers);
    task.switch_prepare(&Soft(cpu)).unwrap();
    task
}

/// The format of a plan for a guest with tiles, where the plan has them.
fn format_of(plan: &Plan, keys: bool, offered: Components) -> GuestFormat<'_> {
    // SAFETY: C24: nothing is restored by an instruction.
    let user = unsafe { plan.user_format().with_tiles() };
    GuestFormat::of(user, keys, offered).unwrap()
}

/// For every recorded plan, and everything that may be offered: what goes out comes back, into a context that held other
/// things, and goes out again the same byte by byte; XSTATE_BV has nothing that is not offered or that the guest's
/// IA32_XFD disables.
#[test]
fn an_image_goes_out_and_comes_back() {
    let mut random = Random(0x6B76);
    let (mut moved, mut disabled) = (0, 0);
    for (name, plan) in corpus::plans() {
        let cpu = &Cpu::some(&plan, 1)[0];
        let keys = plan.carries_pkru();
        let may = offer(&plan, keys).intersection(plan.user_format().components());
        let sets = if may.is_empty() { vec![may] } else { offers(may) };
        for offered in sets {
            let format = format_of(&plan, keys, offered);
            assert_eq!(format.offered(), offered);
            for xfd in [Components::empty(), TILES & offered] {
                let has = offered | Components::LEGACY;
                let mut present = some(&plan, &mut random);
                present.set(TILES, plan.components().contains(TILES));
                present &= has;
                let area = random_area(&plan, present, &mut random);
                let mut guest = GuestControls { xfd: xfd.bits(), ..GuestControls::new() };
                let pkru = offered.contains(Components::PKRU);
                guest.pkru = if pkru { random.word() as u32 } else { 0 };
                let task = context(cpu, &area);
                let out = write(&format, cpu, &task, &guest);
                let len = format.user.xstate_len();
                assert_eq!((out.len(), XCOMP_BV), (len.max(4096), 520), "{name}");
                no_residue(&out[..len], &plan, true, &name);
                assert!(out[472..512].iter().all(|byte| *byte == 0), "{name}");
                assert_eq!(u64_at(&out, XCR0), has.bits(), "{name}");
                assert!(out[len..].iter().all(|byte| *byte == 0), "{name}");
                let shown = Components::from_bits_retain(u64_at(&out, XSTATE_BV));
                assert!(has.contains(shown) && !shown.intersects(xfd), "{name}: {shown:?}");
                disabled += u32::from(present.intersects(xfd));

                // There, another guest.
                let other = random_area(&plan, some(&plan, &mut random), &mut random);
                let (there, mut its) = (context(cpu, &other), guest.clone());
                its.pkru = if pkru { !guest.pkru } else { 0 };
                set_to(&format, cpu, &there, &mut its, &out).unwrap();
                assert_eq!(its, guest, "{name}: PKRU");
                let mut expected = area.clone();
                if plan.format() != Format::Legacy {
                    let held = u64_at(&area, XSTATE_BV) & !xfd.bits();
                    set(&mut expected, XSTATE_BV, held.to_le_bytes());
                }
                let memory = cpu.memory(&there).unwrap();
                same(&Image::new(&expected, &plan), &Image::new(&memory, &plan), &name);
                assert_eq!(write(&format, cpu, &there, &its), out, "{name}");
                moved += 1;
            }
        }
    }
    assert!(moved > 900 && disabled > 50, "{moved} moved, {disabled} disabled");
}

/// Each component of the 63, alone in XSTATE_BV, under each offer: what is neither offered nor initial is refused; nothing
/// has changed then, neither the context nor PKRU.
#[test]
fn an_image_with_more_than_is_offered_is_refused() {
    let mut random = Random(0x6B77);
    let (mut taken, mut refused) = (0, 0);
    for (name, plan) in corpus::plans() {
        if plan.format() == Format::Legacy {
            continue;
        }
        let cpu = &Cpu::some(&plan, 1)[0];
        let keys = plan.carries_pkru();
        let may = offer(&plan, keys).intersection(plan.user_format().components());
        let before = random_area(&plan, Components::LEGACY, &mut random);
        for offered in offers(may) {
            let format = format_of(&plan, keys, offered);
            let task = context(cpu, &before);
            let mut guest = GuestControls::new();
            for number in 0..64 {
                let held = cpu.memory(&task);
                let mut bytes = vec![0; 16384];
                set(&mut bytes, MXCSR, 0x1F80u32.to_le_bytes());
                set(&mut bytes, XSTATE_BV, (1u64 << number).to_le_bytes());
                let place = plan.cpuid_info().described(number).filter(|it| !it.supervisor);
                if let Some(it) = place {
                    // Any bytes are legal but in BNDCSR and TILECFG.
                    let value = if number == 4 || number == 17 { 0 } else { 0x11 };
                    bytes[it.offset as usize..][..it.size as usize].fill(value);
                    bytes[it.offset as usize] |= u8::from(number == 4);
                }
                let one = Components::from_bits_retain(1 << number);
                let initial = number == 17 && place.is_some();
                let may = (offered | Components::LEGACY).contains(one) || initial;
                let done = set_to(&format, cpu, &task, &mut guest, &bytes);
                assert_eq!(done.is_ok(), may, "{name}, {offered:?}: {number}: {done:?}");
                if may {
                    taken += 1;
                    guest.pkru = 0;
                    set_to(&format, cpu, &task, &mut guest, &write_of(&format, &before, &plan))
                        .unwrap();
                    continue;
                }
                refused += 1;
                let bits = 1 << number;
                let why = done.unwrap_err();
                assert_eq!((why.field(), why.value()), ("XSTATE_BV", bits), "{name}: {why}");
                assert!(cpu.memory(&task) == held && guest == GuestControls::new(), "{name}");
            }
        }
    }
    assert!(taken > 1000 && refused > 10_000, "{taken} taken, {refused} refused");
}

fn write_of(format: &GuestFormat<'_>, area: &[u8], plan: &Plan) -> Vec<u8> {
    let mut out = vec![0; format.xsave_len()];
    format.write_xsave(&Image::new(area, plan), &GuestControls::new(), &mut out).unwrap();
    out
}

/// Every length that is too short, in both directions, and the header's fields.
#[test]
fn lengths_and_headers_that_are_wrong_are_refused_by_name() {
    let plan = &plans()[0];
    let cpu = &Cpu::some(plan, 1)[0];
    let mut random = Random(0x6B78);
    let area = random_area(plan, Components::LEGACY, &mut random);
    let task = context(cpu, &area);
    let offered = Components::LEGACY | Components::AVX;
    let format = format_of(plan, true, offered);
    let mut guest = GuestControls::new();
    let good = write(&format, cpu, &task, &guest);
    let held = cpu.memory(&task);
    let mut set = |bytes: &[u8]| set_to(&format, cpu, &task, &mut guest, bytes);
    for len in 0..PAGE {
        let why = ForeignError::WrongLength { len, need: PAGE };
        assert_eq!(set(&good[..len]), Err(why));
        let mut out = vec![0xA5; len];
        let short = ImageError::TooShort { need: PAGE };
        let image = Image::new(&area, plan);
        assert_eq!(format.write_xsave(&image, &GuestControls::new(), &mut out), Err(short));
        assert!(out.iter().all(|byte| *byte == 0xA5));
    }
    for bit in 0..64 {
        let mut bytes = good.clone();
        crate::fields::set(&mut bytes, XCOMP_BV, (1u64 << bit).to_le_bytes());
        let xcomp_bv = 1 << bit;
        assert_eq!(set(&bytes), Err(ForeignError::NotStandard { xcomp_bv }));
    }
    let compacted = COMPACTED | offered.bits();
    let mut bytes = good.clone();
    crate::fields::set(&mut bytes, XCOMP_BV, compacted.to_le_bytes());
    assert_eq!(set(&bytes), Err(ForeignError::NotStandard { xcomp_bv: compacted }));
    for offset in 528..576 {
        let mut bytes = good.clone();
        bytes[offset] = 1;
        assert_eq!(set(&bytes), Err(ForeignError::ReservedHeader { offset, value: 1 }));
    }
    assert!(cpu.memory(&task) == held);
    // A plan with tiles has more than a page, and a context may hold what is not offered.
    let all = offer(plan, true);
    assert_eq!(format_of(plan, true, all).xsave_len(), 11008);
    let more = random_area(plan, Components::AVX512, &mut random);
    let mut out = vec![0xA5; PAGE];
    let component = Components::AVX512;
    let refused = format.write_xsave(&Image::new(&more, plan), &guest, &mut out);
    assert_eq!(refused, Err(ImageError::NotManaged { component }));
    guest.pkru = 4;
    let component = Components::PKRU;
    let refused = format.write_xsave(&Image::new(&area, plan), &guest, &mut out);
    assert_eq!(refused, Err(ImageError::NotManaged { component }));
    assert!(out.iter().all(|byte| *byte == 0xA5));
}

/// Software's bytes, what lies behind the components, lengths beyond a page, MXCSR without SSE, PKRU without an offer.
#[test]
fn what_is_not_state_is_not_looked_at() {
    let plan = &plans()[0];
    let cpu = &Cpu::some(plan, 1)[0];
    let area = random_area(plan, Components::LEGACY, &mut Random(0x6B79));
    let task = context(cpu, &area);
    let format = format_of(plan, true, Components::LEGACY | Components::AVX);
    let mut guest = GuestControls::new();
    let good = write(&format, cpu, &task, &guest);
    let mut bytes = good.clone();
    bytes[SOFTWARE..HEADER].fill(0xFF);
    let len = format.user.xstate_len();
    bytes[len..].fill(0xFF);
    bytes.resize(9000, 0xFF);
    assert_eq!(set_to(&format, cpu, &task, &mut guest, &bytes), Ok(()));
    assert_eq!(write(&format, cpu, &task, &guest), good);
    // Software's bytes do not tell another machine's layout: AMD's, here.
    crate::fields::set(&mut bytes, SOFTWARE, MAGIC1.to_le_bytes());
    crate::fields::set(&mut bytes, XFEATURES, 0x2E7u64.to_le_bytes());
    crate::fields::set(&mut bytes, XSTATE_SIZE, 2440u32.to_le_bytes());
    crate::fields::set(&mut bytes, XSTATE_BV, 0xE7u64.to_le_bytes());
    Random(0x6B7A).fill(&mut bytes[len..]);
    let all = format_of(plan, true, offer(plan, true));
    assert_eq!(set_to(&all, cpu, &task, &mut guest, &bytes), Ok(()));
    let mut opmask = [0; 64];
    let mut pin = Vector(cpu);
    let session = task.open_saved(&mut pin).unwrap();
    session.image().read(Components::OPMASK, 0, &mut opmask).unwrap();
    assert_eq!(opmask, bytes[1088..1152]);
    drop(session);
    // MXCSR is a part of SSE, and is looked at with x87, SSE and AVX.
    for (present, mxcsr) in (0..8u64).flat_map(|set| [(set, 0xFFFF), (set, 1 << 31)]) {
        let mut bytes = good.clone();
        crate::fields::set(&mut bytes, XSTATE_BV, present.to_le_bytes());
        crate::fields::set(&mut bytes, MXCSR, u32::to_le_bytes(mxcsr));
        let done = set_to(&format, cpu, &task, &mut guest, &bytes);
        if present != 0 && mxcsr >> 31 == 1 {
            assert_eq!(done, Err(ForeignError::ReservedMxcsr { bits: mxcsr }));
            continue;
        }
        assert_eq!(done, Ok(()));
        let held = u32_at(&write(&format, cpu, &task, &guest), MXCSR);
        assert_eq!(held, if present & 2 != 0 { mxcsr } else { 0x1F80 }, "{present:#x}");
    }
    // PKRU that is not offered is not touched.
    guest.pkru = 4;
    assert_eq!(set_to(&format, cpu, &task, &mut guest, &good), Ok(()));
    assert_eq!(guest.pkru, 4);
}

/// Without tiles the form takes no tiles, whatever is offered: no permission, or no room.
#[test]
fn tiles_are_taken_where_the_format_has_them() {
    let plan = plans().into_iter().find(|plan| plan.components().contains(TILES)).unwrap();
    let cpu = &Cpu::some(&plan, 1)[0];
    let offered = offer(&plan, false);
    let with = format_of(&plan, false, offered);
    let without = GuestFormat::of(plan.user_format(), false, offered).unwrap();
    assert_eq!((with.offered(), without.offered()), (offered, offered));
    let area = random_area(&plan, TILES, &mut Random(3));
    let (task, other) = (context(cpu, &area), cpu.task());
    let mut guest = GuestControls::new();
    let out = write(&without, cpu, &task, &guest);
    assert_eq!(out, write(&with, cpu, &task, &guest));
    let refused = set_to(&without, cpu, &other, &mut guest, &out);
    assert_eq!(refused, Err(ForeignError::NotPermitted { bits: TILES.bits() }));
    assert_eq!(set_to(&with, cpu, &other, &mut guest, &out), Ok(()));
    assert_eq!(write(&with, cpu, &other, &guest), out);
    // Where the guest's IA32_XFD disables them they are initial.
    guest.xfd = TILES.bits();
    assert_eq!(set_to(&without, cpu, &other, &mut guest, &out), Ok(()));
    guest.xfd = 0;
    let shown = write(&with, cpu, &other, &guest);
    assert_eq!(u64_at(&shown, XSTATE_BV) & TILES.bits(), 0);
    assert!(extended(TILES).all(|number| components::one(number) == TILES));
}

/// Every count, every flag, and XCR0 in every place.
#[test]
fn the_structure_with_xcr0_is_taken_or_refused_by_its_field() {
    let plan = &plans()[0];
    let format = format_of(plan, false, offer(plan, false));
    let (mut guest, mut out) = (GuestControls::new(), [0xA5; 392]);
    format.set_xcr0(&mut guest, 7).unwrap();
    format.write_xcrs(&guest, &mut out);
    let mut expected = [0; 392];
    (expected[0], expected[16]) = (1, 7);
    assert_eq!(out, expected);

    for count in (0..40).chain([1 << 16, 1 << 31, u32::MAX]) {
        for place in 0..17 {
            let mut bytes = [0; 392];
            set(&mut bytes, 0, count.to_le_bytes());
            // Other registers before it, and XCR0 once more behind.
            for slot in 0..16 {
                set(&mut bytes, 8 + 16 * slot, u32::from(slot < place).to_le_bytes());
                let value = if slot == place { 3u64 } else { 1 << 40 };
                set(&mut bytes, 16 + 16 * slot, value.to_le_bytes());
            }
            let mut its = guest.clone();
            let done = format.set_xcrs(&mut its, &bytes);
            if count > 16 {
                assert_eq!((done, &its), (Err(XcrsError::TooMany { count }), &guest));
                continue;
            }
            let found = place < count as usize;
            assert_eq!((done, its.xcr0().bits()), (Ok(()), if found { 3 } else { 7 }));
        }
    }
    for bit in 0..32 {
        let (flags, mut bytes) = (1u32 << bit, out);
        set(&mut bytes, 4, flags.to_le_bytes());
        let mut its = guest.clone();
        assert_eq!(format.set_xcrs(&mut its, &bytes), Err(XcrsError::Flags { flags }));
        assert_eq!(its, guest);
    }
    let why = XcrsError::Xcr0(GuestError::Xcr0Lacks(Components::SSE));
    set(&mut out, 16, 5u64.to_le_bytes());
    assert_eq!((format.set_xcrs(&mut guest, &out), guest.xcr0().bits()), (Err(why), 7));

    // A plan for FXSAVE: there is no such register.
    let plain = plans().into_iter().find(|plan| plan.format() == Format::Legacy).unwrap();
    let format = format_of(&plain, false, Components::empty());
    format.write_xcrs(&guest, &mut out);
    assert_eq!((out, format.set_xcrs(&mut guest, &out)), ([0; 392], Ok(())));
    set(&mut out, 0, 1u32.to_le_bytes());
    set(&mut out, 16, 1u64.to_le_bytes());
    let why = GuestError::Xcr0Beyond(Components::X87);
    assert_eq!(format.set_xcrs(&mut guest, &out), Err(why.into()));
}

/// Every recorded plan with supervisor components: those are in no image, and stay as they were under one that comes in.
#[test]
fn supervisor_components_neither_go_out_nor_change() {
    let (mut random, mut moved) = (Random(0x6B7B), 0);
    for (name, words) in corpus::machines() {
        let Ok(plan) = words.kernel(Components::all()) else { continue };
        let held = plan.components() & Components::SUPERVISOR;
        let offered = offer(&plan, false).intersection(plan.user_format().components());
        if held.is_empty() {
            continue;
        }
        let more = GuestFormat::of(plan.user_format(), false, offered | held);
        assert!(more.is_err(), "{name}: supervisor components are offered");
        let format = format_of(&plan, false, offered);
        let cpu = &Cpu::some(&plan, 1)[0];
        let legal = some(&plan, &mut random) & (offered | Components::LEGACY);
        let from = random_area(&plan, legal, &mut random);
        let supervised = random_area(&plan, held, &mut random);
        let (from, to) = (context(cpu, &from), context(cpu, &supervised));
        let mut guest = GuestControls::new();
        let out = write(&format, cpu, &from, &guest);
        let shown = Components::from_bits_retain(u64_at(&out, XSTATE_BV));
        assert!(!shown.intersects(Components::SUPERVISOR), "{name}: {shown:?}");
        set_to(&format, cpu, &to, &mut guest, &out).unwrap();
        let memory = cpu.memory(&to).unwrap();
        assert_eq!(
            simulated::supervisor(&memory, &plan),
            simulated::supervisor(&supervised, &plan),
            "{name}"
        );
        assert_eq!(write(&format, cpu, &to, &guest), out, "{name}");
        moved += 1;
    }
    assert!(moved >= 5, "{moved}");
}
