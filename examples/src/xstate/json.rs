//! A decoded image for programs: one JSON object, in one line.

use fpu_x86::ForeignError;
use serde_json::{json, Map, Value};

use super::{
    bytes::Malformed,
    reading::{Kind, Origin, Part, Reading},
    registers,
    words::name,
};

fn hex(value: u64) -> Value {
    format!("{value:#x}").into()
}

/// The object, as far as it says which thread this is.
fn thread(origin: &Origin) -> Map<String, Value> {
    let mut object = Map::new();
    if let Some(thread) = origin.thread {
        object.insert("thread".into(), thread.into());
        object.insert("process".into(), origin.id.into());
    }
    if let Some((owner, kind)) = &origin.note {
        let note = json!({"owner": owner, "type": hex((*kind).into()), "offset": origin.at});
        object.insert("note".into(), note);
    }
    object
}

/// An image. `verdict`: whether a task of this machine could have these registers.
#[must_use]
pub fn image(
    reading: &Reading<'_>,
    origin: &Origin,
    verdict: Option<Result<(), ForeignError>>,
) -> String {
    let mut object = thread(origin);
    let mut put = |key: &str, value: Value| object.insert(key.into(), value);
    put("format", reading.kind.name().into());
    put("bytes", reading.len.into());
    put("behind", reading.rest.into());
    put("xstate_bv", hex(reading.present));
    if reading.kind == Kind::Compacted {
        put("xcomp_bv", hex(reading.room | 1 << 63));
    }
    if let Some(bits) = reading.xcr0 {
        put("xcr0", hex(bits));
    }
    if let Some(frame) = reading.frame {
        let why = frame.legacy.map(|why| why.to_string());
        put(
            "frame",
            json!({
                "xstate_size": frame.xstate_size, "extended_size": frame.extended_size, "x87_and_sse_only": why,
            }),
        );
    }
    let label = |number: u32| name(number).map_or_else(|| number.to_string(), str::to_owned);
    let places =
        reading.places().map(|(number, offset, size)| (label(number), json!([offset, size])));
    let places: Map<String, Value> = places.collect();
    if !places.is_empty() {
        put("places", places.into());
    }
    if let Some(by) = reading.by.filter(|_| reading.kind != Kind::Compacted) {
        put("layout", by.words().into());
    }
    let registers = registers::of_image(reading).into_iter();
    let registers = registers.map(|(register, hex)| (register.to_string(), hex.into()));
    put("registers", Value::Object(registers.collect()));
    let other: Map<String, Value> = registers::nameless(reading)
        .map(|(number, part)| match part {
            Part::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                (label(number), hex.into())
            }
            Part::Zero => (label(number), "".into()),
            Part::Unplaced => (label(number), Value::Null),
        })
        .collect();
    if !other.is_empty() {
        put("other", other.into());
    }
    if let Some(verdict) = verdict {
        put(
            "restore",
            match verdict {
                Ok(()) => json!({"ok": true}),
                Err(why) => json!({
                    "ok": false, "field": why.field(), "offset": why.offset(), "value": hex(why.value()),
                    "why": why.to_string(),
                }),
            },
        );
    }
    line(object)
}

/// A thread without registers.
#[must_use]
pub fn nothing(origin: &Origin) -> String {
    let mut object = thread(origin);
    object.insert("registers".into(), Value::Null);
    line(object)
}

/// What could not be decoded.
#[must_use]
pub fn wrong(why: &Malformed) -> String {
    let Malformed { field, offset, value, why } = why;
    let error = json!({"field": field, "offset": offset, "value": hex(*value), "why": why});
    format!("{}\n", json!({ "error": error }))
}

fn line(object: Map<String, Value>) -> String {
    format!("{}\n", Value::Object(object))
}
