//! Bytes from outside through every way in, for any plan: what is refused changes nothing, what is taken goes into a
//! task's image, out again and in again, as the same registers.

use fpu_core::RawFpu;
use fpu_x86::{
    Beyond, Components, ForeignError, ForeignImage, ForeignLayout, ForeignRules, FrameKind, Image,
    ImageError, ImageMut, LegacyOnly, Plan, Selectors, SignalFrame, UserFormat, ValidImage,
};

use super::{
    foreign::{fill, held, Memory},
    registers_of, settled, RealHarness, Seen,
};
use crate::{
    conformance::{Harness, Step},
    random::Random,
};

const HEADER: usize = 512;
/// Bytes of one record of a layout note.
pub(super) const RECORD: usize = 16;

/// By which of the readers bytes come in.
///
/// ```
/// assert_eq!(fpu_hosted_test::real::Entry::ALL.len(), 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// `read_frame`.
    Frame,
    /// `read_frame_32`.
    Frame32,
    /// `read_frame_by`, with a report of what is left out.
    FrameReport,
    /// `read_frame` of a task that may use tiles.
    FrameTiles,
    /// `read_xstate`.
    Xstate,
    /// `read_prfpreg`.
    Prfpreg,
    /// `ForeignImage::validate`.
    Foreign,
    /// The same for the first bytes of something longer.
    First,
    /// `validate_by` with the compacted format.
    Compacted,
    /// `validate_by` with the layout of a note. The input is a number of records, those, and the image.
    ByNote,
}

impl Entry {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Frame,
        Self::Frame32,
        Self::FrameReport,
        Self::FrameTiles,
        Self::Xstate,
        Self::Prfpreg,
        Self::Foreign,
        Self::First,
        Self::Compacted,
        Self::ByNote,
    ];
}

/// The name of an error's variant.
///
/// ```
/// use fpu_x86::ForeignError;
/// assert_eq!(fpu_hosted_test::real::variant(&ForeignError::Unknown { bits: 1 }), "Unknown");
/// ```
#[must_use]
pub fn variant(why: &ForeignError) -> &'static str {
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
        _ => "another error",
    }
}

/// What a reader has taken.
enum Taken<'b> {
    Image(ValidImage<'b>),
    Frame(SignalFrame<'b>),
}

impl<'b> Taken<'b> {
    fn valid(&self) -> &ValidImage<'b> {
        match self {
            Self::Image(valid) => valid,
            Self::Frame(frame) => frame.valid(),
        }
    }
    fn pkru(&self) -> Option<u32> {
        match self {
            Self::Image(valid) => valid.pkru(),
            Self::Frame(frame) => frame.pkru(),
        }
    }
    fn kind(&self) -> Option<FrameKind> {
        match self {
            Self::Image(_) => None,
            Self::Frame(frame) => Some(frame.kind()),
        }
    }
    fn name(&self) -> &'static str {
        match self.kind() {
            _ if !self.valid().beyond().is_empty() => "taken in part",
            None => "taken",
            Some(FrameKind::Full(_)) => "full",
            Some(FrameKind::Legacy(why)) => match why {
                LegacyOnly::Software => "legacy: Software",
                LegacyOnly::Magic1 { .. } => "legacy: Magic1",
                LegacyOnly::XstateSize { .. } => "legacy: XstateSize",
                LegacyOnly::ExtendedSize { .. } => "legacy: ExtendedSize",
                LegacyOnly::Magic2 { .. } => "legacy: Magic2",
                _ => "legacy: another reason",
            },
        }
    }
}

type Read<'b> = Result<Taken<'b>, ForeignError>;

/// Note and image of such an input.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((records, rest)) = bytes.split_first() else { return (&[], &[]) };
    rest.split_at((RECORD * usize::from(*records)).min(rest.len()))
}

/// A task of a plan, and what is tried on it.
#[derive(Debug)]
pub struct Subject {
    plan: Plan,
    /// A plan of another machine, whose tasks must not get what is valid for the first, unless they can hold it.
    other: Plan,
    target: Box<Memory>,
    before: Box<Memory>,
    other_target: Box<Memory>,
    other_before: Box<Memory>,
    /// For a plan of this CPU.
    cpu: Option<(RealHarness, Seen)>,
}

impl Subject {
    /// A task that holds something in every component, supervisor components among them.
    #[must_use]
    pub fn new(plan: Plan, other: Plan) -> Self {
        let (before, other_before) = (held(&plan), held(&other));
        let (target, other_target) = (before.clone(), other_before.clone());
        Self { plan, other, target, before, other_target, other_before, cpu: None }
    }

