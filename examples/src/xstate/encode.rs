//! `xstate encode`: from a text to bytes, by the library's writers.

use fpu_core::{Area, RawFpu, SaveArea};
use fpu_x86::{
    Components, CpuidInfo, ForeignLayout, Format, ImageError, ImageMut, Plan, SaveInstruction,
    Selectors, UserFormat, X87,
};

use super::{
    bytes::{COMPACTED, EXTENDED, LEGACY, XCOMP_BV, XCR0},
    dump,
    layouts::explain,
    registers::Register,
    text::{self, At, Thread, Wrong},
    words::component,
};

/// What the bytes are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The FPU part of a signal frame.
    Frame,
    /// That of a 32-bit program's.
    Frame32,
    /// NT_X86_XSTATE.
    Xstate,
    /// NT_PRFPREG.
    Fxregs,
    /// A page of KVM_GET_XSAVE, or as many as it takes.
    Kvm,
    /// The compacted format.
    Compacted,
    /// A core file.
    Core,
}

impl Kind {
    /// All, by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("frame", Self::Frame),
        ("frame-32", Self::Frame32),
        ("xstate", Self::Xstate),
        ("fxregs", Self::Fxregs),
        ("kvm", Self::Kvm),
        ("compacted", Self::Compacted),
        ("core", Self::Core),
    ];
}

/// The machine for which bytes are made.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// What it says.
    pub facts: &'a CpuidInfo,
    /// Bits of MXCSR that it has.
    pub mxcsr_mask: u32,
    /// What is enabled, if the text does not say so.
    pub enabled: Components,
}

/// An area for an image is on the stack; no machine that is known needs as much.
const AREA: usize = 16384;

/// What two functions of this file pass on.
type Done<T> = Result<T, Wrong>;

/// The bytes that a text asks for.
///
/// # Errors
///
/// What is wrong with the text, or what the machine cannot hold.
pub fn encode(kind: Kind, text: &str, machine: &Machine<'_>) -> Done<Vec<u8>> {
    let threads = text::read(text)?;
    if kind == Kind::Core {
        return core(&threads, machine);
    }
    match &threads[..] {
        [one] => bytes(kind, one, machine),
        [_, second, ..] => {
            Err(Wrong::new(second.at, "a second thread: only a core file has several"))
        }
        [] => Err(Wrong::new(At { line: 1, column: 1 }, "no thread")),
    }
}

fn core(threads: &[Thread], machine: &Machine<'_>) -> Done<Vec<u8>> {
    let mut notes = dump::Notes::default();
    let enabled = threads.first().and_then(|thread| thread.xcr0);
    for (index, thread) in threads.iter().enumerate() {
        if let (Some((first, _)), Some((this, at))) = (enabled, thread.xcr0) {
            if first != this {
                let why = format!("xcr0: {this:#x}, but the first thread has {first:#x}");
                return Err(Wrong::new(at, why));
            }
        }
        let thread = Thread { xcr0: enabled, ..thread.clone() };
        let legacy = Thread { values: only_legacy(&thread), xstate_bv: None, ..thread.clone() };
        notes.status(thread.id.unwrap_or(1 + index as u32));
        notes.add("CORE", 2, &bytes(Kind::Fxregs, &legacy, machine)?);
        if machine.facts.xsave() {
            notes.add("LINUX", 0x202, &bytes(Kind::Xstate, &thread, machine)?);
        } else if let Some(one) = (thread.present() & !Components::LEGACY).iter().next() {
            return Err(beyond(&thread, one, "this machine, which has no XSAVE,"));
        }
        if index == 0 && machine.facts.xsave() {
            let plan = plan(&thread, machine)?;
            let format = format(&plan, &thread, machine)?;
            let mut layout = vec![0; format.layout_len()];
            format.write_layout(&mut layout).map_err(|why| refused(&thread, &why))?;
            notes.add("LINUX", 0x205, &layout);
        }
    }
    Ok(notes.file())
}

/// Of x87 and SSE; of a vector register its lowest part.
fn only_legacy(thread: &Thread) -> std::collections::BTreeMap<Register, (Vec<u8>, At)> {
    let present = thread.present();
    let held = |register: &Register| match register {
        Register::Vector(_, n) => *n < 16 && present.contains(Components::SSE),
        Register::Mxcsr => true,
        other => other.components() == Components::X87 && present.contains(Components::X87),
    };
    let values = thread.values.iter().filter(|(register, _)| held(register));
    values
        .map(|(register, (value, at))| {
            let len = match register {
                Register::Vector(..) => value.len().min(16),
                _ => value.len(),
            };
            (*register, (value[..len].to_vec(), *at))
        })
        .collect()
}

/// What is enabled.
fn enabled(thread: &Thread, machine: &Machine<'_>) -> Components {
    thread.xcr0.map_or(machine.enabled, |(bits, _)| Components::from_bits_retain(bits))
}

