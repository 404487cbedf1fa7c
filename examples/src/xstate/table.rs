//! The plan and the layouts, for people: at most 100 columns.

use std::fmt::Write;

use fpu_x86::{Plan, PlanError, SaveInstruction};

use crate::report::Style;

use super::{
    layouts::{explain, Layouts, Region},
    show::{names, wrapped},
    subject::Subject,
    words::{name, numbers},
};

/// Lines are added to a string, which takes every write.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{ let _infallible = writeln!($out, $($arg)*); }};
}

const RULE: usize = 98;

/// The contents of a component.
#[must_use]
pub fn about(number: u32) -> &'static str {
    match number {
        0 => "x87 stack, control and pointers",
        1 => "XMM0-15; MXCSR is at 24",
        2 => "upper halves of YMM0-15",
        3 => "MPX bound registers",
        4 => "MPX configuration and status",
        5 => "mask registers K0-7",
        6 => "upper halves of ZMM0-15",
        7 => "ZMM16-31",
        8 => "processor trace",
        9 => "rights of protection keys",
        10 => "address space of ENQCMD",
        11 => "shadow stack of ring 3",
        12 => "shadow stacks of rings 0-2",
        13 => "hardware duty cycling",
        14 => "user interrupts",
        15 => "last-branch records",
        16 => "hardware performance states",
        17 => "AMX tile configuration",
        18 => "AMX tiles",
        19 => "R16-31",
        62 => "lightweight profiling",
        _ => "",
    }
}

/// One row, as text.
struct Row {
    number: String,
    name: String,
    about: &'static str,
    size: String,
    standard: String,
    compacted: String,
    align: &'static str,
    kind: &'static str,
    state: Option<bool>,
}

impl Row {
    fn print(&self, out: &mut String, style: Style) {
        let Row { number, name, about, size, standard, compacted, align, kind, .. } = self;
        let text = format!(
            "{number:>4}  {name:<9}  {about:<31} {size:>6}  {standard:>11}  {compacted:>11}  {align:>5}"
        );
        if !style.has(RULE) {
            let state = self.state.map_or("?", |on| if on { "on" } else { "off" });
            line!(out, "{number:>4}  {name} ({state}): {about}");
            let figures = [
                ("bytes", size.clone()),
                ("standard", standard.clone()),
                ("compacted", compacted.clone()),
                ("align", if align.is_empty() { "-".into() } else { (*align).into() }),
                ("by", (*kind).into()),
            ];
            *out += &style.figures(&figures);
            return;
        }
        let (mark, text) = match self.state {
            Some(true) => (style.good("on"), text),
            Some(false) => (style.dim("off"), style.dim(&text)),
            None => (style.dim("?"), style.dim(&text)),
        };
        line!(out, "{text}  {kind:<4} {mark}");
    }
}

/// First and last byte.
fn range(region: &Region, number: u32) -> Option<String> {
    let (offset, size) = region.places.get(&number)?;
    Some(format!("{offset}-{}", offset + size - 1))
}

/// The whole table.
///
/// # Errors
///
/// CPUID contradicts itself.
pub fn table(subject: &Subject, style: Style) -> Result<String, String> {
    let mut out = String::new();
    line!(out, "{}", style.bold(&subject.title));
    line!(out, "{}", style.dim(subject.source));
    line!(out, "");
    let instructions = instructions(subject, style);
    line!(out, "  saves with   {instructions}");
    if let Some(Ok(plan)) = &subject.plan {
        let bytes = plan.area_len();
        let format = format!("{:?}", plan.format()).to_lowercase();
        line!(out, "  area         {bytes} bytes a task, aligned to 64; {format} format");
    }
    if !subject.facts.xsave() {
        line!(out, "  no XSAVE: an area is the 512 bytes of FXSAVE, x87 and SSE alone");
        overlooked(&mut out, subject, style);
        return Ok(out);
    }
    let user = subject.enabled & subject.facts.supported_user().bits();
    let user = wrapped(&format!("{user:#x}  {}", names(user)), 82, 15);
    line!(out, "  XCR0         {user}");
    if let Some(Err(why)) = &subject.plan {
        line!(out, "  {}", style.bad(&format!("no plan: {}", explain(why))));
    }
    match &subject.ring0 {
        Some(Ok(plan)) => line!(out, "  in ring 0    {}", ring0(plan)),
        Some(Err(why)) => line!(out, "  in ring 0    {}", style.bad(&explain(why))),
        None => {}
    }
    overlooked(&mut out, subject, style);
    line!(out, "");
    components(&mut out, subject, style)?;
    line!(out, "");
    sizes(&mut out, subject, style)?;
    Ok(out)
}