    /// A task of the CPU's own plan, with each instruction that ring 3 has: what is taken is restored.
    ///
    /// ```
    /// use fpu_hosted_test::real::{Entry, Subject};
    /// for mut subject in Subject::of_this_cpu() {
    ///     assert!(subject.check(Entry::Frame, &[1, 2, 3]).is_err());
    /// }
    /// ```
    #[must_use]
    pub fn of_this_cpu() -> Vec<Self> {
        let (rungs, _) = RealHarness::rungs();
        let plans: Vec<Plan> = rungs.iter().map(|rung| rung.fpu().clone()).collect();
        let others = plans.iter().rev();
        rungs
            .into_iter()
            .zip(others)
            .map(|(rung, other)| {
                let mut subject = Self::new(rung.fpu().clone(), other.clone());
                let seen = rung.pattern(72, (1 << rung.components()) - 1);
                subject.cpu = Some((rung, seen));
                subject
            })
            .collect()
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What becomes of the bytes, in one word; and that no promise is broken.
    ///
    /// # Errors
    ///
    /// The bytes are refused.
    ///
    /// # Panics
    ///
    /// If a promise is broken.
    pub fn check(&mut self, entry: Entry, bytes: &[u8]) -> Result<&'static str, ForeignError> {
        let (note, bytes) = if entry == Entry::ByNote { split(bytes) } else { (&[][..], bytes) };
        let mut private = bytes.to_vec();
        let layout;
        let rules = match entry {
            Entry::ByNote => {
                layout = ForeignLayout::from_note(note)?;
                ForeignRules::new().layout(&layout)
            }
            Entry::FrameReport => ForeignRules::new().beyond(Beyond::Report),
            Entry::Compacted => ForeignRules::new().compacted().beyond(Beyond::Report),
            _ => ForeignRules::new(),
        };
        let len = self.plan.area_len();
        self.target.bytes()[..len].copy_from_slice(&self.before.bytes()[..len]);
        let plan = &self.plan;
        let read = read(plan, entry, &rules, &mut private);
        same_by_parts(plan, entry, &rules, bytes, &read);
        let taken = read?;
        let valid = taken.valid();
        for component in valid.beyond().iter() {
            let there = valid.bytes_beyond(component).map_or(0, <[u8]>::len);
            assert!(there <= bytes.len(), "{component:?}");
        }

        // Into the task, and no further than its user components.
        let kept = supervisor(plan, &mut self.target);
        // SAFETY: C9, C11: the target is ours and holds an image.
        let mut task = unsafe { plan.image_mut(self.target.base()) };
        put(&mut task, valid, entry).expect("validated with this plan");
        same(plan, &valid.image(), &task.as_image(), entry);
        if entry == Entry::Prfpreg {
            // SAFETY: C9, C11: ours, and it holds an image.
            let before = unsafe { plan.image(self.before.base()) };
            same_extended(plan, &before, &task.as_image(), entry);
        }
        assert_eq!(supervisor(plan, &mut self.target), kept, "supervisor state");

        // Into a task of another machine whole, or not at all.
        let len = self.other.area_len();
        let (theirs, unchanged) = (&mut self.other_target, &mut self.other_before.bytes()[..len]);
        theirs.bytes()[..len].copy_from_slice(unchanged);
        // SAFETY: C9, C11: ours, and it holds an image.
        let mut foreign = unsafe { self.other.image_mut(theirs.base()) };
        match put(&mut foreign, valid, entry) {
            Ok(()) => same(&self.other, &valid.image(), &foreign.as_image(), entry),
            Err(why) => {
                assert!(theirs.bytes()[..len] == *unchanged, "{why}: the image was changed");
            }
        }

        // Out, and in again.
        // SAFETY: C9, C11: ours, and it holds an image.
        let image = unsafe { plan.image(self.target.base()) };
        let mut private = write(plan, entry, &image, taken.pkru());
        let layout = ForeignLayout::of(plan);
        let rules = if entry == Entry::ByNote { rules.layout(&layout) } else { rules };
        let again = self::read(plan, entry, &rules, &mut private)
            .unwrap_or_else(|why| panic!("{entry:?}: what was written is refused: {why}"));
        same(plan, &image, &again.valid().image(), entry);
        if entry != Entry::Compacted {
            let rights = |taken: &Taken<'_>| taken.pkru().unwrap_or(0);
            assert_eq!(rights(&again), rights(&taken), "{entry:?}: PKRU");
        }
        let name = taken.name();
        self.restore(entry);
        Ok(name)
    }

