//! Every way to be refused, by generated inputs: each says which field, where, and what is there, and nothing has changed.

use std::{collections::BTreeMap, format, println, string::String, vec, vec::Vec};

use crate::{
    components::Components,
    error::ImageError,
    fields::{set, u32_at, u64_at, MXCSR, XCOMP_BV, XSTATE_BV},
    foreign::{Beyond, ForeignError, ForeignImage, ForeignRules},
    image::{Image, ImageMut, Where},
    origin::{ForeignLayout, XCR0},
    plan::Plan,
    regset::tests::{random_area, some},
    save_instruction::Format,
    signal::SigreturnError,
    tests::{
        corpus,
        sample::{self, Random},
        simulated::{Cpu, Soft, Task},
    },
    x87::Selectors,
};

/// How often each variant has come.
type Visited = BTreeMap<&'static str, u32>;

fn foreign_name(why: &ForeignError) -> &'static str {
    match why {
        ForeignError::Truncated { .. } => "Truncated",
        ForeignError::WrongLength { .. } => "WrongLength",
        ForeignError::Supervisor { .. } => "Supervisor",
        ForeignError::Unknown { .. } => "Unknown",
        ForeignError::NotEnabled { .. } => "NotEnabled",
        ForeignError::NotPermitted { .. } => "NotPermitted",
        ForeignError::NotInFormat { .. } => "NotInFormat",
        ForeignError::NotStandard { .. } => "NotStandard",
        ForeignError::ReservedHeader { .. } => "ReservedHeader",
        ForeignError::ReservedMxcsr { .. } => "ReservedMxcsr",
        ForeignError::IllegalValue { .. } => "IllegalValue",
        ForeignError::OtherLayout { .. } => "OtherLayout",
        ForeignError::OtherSize { .. } => "OtherSize",
        ForeignError::LayoutNote { .. } => "LayoutNote",
    }
}
const FOREIGN: usize = 14;

/// Does a text have this number, as a word of its own?
fn has(text: &str, number: u64) -> bool {
    let words = text.split([' ', ':', ',', '.', '(', ')']);
    let (decimal, hex) = (format!("{number}"), format!("{number:#x}"));
    words.into_iter().any(|word| word == decimal || word == hex)
}

/// The text has the field, the offset and the value, and they are what the bytes say.
fn explained(why: ForeignError, bytes: &[u8], visited: &mut Visited) {
    let (field, offset, value) = (why.field(), why.offset(), why.value());
    let text = format!("{why}");
    assert!(text.contains(field) && has(&text, offset as u64) && has(&text, value), "{text}");
    let there = match why {
        ForeignError::Truncated { len, need } => len == offset && need > len,
        ForeignError::WrongLength { len, need } => len == bytes.len() && need != len,
        ForeignError::Supervisor { .. }
        | ForeignError::Unknown { .. }
        | ForeignError::NotEnabled { .. }
        | ForeignError::NotPermitted { .. }
        | ForeignError::NotInFormat { .. } => u64_at(bytes, XSTATE_BV) & value == value,
        ForeignError::NotStandard { xcomp_bv } => u64_at(bytes, XCOMP_BV) == xcomp_bv,
        ForeignError::ReservedMxcsr { bits } => u32_at(bytes, MXCSR) & bits == bits,
        ForeignError::ReservedHeader { offset, value }
        | ForeignError::IllegalValue { offset, value, .. } => bytes[offset] == value,
        ForeignError::OtherLayout { offset, xcr0 } => u64_at(bytes, offset) == xcr0.bits(),
        ForeignError::OtherSize { component, .. } => {
            u64_at(bytes, XSTATE_BV) & component.bits() != 0
        }
        ForeignError::LayoutNote { offset, value } => u32_at(bytes, offset) == value,
    };
    assert!(there, "{text}");
    *visited.entry(foreign_name(&why)).or_default() += 1;
}

