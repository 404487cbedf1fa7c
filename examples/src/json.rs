//! The results for programs, as one JSON document.

use fpu_core::RawFpu;

use crate::{
    faults::Fault,
    report::{cpu_name, Row, Side},
    run::{Machine, Mismatch},
    stats::PIECES,
    world::Setup,
};

/// A string literal.
fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".into())
}

fn side(side: &Side, switches: u64, overhead: u32) -> String {
    let pieces: Vec<_> = PIECES
        .iter()
        .filter_map(|(piece, name)| {
            let (min, median) = side.samples.min_and_median(*piece, overhead)?;
            let (count, mean) = (side.samples.count(*piece), side.samples.mean(*piece, overhead));
            Some(format!(
                "{}:{{\"count\":{count},\"min\":{min},\"median\":{median},\"mean\":{mean:.1}}}",
                text(name)
            ))
        })
        .collect();
    let counts = side.counts;
    format!(
        "{{\"returns\":{},\"saves\":{},\"restores\":{},\"skipped\":{},\"cycles_per_switch\":{},\"cycles\":{{{}}}}}",
        counts.returns,
        counts.saves,
        counts.restores,
        counts.skipped,
        side.per_switch(switches, overhead),
        pieces.join(",")
    )
}

fn row(row: &Row, overhead: u32) -> String {
    format!(
        "{{\"id\":{},\"name\":{},\"switches\":{},\"migrations\":{},\"runs\":{},\"deferred\":{},\"eager\":{},\"ratio\":{:.3}}}",
        text(row.id),
        text(row.name),
        row.switches,
        row.migrations,
        row.runs,
        side(&row.deferred, row.switches, overhead),
        side(&row.eager, row.switches, overhead),
        row.ratio(overhead)
    )
}

fn mismatch(found: &Mismatch) -> String {
    let register = found.register.map(|(register, expected, seen)| {
        let (register, expected, seen) =
            (register.to_string(), format!("{expected:#x}"), format!("{seen:#x}"));
        format!(
            "{{\"name\":{},\"expected\":{},\"seen\":{}}}",
            text(&register),
            text(&expected),
            text(&seen)
        )
    });
    format!(
        "{{\"scenario\":{},\"step\":{},\"task\":{},\"cpu\":{},\"register\":{},\"refused\":{}}}",
        text(found.scenario),
        found.step,
        found.task,
        found.cpu,
        or_null(register),
        or_null(found.refused.map(|why| text(&why.to_string())))
    )
}

/// The end of the run.
#[derive(Debug, Default)]
pub struct Ending<'a> {
    /// The seeded fault.
    pub fault: Option<Fault>,
    /// The mismatch that ended it.
    pub mismatch: Option<&'a Mismatch>,
    /// Another failed check.
    pub failure: Option<&'a str>,
    /// Where the timeline is.
    pub svg: Option<String>,
}

/// The document, without the final newline.
#[must_use]
pub fn document(
    machine: &Machine,
    setup: &Setup,
    rows: &[Row],
    bound: Option<&Row>,
    overhead: u32,
    end: &Ending<'_>,
) -> String {
    let total = Row::total(rows);
    let list: Vec<_> = rows.iter().map(|r| row(r, overhead)).collect();
    let rung = format!("{:?}", setup.plan.save_instruction()).to_lowercase();
    format!(
        "{{\"cpu\":{},\"registers\":{},\"rung\":{},\"area_bytes\":{},\"cores\":[{},{}],\"seed\":{},\
         \"overhead_cycles\":{overhead},\"fault\":{},\"scenarios\":[{}],\"total\":{},\"bound\":{},\
         \"returns_checked\":{},\"mismatches\":{},\"mismatch\":{},\"failure\":{},\"svg\":{}}}",
        text(&cpu_name()),
        text(setup.classes.describe()),
        text(&rung),
        RawFpu::area_len(&setup.plan),
        machine.cores[0],
        machine.cores[1],
        setup.seed,
        or_null(end.fault.map(|fault| text(fault.name()))),
        list.join(","),
        row(&total, overhead),
        or_null(bound.map(|one| row(one, overhead))),
        Row::checked(rows.iter().chain(bound)),
        u32::from(end.mismatch.is_some()),
        or_null(end.mismatch.map(mismatch)),
        or_null(end.failure.map(text)),
        or_null(end.svg.as_deref().map(text)),
    )
}