fn plan(thread: &Thread, machine: &Machine<'_>) -> Done<Plan> {
    let at = thread.xcr0.map_or(thread.at, |(_, at)| at);
    let wanted = enabled(thread, machine);
    let wrong = |why: String| Wrong::new(at, format!("xcr0 {:#x}: {why}", wanted.bits()));
    let lacks = wanted.difference(machine.facts.supported_user());
    if let Some(number) = lacks.numbers().next() {
        return Err(wrong(format!("the machine lacks {}", component(number))));
    }
    if !wanted.is_legal_xcr0() {
        return Err(wrong("no value that XCR0 can have".into()));
    }
    let plan =
        Plan::for_kernel(machine.facts.clone(), machine.mxcsr_mask, wanted | Components::LEGACY);
    let plan = plan.map_err(|why| wrong(explain(&why)))?;
    // A plan saves x87 and SSE alone by FXSAVE. Frames and regsets of a machine with XSAVE have a header all the same.
    match machine.facts.xsave() && plan.format() == Format::Legacy {
        true => Ok(plan.clone().with_save_instruction(SaveInstruction::Xsave).unwrap_or(plan)),
        false => Ok(plan),
    }
}

/// The format, in which there is exactly what is enabled.
fn format<'p>(plan: &'p Plan, thread: &Thread, machine: &Machine<'_>) -> Done<UserFormat<'p>> {
    let wanted = enabled(thread, machine);
    let mut format = plan.user_format();
    if !wanted.contains(Components::PKRU) {
        format = format.without_pkru();
    }
    if wanted.intersects(Components::AMX) {
        // SAFETY: C24: nothing is restored: the bytes are written to a file.
        format = unsafe { format.with_tiles() };
    }
    if let Some(number) = wanted.difference(format.components()).numbers().next() {
        let at = thread.xcr0.map_or(thread.at, |(_, at)| at);
        let why = format!(
            "xcr0 {:#x}: by the machine's words no image has {}",
            wanted.bits(),
            component(number)
        );
        return Err(Wrong::new(at, why));
    }
    Ok(format)
}

/// What the library refuses has the register's name where that can be told.
fn refused(thread: &Thread, why: &ImageError) -> Wrong {
    let of = |component| Wrong::new(thread.place(component), why.to_string());
    match why {
        ImageError::ReservedMxcsr { .. } => {
            let at = thread.values.get(&Register::Mxcsr).map_or(thread.at, |(_, at)| *at);
            Wrong::new(at, format!("mxcsr: {why}"))
        }
        ImageError::IllegalValue { component, .. } => of(*component),
        _ => Wrong::new(thread.at, why.to_string()),
    }
}

fn beyond(thread: &Thread, component: Components, what: &str) -> Wrong {
    let name = component.number().map_or_else(String::new, super::words::component);
    Wrong::new(thread.place(component), format!("{what} cannot hold {name}"))
}

/// One thread's image in every format but a core file's.
fn bytes(kind: Kind, thread: &Thread, machine: &Machine<'_>) -> Done<Vec<u8>> {
    let present = thread.present();
    let holds = match kind {
        Kind::Fxregs => Components::LEGACY,
        _ => enabled(thread, machine),
    };
    if let Some(number) = present.difference(holds).numbers().next() {
        let what = match kind {
            Kind::Fxregs => "an image of FXSAVE's".into(),
            _ => format!("an image with XCR0 {:#x}", holds.bits()),
        };
        return Err(beyond(thread, Components::from_bits_retain(1 << number), &what));
    }
    let has_header = machine.facts.xsave();
    if !has_header && !matches!(kind, Kind::Frame | Kind::Frame32 | Kind::Fxregs) {
        return Err(Wrong::new(
            thread.at,
            "this machine has no XSAVE: only frame, frame-32 and fxregs",
        ));
    }
    let plan = plan(thread, machine)?;
    let format = format(&plan, thread, machine)?;
    let area = Area::<AREA>::new();
    if plan.area_len() > AREA {
        let why = format!("the machine's areas have {} bytes, at most {AREA} are", plan.area_len());
        return Err(Wrong::new(thread.at, why));
    }
    // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
    let mut image = unsafe {
        plan.write_initial(area.base());
        plan.image_mut(area.base())
    };
    fill(&mut image, thread).map_err(|why| refused(thread, &why))?;
    let image = image.as_image();
    let pkru = present.contains(Components::PKRU).then(|| {
        let value = thread.values.get(&Register::Pkru);
        value.and_then(|(value, _)| value[..].try_into().ok()).map_or(0, u32::from_le_bytes)
    });
    let mut out = vec![0; format.xstate_len().max(format.frame_len_32()).max(EXTENDED)];
    let (len, front) = match kind {
        Kind::Frame => (format.write_frame(&image, pkru, &mut out), 0),
        Kind::Frame32 => {
            for pointer in [Register::Fip, Register::Fdp] {
                if let Some((value, at)) = thread.values.get(&pointer) {
                    if value[4..] != [0; 4] {
                        let why = format!("{pointer}: FSAVE's image has 32 bits of it");
                        return Err(Wrong::new(*at, why));
                    }
                }
            }
            (format.write_frame_32(&image, Selectors::default(), pkru, &mut out), 112)
        }
        Kind::Fxregs => {
            let mut legacy = [0; LEGACY];
            let done = format.write_prfpreg(&image, &mut legacy).map(|()| LEGACY);
            out[..LEGACY].copy_from_slice(&legacy);
            (done, 0)
        }
        _ => (format.write_xstate(&image, pkru, &mut out), 0),
    };
    out.truncate(len.map_err(|why| refused(thread, &why))?);
    if present.contains(Components::TILEDATA) {
        tiles(&mut out[front..], thread, &plan);
    }
    match kind {
        Kind::Kvm => out.resize(out.len().next_multiple_of(4096), 0),
        Kind::Compacted => out = compact(&out, &plan, enabled(thread, machine)),
        _ => {}
    }
    Ok(out)
}