/// A machine, and a task of its plan that is claimed by registers.
struct Machine {
    plan: Plan,
    cpus: Vec<Cpu>,
    task: Task,
    layout: ForeignLayout,
    /// The same with another size of one component.
    tampered: ForeignLayout,
}

impl Machine {
    fn new(plan: Plan) -> Self {
        let cpus = Cpu::some(&plan, 1);
        let task = cpus[0].task();
        cpus[0].enter(&task);
        let supervisor = plan.components() & Components::SUPERVISOR;
        let registers = some(&plan, &mut Random(1)) | supervisor;
        cpus[0].load(&random_area(&plan, registers, &mut Random(2)));
        task.switch_prepare(&Soft(&cpus[0])).unwrap();
        let layout = ForeignLayout::of(&plan);
        let mut tampered = layout.clone();
        tampered.described[2].size /= 2;
        Self { plan, cpus, task, layout, tampered }
    }
    /// What the task is, in memory and by claim.
    fn state(&self) -> (Option<Vec<u8>>, bool) {
        let claimed = self.task.registers_valid(&Soft(&self.cpus[0]));
        (self.cpus[0].memory(&self.task), claimed)
    }
}

fn machines() -> Vec<Machine> {
    let mut plans = sample::plans();
    plans.push(sample::kernel());
    let zen4 = corpus::plans().into_iter().find(|(name, _)| name.contains("8845HS"));
    plans.extend(zen4.map(|(_, plan)| plan));
    plans.into_iter().map(Machine::new).collect()
}

/// Bytes of that machine, in one of the formats, and then changed in some places, or shortened.
fn input(from: &Machine, random: &mut Random) -> Vec<u8> {
    let plan = &from.plan;
    let area = random_area(plan, some(plan, random), random);
    let (image, format) = (Image::new(&area, plan), plan.user_format());
    let mut bytes = vec![0; 16384];
    let len = match random.below(6) {
        0 => format.write_frame(&image, None, &mut bytes),
        1 => format.write_frame_32(&image, Selectors::default(), None, &mut bytes),
        2 => format.write_xstate(&image, None, &mut bytes),
        3 => image.to_compacted(&mut bytes),
        4 => format.write_layout(&mut bytes),
        _ => {
            image.to_fxsave((&mut bytes[..512]).try_into().unwrap());
            Ok(512)
        }
    };
    bytes.truncate(len.unwrap());
    if random.below(8) == 0 {
        bytes.resize(4096.max(bytes.len()), 0);
    }
    for _ in 0..random.below(3) {
        let places = [MXCSR, XCR0, 472, 480, XSTATE_BV, XSTATE_BV + 2, XCOMP_BV, 528, 560, 2752];
        let at = places[random.below(places.len() as u64) as usize] + random.below(8) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
    }
    if random.below(4) == 0 {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match bytes.get_mut(at) {
            Some(byte) if random.below(2) == 0 => *byte ^= 1 << random.below(8),
            _ => bytes.truncate(at),
        }
    }
    if random.below(6) == 0 && bytes.len() > 576 {
        // Tiles, and what is no tile configuration.
        let tiles = [Components::AMX, Components::TILECFG][random.below(2) as usize];
        let present = u64_at(&bytes, XSTATE_BV) | tiles.bits();
        set(&mut bytes, XSTATE_BV, present.to_le_bytes());
        bytes.resize(11008, 1);
    }
    bytes
}

