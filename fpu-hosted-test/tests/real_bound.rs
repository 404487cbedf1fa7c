//! Contexts that are bound to a CPU, on this CPU's registers: a task that computes keeps them while others run that do not,
//! whatever else needs them saves the task first, and an unbound task goes on elsewhere.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    cell::Cell,
    ffi::c_void,
    hint::black_box,
    ptr::{addr_of_mut, NonNull},
};

use fpu_core::{
    observe::Counters, Area, BoundCpu, BoundFpu, BoundSlot, CpuFpu, CpuLifecycle, Error, KernelFpu,
    KernelUnits, Pinned, RawFpu, RestoreFault, TaskFpu, TheBackend,
};
use fpu_hosted_test::{
    conformance::{call, Action, Call, Harness},
    real::{call_preserving, dump_registers, load_registers, run_between, RegFile, Thunk},
};
use fpu_x86::{Image, ImageMut, Plan};

#[path = "support/real.rs"]
mod support;
use support::*;

thread_local! {
    /// Where this thread's registers are while a call into the library runs.
    static KEPT: Cell<*mut RegFile> = const { Cell::new(std::ptr::null_mut()) };
}

unsafe extern "C" fn step(argument: *mut c_void) {
    // SAFETY: `Kept::moves` passes a `Call` of a plan; valid area (C9) is its caller's.
    unsafe { call::<Plan>(argument.cast()) }
}

/// The plan of a kernel whose own code is not soft-float: `call_preserving` keeps the registers from it, and the
/// plan's instructions find them again.
struct Kept(Plan);

impl Kept {
    fn moves(&self, action: Action) -> Result<(), RestoreFault> {
        let kept = KEPT.get();
        assert!(!kept.is_null(), "the registers are moved outside `play`");
        let mut moved = Call::new(&self.0, action);
        // SAFETY: `play` has put a live file there, which only this thread uses.
        let kept = unsafe { &mut *kept };
        let before = kept.clone();
        // SAFETY: C31: `play` has files of the harness's classes. C33: a live call, and integers only before the plan's
        // instructions.
        unsafe { run_between(&before, step, addr_of_mut!(moved).cast(), kept) };
        moved.answer
    }
}

// SAFETY: B1-B7: those of the plan, whose instructions run on the registers as they were when the library was called.
unsafe impl RawFpu for Kept {
    type Image<'a> = Image<'a>;
    type ImageMut<'a> = ImageMut<'a>;
    fn area_len(&self) -> usize {
        self.0.area_len()
    }
    fn area_align(&self) -> usize {
        self.0.area_align()
    }
    fn plan_word(&self) -> u64 {
        self.0.plan_word()
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        // SAFETY: the caller's.
        unsafe { self.0.write_initial(area) }
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        assert_eq!(self.moves(Action::Save(area)), Ok(()));
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        self.moves(Action::Restore(area))
    }
    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        assert_eq!(self.moves(Action::Defaults(units)), Ok(()));
    }
    unsafe fn image(&self, area: NonNull<u8>) -> Image<'_> {
        // SAFETY: the caller's.
        unsafe { self.0.image(area) }
    }
    unsafe fn image_mut(&self, area: NonNull<u8>) -> ImageMut<'_> {
        // SAFETY: the caller's.
        unsafe { self.0.image_mut(area) }
    }
}

/// What happens on a CPU.
enum Event<'a> {
    /// User code loads all registers.
    Computes(&'a RegFile),
    /// The kernel calls the library.
    Calls(Box<dyn FnMut() -> Result<(), Error> + 'a>),
    /// User code finds this in all registers.
    Finds(&'a RegFile, &'static str),
}
use Event::{Computes, Finds};

fn calls<'a>(code: impl FnMut() -> Result<(), Error> + 'a) -> Event<'a> {
    Event::Calls(Box::new(code))
}

/// An event, as the thunk takes it: what is null is left out.
struct Step {
    load: *const RegFile,
    call: Option<Thunk>,
    argument: *mut c_void,
    dump: *mut RegFile,
}
struct Script {
    kept: *mut RegFile,
    steps: *const Step,
    count: usize,
}

