// The faults of the protocol: what each takes away; the model that must catch it, the invariant that it breaks, what
// the violation must be called, the fewest preemptions that lead to it; what the explorer makes of it; and the edits,
// each of a piece that its file in `fpu-core/src` has exactly once.
protocol! {
    PrepareSkipsSave, "the save on switching out" => switch::SWITCH, "I1", "stale registers", 0, At(3),
        "task.rs": "unsafe { cpu.backend().save(self.base()) };" => "";
    PrepareForgetsMemory, "the mark after it" => switch::SWITCH, "I1", "unsaved state", 0, At(3),
        "task.rs": "self.word.publish(saved);" => "";
    PrepareMarksBeforeSave, "its order: marks first" => wrong::IN, "I1", "Causality violation", 0, At(2),
        "task.rs":
         "unsafe { cpu.backend().save(self.base()) };
         self.word.publish(saved);" =>
         "self.word.publish(saved);
         unsafe { cpu.backend().save(self.base()) };";
    PrepareMarkRelaxed, "the release of the mark" => wrong::IN, "I1", "Causality violation", 0, Not(ORDERING),
        "task.rs": "self.word.publish(saved);" => "self.word.mark_live(saved);";
    PrepareIgnoresElsewhere, "the comparison before a save" => wrong::LOST, "I1", "not reported", 0, At(1),
        "residency.rs":
         "if w != cpu.resident() {
         return Err(refusal(w, cpu));
         }" =>
         "";
    ReturnLoadRelaxed, "the acquire of a task's word" => wrong::IN, "I1", "Causality violation", 0, Not(ORDERING),
        "residency.rs": "self.0.load(Ordering::Acquire)" => "self.0.load(Ordering::Relaxed)";
    ReturnIgnoresElsewhere, "the refusal of a task live elsewhere" => wrong::ELSEWHERE, "I1", "stale registers", 0, At(1),
        "residency.rs":
         "if differ & MEMORY == 0 {
         return Err(refuse_differing(differ, cpu));
         }" =>
         "";
    ReturnTrustsStale, "the count from the comparison: any stamp of this CPU will do" => switch::ALTERNATE, "I2", "another task's residue", 0, At(1),
        "residency.rs": "if differ == MEMORY {" => "if differ == MEMORY || differ & ID_MASK == 0 {";
    ReturnSkipsMark, "the mark that registers are the only copy" => switch::BOUNCE, "I1", "stale registers", 0, At(3),
        "task.rs":
         "InDue::Mark { live } => {
         self.word.mark_live(live);" =>
         "InDue::Mark { .. } => {";
    ReturnClaimsBeforeRestore, "the order of restore and claim" => restore::FAILED, "I4", "undefined registers", 0, At(2),
        "task.rs":
         "InDue::Restore { live } => {" =>
         "InDue::Restore { live } => {
         self.word.mark_live(live);";
    ReturnReusesStamp, "the new stamp for a load" => switch::ALTERNATE, "I2", "another task's residue", 0, At(3),
        "residency.rs": "let live = r.wrapping_add(STEP);" => "let live = r;";
    ReturnClaimsAfterFailure, "the error path: claims the registers" => restore::FAILED, "I4", "undefined registers", 0, At(2),
        "task.rs": "self.tell(cpu, EventKind::Failed);" => "self.word.publish(live | MEMORY);";
    ReturnKeepsCpuStamp, "the CPU's half of a claim" => switch::SWITCH, "I1", "unsaved state lost", 0, At(2),
        "residency.rs":
         "set_resident(cpu, live);
         Ok(InDue" =>
         "Ok(InDue";
    ReturnMovesCpuLate, "the order: the CPU's word moves after the restore" => restore::FAILED, "I4", "undefined registers", 0, At(2),
        "residency.rs":
         "set_resident(cpu, live);
         Ok(InDue" =>
         "Ok(InDue",
        "task.rs":
         "self.tell(cpu, EventKind::Restored);" =>
         "crate::residency::set_resident(cpu.words(), live);";
    SectionSkipsSave, "the save before a section" => section::TASK, "I1", "unsaved state lost", 0, At(3),
        "kernel_fpu.rs":
         "unsafe { cpu.backend().save(task.area) };
         task.word.publish(w | MEMORY);" =>
         "";
    SectionMarksBeforeSave, "the order of that save and its mark" => wrong::IN_SECTION, "I1", "Causality violation", 0, At(2),
        "kernel_fpu.rs":
         "unsafe { cpu.backend().save(task.area) };
         task.word.publish(w | MEMORY);" =>
         "task.word.publish(w | MEMORY);
         unsafe { cpu.backend().save(task.area) };";
    SectionMarkRelaxed, "the release of that mark" => wrong::IN_SECTION, "I1", "Causality violation", 0, Not(ORDERING),
        "kernel_fpu.rs": "task.word.publish(w | MEMORY);" => "task.word.mark_live(w | MEMORY);";
    SectionKeepsStamp, "the invalidation by a section" => section::TASK, "I5, I11", "kernel residue", 0, At(1),
        "kernel_fpu.rs": "resident: after(resident)" => "resident";
    SectionSkipsGate, "the closing for a section" => section::INTERRUPT, "I3, I5", "kernel residue", 0, At(1),
        "residency.rs":
         "set_gate(cpu, by);
         compiler_fence(Ordering::SeqCst);" =>
         "if by == gate::SECTION {
         return Ok(cpu.resident() | OPEN);
         }
         set_gate(cpu, by);
         compiler_fence(Ordering::SeqCst);";
    SectionNests, "the refusal inside a section or session" => section::INTERRUPT, "I5", "kernel residue", 0, At(1),
        "residency.rs": "_ => return Err(Error::Busy)," => "_ => {}",
        "residency.rs": "if (resident as i64) >= 0 {" => "if false {";
    SectionRefusedStaysClosed, "the reopening after a refusal" => wrong::ELSEWHERE, "liveness", "Busy", 0, At(1),
        "kernel_fpu.rs": "reopen(words, resident);" => "";
    CloseReadsBeforeGate, "the order of gate and word" => section::LIFECYCLE, "I3", "kernel residue", 0, At(1),
        "residency.rs":
         "set_gate(cpu, by);
         compiler_fence(Ordering::SeqCst);
         let resident = cpu.resident();" =>
         "let resident = cpu.resident();
         set_gate(cpu, by);
         compiler_fence(Ordering::SeqCst);";
    CloseKeepsWordOpen, "the closing of the word behind the gate" => wrong::INSIDE, "I5", "not reported", 0, At(1),
        "residency.rs": "set_resident(cpu, closed(resident));" => "";
    PersistentTrustsStale, "the comparison before a persistent run" => section::PERSISTENT, "I2, I11", "residue", 0, At(1),
        "kernel_fpu.rs": "if w == before | MEMORY {" => "if true {";
    PersistentSkipsSave, "the save after it" => section::PERSISTENT, "I1", "stale registers", 0, At(1),
        "kernel_fpu.rs": "unsafe { end.cpu.backend().save(persistent.area) };" => "";
    PersistentKeepsStamp, "the new stamp for its load" => section::PERSISTENT, "I2", "another task's residue", 0, At(2),
        "kernel_fpu.rs": "end.resident = after(before);" => "";
    PersistentSkipsMark, "the mark of a context that runs" => wrong::TWICE, "I1", "not reported", 0, At(1),
        "kernel_fpu.rs": "persistent.word.mark_live(end.resident);" => "";
    PersistentMarkRelaxed, "the release of the mark after it" => wrong::IN_PERSISTENT, "I1", "Causality violation", 0, Not(ORDERING),
        "kernel_fpu.rs":
         "persistent.word.publish(end.resident | MEMORY);" =>
         "persistent.word.mark_live(end.resident | MEMORY);";
    PlanMarkRelaxed, "the release of the mark of an executed plan" => wrong::IN_PLAN, "I1", "Causality violation", 0, Not(ORDERING),
        "plan.rs": ".publish(self.steps.saved)" => ".mark_live(self.steps.saved)";
    RawMarkRelaxed, "the release of the mark by `raw::saved`" => wrong::IN_RAW, "I1", "Causality violation", 0, Not(ORDERING),
        "raw.rs": "task.publish(task.load() | MEMORY)" => "task.mark_live(task.load() | MEMORY)";
    SessionMarkRelaxed, "the release of the mark after a session's save" => wrong::IN_SESSION, "I1", "Causality violation", 0, Not(ORDERING),
        "session.rs": "self.word().publish(word);" => "self.word().mark_live(word);";
    WriteKeepsClaim, "the invalidation before a session writes memory" => section::SESSION, "I1", "lost write", 0, At(1),
        "session.rs":
         "self.word().publish(NOWHERE);
         self.task.tell(self.closed.cpu(), EventKind::Invalidated);
         self.become_state()" =>
         "self.become_state()",
        "session.rs": "self.save(NOWHERE)" => "self.save(self.closed.resident | MEMORY)";
    WriteKeepsOtherClaim, "the invalidation before a session writes what another CPU claims" => migrate::WRITE, "I1", "lost write", 1, At(2),
        "session.rs": "if self.word().load() != NOWHERE {" => "if false {";
    WriteSkipsSave, "the save before a session reads memory" => section::SESSION, "I1", "stale registers", 0, At(3),
        "session.rs": "unsafe { self.closed.cpu().backend().save(self.task.area) };" => "";
    SessionSkipsGate, "the closing for a session" => section::INTERRUPT, "I3", "kernel residue", 0, At(1),
        "residency.rs":
         "set_gate(cpu, by);
         compiler_fence(Ordering::SeqCst);" =>
         "if by == gate::SESSION {
         return Ok(cpu.resident() | OPEN);
         }
         set_gate(cpu, by);
         compiler_fence(Ordering::SeqCst);";
    SessionReloadKeepsStamp, "the new stamp for a session's load" => section::SESSION, "I2", "another task's residue", 0, At(2),
        "session.rs": "let live = next_stamp(self.closed.resident)?;" => "let live = self.closed.resident;";
    SessionReturnSkipsMark, "the mark on return from a session" => section::SESSION, "I1", "stale registers", 0, At(2),
        "session.rs": "self.word().mark_live(self.closed.resident);" => "";
    StoppedWriteKeepsClaim, "the invalidation before a debugger writes" => stopped::WRITE, "I1", "lost write", 0, At(2),
        "stopped.rs": "self.task.word.publish(NOWHERE);" => "";
    StoppedIgnoresLive, "the refusal of a task that runs" => wrong::STOPS, "I1", "Causality violation", 0, At(1),
        "stopped.rs": "if w & MEMORY == 0 {" => "if false {";
    OnlineResetsCounter, "the count kept over offline" => power::OFFLINE, "I2", "another task's residue", 0, At(2),
        "residency.rs": "if old & ID_MASK != id {" => "if true {";
    OfflineKeepsOpen, "the closing of an offline CPU" => power::OFFLINE, "I2", "offline CPU used", 0, At(1),
        "cpu.rs": "set_resident(cpu, offline_word(resident));" => "";
    OfflineReadsBeforeGate, "the order of gate and word in going offline" => power::OFFLINE_INTERRUPTED, "I2", "undefined registers", 0, At(1),
        "cpu.rs":
         "match cpu.gate() {
         gate::OFFLINE" =>
         "let early = cpu.resident();
         match cpu.gate() {
         gate::OFFLINE",
        "cpu.rs": "let resident = cpu.resident();" => "let resident = early;";
    OfflineTrustsForgotten, "the refusal to go offline where a guard was forgotten" => power::OFFLINE_FORGOTTEN, "I2, I5", "residue", 0, At(2),
        "cpu.rs": "if left_closed(resident) {" => "if false {";
    ResumeKeepsStamp, "the invalidation at resume" => power::RESUME, "I2", "undefined registers", 0, At(2),
        "cpu.rs": "after(resident)" => "resident";
    ForkSkipsSave, "the save before a fork" => lifetime::FORK, "I13", "stale registers", 0, At(3),
        "task.rs": "let state = self.open(cpu)?.make_memory_valid_read();" => "let state = self.open(cpu)?;";
    ForkCopiesClaim, "the child's being nowhere" => lifetime::FORK, "I2, I13", "stale registers", 0, At(3),
        "task.rs": "child.word.publish(NOWHERE);" => "child.word.publish(self.word.load());";
    ForkKeepsChildClaim, "the invalidation of a child's earlier life" => lifetime::RECYCLED, "I2, I13", "stale registers", 3, At(3),
        "task.rs": "child.word.publish(NOWHERE);" => "";
    NewSkipsInitial, "the initial image of a new context" => lifetime::REUSE, "I8, I11", "residue", 0, At(2),
        "task.rs": "unsafe { backend.write_initial(task.base()) };" => "";
    ResetKeepsClaim, "the invalidation at exec" => lifetime::EXEC, "I1, I13", "residue", 0, At(2),
        "task.rs": "self.word.publish(NOWHERE);" => "";
    CounterWraps, "the end of the stamps" => power::EXHAUSTED, "I2", "another task's residue", 0, At(5),
        "residency.rs": "let live = r.wrapping_add(STEP);" => "let live = r.wrapping_add(STEP) | (r & OPEN);";
    VerifySkipsSave, "the save before registers are compared with memory" => verify::RIGHT, "no false alarm", "false alarm", 0, At(2),
        "verify.rs": "unsafe { backend.save(registers) };" => "",
        "verify.rs": "registers.as_ptr().copy_from_nonoverlapping(memory.as_ptr(), backend.area_len());" => "";
    VerifyKeepsClaim, "the invalidation after they disagree" => verify::BROKEN, "I1, I11", "kernel residue", 0, At(2),
        "verify.rs": "drop(state.make_memory_valid_write());" => "";
    IdleKeepsClaim, "the invalidation after an idle CPU gave up registers" => idle::BETWEEN, "I1, I2", "torn state", 0, At(1),
        "cpu.rs": "closed.resident = after(closed.resident);" => "";
    IdleReopensEarly, "the order: the CPU is open again before they are given up" => idle::INTERRUPT, "I2, I3", "torn state", 0, At(1),
        "cpu.rs":
         "unsafe { closed.cpu().backend().release() };
         let cpu = closed.into_cpu();" =>
         "let cpu = closed.into_cpu();
         unsafe { cpu.backend().release() };";
}
