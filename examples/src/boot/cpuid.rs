//! `--cpuid`: recorded CPUID words for the kernel's library to believe, read and made into a boot parameter.

use std::{collections::BTreeMap, fs::File, io::Read, sync::OnceLock};

use fpu_x86::{Components, CpuidInfo, Plan};
use serde_json::value::RawValue;

use crate::xstate::{
    batch::LONGEST,
    words::{hex, quoted, Words, LEAF},
};

use super::{
    machines::{named, Machine, AVX512},
    sizes,
};

/// Words that hypervisors and firmware were seen to say.
const BUILT_IN: &str = include_str!("../../../fpu-x86/testdata/quirks.jsonl");

/// Bits of CPUID.1:ECX and CPUID(0xD,1).EAX.
const XSAVE: u32 = 1 << 26;
const XSAVEC_OR_XSAVES: u32 = 1 << 1 | 1 << 3;
/// AMX in XCR0.
const TILES: u64 = Components::AMX.bits();
/// More than any machine's; of a mask with more bits the lowest are tried.
const BITS: u32 = 12;

/// One recorded machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The name, on the command line and in tables.
    pub name: String,
    /// The origin of the words.
    pub about: String,
    /// The boot parameter.
    pub parameter: String,
    words: Words,
}

/// The recorded machines that come with this program.
///
/// # Panics
///
/// If the file that was compiled in is damaged, which a test excludes.
pub fn built_in() -> &'static [Recorded] {
    static ALL: OnceLock<Vec<Recorded>> = OnceLock::new();
    ALL.get_or_init(|| lines("quirks.jsonl", BUILT_IN.as_bytes()).expect("a test reads all of it"))
}

/// By name, `all`, or from a file of JSON lines.
///
/// # Errors
///
/// One line: which file, which line of it, which field.
pub fn load(text: &str) -> Result<Vec<&'static Recorded>, String> {
    let all = built_in();
    if text == "all" {
        return Ok(all.iter().collect());
    }
    if let Some(one) = all.iter().find(|one| one.name == text) {
        return Ok(vec![one]);
    }
    let mut bytes = Vec::new();
    let read = File::open(text).and_then(|f| f.take(LONGEST as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|why| format!("neither a name (--cpuid list) nor a file: {text:?}: {why}"))?;
    if bytes.len() > LONGEST {
        return Err(format!("{text}: longer than {LONGEST} bytes"));
    }
    // They are wanted until the program ends.
    Ok(lines(text, &bytes)?.leak().iter().collect())
}

fn lines(file: &str, bytes: &[u8]) -> Result<Vec<Recorded>, String> {
    let mut found = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            let place = format!("{file}:{}", index + 1);
            found.push(one(&place, line).map_err(|why| format!("{place}: {why}"))?);
        }
    }
    if found.is_empty() {
        return Err(format!("{file}: no CPUID words in it"));
    }
    Ok(found)
}

fn one(place: &str, line: &[u8]) -> Result<Recorded, String> {
    let utf8 = |why: std::str::Utf8Error| format!("not UTF-8 at column {}", why.valid_up_to() + 1);
    let line = std::str::from_utf8(line).map_err(utf8)?;
    let keys: BTreeMap<String, &RawValue> = serde_json::from_str(line)
        .map_err(|why| format!("not a JSON object: {why}").replace("line 1 ", ""))?;
    let text = |key: &str| match keys.get(key) {
        None => Ok(None),
        Some(raw) => match serde_json::from_str::<String>(raw.get()) {
            // It goes to a terminal.
            Ok(text) => Ok(Some(text.chars().filter(|c| !c.is_control()).collect::<String>())),
            Err(_) => Err(format!("{key} is no string")),
        },
    };
    let words = Words::from_json(keys.get("cpuid").ok_or("missing key: cpuid")?)?;
    for leaf in [0, 1] {
        if words.get(leaf, 0).is_none() {
            return Err(format!("cpuid has no four words 0x{leaf}.0"));
        }
    }
    let xcr0 = text("xcr0")?.map(|text| match hex(&text, true) {
        Some(xcr0) => Ok(xcr0),
        None => Err(format!("xcr0 {} is no hex number of 64 bits", quoted(&text))),
    });
    let parameter = parameter(&words, xcr0.transpose()?);
    let name = text("name")?.filter(|name| !name.is_empty()).unwrap_or_else(|| place.into());
    Ok(Recorded { name, about: text("about")?.unwrap_or_default(), parameter, words })
}

