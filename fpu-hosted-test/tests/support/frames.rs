//! What the tests of signal frames share: the differences from Linux that are stated, and the comparison.

use std::{collections::BTreeMap, sync::OnceLock};

use fpu_hosted_test::real::{
    deliver, settled, Classes, Delivered, Edit, FrameBuffer, RegFile, LARGEST_FRAME,
};
use fpu_x86::{Components, ForeignError, ForeignImage, ForeignRules, FrameKind, Plan};

pub fn plan() -> Plan {
    Plan::detect_user(Components::all()).unwrap()
}

#[track_caller]
pub fn same(expected: &RegFile, got: &RegFile, what: &str) {
    let (expected, got) = (settled(expected.clone()), settled(got.clone()));
    if let Some(register) = expected.first_difference(&got) {
        let (expected, got) = (register.value(&expected), register.value(&got));
        panic!("{what}: {register} is {got:#x}, not {expected:#x}");
    }
}

/// What Linux makes of a frame and we do not, as a change of the frame after which both must agree.
struct Stated {
    name: &'static str,
    /// Tells whether it changes this frame. `own` is the size of this machine's image.
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
const STATED: [Stated; 6] = [
    // Linux with dc8aa31a and without 44eeff9b looks for it behind an image of this machine's size.
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
    // Of a 32-bit frame MXCSR is a part of SSE where the kernel keeps a task's image compacted, and else it is not.
    Stated {
        name: "MXCSR of a 32-bit frame without SSE, in an image that is not compacted",
        change: |frame, _| {
            let present = u64::from_le_bytes(frame.0[512..520].try_into().unwrap());
            let apart = !compacts() && is_full(frame) && present & 2 == 0 && present & 5 != 0;
            if apart {
                frame.0[512] |= 2;
                frame.0[160..416].fill(0);
            }
            apart
        },
    },
];

/// Tells whether the kernel keeps images compacted, as it does where it can.
pub fn compacts() -> bool {
    plan().cpuid_info().xsaves()
}

/// Tells whether this kernel takes a frame with x87, SSE and AVX, which has its second magic number at 832, for one
/// without AVX.
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
pub type Ours = Result<(RegFile, FrameKind), ForeignError>;

/// Compares the two answers. Returns `None` if they disagree.
fn agreement(ours: &Ours, theirs: &Delivered) -> Option<&'static str> {
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

/// How many random frames are tried.
pub fn frames() -> u64 {
    let program = std::env::current_exe().unwrap();
    if program.components().any(|part| part.as_os_str() == "release") {
        return 100_000;
    }
    println!("not a release build: 10000 frames instead of 100000");
    10_000
}

/// How often which answer was given.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Compares what we say to a frame with what the kernel made of it.
    #[track_caller]
    pub fn compare(
        &mut self,
        frame: &mut FrameBuffer,
        own: usize,
        theirs: &Delivered,
        ours: impl Fn(&FrameBuffer) -> Ours,
    ) {
        let first = ours(frame);
        if let Err(why) = &first {
            *self.refusals.entry(why.field()).or_default() += 1;
        }
        let (mut names, mut answer) = (Vec::new(), agreement(&first, theirs));
        for stated in &STATED {
            if answer.is_none() && (stated.change)(frame, own) {
                names.push(stated.name);
                answer = agreement(&ours(frame), theirs).map(|_| stated.name);
            }
        }
        let said = if theirs.refused { "refuse" } else { "take" };
        let answer =
            answer.unwrap_or_else(|| panic!("we say {first:?}, they {said} it; not by {names:?}"));
        *self.counts.entry(answer).or_default() += 1;
    }

    /// Prints the table, and sees that enough was seen.
    pub fn report(&self, frames: u64) {
        println!("{frames} frames");
        self.counts.iter().for_each(|(what, count)| println!("{count:7} {what}"));
        println!("refused here, by field:");
        self.refusals.iter().for_each(|(what, count)| println!("{count:7} {what}"));
        let seen = |what| self.counts.get(what).copied().unwrap_or_default();
        if plan().user_format().frame_len() > 512 {
            assert!(seen("both load all of it") > frames / 10);
            assert!(seen("both refuse") > frames / 10);
        }
        assert!(seen("both load x87 and SSE only") > frames / 100);
    }
}