struct Coded<'a> {
    code: Box<dyn FnMut() -> Result<(), Error> + 'a>,
    answer: Result<(), Error>,
}
unsafe extern "C" fn coded(argument: *mut c_void) {
    // SAFETY: `play` passes a live one.
    let coded = unsafe { &mut *argument.cast::<Coded<'_>>() };
    coded.answer = (coded.code)();
}

/// The events, one after the other, with nothing but integers in between.
unsafe extern "C" fn events(script: *mut c_void) {
    // SAFETY: `play` passes a live script. C31: its files are of the harness's classes. C32: `run_between` ends with it.
    unsafe {
        let script = script.cast::<Script>();
        let mut at = 0;
        while at < (*script).count {
            let step = (*script).steps.add(at);
            if !(*step).load.is_null() {
                load_registers((*step).load);
            }
            if let Some(call) = (*step).call {
                call_preserving((*script).kept, call, (*step).argument);
            }
            if !(*step).dump.is_null() {
                dump_registers((*step).dump);
            }
            at += 1;
        }
    }
}

/// Plays these on this thread, whose registers are from `registers`, and go there at the end.
fn play(registers: &mut RegFile, events_are: Vec<Event<'_>>) {
    let mut steps = Vec::new();
    let (mut codes, mut found) = (Vec::new(), Vec::new());
    for event in events_are {
        let nothing = Step {
            load: std::ptr::null(),
            call: None,
            argument: std::ptr::null_mut(),
            dump: std::ptr::null_mut(),
        };
        steps.push(match event {
            Computes(file) => Step { load: file, ..nothing },
            Event::Calls(code) => {
                let code = Box::into_raw(Box::new(Coded { code, answer: Ok(()) }));
                codes.push(code);
                Step { call: Some(coded), argument: code.cast(), ..nothing }
            }
            Finds(expect, when) => {
                let dump = Box::into_raw(Box::new(RegFile::initial(registers.classes())));
                found.push((dump, expect, when));
                Step { dump, ..nothing }
            }
        });
    }
    let (mut kept, before) = (registers.clone(), registers.clone());
    let kept = addr_of_mut!(kept);
    let mut script = Script { kept, steps: steps.as_ptr(), count: steps.len() };
    KEPT.set(kept);
    // SAFETY: C31: files of the harness's classes. C33: a live script, and integers only.
    unsafe { run_between(&before, events, addr_of_mut!(script).cast(), registers) };
    KEPT.set(std::ptr::null_mut());
    for code in codes {
        // SAFETY: from `into_raw`, and the script is over.
        let code = unsafe { Box::from_raw(code) };
        assert_eq!(code.answer, Ok(()));
    }
    for (dump, expect, when) in found {
        // SAFETY: from `into_raw`, and the script, which wrote it, is over.
        let dump = unsafe { Box::from_raw(dump) };
        same(&dump, expect, when);
    }
}

type Slots = BoundCpu<Kept, Area<16384>, [BoundSlot<Kept, Area<16384>>; 2]>;
type Task = TaskFpu<Kept, Area<16384>>;
type Bound<'b> = BoundFpu<'b, Kept, Area<16384>>;

/// A CPU of this program's: a thread.
struct Core<'k> {
    plan: &'k Kept,
    words: CpuFpu,
    counters: Counters,
    slots: Box<Slots>,
}
/// Proof of running there.
struct On<'c>(&'c Core<'c>);
fpu_core::witness! {
    // SAFETY: K2: a thread is its CPU. K3, K4: its words and plan. K5: threads hand tasks over by being joined. K6, K8:
    // nothing interrupts. K9: `call_preserving` keeps the registers from the code that calls.
    unsafe impl Pinned + Exclusive + SoftFloat for On<'_> {
        backend: Kept = |cpu| {
            // SAFETY: K1: each test has one plan.
            unsafe { TheBackend::from_ref(cpu.0.plan) }
        },
        words: CpuFpu = |cpu| &cpu.0.words,
        bound: |cpu| cpu.0.bound(),
        observe: |cpu, event| cpu.0.counters.record(event.kind),
    }
}