    /// The task's image into the registers of this CPU, if it is the plan's.
    fn restore(&mut self, entry: Entry) {
        let Some((harness, held)) = &mut self.cpu else { return };
        if entry == Entry::FrameTiles {
            // Whether this process may use tiles is not known (C24).
            return;
        }
        let steps = [Step::Load(held), Step::Restore(self.target.base())];
        // SAFETY: C9: the target.
        let outcome = unsafe { harness.run(&steps) };
        assert_eq!(outcome.restored, Ok(()), "{entry:?}: the CPU refuses what was taken");
        // SAFETY: C9, C11: ours, and it holds an image.
        let image = unsafe { self.plan.image(self.target.base()) };
        let expected = settled(registers_of(&image, harness.classes()));
        let got = settled(outcome.registers.0);
        assert_eq!(expected.first_difference(&got), None, "{entry:?}: another register");
    }

    /// Random registers in some of the components, as an input that has to be taken as it is.
    ///
    /// ```
    /// use fpu_hosted_test::{real::{Entry, Subject}, Random};
    /// let mut subject = Subject::of_this_cpu().remove(0);
    /// let bytes = subject.legal(Entry::Prfpreg, &mut Random::new(1));
    /// assert_eq!(subject.check(Entry::Prfpreg, &bytes), Ok("taken"));
    /// ```
    #[must_use]
    pub fn legal(&mut self, entry: Entry, words: &mut Random) -> Vec<u8> {
        let plan = &self.plan;
        let user = plan.components().difference(Components::SUPERVISOR);
        let some = if words.below(4) == 0 { u64::MAX } else { words.word() };
        fill(plan, user.bits() & some, &mut self.target, |bytes| words.fill(bytes));
        let pkru = plan.user_format().components().contains(Components::PKRU);
        let pkru = (pkru && words.below(4) != 0).then(|| words.word() as u32);
        // SAFETY: C9, C11: the target is ours and holds an image.
        let image = unsafe { plan.image(self.target.base()) };
        let mut bytes = write(plan, entry, &image, pkru);
        if entry == Entry::ByNote {
            let mut note = vec![0; plan.user_format().layout_len()];
            plan.user_format().write_layout(&mut note).expect("as long as it says");
            note.insert(0, (note.len() / RECORD) as u8);
            bytes.splice(..0, note);
        }
        bytes
    }
}

/// The supervisor components of an area, and whether they are present.
fn supervisor(plan: &Plan, memory: &mut Memory) -> Vec<u8> {
    let set = plan.components().intersection(Components::SUPERVISOR);
    let bytes = memory.bytes();
    let present = u64::from_le_bytes(std::array::from_fn(|n| bytes[HEADER + n]));
    let places = set.iter().filter_map(|component| plan.place(component));
    let mut all: Vec<u8> =
        places.flat_map(|(at, size)| bytes[at..at + size].iter().copied()).collect();
    all.extend((present & set.bits()).to_le_bytes());
    all
}

fn put(task: &mut ImageMut<'_>, valid: &ValidImage<'_>, entry: Entry) -> Result<(), ImageError> {
    match entry {
        Entry::Prfpreg => task.merge(valid, Components::LEGACY),
        _ => task.replace_with(valid),
    }
}

fn read<'b>(
    plan: &'b Plan,
    entry: Entry,
    rules: &ForeignRules<'b>,
    private: &'b mut [u8],
) -> Read<'b> {
    let format = plan.user_format();
    let image = |valid| Ok(Taken::Image(valid));
    let frame = match entry {
        Entry::Xstate => return image(format.read_xstate(private)?),
        Entry::Prfpreg => return image(format.read_prfpreg(private)?),
        Entry::Foreign => return image(ForeignImage::in_private(private).validate(plan)?),
        Entry::First => {
            let (len, room) = (private.len(), private.len().min(plan.foreign_len()));
            return image(ForeignImage::first_of(len, &mut private[..room]).validate(plan)?);
        }
        Entry::Compacted | Entry::ByNote => {
            return image(ForeignImage::in_private(private).validate_by(rules, plan)?)
        }
        Entry::Frame => format.read_frame(private)?,
        Entry::Frame32 => format.read_frame_32(private)?,
        Entry::FrameReport => format.read_frame_by(rules, private)?,
        Entry::FrameTiles => with_tiles(format).read_frame(private)?,
    };
    Ok(Taken::Frame(frame))
}

