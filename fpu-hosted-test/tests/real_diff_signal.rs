//! Signal frames against the host's kernel: what it writes we read, and what we write or let pass it loads as we say.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(fpu_loom)))]

use std::{collections::BTreeMap, sync::OnceLock};

use fpu_hosted_test::real::{
    deliver, frames_are_linuxs, random_frame, registers_of, settled, Classes, Delivered, Edit,
    FrameBuffer, RegFile, Words, LARGEST_FRAME,
};
use fpu_x86::{Components, ForeignError, ForeignImage, ForeignRules, FrameKind, Image, Plan};

fn plan() -> Plan {
    Plan::detect_user(Components::all()).unwrap()
}

/// Why these tests cannot be done here; said once per test.
macro_rules! skip_elsewhere {
    () => {
        if let Err(why) = frames_are_linuxs() {
            println!("SKIP: {why}");
            return;
        }
    };
}

#[track_caller]
fn same(expected: &RegFile, got: &RegFile, what: &str) {
    let (expected, got) = (settled(expected.clone()), settled(got.clone()));
    if let Some(register) = expected.first_difference(&got) {
        let (expected, got) = (register.value(&expected), register.value(&got));
        panic!("{what}: {register} is {got:#x}, not {expected:#x}");
    }
}

/// Our reader on a frame of the kernel's.
#[track_caller]
fn check_live(delivered: &Delivered, plan: &Plan, load: &RegFile, what: &str) {
    let format = plan.user_format();
    let mut copy = delivered.frame.clone();
    assert_eq!(copy.len(), format.frame_len(), "{what}");
    let first = copy[..512].try_into().unwrap();
    assert_eq!(format.frame_bytes(&first, 16388), copy.len(), "{what}");
    let frame = format.read_frame(&mut copy).unwrap();
    match frame.kind() {
        FrameKind::Full(named) => {
            assert_eq!(named, format.components() & !Components::TILEDATA, "{what}");
        }
        FrameKind::Legacy(why) => assert_eq!(copy_len(delivered), 512, "{what}: {why}"),
    }
    same(load, &registers_of(&frame.valid().image(), load.classes()), what);
    assert_eq!(frame.pkru(), delivered.pkru, "{what}");
    same(load, &delivered.after, what);
}

fn copy_len(delivered: &Delivered) -> usize {
    delivered.frame.len()
}

#[test]
fn we_find_every_register_in_the_kernels_frames() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    for seed in 0..200 {
        let load = RegFile::pattern(seed, classes);
        for on_other_stack in [false, true] {
            let delivered = deliver(&load, on_other_stack, Edit::Keep);
            assert_eq!((delivered.on_other_stack, delivered.refused), (on_other_stack, false));
            check_live(&delivered, &plan, &load, "live");
        }
        let inner = RegFile::pattern(seed + 1000, classes);
        let mut nested = None;
        let outer = deliver(&load, false, Edit::Nested(&inner, &mut nested));
        check_live(&outer, &plan, &load, "outer");
        check_live(&nested.unwrap(), &plan, &inner, "nested");
    }
    println!(
        "200 patterns on each stack and nested, frames of {} bytes",
        plan.user_format().frame_len()
    );
}

/// What we write for a task whose registers are those, byte for byte where bytes mean anything.
#[test]
fn we_write_frames_as_the_kernel_does() {
    skip_elsewhere!();
    let (plan, classes) = (plan(), Classes::detect());
    let format = plan.user_format();
    for seed in 0..200 {
        let (load, other) =
            (RegFile::pattern(seed, classes), RegFile::pattern(seed + 5000, classes));
        let theirs = deliver(&load, false, Edit::Keep);
        let mut copy = theirs.frame.clone();
        let frame = format.read_frame(&mut copy).unwrap();
        let image: Image<'_> = frame.valid().image();
        let mut ours = vec![0xEE; format.frame_len()];
        assert_eq!(format.write_frame(&image, frame.pkru(), &mut ours), Ok(theirs.frame.len()));
        assert_eq!(ours[464..512], theirs.frame[464..512], "software's words");
        assert_eq!(ours[ours.len() - 4..], theirs.frame[ours.len() - 4..]);
        // And they take ours: the handler of a task with other registers puts it into place.
        let taken = deliver(&other, seed % 2 == 0, Edit::InPlace(&ours));
        assert!(!taken.refused);
        same(&load, &taken.after, "ours");
    }
}