impl<'k> Core<'k> {
    fn online(plan: &'k Kept, number: u32) -> Self {
        let (words, slots) = (CpuFpu::new(), Box::new(Slots::new(number)));
        let core = Self { plan, words, counters: Counters::new(), slots };
        // SAFETY: K15, K16: each CPU of a test has its number to itself, and new words.
        unsafe { On(&core).fpu_online(number) }.unwrap();
        core
    }
    fn bound(&self) -> &BoundCpu<Kept, Area<16384>> {
        &*self.slots
    }
    fn task(&self) -> Task {
        TaskFpu::new(On(self).backend(), Area::new()).unwrap()
    }
    fn bind(&self, task: Task) -> Bound<'_> {
        self.bound().bind(task, &mut On(self)).expect("a slot is free")
    }
    fn enters<'a>(&'a self, task: &'a Bound<'_>) -> Event<'a> {
        calls(|| task.switch_return(&mut On(self)).map(drop))
    }
    fn enters_other<'a>(&'a self, task: &'a Task) -> Event<'a> {
        calls(|| task.switch_return(&mut On(self)).map(drop))
    }
    fn leaves_other<'a>(&'a self, task: &'a Task) -> Event<'a> {
        calls(|| task.switch_prepare(&On(self)))
    }
    /// A section, whose code leaves this in the registers.
    fn section<'a>(&'a self, noise: &'a RegFile) -> Event<'a> {
        calls(|| {
            On(self).with_kernel_fpu(None, KernelUnits::ALL, || {
                // SAFETY: as in `Kept::moves`: a live file, which only this thread uses.
                unsafe { KEPT.get().write(noise.clone()) }
            })
        })
    }
    fn unbind(&self, bound: Bound<'_>, registers: &mut RegFile) -> Task {
        let (mut bound, mut free) = (Some(bound), None);
        let unbinds = calls(|| {
            let unbound = bound.take().map(|bound| bound.unbind(&mut On(self)));
            free = unbound.transpose().map_err(|refused| refused.why)?;
            Ok(())
        });
        play(registers, vec![unbinds]);
        free.expect("it was unbound")
    }
    /// Saves and restores so far.
    fn moves(&self) -> (u64, u64) {
        let totals = self.counters.totals();
        (totals.saved, totals.restored)
    }
}

/// A task without a context: it computes with integers.
fn scalar() -> Event<'static> {
    calls(|| {
        assert_eq!((0..black_box(100u64)).sum::<u64>(), 4950);
        std::thread::yield_now();
        Ok(())
    })
}

/// How often the task comes back.
const ROUNDS: u64 = 50;

#[test]
fn a_task_that_alone_computes_keeps_its_registers() {
    for_each_rung(|h| {
        let (mine, noise) = (h.pattern(11, every(h)).0, h.pattern(12, every(h)).0);
        let (what, plan) = (format!("{:?}", h.fpu().save_instruction()), Kept(h.fpu().clone()));
        let core = Core::online(&plan, 0);
        let task = core.bind(core.task());
        let mut registers = noise.clone();
        let mut story = vec![core.enters(&task), Computes(&mine)];
        for _ in 0..ROUNDS {
            story.extend([scalar(), scalar(), core.enters(&task), Finds(&mine, "it is back")]);
        }
        play(&mut registers, story);
        assert_eq!(core.moves(), (0, 1), "{what}: bound");
        assert!(task.registers_valid(&On(&core)), "{what}");

        // An ordinary context is saved each time, as it may be wanted elsewhere.
        let core = Core::online(&plan, 1);
        let task = core.task();
        let mut story = vec![core.enters_other(&task), Computes(&mine)];
        for _ in 0..ROUNDS {
            story.extend([core.leaves_other(&task), scalar(), core.enters_other(&task)]);
            story.push(Finds(&mine, "it is back"));
        }
        play(&mut registers, story);
        assert_eq!(core.moves(), (ROUNDS, 1), "{what}: ordinary");
        println!("{what}, {}: {ROUNDS} returns", h.classes().describe());
    });
}