/// The plan that a kernel would have, by CPUID's words.
fn ring0(plan: &Plan) -> String {
    let rung = format!("{:?}", plan.save_instruction()).to_uppercase();
    let (bytes, xcr0, xss) = (plan.area_len(), plan.xcr0().bits(), plan.xss().bits());
    let xss = if xss == 0 { String::new() } else { format!(", IA32_XSS {xss:#x}") };
    format!("{rung}, {bytes} bytes; XCR0 {xcr0:#x}{xss}")
}

/// The quirks of the words, and what a plan leaves out because of them.
fn overlooked(out: &mut String, subject: &Subject, style: Style) {
    for (at, quirk) in subject.quirks().iter().enumerate() {
        let head = if at == 0 { "overlooked" } else { "" };
        line!(out, "  {head:<11}  {}", style.dim(&wrapped(&quirk.to_string(), 82, 15)));
    }
}

fn instructions(subject: &Subject, style: Style) -> String {
    let chosen = subject.plan.as_ref().and_then(|plan| plan.as_ref().ok());
    let best = |rung| match chosen {
        Some(plan) => plan.save_instruction() == rung,
        None => false,
    };
    let rungs = subject.rungs().into_iter().map(|(rung, there)| {
        let name = format!("{rung:?}").to_uppercase();
        // Whether a plan of this ring could use it.
        let usable = chosen.is_none_or(|plan| usable(plan, rung));
        match (there, best(rung)) {
            (_, true) => style.good(&style.bold(&format!("[{name}]"))),
            (true, _) if usable => name,
            (true, _) if rung == SaveInstruction::Xsaves => style.dim("XSAVES (ring 0)"),
            (true, _) => style.dim(&format!("{name} (x87, SSE)")),
            (false, _) => style.dim(&format!("no {name}")),
        }
    });
    rungs.collect::<Vec<_>>().join("   ")
}

fn usable(plan: &Plan, rung: SaveInstruction) -> bool {
    !matches!(
        plan.clone().with_save_instruction(rung),
        Err(PlanError::Unavailable(_) | PlanError::TooNarrow { .. })
    )
}

fn components(out: &mut String, subject: &Subject, style: Style) -> Result<(), String> {
    let supervisor = subject.supervisor_enabled();
    let known = subject.enabled | supervisor.unwrap_or(0);
    let enabled = Layouts::new(&subject.facts, known)?;
    let head = format!(
        "{:>4}  {:<9}  {:<31} {:>6}  {:>11}  {:>11}  {:>5}  {}",
        "#", "component", "holds", "bytes", "standard", "compacted", "align", "by"
    );
    if style.has(RULE) {
        line!(out, "{}", style.bold(&head));
        line!(out, "{}", style.dim(&"-".repeat(RULE)));
    }
    let fixed = |number: &str, name: &str, about, from: u32, size: u32, kind, state| Row {
        number: number.into(),
        name: name.into(),
        about,
        size: size.to_string(),
        standard: format!("{from}-{}", from + size - 1),
        compacted: format!("{from}-{}", from + size - 1),
        align: "",
        kind,
        state,
    };
    let on = |number: u32| Some(subject.enabled >> number & 1 != 0);
    fixed("0", "X87", about(0), 0, 160, "XCR0", on(0)).print(out, style);
    fixed("1", "SSE", about(1), 160, 256, "XCR0", on(1)).print(out, style);
    fixed("", "software", "free for the system", 464, 48, "", Some(true)).print_bare(out, style);
    let header = "XSTATE_BV, XCOMP_BV";
    fixed("", "header", header, 512, 64, "", Some(true)).print_bare(out, style);
    for number in numbers(subject.supported() & !0b11) {
        row(subject, &enabled, supervisor, number).print(out, style);
    }
    Ok(())
}