/// What Linux makes of a frame and we do not, as a change of the frame after which both must agree.
struct Stated {
    name: &'static str,
    /// Does it change this frame? `own` is the size of this machine's image.
    change: fn(&mut FrameBuffer, own: usize) -> bool,
}

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
fn set(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
/// The frame has both magic numbers, where it says.
fn is_full(frame: &FrameBuffer) -> bool {
    let (all, size) = (word(&frame.0, 468), word(&frame.0, 480) as usize);
    word(&frame.0, 464) == MAGIC1
        && (576..=LARGEST_FRAME).contains(&size)
        && all as usize >= size
        && word(&frame.0, size) == MAGIC2
}

/// The differences from Linux, all of which `docs/signal-frames.md` has.
const STATED: [Stated; 5] = [
    // Linux 6.16 to 6.18 look for the second magic number behind an image of this machine's size.
    Stated {
        name: "the second magic number sought at this machine's size",
        change: |frame, own| {
            if !seeks_at_its_own_size() || word(&frame.0, 464) != MAGIC1 {
                return false;
            }
            let theirs = word(&frame.0, own) == MAGIC2;
            let ours = is_full(frame) && word(&frame.0, 480) as usize == own;
            set(&mut frame.0, 464, if theirs { MAGIC1 } else { 0 });
            set(&mut frame.0, 480, own as u32);
            set(&mut frame.0, 468, own as u32 + 4);
            theirs != ours
        },
    },
    // An image that is larger than the task's: Linux takes x87 and SSE, we all of it.
    Stated {
        name: "larger than this machine's",
        change: |frame, own| {
            let larger = is_full(frame) && word(&frame.0, 480) as usize > own;
            if larger {
                set(&mut frame.0, 464, 0);
            }
            larger
        },
    },
    // XRSTOR reads the compacted format too; a frame is to have the standard one.
    Stated {
        name: "the compacted format",
        change: |frame, own| {
            if !is_full(frame) || frame.0[527] & 0x80 == 0 {
                return false;
            }
            let (plan, mut copy) = (plan(), frame.0[..own].to_vec());
            let rules = ForeignRules::new().compacted();
            let Ok(valid) = ForeignImage::in_private(&mut copy).validate_by(&rules, &plan) else {
                return false;
            };
            let named = frame.0[472..480].to_vec();
            let written =
                plan.user_format().write_frame(&valid.image(), valid.pkru(), &mut frame.0);
            frame.0[472..480].copy_from_slice(&named);
            written.is_ok()
        },
    },
    // XRSTOR looks at bytes 8 to 23 of the header only.
    Stated {
        name: "reserved bytes of the header",
        change: |frame, _| {
            let reserved = &mut frame.0[536..576];
            let wrong = reserved.iter().any(|byte| *byte != 0);
            reserved.fill(0);
            wrong && is_full(frame)
        },
    },
    // XRSTOR does not know where the image ends.
    Stated {
        name: "a component that is present lies behind the end",
        change: |frame, own| {
            let short = is_full(frame) && (word(&frame.0, 480) as usize) < own;
            if short {
                set(&mut frame.0, 480, own as u32);
                set(&mut frame.0, 468, own as u32 + 4);
                set(&mut frame.0, own, MAGIC2);
            }
            short
        },
    },
];

/// Does this kernel take a frame with x87, SSE and AVX, which has its second magic number at 832, for one without AVX?
fn seeks_at_its_own_size() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let classes = Classes::detect();
        let plan = plan();
        if !classes.contains(Classes::AVX) || plan.user_format().frame_len() <= 836 {
            return false;
        }
        let mut frame = FrameBuffer::of(&[0; 840]);
        for (at, value) in [(24, 0x1F80), (464, MAGIC1), (468, 836), (472, 7), (480, 832)] {
            set(&mut frame.0, at, value);
        }
        for (at, value) in [(512, 7), (576, 0x1234), (832, MAGIC2)] {
            set(&mut frame.0, at, value);
        }
        let load = RegFile::pattern(1, classes);
        let delivered = deliver(&load, false, Edit::Elsewhere(&frame));
        assert!(!delivered.refused);
        let high = delivered.after.vector(0)[2];
        assert!(high == 0 || high == 0x1234, "{high:#x}");
        high == 0
    })
}