#[test]
fn whatever_needs_the_registers_saves_the_task_first() {
    for_each_rung(|h| {
        let pattern = |seed| h.pattern(seed, every(h)).0;
        let [one, two, three, noise] = [21, 22, 23, 24].map(pattern);
        let (initial, what) = (h.pattern(0, 0).0, format!("{:?}", h.fpu().save_instruction()));
        let plan = Kept(h.fpu().clone());
        let core = Core::online(&plan, 0);
        let (a, b, other) = (core.bind(core.task()), core.bind(core.task()), core.task());
        let mut registers = noise.clone();

        play(
            &mut registers,
            vec![
                core.enters(&a),
                Finds(&initial, "a begins"),
                Computes(&one),
                core.section(&noise),
                core.enters(&a),
                Finds(&one, "a after a section"),
            ],
        );
        assert_eq!(core.moves(), (1, 2), "{what}: a section");

        play(
            &mut registers,
            vec![
                core.enters(&b),
                Finds(&initial, "b begins"),
                Computes(&two),
                core.enters(&a),
                Finds(&one, "a after b"),
                core.enters(&b),
                Finds(&two, "b after a"),
            ],
        );
        assert_eq!(core.moves(), (4, 5), "{what}: another bound context");

        play(
            &mut registers,
            vec![
                core.enters_other(&other),
                Finds(&initial, "the other begins"),
                Computes(&three),
                core.leaves_other(&other),
                core.enters(&b),
                Finds(&two, "b after the other"),
                core.enters_other(&other),
                Finds(&three, "the other after b"),
                core.leaves_other(&other),
            ],
        );
        // Leaving, the other was saved twice.
        assert_eq!(core.moves(), (8, 8), "{what}: an ordinary context");
        play(&mut registers, vec![core.enters(&a), Finds(&one, "a in the end")]);
        assert_eq!(core.moves(), (8, 9), "{what}");
    });
}

#[test]
fn an_unbound_task_goes_on_on_another_cpu() {
    for_each_rung(|h| {
        let pattern = |seed| h.pattern(seed, every(h)).0;
        let [mine, theirs, noise, more] = [31, 32, 33, 34].map(pattern);
        let (what, plan) = (format!("{:?}", h.fpu().save_instruction()), Kept(h.fpu().clone()));
        let core = Core::online(&plan, 0);
        let (moves, stays) = (core.bind(core.task()), core.bind(core.task()));
        let mut registers = noise.clone();
        play(
            &mut registers,
            vec![
                core.enters(&stays),
                Computes(&theirs),
                core.enters(&moves),
                Computes(&mine),
                scalar(),
            ],
        );
        assert_eq!(core.moves(), (1, 2), "{what}");
        let task = core.unbind(moves, &mut registers);
        assert_eq!(core.moves(), (2, 2), "{what}: saved by being unbound");
        let (plan, noise) = (&plan, &noise);
        let task = std::thread::scope(|threads| {
            let there = threads.spawn(|| {
                let core = Core::online(plan, 1);
                let task = core.bind(task);
                let mut registers = noise.clone();
                let story = vec![
                    core.enters(&task),
                    Finds(&mine, "on the other CPU"),
                    Computes(&more),
                    core.enters(&task),
                    Finds(&more, "on the other CPU"),
                ];
                play(&mut registers, story);
                assert_eq!(core.moves(), (0, 1), "bound there");
                let task = core.unbind(task, &mut registers);
                assert_eq!(core.moves(), (1, 1), "unbound there");
                task
            });
            there.join().expect("no assertion failed")
        });
        play(
            &mut registers,
            vec![
                core.enters_other(&task),
                Finds(&more, "back, as an ordinary context"),
                core.leaves_other(&task),
                core.enters(&stays),
                Finds(&theirs, "the one that stays"),
            ],
        );
        assert_eq!(core.moves(), (3, 4), "{what}: the one that stays, and the one that came back");
    });
}
