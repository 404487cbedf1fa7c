//! The raw layer and the steps form agree with the typed calls, and their numbers with the errors.

use core::mem::offset_of;
use fpu_core::{
    raw, CpuFpu, CpuLifecycle, CpuWords, KernelFpu, KernelUnits, RawFpu, SaveArea, SaveSteps,
    TaskFpu, UserSteps,
};
use fpu_hosted_test::{
    sim::{Registers, SimArea, SimFpu},
    Random,
};

/// A CPU whose words are a [`CpuFpu`], as assembly needs them.
struct Cpu<'c> {
    words: &'c CpuFpu,
    fpu: &'c SimFpu,
}
fpu_core::witness! {
    // SAFETY: K2-K6: one thread, one CPU a value, one layout, no interrupts. K8: no interrupts. K9: simulated
    // registers change only when told to.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: SimFpu = |cpu| cpu.fpu.the_backend(),
        words: CpuFpu = |cpu| cpu.words,
    }
}

type Task = TaskFpu<SimFpu, SimArea>;

/// A context as assembly sees it: its first eight bytes, and its area.
struct Seen {
    word: *const raw::TaskWord,
    area: core::ptr::NonNull<u8>,
}

/// The area's address is known because the test chose it.
fn seen(task: &Task) -> Seen {
    // The area is aligned to 64 and follows the word, the context's first field.
    let base = (task as *const Task).cast::<u8>().cast_mut();
    let area = core::ptr::NonNull::new(base.wrapping_add(64)).expect("not null");
    Seen { word: base.cast_const().cast(), area }
}

/// What assembly does on the way out, with the raw layer.
fn raw_out(task: &Task, cpu: &Cpu<'_>) -> u32 {
    let Seen { word, area } = seen(task);
    // SAFETY: C16-C18: both are alive, and the answer is obeyed right here.
    unsafe {
        let answer = raw::switch_out(word, cpu.words);
        if answer == raw::SAVE {
            cpu.fpu.save(area);
            raw::saved(word);
        }
        answer
    }
}
/// And on the way to user mode.
fn raw_in(task: &Task, cpu: &Cpu<'_>) -> u32 {
    let Seen { word, area } = seen(task);
    // SAFETY: C16-C18: both are alive, and the answer is obeyed right here.
    unsafe {
        let answer = raw::switch_return(word, cpu.words);
        if answer == raw::RESTORE && cpu.fpu.restore(area).is_ok() {
            raw::restored(word, cpu.words);
        }
        answer
    }
}