#[test]
fn every_refusal_of_foreign_bytes_says_what_and_changes_nothing() {
    let mut random = Random(61);
    let machines = machines();
    let (mut visited, mut taken) = (Visited::new(), 0);
    let mut private = vec![0; 16384 + 112];
    for _ in 0..20_000 {
        let mut any = || &machines[random.below(machines.len() as u64) as usize];
        let (from, here) = (any(), any());
        let bytes = input(from, &mut random);
        let format = here.plan.user_format();
        let mut rules = ForeignRules::new();
        match random.below(6) {
            0 => rules = rules.layout(&from.layout),
            1 => rules = rules.layout(&here.tampered),
            _ => {}
        }
        if random.below(2) == 0 {
            rules = rules.compacted();
        }
        let every = [Beyond::Refuse, Beyond::Drop, Beyond::Report];
        rules = rules.beyond(every[random.below(3) as usize]);
        let before = here.state();
        let mut pin = Soft(&here.cpus[0]);
        let open = |pin| here.task.open(pin).unwrap().make_memory_valid_read();
        // A buffer that may be too short, and a copy that ends where the bytes do.
        let room = if random.below(4) == 0 { random.below(1200) as usize } else { private.len() };
        let buffer = &mut private[..room];
        let copy = |at: usize, to: &mut [u8]| {
            let from = bytes.get(at..at + to.len()).ok_or(())?;
            to.copy_from_slice(from);
            Ok(())
        };
        let entry = random.below(7);
        let refused = match entry {
            0 | 1 => {
                let done = match entry {
                    0 => format.sigreturn_by(&rules, open(&mut pin), buffer, copy).map(drop),
                    _ => format.sigreturn_32_by(&rules, open(&mut pin), buffer, copy).map(drop),
                };
                match done {
                    Err(SigreturnError::Refused(why)) => Err(why),
                    Err(SigreturnError::FaultIn(())) => {
                        assert_eq!(here.state(), before);
                        continue;
                    }
                    Ok(()) => Ok(()),
                }
            }
            2 => format.set_xstate(open(&mut pin), &mut bytes.clone()).map(drop),
            3 => format.set_prfpreg(open(&mut pin), &mut bytes.clone()),
            4 => ForeignLayout::from_note(&bytes).map(drop),
            _ => {
                let foreign = ForeignImage::copy(&bytes, buffer);
                foreign.and_then(|it| it.validate_by(&rules, &here.plan)).map(drop)
            }
        };
        match refused {
            Ok(()) => taken += 1,
            Err(why) => {
                assert_eq!(here.state(), before, "{why}");
                // Of a 32-bit frame offsets begin behind FSAVE's image.
                let seen = if entry == 1 { bytes.get(112..).unwrap_or_default() } else { &bytes };
                explained(why, seen, &mut visited);
                continue;
            }
        }
        if here.state() != before {
            // What is taken may be anything; the next one begins with the claim again.
            here.cpus[0].enter(&here.task);
            here.task.switch_prepare(&Soft(&here.cpus[0])).unwrap();
        }
    }
    println!("{taken} taken, refused: {visited:?}");
    assert_eq!(visited.len(), FOREIGN, "{visited:?}");
    assert!(taken > 1000 && visited.values().all(|times| *times >= 10), "{visited:?}");
}

fn image_name(why: &ImageError) -> (&'static str, Vec<u64>, Components) {
    match *why {
        ImageError::NoRegister { component, index } => ("register", vec![index as u64], component),
        ImageError::OutOfRange { component, at, len } => {
            ("bytes", vec![at as u64, len as u64], component)
        }
        ImageError::OtherSize { component, size } => ("size", vec![size as u64], component),
        ImageError::NotManaged { component } => ("plan", vec![component.bits()], component),
        ImageError::NotWritable { component } => ("written", vec![component.bits()], component),
        ImageError::ReservedMxcsr { bits } => {
            ("MXCSR", vec![MXCSR as u64, u64::from(bits)], Components::empty())
        }
        ImageError::IllegalValue { component, at, value } => {
            ("illegal value", vec![at as u64, u64::from(value)], component)
        }
        ImageError::TooShort { need } => ("buffer", vec![need as u64], Components::empty()),
    }
}
const IMAGE: usize = 8;