/// Makes present what the text calls present, with the values that it has for it.
fn fill(image: &mut ImageMut<'_>, thread: &Thread) -> Result<(), ImageError> {
    let present = thread.present();
    let value = |register| thread.values.get(&register).map(|(value, _)| &value[..]);
    let short = |register, initial: u16| {
        let bytes = value(register).and_then(|value| value.get(..2)?.try_into().ok());
        bytes.map_or(initial, u16::from_le_bytes)
    };
    let long = |register| {
        let bytes = value(register).and_then(|value| value.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    if present.contains(Components::X87) {
        let mut x87 = X87 {
            fcw: short(Register::Fcw, X87::INITIAL.fcw),
            fsw: short(Register::Fsw, 0),
            tags: value(Register::Ftw).map_or(0, |value| value[0]),
            fop: short(Register::Fop, 0),
            fip: long(Register::Fip),
            fdp: long(Register::Fdp),
            ..X87::INITIAL
        };
        for (n, register) in x87.st.iter_mut().enumerate() {
            *register = array(value(Register::St(n)), 0);
        }
        image.set_x87(&x87);
    }
    if let Some(mxcsr) =
        value(Register::Mxcsr).map(|value| u32::from_le_bytes(array(Some(value), 0)))
    {
        // Its initial value is there anyway.
        if mxcsr != 0x1F80 {
            image.set_mxcsr(mxcsr)?;
        }
    }
    for n in 0..16 {
        let (low, high) = (value(Register::Vector(64, n)), value(Register::Vector(64, n + 16)));
        if present.contains(Components::SSE) {
            image.set_xmm(n, array(low, 0))?;
        }
        if present.contains(Components::AVX) {
            image.set_ymm_hi(n, array(low, 16))?;
        }
        if present.contains(Components::ZMM_HI256) {
            image.set_zmm_hi256(n, array(low, 32))?;
        }
        if present.contains(Components::HI16_ZMM) {
            image.set_zmm_hi16(n + 16, array(high, 0))?;
        }
    }
    for (component, size) in [
        (Components::OPMASK, 64),
        (Components::BNDREGS, 64),
        (Components::BNDCSR, 64),
        (Components::TILECFG, 64),
        (Components::APX, 128),
    ] {
        if present.contains(component) {
            image.write(component, 0, &whole(thread, component, size))?;
        }
    }
    Ok(())
}

/// Bytes of a value; zeros where it is shorter, or not there.
fn array<const N: usize>(value: Option<&[u8]>, from: usize) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in
        bytes.iter_mut().zip(value.and_then(|value| value.get(from..)).unwrap_or_default())
    {
        *to = *from;
    }
    bytes
}

/// The bytes of a component by its registers, each of which it holds alone.
fn whole(thread: &Thread, component: Components, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (register, (value, _)) in &thread.values {
        if register.components() == component {
            bytes[register.offset()..][..value.len()].copy_from_slice(value);
        }
    }
    bytes
}

/// Tiles, which the library puts into no image without a task's permission, into bytes that are written to a file.
fn tiles(out: &mut [u8], thread: &Thread, plan: &Plan) {
    let bytes = whole(thread, Components::TILEDATA, 8192);
    let place = ForeignLayout::of(plan).place(Components::TILEDATA);
    if let Some(to) = place.and_then(|(offset, size)| out.get_mut(offset..)?.get_mut(..size)) {
        let len = to.len().min(bytes.len());
        to[..len].copy_from_slice(&bytes[..len]);
        out[LEGACY + 2] |= 1 << 2; // bit 18 of XSTATE_BV
    }
}

/// The same image in the compacted format of all that is enabled.
fn compact(standard: &[u8], plan: &Plan, set: Components) -> Vec<u8> {
    let layout = ForeignLayout::of(plan);
    let mut out = standard[..EXTENDED].to_vec();
    out[XCR0..LEGACY].fill(0);
    out[XCOMP_BV..XCOMP_BV + 8].copy_from_slice(&(set.bits() | COMPACTED).to_le_bytes());
    for one in set.difference(Components::LEGACY).iter() {
        let places = layout.place(one).zip(layout.place_compacted(set, one));
        if let Some(((from, size), (to, _))) = places {
            out.resize(out.len().max(to + size), 0);
            out[to..to + size].copy_from_slice(&standard[from..from + size]);
        }
    }
    out
}