fn with_tiles(format: UserFormat<'_>) -> UserFormat<'_> {
    // SAFETY: C24: nothing that is read by it is restored.
    unsafe { format.with_tiles() }
}

/// As the counterpart of the reader writes a task. Into no bytes it says how many it needs.
fn write(plan: &Plan, entry: Entry, image: &Image<'_>, pkru: Option<u32>) -> Vec<u8> {
    const BEHIND: usize = 8;
    let need = match write_into(plan, entry, image, pkru, &mut []) {
        Err(ImageError::TooShort { need }) => need,
        answer => panic!("{entry:?}: into nothing {answer:?}"),
    };
    let mut out = vec![0xEE; need + BEHIND];
    assert_eq!(write_into(plan, entry, image, pkru, &mut out), Ok(need), "{entry:?}");
    assert_eq!(out[need..], [0xEE; BEHIND], "{entry:?}: written behind the end");
    out.truncate(need);
    out
}

fn write_into(
    plan: &Plan,
    entry: Entry,
    image: &Image<'_>,
    pkru: Option<u32>,
    out: &mut [u8],
) -> Result<usize, ImageError> {
    let format = plan.user_format();
    match entry {
        Entry::Frame | Entry::FrameReport => format.write_frame(image, pkru, out),
        Entry::FrameTiles => with_tiles(format).write_frame(image, pkru, out),
        Entry::Frame32 => format.write_frame_32(image, Selectors::default(), pkru, out),
        Entry::Xstate | Entry::Foreign | Entry::First | Entry::ByNote => {
            format.write_xstate(image, pkru, out)
        }
        Entry::Compacted => image.to_compacted(out),
        Entry::Prfpreg => {
            let out = out.get_mut(..HEADER).ok_or(ImageError::TooShort { need: HEADER })?;
            format.write_prfpreg(image, out.try_into().expect("as long as it is"))?;
            Ok(HEADER)
        }
    }
}

/// The same registers, in all that a task of this plan has of what the entry takes.
fn same(plan: &Plan, one: &Image<'_>, other: &Image<'_>, entry: Entry) {
    assert_eq!((one.x87(), one.mxcsr()), (other.x87(), other.mxcsr()), "{entry:?}");
    for n in 0..16 {
        assert_eq!(one.xmm(n), other.xmm(n), "{entry:?}: xmm{n}");
    }
    if entry != Entry::Prfpreg {
        same_extended(plan, one, other, entry);
    }
}

fn same_extended(plan: &Plan, one: &Image<'_>, other: &Image<'_>, entry: Entry) {
    let extended = plan.components().difference(Components::SUPERVISOR | Components::LEGACY);
    for component in extended.iter() {
        let described = component.number().and_then(|n| plan.cpuid_info().described(n));
        let size = described.map_or(0, |it| it.size as usize);
        let present = [one, other].map(|image| image.present().contains(component));
        if present == [false; 2] {
            continue;
        }
        let value = |image: &Image<'_>| {
            let mut bytes = vec![0x1E; size];
            if image.read(component, 0, &mut bytes).is_err() {
                // A layout without it, or with another size: then it is absent, which is its initial value.
                assert!(!image.present().contains(component), "{entry:?}: {component:?}");
                bytes.fill(0);
            }
            bytes
        };
        assert!(value(one) == value(other), "{entry:?}: {component:?}");
    }
}

/// What the first 512 bytes of a frame ask to be copied is enough: the rest of the input changes no answer.
fn same_by_parts(
    plan: &Plan,
    entry: Entry,
    rules: &ForeignRules<'_>,
    bytes: &[u8],
    whole: &Read<'_>,
) {
    let front = if entry == Entry::Frame32 { 112 } else { 0 };
    let is_frame =
        matches!(entry, Entry::Frame | Entry::Frame32 | Entry::FrameReport | Entry::FrameTiles);
    let first = bytes.get(front..front + HEADER).filter(|_| is_frame);
    let Some(first) = first.and_then(|first| <&[u8; HEADER]>::try_from(first).ok()) else { return };
    let most = 16388;
    let asked = plan.user_format().frame_bytes(first, most);
    assert!((HEADER..=most).contains(&asked));
    let mut short = bytes[..(front + asked).min(bytes.len())].to_vec();
    match (read(plan, entry, rules, &mut short), whole) {
        (Ok(short), Ok(long)) => {
            assert_eq!((short.kind(), short.pkru()), (long.kind(), long.pkru()), "{entry:?}");
            same(plan, &short.valid().image(), &long.valid().image(), entry);
        }
        (Err(short), Err(long)) => assert_eq!(short, *long, "{entry:?}"),
        (short, _) => panic!("{entry:?}: by parts {:?}, and whole not", short.map(drop)),
    }
}