/// Calls that write an image, with arguments of any kind.
fn write(image: &mut ImageMut<'_>, random: &mut Random) -> Result<(), ImageError> {
    let (index, byte) = (random.below(40) as usize, random.word() as u8);
    match random.below(9) {
        0 => image.set_st(index, [byte; 10]),
        1 => image.set_xmm(index, [byte; 16]),
        2 => image.set_ymm_hi(index, [byte; 16]),
        3 => image.set_opmask(index, u64::from(byte)),
        4 => image.set_zmm_hi256(index, [byte; 32]),
        5 => image.set_zmm_hi16(index, [byte; 64]),
        6 => image.set_mxcsr(1 << random.below(32)),
        _ => {
            let component = Components::from_bits_retain(1 << random.below(20));
            let at = [0, 1, 60, 64, 250, usize::MAX][random.below(6) as usize];
            image.write(component, at, &[byte; 8][..random.below(9) as usize])
        }
    }
}

#[test]
fn every_refusal_of_an_image_says_what_and_changes_nothing() {
    let mut random = Random(62);
    let machines = machines();
    let (mut visited, mut taken) = (Visited::new(), 0);
    let mut note = |why: ImageError, what: &str| {
        let (name, numbers, component) = image_name(&why);
        let text = format!("{why}");
        let listed: String = format!("{}", component.list());
        assert!(text.contains(name) && text.contains(&listed), "{what}: {text}");
        assert!(numbers.iter().all(|number| has(&text, *number)), "{what}: {text}");
        *visited.entry(name).or_default() += 1;
    };
    for _ in 0..10_000 {
        let mut any = || &machines[random.below(machines.len() as u64) as usize];
        let (from, here) = (any(), any());
        let mut area = random_area(&here.plan, some(&here.plan, &mut random), &mut random);
        let before = area.clone();
        let mut image = ImageMut::new(&mut area, &here.plan);
        match write(&mut image, &mut random) {
            Ok(()) => taken += 1,
            Err(why) => {
                note(why, "a write");
                assert_eq!(area, before, "{why}");
            }
        }
        let area = before;
        // Into the image of another plan, also of one that lies about its sizes.
        let mut source = random_area(&from.plan, some(&from.plan, &mut random), &mut random);
        if random.below(4) == 0 {
            // MXCSR bits of a CPU that has more.
            set(&mut source, MXCSR, (1u32 << random.below(18)).to_le_bytes());
        }
        let lies = random.below(4) == 0 && from.plan.format() == Format::Standard;
        let image = match lies {
            true => {
                let places = Where::Elsewhere(&from.tampered);
                Image::elsewhere(&source, &from.plan, Format::Standard, places)
            }
            false => Image::new(&source, &from.plan),
        };
        let mut target = area.clone();
        match ImageMut::new(&mut target, &here.plan).copy_from(&image) {
            Ok(()) => taken += 1,
            Err(why) => {
                note(why, "a copy");
                assert_eq!(target, area, "{why}");
            }
        }
        // Out, into buffers of any length.
        let room = [0, 511, 512, 576, 832, 2688, 16384][random.below(7) as usize];
        let mut out = vec![0xEE; room];
        let pkru = (random.below(2) == 0).then_some(5);
        let format = here.plan.user_format();
        let written = match random.below(4) {
            0 => format.write_frame(&image, pkru, &mut out),
            1 => format.write_xstate(&image, pkru, &mut out),
            2 => format.write_frame_32(&image, Selectors::default(), pkru, &mut out),
            _ => image.to_compacted(&mut out),
        };
        match written {
            Ok(_) => taken += 1,
            Err(why) => {
                note(why, "a conversion");
                assert!(out.iter().all(|byte| *byte == 0xEE), "{why}");
            }
        }
    }
    println!("{taken} taken, refused: {visited:?}");
    assert_eq!(visited.len(), IMAGE, "{visited:?}");
    assert!(taken > 1000 && visited.values().all(|times| *times >= 10), "{visited:?}");
}
