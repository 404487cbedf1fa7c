//! A debugger's register sets against the host's kernel: what it gives we read, what it takes or refuses we take or
//! refuse, with the same registers in the task afterwards.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{cmp::Ordering, collections::BTreeMap};

use fpu_core::RawFpu;
use fpu_hosted_test::real::{
    frames_are_linuxs, random_image, registers_of, set_registers, settled, Classes, RegFile,
    Tracee, NT_PRFPREG, NT_X86_XSTATE,
};
use fpu_hosted_test::Random;
use fpu_x86::{Components, ForeignError, Format, Plan};

mod support {
    #[allow(dead_code)] // the tests of frames use all of it
    pub mod frames;
    pub mod real;
}
use support::{
    frames::{compacts, plan, same},
    real::Memory,
};

/// A child to look at, or why there is none.
fn start(load: &RegFile) -> Result<Tracee, String> {
    frames_are_linuxs()?;
    Tracee::start(load)
}

macro_rules! tracee {
    ($load:expr) => {
        match start($load) {
            Ok(tracee) => tracee,
            Err(why) => {
                println!("SKIP: {why}");
                return;
            }
        }
    };
}

/// The types that there are, and how long each is.
fn kinds(plan: &Plan) -> Vec<(i32, usize)> {
    let mut kinds = vec![(NT_PRFPREG, 512)];
    if plan.format() != Format::Legacy {
        kinds.push((NT_X86_XSTATE, plan.user_format().xstate_len()));
    }
    kinds
}

/// What the kernel gives.
fn get(tracee: &Tracee, kind: i32) -> Vec<u8> {
    let mut out = vec![0xEE; 20480];
    let len = tracee.get(kind, &mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn we_read_what_the_kernel_gives_and_write_the_same() {
    let (plan, classes) = (plan(), Classes::detect());
    let format = plan.user_format();
    let mut load = RegFile::pattern(0, classes);
    let mut tracee = tracee!(&load);
    let xstate = plan.format() != Format::Legacy;
    for seed in 1..300 {
        let mut legacy = get(&tracee, NT_PRFPREG);
        let mut ours = [0xEE; 512];
        if xstate {
            let theirs = get(&tracee, NT_X86_XSTATE);
            let mut copy = theirs.clone();
            let valid = format.read_xstate(&mut copy).unwrap();
            let image = valid.image();
            same(&load, &registers_of(&image, classes), "NT_X86_XSTATE");
            let mut ours_too = vec![0xEE; format.xstate_len()];
            // Without its bit the component is initial; with a value given we set the bit.
            let pkru = valid.pkru().filter(|_| present(&theirs) & 1 << 9 != 0);
            format.write_xstate(&image, pkru, &mut ours_too).unwrap();
            let differ = ours_too.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            assert_eq!(differ, None, "NT_X86_XSTATE, {} bytes", theirs.len());
            format.write_prfpreg(&image, &mut ours).unwrap();
            assert_eq!(ours[..464], legacy[..464], "NT_PRFPREG");
        }
        let valid = format.read_prfpreg(&mut legacy).unwrap();
        let image = valid.image();
        assert_eq!((image.fcw() & 0x1F3F, image.mxcsr()), (load.fcw() & 0x1F3F, load.mxcsr()));
        for n in 0..16 {
            let words = [load.vector(n)[0], load.vector(n)[1]];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(image.xmm(n).unwrap()[..], bytes, "xmm{n}");
        }
        let next = RegFile::pattern(seed, classes);
        same(&load, &tracee.go(&next), "nothing was set");
        load = next;
    }
}

/// What Linux makes of a register set and we do not, as a change of the bytes after which both must agree.
struct Stated {
    name: &'static str,
    change: fn(&mut Vec<u8>, len: usize, before: &RegFile) -> bool,
}

fn present(bytes: &[u8]) -> u64 {
    bytes.get(512..520).map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap()))
}

/// The differences from Linux, all of which `docs/signal-frames.md` has.
const STATED: [Stated; 2] = [
    Stated {
        name: "longer than the set, of which Linux takes the beginning",
        change: |bytes, len, _| {
            let longer = bytes.len() > len;
            bytes.truncate(len);
            longer
        },
    },
    // A task's image that is not compacted has MXCSR apart from SSE.
    Stated {
        name: "MXCSR without SSE, in an image that is not compacted",
        change: |bytes, _, before| {
            let apart = !compacts() && bytes.len() >= 576 && present(bytes) & 2 == 0;
            if apart {
                if present(bytes) & 5 == 0 {
                    bytes[24..28].copy_from_slice(&before.mxcsr().to_le_bytes());
                }
                bytes[512] |= 2;
                bytes[160..416].fill(0);
            }
            apart
        },
    },
];

/// What we say to a register set: what a task with these registers then has.
fn ours(bytes: &[u8], plan: &Plan, kind: i32, before: &RegFile) -> Result<RegFile, ForeignError> {
    let classes = before.classes();
    let mut private = bytes.to_vec();
    let format = plan.user_format();
    if kind == NT_X86_XSTATE {
        let valid = format.read_xstate(&mut private)?;
        return Ok(settled(registers_of(&valid.image(), classes)));
    }
    let valid = format.read_prfpreg(&mut private)?;
    let mut area = Memory::new(plan);
    // SAFETY: C9, C11: our own area, which holds an image.
    let mut image = unsafe { plan.image_mut(area.base()) };
    set_registers(&mut image, before);
    image.merge(&valid, Components::LEGACY).unwrap();
    Ok(settled(registers_of(&image.as_image(), classes)))
}