/// What we say to a frame: the registers, and how much of it counts.
fn ours(
    frame: &FrameBuffer,
    plan: &Plan,
    classes: Classes,
) -> Result<(RegFile, FrameKind), ForeignError> {
    let format = plan.user_format();
    let first = frame.0[..512].try_into().unwrap();
    let len = format.frame_bytes(&first, LARGEST_FRAME + 4);
    let mut private = frame.0[..len].to_vec();
    let frame = format.read_frame(&mut private)?;
    Ok((settled(registers_of(&frame.valid().image(), classes)), frame.kind()))
}

/// Do they agree? `None` if not.
fn agreement(
    ours: &Result<(RegFile, FrameKind), ForeignError>,
    theirs: &Delivered,
) -> Option<&'static str> {
    match ours {
        Err(_) => theirs.refused.then_some("both refuse"),
        Ok(_) if theirs.refused => None,
        Ok((registers, kind)) => {
            let same = registers.first_difference(&settled(theirs.after.clone())).is_none();
            let name = match kind {
                FrameKind::Full(_) => "both load all of it",
                FrameKind::Legacy(_) => "both load x87 and SSE only",
            };
            same.then_some(name)
        }
    }
}

fn frames() -> u64 {
    let program = std::env::current_exe().unwrap();
    if program.components().any(|part| part.as_os_str() == "release") {
        return 100_000;
    }
    println!("not a release build: 10000 frames instead of 100000");
    10_000
}

/// Random frames, in place of the kernel's and elsewhere in memory.
#[test]
fn the_kernel_loads_what_we_read_and_refuses_what_we_refuse() {
    skip_elsewhere!();
    let frames = frames();
    let (plan, classes) = (plan(), Classes::detect());
    let own = plan.user_format().frame_len().saturating_sub(4);
    let mut words = Words(20_261_126);
    let mut bytes = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut refusals: BTreeMap<&str, u64> = BTreeMap::new();
    let mut in_place = 0;
    for n in 0..frames {
        random_frame(&plan, &mut words, &mut bytes);
        let load = RegFile::pattern(n, classes);
        let mut buffer = FrameBuffer::of(&bytes);
        let fits = n % 4 == 0 && bytes.len() <= own + 4;
        let edit = if fits { Edit::InPlace(&bytes) } else { Edit::Elsewhere(&buffer) };
        let theirs = deliver(&load, n % 2 == 0, edit);
        if fits {
            // Behind the new bytes, if they are fewer, stand those of the kernel's frame.
            buffer.0[..theirs.frame.len()].copy_from_slice(&theirs.frame);
            buffer.0[..bytes.len()].copy_from_slice(&bytes);
            in_place += 1;
        }
        let first = ours(&buffer, &plan, classes);
        if let Err(why) = &first {
            *refusals.entry(why.field()).or_default() += 1;
        }
        if let Some(agreed) = agreement(&first, &theirs) {
            *counts.entry(agreed).or_default() += 1;
            continue;
        }
        let mut names = Vec::new();
        let mut agreed = None;
        for stated in &STATED {
            if agreed.is_none() && (stated.change)(&mut buffer, own) {
                names.push(stated.name);
                agreed = agreement(&ours(&buffer, &plan, classes), &theirs);
            }
        }
        assert!(
            agreed.is_some(),
            "frame {n}: we say {first:?}, they {}; not by {names:?}",
            if theirs.refused { "refuse it" } else { "take it" },
        );
        *counts.entry(names.last().copied().unwrap_or_default()).or_default() += 1;
    }
    println!("{frames} frames, {in_place} of them in the place of the kernel's");
    counts.iter().for_each(|(what, count)| println!("{count:7} {what}"));
    println!("refused here, by field:");
    refusals.iter().for_each(|(what, count)| println!("{count:7} {what}"));
    let seen = |what| counts.get(what).copied().unwrap_or_default();
    if plan.user_format().frame_len() > 512 {
        assert!(seen("both load all of it") > frames / 10);
        assert!(seen("both refuse") > frames / 10);
    }
    assert!(seen("both load x87 and SSE only") > frames / 100);
}