fn row(subject: &Subject, enabled: &Layouts, supervisor: Option<u64>, number: u32) -> Row {
    let described = subject.facts.described(number);
    // One component alone has the same place in the standard format as among others.
    let alone = Layouts::new(&subject.facts, 1 << number).ok();
    let standard = alone.and_then(|layouts| range(&layouts.standard, number));
    let compacted = range(&enabled.compacted, number);
    // By the list that names it: what is not described says nothing.
    let is_supervisor = subject.facts.supported_supervisor().bits() >> number & 1 != 0
        && subject.facts.supported_user().bits() >> number & 1 == 0;
    let none = || String::from("-");
    Row {
        number: number.to_string(),
        name: name(number).map_or_else(none, str::to_owned),
        about: about(number),
        size: described.map_or_else(none, |d| d.size.to_string()),
        standard: standard.unwrap_or_else(none),
        compacted: compacted.unwrap_or_else(none),
        align: if described.is_some_and(|d| d.align) { "64" } else { "-" },
        kind: if is_supervisor { "XSS" } else { "XCR0" },
        state: match (subject.enabled >> number & 1 != 0, is_supervisor) {
            (true, _) => Some(true),
            (false, false) => Some(false),
            (false, true) => supervisor.map(|bits| bits >> number & 1 != 0),
        },
    }
}

impl Row {
    /// Without a state: it is always there.
    fn print_bare(&self, out: &mut String, style: Style) {
        let Row { name, about, size, standard, compacted, .. } = self;
        if !style.has(RULE) {
            line!(out, "{:>4}  {name}: {about}", "");
            *out += &style.figures(&[("bytes", size.clone()), ("at", standard.clone())]);
            return;
        }
        let text =
            format!("{:>4}  {name:<9}  {about:<31} {size:>6}  {standard:>11}  {compacted:>11}", "");
        line!(out, "{}", style.dim(&text));
    }
}

fn sizes(out: &mut String, subject: &Subject, style: Style) -> Result<(), String> {
    let facts = &subject.facts;
    let all = Layouts::new(facts, facts.supported_user().bits());
    let enabled = subject.layouts()?;
    let supervisor = subject.supervisor_enabled();
    let more = Layouts::new(facts, subject.enabled | supervisor.unwrap_or(0))?;
    let head = format!("  {:<39} {:>8}  {:>8}", "size of an area, bytes", "computed", "CPU says");
    line!(out, "{}", style.bold(&head));
    let mut row = |what: &str, computed: Option<u32>, said: u32, word: &str, excuse: &str| {
        let (text, same) = match computed {
            Some(computed) => (computed.to_string(), computed == said),
            None => ("-".into(), false),
        };
        let verdict = match same {
            true => style.good("="),
            false if said == 0 => style.dim("not said:"),
            false if excuse.is_empty() => style.bad("differs:"),
            false => style.dim(excuse),
        };
        line!(out, "  {what:<39} {text:>8}  {said:>8}  {verdict} {}", style.dim(word));
    };
    let recorded = subject.plan.is_none();
    let other = if recorded { "for another set:" } else { "" };
    let excuse = if recorded { other } else { "supervisor state:" };
    let what = "standard, what XCR0 enables";
    row(what, Some(enabled.standard.len), facts.standard_enabled(), "CPUID(0xD,0).EBX", other);
    let all = all.ok().map(|layouts| layouts.standard.len);
    row(
        "standard, all that XCR0 can enable",
        all,
        facts.standard_supported(),
        "CPUID(0xD,0).ECX",
        "",
    );
    let set = subject.enabled | supervisor.unwrap_or(0);
    let what = match set & facts.supported_supervisor().bits() {
        0 => "compacted, without supervisor state".into(),
        bits if numbers(bits).count() > 4 => {
            format!("compacted, with {} supervisor components", numbers(bits).count())
        }
        bits => format!("compacted, with {}", names(bits)),
    };
    row(&what, Some(more.compacted.len), facts.compacted_enabled(), "CPUID(0xD,1).EBX", excuse);
    if supervisor.is_some_and(|bits| bits != 0) {
        let note = "what IA32_XSS enables cannot be read here; only this gives the CPU's own size";
        line!(out, "  {}", style.dim(note));
    }
    Ok(())
}
