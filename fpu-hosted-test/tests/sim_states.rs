//! The diagram and table of states in docs/theory.md, made by driving the code through every
//! operation from every state. `FPU_BLESS=1` rewrites the page.

use fpu_core::{
    session::{Both, MemoryOnly, RegistersOnly, State, TaskState},
    verify::Scratch,
};
use fpu_hosted_test::doc::*;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

type Op = fn(&mut Cpu, &Task) -> Option<()>;
const STATES: [&str; 3] = [RegistersOnly::NAME, Both::NAME, MemoryOnly::NAME];

/// `None`: the state's handle does not have it.
const OPS: [(&str, Op); 19] = [
    ("switch_prepare", |cpu, task| task.switch_prepare(cpu).ok()),
    ("switch_return", |cpu, task| task.switch_return(cpu).map(drop).ok()),
    ("switch_in", |cpu, task| task.switch_in(cpu).ok()),
    ("switch to itself", |cpu, task| {
        fpu_core::switch(Some(task.context()), Some(task.context()), cpu).ok()
    }),
    // SAFETY: C37, C38: no other context's state is here, and no code looks at what is saved.
    ("adopt", |cpu, task| unsafe { task.adopt(cpu).ok() }),
    ("make_memory_valid_read", |cpu, task| {
        drop(task.open(cpu).ok()?.make_memory_valid_read());
        Some(())
    }),
    ("make_memory_valid_write", |cpu, task| {
        drop(task.open(cpu).ok()?.make_memory_valid_write());
        Some(())
    }),
    ("make_registers_valid", |cpu, task| task.open(cpu).ok()?.make_registers_valid().ok()),
    ("invalidate_registers", |cpu, task| match task.open(cpu).ok()? {
        TaskState::Both(both) => {
            drop(both.invalidate_registers());
            Some(())
        }
        _ => None,
    }),
    ("verify_registers", |cpu, task| {
        let mut scratch = Scratch::new(cpu.backend(), Area::new()).ok()?;
        task.verify_registers(cpu, &mut scratch).map(drop).ok()
    }),
    ("kernel FPU section", |cpu, task| {
        cpu.with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || ()).ok()
    }),
    ("persistent context run", |cpu, task| {
        cpu.run_guest(new_task().context(), Some(task.context()), || ()).ok()
    }),
    ("fork", |cpu, task| task.fork_into(cpu, &mut new_task()).ok()),
    ("exec (reset)", |cpu, task| task.reset(cpu).ok()),
    ("another task enters user mode here", |cpu, task| {
        task.switch_prepare(cpu).ok()?;
        new_task().switch_return(cpu).map(drop).ok()
    }),
    ("stopped, written by a debugger", |cpu, task| {
        task.switch_prepare(cpu).ok()?;
        drop(task.stopped(&mut stop(task)).ok()?.make_memory_valid_write());
        Some(())
    }),
    ("switched out, CPU idle", |cpu, task| {
        task.switch_prepare(cpu).ok()?;
        cpu.fpu_idle().ok().filter(|given_up| !given_up).map(drop)
    }),
    ("runs with tiles, switched out, CPU idle", |cpu, task| {
        drop(task.switch_return(cpu).ok()?);
        cpu.set_tile0(7);
        task.switch_prepare(cpu).ok()?;
        cpu.fpu_idle().ok().filter(|given_up| *given_up).map(drop)
    }),
    ("CPU offline and online", |cpu, task| {
        task.switch_prepare(cpu).ok()?;
        cpu.fpu_offline().ok()?;
        // SAFETY: K15, K16: the thread's only CPU, its words kept.
        unsafe { cpu.fpu_online(0).ok() }
    }),
];

fn state_of(cpu: &mut Cpu, task: &Task) -> &'static str {
    task.open(cpu).expect("the CPU is online and the task is here").name()
}