fn online<'c>(words: &'c CpuFpu, fpu: &'c SimFpu, number: u32) -> Cpu<'c> {
    let mut cpu = Cpu { words, fpu };
    // SAFETY: K15, K16: each test gives a number once; the words are new.
    unsafe { cpu.fpu_online(number) }.expect("new");
    cpu
}
fn new_task(fpu: &SimFpu) -> Box<Task> {
    match TaskFpu::new(fpu.the_backend(), SimArea::new()) {
        Ok(task) => Box::new(task),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn the_offsets_that_assembly_uses() {
    assert_eq!(
        [
            offset_of!(UserSteps, restore_from),
            offset_of!(UserSteps, save_to),
            offset_of!(UserSteps, mask),
            offset_of!(UserSteps, word),
            offset_of!(UserSteps, live),
            offset_of!(UserSteps, saved),
        ],
        [0, 8, 16, 24, 32, 40]
    );
    assert_eq!(
        [
            offset_of!(SaveSteps, save_to),
            offset_of!(SaveSteps, mask),
            offset_of!(SaveSteps, word),
            offset_of!(SaveSteps, saved),
        ],
        [0, 8, 16, 24]
    );
    assert_eq!((CpuFpu::RESIDENT_OFFSET, CpuFpu::GATE_OFFSET), (0, 8));
    let words = CpuFpu::new();
    // SAFETY: no task has these words; they are compared, not used.
    unsafe { words.set_resident(11) };
    // SAFETY: no task has these words; they are compared, not used.
    unsafe { words.set_gate(22) };
    let at = (&words as *const CpuFpu).cast::<u64>();
    // SAFETY: two words of 8 bytes, as the offsets say.
    assert_eq!(unsafe { (at.read(), at.add(1).read()) }, (11, 22));
}

#[test]
fn a_plan_names_the_context_it_was_made_from() {
    let (words, fpu) = (CpuFpu::new(), SimFpu::new());
    let (mut cpu, task) = (online(&words, &fpu, 0), new_task(&fpu));
    let Seen { word, area } = seen(&task);
    let pending = task.begin_user(&mut cpu).expect("free");
    let steps = *pending.steps();
    assert_eq!((steps.word.cast_const().cast(), steps.save_to), (word, area.as_ptr()));
    assert_eq!((steps.restore_from, steps.mask), (area.as_ptr().cast_const(), fpu.plan_word()));
    assert_eq!((steps.live, steps.saved), (words.resident(), words.resident() | 1));
}

#[test]
fn the_numbers_mean_what_they_say() {
    let (words, other_words) = (CpuFpu::new(), CpuFpu::new());
    let (fpu, other_fpu) = (SimFpu::new(), SimFpu::new());
    let task = new_task(&fpu);
    let off = Cpu { words: &words, fpu: &fpu };
    assert_eq!((raw_out(&task, &off), raw_in(&task, &off)), (raw::NOTHING, raw::OFFLINE));
    let mut cpu = online(&words, &fpu, 0);
    assert_eq!(raw_in(&task, &cpu), raw::RESTORE);
    assert_eq!(raw_in(&task, &cpu), raw::NOTHING);
    assert_eq!(raw_out(&task, &cpu), raw::SAVE);
    assert_eq!(raw_out(&task, &cpu), raw::NOTHING);
    assert_eq!(raw_in(&task, &cpu), raw::MARKED);
    let other = online(&other_words, &other_fpu, 1);
    assert_eq!(raw_in(&task, &other), raw::LIVE_ELSEWHERE);
    assert_eq!(raw_out(&task, &other), raw::LIVE_ELSEWHERE);
    let mut second = Cpu { words: &words, fpu: &fpu };
    let section = second.kernel_fpu(Some(task.context()), KernelUnits::ALL).expect("free");
    assert_eq!((raw_out(&task, &cpu), raw_in(&task, &cpu)), (raw::NOTHING, raw::BUSY));
    drop(section);
    assert_eq!(raw_in(&task, &cpu), raw::RESTORE);
    cpu.invalidate_registers().expect("online");
    assert_eq!((raw_out(&task, &cpu), raw_in(&task, &cpu)), (raw::LOST, raw::LOST));
    let late = new_task(&fpu);
    // SAFETY: the last word of this CPU's own range, which no context has.
    unsafe { words.set_resident(0u64.wrapping_sub(1 << 15) | (words.resident() & 0x7FFE)) };
    assert_eq!(raw_in(&late, &cpu), raw::EXHAUSTED);
    let refused = [raw::OFFLINE, raw::BUSY, raw::LIVE_ELSEWHERE, raw::LOST, raw::EXHAUSTED];
    assert!(refused.iter().all(|&code| code >= raw::REFUSED));
    assert!([raw::NOTHING, raw::MARKED, raw::RESTORE, raw::SAVE].iter().all(|&c| c < raw::REFUSED));
}

#[test]
fn raw_and_typed_calls_mix_in_any_order() {
    let (words, fpu) = ([CpuFpu::new(), CpuFpu::new()], [SimFpu::new(), SimFpu::new()]);
    let mut cpus = [online(&words[0], &fpu[0], 0), online(&words[1], &fpu[1], 1)];
    let tasks: [_; 3] = core::array::from_fn(|_| new_task(&fpu[0]));
    let mut expect: [_; 3] = core::array::from_fn(|_| Registers::initial());
    let (mut random, mut seen) = (Random::new(5), [0_u64; 4]);
    for round in 0..3_000 {
        let (t, cpu) = (random.below(3), &mut cpus[random.below(2)]);
        if random.below(2) == 0 {
            let answer = raw_in(&tasks[t], cpu);
            assert!(answer < raw::REFUSED, "{answer}");
            seen[answer as usize] += 1;
        } else {
            drop(tasks[t].switch_return(cpu).expect("free"));
        }
        assert_eq!(cpu.fpu.registers(), expect[t], "round {round}");
        expect[t] = Registers::pattern(round, random.word());
        cpu.fpu.load(&expect[t]);
        if random.below(2) == 0 {
            assert_eq!(raw_out(&tasks[t], cpu), raw::SAVE);
            seen[raw::SAVE as usize] += 1;
        } else {
            tasks[t].switch_prepare(cpu).expect("live here");
        }
    }
    assert!(seen[1..].iter().all(|&times| times > 0), "{seen:?}");
    let boxed =
        TaskFpu::new(fpu[0].the_backend(), Box::new(SimArea::new())).map(TaskFpu::into_area);
    assert!(boxed.is_ok_and(|area| area.len() == fpu[0].area_len()));
}