/// Whatever it says of PKRU lets the program go on.
fn spare_pkru(bytes: &mut [u8], plan: &Plan) {
    let described =
        plan.cpuid_info().described(9).filter(|_| plan.xcr0().contains(Components::PKRU));
    if let Some(rights) = described.and_then(|it| bytes.get_mut(it.offset as usize)) {
        *rights &= !3;
    }
}

#[test]
fn the_kernel_takes_what_we_take_and_refuses_what_we_refuse() {
    let (plan, classes) = (plan(), Classes::detect());
    let mut before = RegFile::pattern(0, classes);
    let mut tracee = tracee!(&before);
    let rounds = 20_000;
    let len = plan.user_format().xstate_len();
    let mut words = Random::new(20_261_127);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut refusals: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 1..=rounds {
        let mut bytes = Vec::new();
        random_image(&plan, &mut words, &mut bytes);
        let legacy = plan.format() == Format::Legacy || words.below(8) == 0;
        let (kind, exact) = if legacy { (NT_PRFPREG, 512) } else { (NT_X86_XSTATE, len) };
        if words.below(16) != 0 {
            bytes.resize(exact, 0);
        }
        spare_pkru(&mut bytes, &plan);
        let theirs = tracee.set(kind, &bytes).is_ok();
        let next = RegFile::pattern(round, classes);
        let after = settled(tracee.go(&next));
        if !theirs {
            same(&before, &after, "refused, and something was changed");
        }
        let agreed = |bytes: &[u8]| match ours(bytes, &plan, kind, &before) {
            Err(_) => (!theirs).then_some("both refuse"),
            Ok(ours) if theirs && ours.first_difference(&after).is_none() => Some("both take"),
            Ok(_) => None,
        };
        if let Err(why) = ours(&bytes, &plan, kind, &before) {
            *refusals.entry(why.field()).or_default() += 1;
        }
        let mut answer = agreed(&bytes);
        let first = format!("{:?}", ours(&bytes, &plan, kind, &before));
        let mut names = Vec::new();
        let mut changed = bytes.clone();
        for stated in &STATED {
            if answer.is_none() && (stated.change)(&mut changed, exact, &before) {
                names.push(stated.name);
                answer = agreed(&changed).map(|_| stated.name);
            }
        }
        let said = if theirs { "take" } else { "refuse" };
        let answer = answer.unwrap_or_else(|| {
            panic!(
                "round {round}, type {kind:#x}: we say {first}, they {said} it; not by {names:?}"
            )
        });
        *counts.entry(answer).or_default() += 1;
        before = next;
    }
    println!("{rounds} register sets");
    counts.iter().for_each(|(what, count)| println!("{count:7} {what}"));
    println!("refused here, by field:");
    refusals.iter().for_each(|(what, count)| println!("{count:7} {what}"));
    let seen = |what| counts.get(what).copied().unwrap_or_default();
    assert!(seen("both take") > rounds / 5 && seen("both refuse") > rounds / 50);
}

#[test]
fn every_length_is_taken_or_refused_as_by_the_kernel() {
    let plan = plan();
    let load = RegFile::pattern(3, Classes::detect());
    let mut tracee = tracee!(&load);
    let (mut refused, mut longer) = (0, 0);
    for (kind, exact) in kinds(&plan) {
        let whole = get(&tracee, kind);
        assert_eq!(whole.len(), exact, "{kind:#x}");
        let more = [&whole[..], &[0; 256]].concat();
        for len in 0..=more.len() {
            let theirs = tracee.set(kind, &more[..len]).is_ok();
            let mut copy = more[..len].to_vec();
            let format = plan.user_format();
            let ours = match kind {
                NT_X86_XSTATE => format.read_xstate(&mut copy).map(drop),
                _ => format.read_prfpreg(&mut copy).map(drop),
            };
            match len.cmp(&exact) {
                Ordering::Equal => assert!(ours.is_ok() && theirs, "{kind:#x}"),
                // Of what is longer Linux takes the beginning: `STATED`.
                Ordering::Greater if theirs => longer += 1,
                _ => assert!(!theirs, "{kind:#x}, {len} bytes"),
            }
            if len != exact {
                assert_eq!(ours, Err(ForeignError::WrongLength { len, need: exact }));
                refused += 1;
            }
            // A debugger's buffer that is too short gets the beginning.
            let mut short = vec![0xEE; len];
            if let Ok(given) = tracee.get(kind, &mut short) {
                assert_eq!(given, len.min(exact), "{kind:#x}");
                assert_eq!(short[..given], whole[..given], "{kind:#x}, {len} bytes");
            }
        }
    }
    same(&load, &tracee.go(&load), "what was set is what was there");
    println!("{refused} lengths refused, of which Linux takes {longer}");
}