/// Runs one operation from one state: the state after it, and what it moved.
fn drive(from: &str, op: Op) -> Option<(&'static str, u64, u64)> {
    let (mut cpu, task) = cpu_and_task();
    if from != MemoryOnly::NAME {
        drop(task.switch_return(&mut cpu).expect("online"));
    }
    if from == Both::NAME {
        task.switch_prepare(&cpu).expect("online");
    }
    assert_eq!(state_of(&mut cpu, &task), from, "the way into the state");
    let before = cpu.totals();
    op(&mut cpu, &task)?;
    let after = cpu.totals();
    let to = state_of(&mut cpu, &task);
    Some((to, after.saved - before.saved, after.restored - before.restored))
}

fn page() -> String {
    let mut edges: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    let mut table = String::from("| operation | from 1, registers only | from 2a, both | from 2b, memory only |\n|---|---|---|---|\n");
    for (name, op) in OPS {
        write!(table, "| {name} |").unwrap();
        for (i, from) in STATES.iter().enumerate() {
            let Some((to, saves, restores)) = drive(from, op) else {
                table.push_str(" not offered |");
                continue;
            };
            let j = STATES.iter().position(|s| *s == to).expect("a state");
            let counted = |n, what| match n {
                0 => String::new(),
                1 => format!(", 1 {what}"),
                _ => format!(", {n} {what}s"),
            };
            let moved = counted(saves, "save") + &counted(restores, "restore");
            let number = ["1", "2a", "2b"];
            write!(table, " {}{moved} |", number[j]).unwrap();
            // The diagram has the operations on this task; the table has everybody.
            if i != j && !name.contains(' ') {
                edges.entry((i, j)).or_default().push(name);
            }
        }
        table.push('\n');
    }
    let mut diagram = String::from("```mermaid\nstateDiagram-v2\n    direction LR\n    state \"1: registers only\" as s0\n    state \"2a: both\" as s1\n    state \"2b: memory only\" as s2\n    [*] --> s2 : new\n");
    for ((i, j), names) in edges {
        writeln!(diagram, "    s{i} --> s{j} : {}", names.join(", ")).unwrap();
    }
    diagram.push_str("```\n");
    format!("{diagram}\n{table}")
}

#[test]
fn the_page_shows_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/theory.md");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("SKIP: docs/theory.md is not beside this crate (packaged alone)");
        return;
    };
    let (begin, end) = ("<!-- states:begin -->\n", "<!-- states:end -->");
    let start = text.find(begin).expect("begin mark") + begin.len();
    let stop = text.find(end).expect("end mark");
    let made = page();
    if std::env::var_os("FPU_BLESS").is_some() {
        fs::write(&path, format!("{}{made}{}", &text[..start], &text[stop..])).expect("writable");
        return;
    }
    assert_eq!(&text[start..stop], made, "docs/theory.md: FPU_BLESS=1 rewrites it");
}

#[test]
fn a_wrong_page_would_be_seen() {
    // Every state is reached and left, and each pair of states the thread speaks of has an edge.
    let page = page();
    for edge in ["s0 --> s1", "s0 --> s2", "s1 --> s0", "s1 --> s2", "s2 --> s0", "s2 --> s1"] {
        assert!(page.contains(edge), "{edge} is missing:\n{page}");
    }
    assert_ne!(drive(RegistersOnly::NAME, OPS[0].1), drive(MemoryOnly::NAME, OPS[0].1));
}

/// A kernel prints what it holds, whatever its witness is.
#[test]
fn what_is_open_can_be_printed() {
    let (mut cpu, task) = cpu_and_task();
    let state = task.open(&mut cpu).expect("the CPU is free");
    assert_eq!(format!("{state:?}"), "Session(memory only)");
    assert_eq!(format!("{:?}", state.make_memory_valid_read()), "Session(memory only)");
    let section = cpu.kernel_fpu(None, KernelUnits::NONE).expect("the CPU is free");
    assert_eq!(format!("{section:?}"), "Section { units: KernelUnits(0), .. }");
    drop(section);
    assert_eq!(format!("{:?}", fpu_core::Area::<64, 16>::aligned()), "Area<64, 16>");
    assert_eq!(core::mem::align_of::<fpu_core::observe::Counters>(), 64);
}