/// Every set of bits within a mask, of which 12 at most are looked at.
fn subsets(mask: u64) -> impl Iterator<Item = u64> {
    let bits: Vec<u64> = (0..64).map(|n| 1 << n).filter(|bit| mask & bit != 0).collect();
    let bits: Vec<u64> = bits.into_iter().take(BITS as usize).collect();
    (0..1_u64 << bits.len()).map(move |choice| {
        let chosen = bits.iter().enumerate().filter(|(n, _)| choice >> n & 1 != 0);
        chosen.map(|(_, bit)| bit).sum()
    })
}

/// Which of the EBX of leaf 0xD, subleaves 0 and 1, are what a CPU with the other words computes for XCR0 (if
/// it is not known: for any) and for any IA32_XSS. They will follow what is enabled; another word stands still.
fn follow(words: &Words, xcr0: Option<u64>) -> [bool; 2] {
    let of = |number| words.get(LEAF, number).unwrap_or_default();
    let (main, sub) = (of(0), of(1));
    let all = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let sets = match xcr0 {
        Some(xcr0) => vec![xcr0],
        None => subsets(all(main[0], main[3])).filter(|set| set & 1 != 0).collect(),
    };
    let right: Vec<u64> =
        sets.iter().copied().filter(|set| sizes::standard(*set, of) == main[1]).collect();
    // With a wrong first word nothing is known of the set that the second is for.
    let sets = if right.is_empty() { &sets } else { &right };
    let xss: Vec<u64> = subsets(all(sub[2], sub[3])).collect();
    let computes = |set: &u64| xss.iter().any(|xss| sizes::compacted(*set, *xss, of) == sub[1]);
    [!right.is_empty(), sets.iter().any(computes)]
}

/// `LEAF.SUBLEAF:EAX,EBX,ECX,EDX/..` as the kernel reads it: the leaves that its library looks at.
fn parameter(words: &Words, xcr0: Option<u64>) -> String {
    let follow = follow(words, xcr0);
    let leaves = [(0, 0), (1, 0), (7, 0), (0x8000_0000, 0), (0x8000_0008, 0)];
    let all = leaves.into_iter().chain((0..63).map(|subleaf| (LEAF, subleaf)));
    let text = |(leaf, subleaf)| {
        // What is not there reads as zeros anyway.
        let [a, b, c, d] = words.get(leaf, subleaf).filter(|four| *four != [0; 4])?;
        let follows = leaf == LEAF && follow.get(subleaf as usize) == Some(&true);
        let b = if follows { "~".into() } else { format!("{b:x}") };
        Some(format!("{leaf:x}.{subleaf}:{a:x},{b},{c:x},{d:x}"))
    };
    all.filter_map(text).collect::<Vec<_>>().join("/")
}

impl Recorded {
    fn word(&self, leaf: u32, subleaf: u32, register: usize) -> u32 {
        self.words.get(leaf, subleaf).map_or(0, |four| four[register])
    }

    /// Tells whether the words say XSAVE.
    #[must_use]
    pub fn xsave(&self) -> bool {
        self.word(1, 0, 2) & XSAVE != 0
    }

    /// The plan of a CPU that does what the words say, for a kernel that asks for what the booted one asks for.
    /// `None`: they are none to make a plan from.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        let facts = CpuidInfo::from_cpuid(self.words.clone()).ok()?;
        Plan::for_kernel(facts, 0, Components::USER | Components::CET_U).ok()
    }

    /// Of the machines that run here, the one that has what they promise, or else the one that has most of it.
    #[must_use]
    pub fn machine(&self, runs: impl Fn(&Machine) -> bool) -> Option<&'static Machine> {
        let offers = if self.xsave() { u64::from(self.word(LEAF, 0, 0)) } else { 0 };
        let supervisor = self.word(LEAF, 1, 2) | self.word(LEAF, 1, 3);
        let compacts = self.word(LEAF, 1, 0) & XSAVEC_OR_XSAVES != 0;
        let first = match () {
            () if offers & TILES != 0 || (compacts && supervisor != 0) => "sapphire",
            () if offers & AVX512 != 0 || (compacts && offers != 0) => "icelake",
            () => "max",
        };
        let machines = [first, "icelake", "max"].map(named);
        let can = machines.into_iter().flatten().find(|machine| runs(machine));
        // If none can, the run says why.
        can.or(machines[0])
    }
}

/// The names of the built-in words, one a line.
#[must_use]
pub fn list() -> String {
    built_in().iter().map(|one| format!("  {:<16}  {}\n", one.name, one.about)).collect()
}
