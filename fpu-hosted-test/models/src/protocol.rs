// The faults of the protocol. A row has: what the fault takes away; the model that must catch the fault; the invariant
// that it breaks; what the violation must be called; the fewest preemptions that lead to the violation; what the
// explorer makes of the fault; and the edits, each of a piece that its file in `fpu-core/src` has exactly once. Where no
// model notices a fault, a reason stands in brackets, and no count of preemptions. Then the explorer must call the
// violation what the row says.
protocol! {
    PrepareSkipsSave, "the save on switching out" => switch::SWITCH, "I1", "stale registers", 0, At(2),
        "protocol/steps.rs": "unsafe { save(context, cpu, saved) };" => "context.word.publish(saved);";
    PrepareForgetsMemory, "the mark after the save on switching out" => switch::SWITCH, "I1", "unsaved state", 0, At(2),
        "protocol/steps.rs":
         "unsafe { save(context, cpu, saved) };" =>
         "unsafe { cpu.backend().save(context.area) };";
    PrepareMarksBeforeSave, "the order of the save on switching out and its mark" => wrong::IN, "I1", "Causality violation", 0, At(2),
        "protocol/steps.rs":
         "unsafe { save(context, cpu, saved) };" =>
         "context.word.publish(saved);
         unsafe { save(context, cpu, saved) };";
    PrepareMarkRelaxed, "the release of the mark on switching out" => wrong::IN, "I1", "Causality violation", 0, Not(ORDERING),
        "protocol/steps.rs":
         "unsafe { save(context, cpu, saved) };" =>
         "unsafe { cpu.backend().save(context.area) };
         context.word.mark_live(Stamp::from_bits(saved.bits()));";
    PrepareIgnoresElsewhere, "the comparison before a save" => wrong::LOST, "I1", "not reported", 0, At(1),
        "protocol/steps.rs": "if !w.is_live_under(Stamp::of(cpu)) {" => "if false {";
    ReturnLoadRelaxed, "the acquire fence before a restore" => wrong::IN, "I1", "Causality violation", 0, Not(ORDERING),
        "protocol/word.rs": "fence(Ordering::Acquire);" => "";
    OpenLoadRelaxed, "the acquire of a task's word whose image is read" => wrong::STOPS, "I1", "Causality violation", 0, Not(ORDERING),
        "protocol/word.rs": "self.0.load(Ordering::Acquire)" => "self.0.load(Ordering::Relaxed)";
    ReturnIgnoresElsewhere, "the refusal of a task live elsewhere" => wrong::ELSEWHERE, "I1", "stale registers", 0, At(1),
        "protocol/steps.rs":
         "Place::Elsewhere => Err(compared.refusal(cpu)),
         Place::Memory => {" =>
         "Place::Elsewhere | Place::Memory => {";
    ReturnTrustsStale, "the count from the comparison: any stamp of this CPU matches" => switch::ALTERNATE, "I2", "another task's residue", 0, At(1),
        "protocol/word.rs": "MEMORY => Place::Both," => "differ if differ & ID_MASK == 0 => Place::Both,";
    ReturnSkipsMark, "the mark that registers are the only copy" => switch::BOUNCE, "I1", "stale registers", 0, At(3),
        "protocol/steps.rs":
         "OnEntry::Mark(live) => {
         context.word.mark_live(live);" =>
         "OnEntry::Mark(_) => {";
    ReturnClaimsBeforeRestore, "the order of restore and claim" => restore::FAILED, "I4", "undefined registers", 0, At(1),
        "protocol/steps.rs":
         "OnEntry::Load { live, moved } => {" =>
         "OnEntry::Load { live, moved } => {
         context.word.mark_live(live);";
    ReturnReusesStamp, "the new stamp for a load" => switch::ALTERNATE, "I2", "another task's residue", 0, At(2),
        "protocol/steps.rs": "let fresh = current.next();" => "let fresh = current;";
    ReturnClaimsAfterFailure, "the error path: a load that failed claims the registers" => restore::FAILED, "I4", "undefined registers", 0, At(1),
        "protocol/steps.rs":
         "unsafe { load(context, cpu, live) }?;" =>
         "if let Err(why) = unsafe { load(context, cpu, live) } {
         context.word.publish(Word::both(live));
         return Err(why);
         }";
    ReturnIgnoresGate, "the look at the gate, in an interrupt, before a load" => [SCENARIO], "I2", "a stamp goes back", At(2),
        "protocol/cpu_word.rs": "self.0 & cpu.gate()" => "self.0 & (cpu.gate() | OPEN)";
    ReturnKeepsCpuStamp, "the CPU's half of a claim" => switch::SWITCH, "I1", "unsaved state lost", 0, At(1),
        "protocol/steps.rs": "fresh.set(cpu);" => "";
    ReturnMovesCpuLate, "the order: the CPU's word moves after the restore" => restore::FAILED, "I4", "undefined registers", 0, At(2),
        "protocol/steps.rs": "fresh.set(cpu);" => "",
        "protocol/steps.rs":
         "unsafe { load(context, cpu, live) }?;" =>
         "unsafe { load(context, cpu, live) }?;
         unsafe { crate::witness::CpuWords::set_resident(cpu.words(), live.bits()) };";
    SwitchEntersFirst, "the order of a switch: the next task is loaded before the previous one is saved" => inside::SWITCH, "I1", "unsaved state lost", 0, At(2),
        "switch.rs":
         "if let Some(prev) = prev.filter(|prev| !stays(prev)) {" =>
         "if let Some(next) = next {
         steps::enter(next, cpu, drop).map_err(SwitchError::Next)?;
         }
         if let Some(prev) = prev.filter(|prev| !stays(prev)) {";
    SwitchInTrustsEarlier, "the comparison in a second call: any stamp of this CPU matches" => inside::RETURN, "I3, I11", "kernel residue", 0, At(2),
        "switch.rs":
         "steps::enter(self.context(), cpu, drop)" =>
         "if (self.word.load().bits() ^ crate::witness::CpuWords::resident(cpu.words())) & 0x7FFE == 0 {
         return Ok(());
         }
         steps::enter(self.context(), cpu, drop)";
    AdoptKeepsStamp, "the new stamp of registers that are adopted" => inside::ADOPT, "I2", "another task's residue", 0, At(3),
        "switch.rs": "closed.drop_claims();" => "";
    AdoptSkipsMark, "the mark that adopted registers are the only copy" => inside::ADOPT, "I1", "stale registers", 0, At(2),
        "switch.rs": "self.word.mark_live(closed.stamp());" => "";
    SectionSkipsSave, "the save before a section" => section::TASK, "I1", "unsaved state lost", 0, At(2),
        "section.rs": "unsafe { steps::save(task, closed.cpu(), Word::both(closed.stamp())) };" => "";
    SectionEndsLate, "the order: the CPU is open again before a section has ended" => [SCENARIO], "I5", "the end of a section is told late", At(1),
        "section.rs":
         "unsafe { self.closed.cpu().backend().section_end(self.units) };" =>
         "let words = self.closed.cpu().words();
         unsafe { crate::witness::CpuWords::set_resident(words, self.closed.stamp().bits()) };
         unsafe { crate::witness::CpuWords::set_gate(words, gate::OPEN) };
         unsafe { self.closed.cpu().backend().section_end(self.units) };";
    SectionForgetsEnd, "the end of a section" => [SCENARIO], "I5", "the end of a section is not told", At(1),
        "section.rs": "unsafe { self.closed.cpu().backend().section_end(self.units) };" => "";
    SectionMarksBeforeSave, "the order of the save before a section and its mark" => wrong::IN_SECTION, "I1", "Causality violation", 0, At(2),
        "section.rs":
         "unsafe { steps::save(task, closed.cpu(), Word::both(closed.stamp())) };" =>
         "task.word.publish(Word::both(closed.stamp()));
         unsafe { steps::save(task, closed.cpu(), Word::both(closed.stamp())) };";
    SectionMarkRelaxed, "the release of the mark after the save before a section" => wrong::IN_SECTION, "I1", "Causality violation", 0, Not(ORDERING),
        "section.rs":
         "unsafe { steps::save(task, closed.cpu(), Word::both(closed.stamp())) };" =>
         "unsafe { closed.cpu().backend().save(task.area) };
         let saved = Word::both(closed.stamp()).bits();
         task.word.mark_live(crate::protocol::cpu_word::Stamp::from_bits(saved));";
    SectionKeepsStamp, "the invalidation by a section" => section::TASK, "I5, I11", "kernel residue", 0, At(1),
        "section.rs":
         "closed.end_claims();
         let cpu = closed.cpu();" =>
         "let cpu = closed.cpu();";
    SectionSkipsGate, "the closing for a section" => section::INTERRUPT, "I3, I5", "kernel residue", 0, At(1),
        "protocol/closed.rs":
         "set_gate(cpu, by);" =>
         "if by != gate::SECTION {
         set_gate(cpu, by);
         }",
        "protocol/closed.rs":
         "found.closed().set(cpu);" =>
         "if by != gate::SECTION {
         found.closed().set(cpu);
         }";
    SectionNests, "the refusal inside a section or session" => section::INTERRUPT, "I5", "kernel residue", 0, At(1),
        "protocol/closed.rs": "_ => return Err(Error::Busy)," => "_ => {}",
        "protocol/closed.rs":
         "if found.left_closed() {
         // An interrupt has just begun a section or session and forgotten the guard. The CPU" =>
         "if false {
         // An interrupt has just begun a section or session and forgotten the guard. The CPU";
    SectionRefusedStaysClosed, "the reopening after a refusal" => wrong::ELSEWHERE, "liveness", "Busy", 0, At(1),
        "section.rs":
         "Place::Elsewhere => Err(closed.refuse(word))," =>
         "Place::Elsewhere => {
         core::mem::forget(closed);
         Err(word.live_elsewhere())
         }";
    CloseReadsBeforeGate, "the order of gate and word" => section::LIFECYCLE, "I3", "kernel residue", 0, At(1),
        "protocol/closed.rs":
         "let found = shut(cpu, by)?;" =>
         "let found = Stamp::of(cpu);
         shut(cpu, by)?;";
    CloseKeepsWordOpen, "the closing of the word after the gate" => wrong::INSIDE, "I5", "not reported", 0, At(1),
        "protocol/closed.rs": "found.closed().set(cpu);" => "";
    PersistentTrustsStale, "the comparison before a persistent run" => section::PERSISTENT, "I2, I11", "residue", 0, At(1),
        "section.rs": "if let Place::Both = closed.place(persistent.word.load()) {" => "if true {";
    GuestSkipsSave, "the save after a persistent run" => section::PERSISTENT, "I1", "stale registers", 0, At(1),
        "section.rs":
         "unsafe { steps::save(persistent, closed.cpu(), Word::both(closed.stamp())) };" =>
         "persistent.word.publish(Word::both(closed.stamp()));";
    PersistentKeepsStamp, "the new stamp for the load before a persistent run" => section::PERSISTENT, "I2", "another task's residue", 0, At(2),
        "section.rs":
         "} else {
         closed.end_claims();" =>
         "} else {";
    PersistentSkipsMark, "the mark of a context that runs" => wrong::TWICE, "I1", "not reported", 0, At(1),
        "section.rs": "persistent.word.mark_live(closed.stamp());" => "",
        "section.rs":
         "unsafe { steps::load(persistent, closed.cpu(), closed.stamp()) }?;" =>
         "unsafe { closed.cpu().backend().restore(persistent.area) }.map_err(Error::RestoreFailed)?;";
    PersistentMarkRelaxed, "the release of the mark after a persistent run" => wrong::IN_PERSISTENT, "I1", "Causality violation", 0, Not(ORDERING),
        "section.rs":
         "unsafe { steps::save(persistent, closed.cpu(), Word::both(closed.stamp())) };" =>
         "unsafe { closed.cpu().backend().save(persistent.area) };
         let saved = Word::both(closed.stamp()).bits();
         persistent.word.mark_live(crate::protocol::cpu_word::Stamp::from_bits(saved));";
    StepsMarkRelaxed, "the release of the mark of executed steps" => wrong::IN_STEPS, "I1", "Causality violation", 0, Not(ORDERING),
        "deferred.rs":
         "word.publish(Word::from_bits(self.steps.saved));" =>
         "word.mark_live(Stamp::from_bits(self.steps.saved));";
    SwitchSkipsSave, "the save from a switch's steps" => restore::STEPS, "I1", "unsaved state", 0, At(2),
        "deferred/switch.rs": "if let (true, Some(prev)) = (saves, prev) {" => "if let (true, Some(prev)) = (false, prev) {";
    SwitchKeepsStamp, "the new stamp for a switch's load" => restore::STEPS, "I1, I2", "another task's residue", 0, At(2),
        "protocol/steps.rs": "stamp.set(cpu);" => "";
    SwitchTrustsLive, "the refusal by a switch's steps of a task that is live" => wrong::ELSEWHERE, "I1", "not reported", 0, At(1),
        "protocol/steps.rs": "if !word.in_memory() || !stamp.can_be_taken(cpu) {" => "if !stamp.can_be_taken(cpu) {";
    SavedTrustsRegisters, "the refusal to read the image of a task that is live" => wrong::ELSEWHERE, "I1", "not reported", 0, At(1),
        "session/open.rs":
         "Place::Registers | Place::Elsewhere => Err(closed.refuse(word))," =>
         "_ => Ok(ReadSession::MemoryOnly(Session { task, closed, state: PhantomData })),";
    GuestStepsKeepStamp, "the invalidation by a guest's steps" => restore::SECTION_STEPS, "I2, I11", "another task's residue", 0, At(2),
        "deferred/section.rs":
         "self.closed.end_claims();
         self.tell_host();
         for kind" =>
         "self.tell_host();
         for kind";
    RawMarkRelaxed, "the release of the mark by `raw::saved`" => wrong::IN_RAW, "I1", "Causality violation", 0, Not(ORDERING),
        "raw.rs":
         "task.publish(task.load().saved());" =>
         "task.mark_live(Stamp::from_bits(task.load().saved().bits()));";
    SessionMarkRelaxed, "the release of the mark after a session's save" => wrong::IN_SESSION, "I1", "Causality violation", 0, Not(ORDERING),
        "session/typed.rs":
         "unsafe { steps::save(self.task, self.closed.cpu(), word) };" =>
         "unsafe { self.closed.cpu().backend().save(self.task.area) };
         self.word().mark_live(crate::protocol::cpu_word::Stamp::from_bits(word.bits()));";
    WriteKeepsClaim, "the invalidation before a session writes memory" => section::SESSION, "I1", "lost write", 0, At(1),
        "session/typed.rs":
         "self.drop_claim();
         self.become_state()
         }
         
         fn" =>
         "self.become_state()
         }
         
         fn",
        "session/typed.rs": "self.save(Word::NOWHERE);" => "self.save(Word::both(self.closed.stamp()));";
    WriteKeepsOtherClaim, "the invalidation before a session writes what another CPU claims" => migrate::WRITE, "I1", "lost write", 1, At(2),
        "session/typed.rs": "if self.word().load() != Word::NOWHERE {" => "if false {";
    HeldWriteKeepsClaim, "the invalidation of what another CPU claims of a context that is held exclusively" => inside::HELD, "I1", "lost write", 2, At(2),
        "session/typed.rs":
         "if self.word().load() != Word::NOWHERE {" =>
         "if (self.word().load().bits() ^ self.closed.stamp().bits()) & 0x7FFE == 0 {";
    OpenIgnoresElsewhere, "the refusal of a session of a task live elsewhere" => wrong::ELSEWHERE, "I1", "not reported", 0, At(1),
        "session/open.rs":
         "Place::Elsewhere => return Err(closed.refuse(word))," =>
         "Place::Elsewhere => TaskState::MemoryOnly(Session { task, closed, state: PhantomData }),";
    WriteSkipsSave, "the save before a session reads memory" => section::SESSION, "I1", "stale registers", 0, At(2),
        "session/typed.rs":
         "unsafe { steps::save(self.task, self.closed.cpu(), word) };" =>
         "self.word().publish(word);";
    SessionSkipsGate, "the closing for a session" => section::INTERRUPT, "I3", "kernel residue", 0, At(1),
        "protocol/closed.rs":
         "set_gate(cpu, by);" =>
         "if by != gate::SESSION {
         set_gate(cpu, by);
         }",
        "protocol/closed.rs":
         "found.closed().set(cpu);" =>
         "if by != gate::SESSION {
         found.closed().set(cpu);
         }";
    SessionReloadKeepsStamp, "the new stamp for a session's load" => section::SESSION, "I2", "another task's residue", 0, At(2),
        "session/typed.rs": "let stamp = self.closed.issue()?;" => "let stamp = self.closed.stamp();";
    SessionReturnSkipsMark, "the mark on return from a session" => section::SESSION, "I1", "stale registers", 0, At(2),
        "session/typed.rs": "self.word().mark_live(self.closed.stamp());" => "";
    StoppedWriteKeepsClaim, "the invalidation before a debugger writes" => stopped::WRITE, "I1", "lost write", 0, At(2),
        "stopped.rs": "self.task.word.publish(Word::NOWHERE);" => "";
    StoppedIgnoresLive, "the refusal of a task that runs" => wrong::STOPS, "I1", "Causality violation", 0, At(1),
        "stopped.rs": "if !w.in_memory() {" => "if false {";
    OnlineResetsCounter, "the count kept over offline" => power::OFFLINE, "I2", "another task's residue", 0, At(1),
        "protocol/cpu_word.rs": "if self.0 & ID_MASK != id {" => "if true {";
    OfflineKeepsOpen, "the closing of an offline CPU" => power::OFFLINE, "I2", "offline CPU used", 0, At(1),
        "protocol/closed.rs": "found.offline().set(cpu);" => "";
    OfflineReadsBeforeGate, "the order of gate and word in going offline" => power::OFFLINE_INTERRUPTED, "I2", "undefined registers", 0, At(1),
        "protocol/closed.rs":
         "let found = shut(cpu, gate::SESSION)?;
         if found.left_closed() {" =>
         "let found = Stamp::of(cpu);
         shut(cpu, gate::SESSION)?;
         if found.left_closed() {";
    OnlineReadsBeforeGate, "the order of gate and word in coming online" => [SCENARIO], "I2", "a stamp goes back", At(2),
        "protocol/closed.rs":
         "set_gate(cpu, gate::SESSION);
         compiler_fence(Ordering::SeqCst);
         let found = Stamp::of(cpu);" =>
         "let found = Stamp::of(cpu);
         set_gate(cpu, gate::SESSION);
         compiler_fence(Ordering::SeqCst);";
    OnlineRefusedStaysClosed, "the gate of a CPU that could not come online" => [SCENARIO], "liveness", "is left with the gate at 2", At(3),
        "protocol/closed.rs":
         "set_gate(cpu, gate::OFFLINE);
         return Err(why);" =>
         "return Err(why);";
    ShutTrustsGate, "the look at the word of a CPU that an interrupt has taken offline" => [SCENARIO], "liveness", "is left with the gate at", At(1),
        "protocol/closed.rs":
         "if found.is_offline() {
         // An interrupt" =>
         "if false {
         // An interrupt";
    InvalidateReadsBeforeGate, "the order of gate and word in an invalidation" => [SCENARIO], "I2", "a stamp goes back", At(1),
        "protocol/closed.rs":
         "let found = shut(cpu, gate::SESSION)?;
         if found.none_left() {" =>
         "let found = Stamp::of(cpu);
         shut(cpu, gate::SESSION)?;
         if found.none_left() {";
    OfflineTrustsForgotten, "the refusal to go offline where a guard was forgotten" => power::OFFLINE_FORGOTTEN, "I2, I5", "residue", 0, At(2),
        "protocol/closed.rs":
         "let found = shut(cpu, gate::SESSION)?;
         if found.left_closed() {" =>
         "let found = shut(cpu, gate::SESSION)?;
         if false {";
    ResumeKeepsStamp, "the invalidation at resume" => power::RESUME, "I2", "undefined registers", 0, At(2),
        "protocol/closed.rs": "open(cpu, found.next());" => "open(cpu, found);";
    ForkSkipsSave, "the save before a fork" => lifetime::FORK, "I13", "stale registers", 0, At(2),
        "session/open.rs":
         "self.open(cpu)?.make_memory_valid_read().fork_into(child);" =>
         "let state = self.open(cpu)?;
         child.word.mark_nowhere();
         unsafe { state.cpu().backend().copy_for_child(self.base(), child.base()) };";
    ForkCopiesClaim, "the mark that the child is nowhere" => lifetime::FORK, "I2, I13", "stale registers", 0, At(2),
        "session/open.rs": "child.word.mark_nowhere();" => "child.word.publish(task.word.load());";
    ForkKeepsChildClaim, "the invalidation of what a child's context held before" => lifetime::RECYCLED, "I2, I13", "stale registers", 3, At(3),
        "session/open.rs": "child.word.mark_nowhere();" => "";
    NewSkipsInitial, "the initial image of a new context" => lifetime::REUSE, "I8, I11", "residue", 0, At(2),
        "task.rs": "unsafe { backend.write_initial(task.base()) };" => "";
    ResetKeepsClaim, "the invalidation at exec" => lifetime::EXEC, "I1, I13", "residue", 0, At(2),
        "task.rs": "self.word.mark_nowhere();" => "";
    ReplaceSkipsSave, "the save before a context's area is replaced" => lifetime::GROW, "I1", "stale registers", 0, At(2),
        "grow.rs":
         "unsafe { steps::save(self.context(), closed.cpu(), word.saved()) };" =>
         "self.word.publish(word.saved());";
    ReplaceKeepsClaim, "the invalidation of what was loaded for another area" => lifetime::GROW, "I2, I10", "another's IA32_XFD", 0, At(2),
        "grow.rs":
         "self.word.publish(Word::NOWHERE);
         self.tell(closed.cpu(), EventKind::Invalidated);" => "";
    ReplaceKeepsArea, "the replacement itself" => lifetime::GROW, "I1", "not grown", 0, At(1),
        "grow.rs": "let old = mem::replace(&mut self.area, area);" => "let old = area;";
    ReplaceIgnoresElsewhere, "the refusal of another area for a context that is live elsewhere" => [SCENARIO], "I1", "not refused: an area", At(1),
        "grow.rs": "Place::Elsewhere => return refused(closed.refuse(word), area)," => "Place::Elsewhere => {}";
    AdoptKeepsRoom, "what a CPU is told of the room of a context that adopts its registers" => [SCENARIO], "I10", "another's IA32_XFD", At(3),
        "switch.rs":
         "if let Err(why) = unsafe { closed.cpu().backend().adopt(self.base()) } {" =>
         "if let Err(why) = Ok::<(), crate::backend::RestoreFault>(()) {";
    CounterWraps, "the end of the stamps" => power::EXHAUSTED, "I2", "another task's residue", 0, At(4),
        "protocol/steps.rs":
         "let fresh = current.next();" =>
         "let fresh = if current.is_open() { current.next().open() } else { current.next() };";
    VerifySkipsSave, "the save before registers are compared with memory" => verify::RIGHT, "no false alarm", "false alarm", 0, At(2),
        "verify.rs": "unsafe { backend.save(registers) };" => "",
        "verify.rs": "registers.as_ptr().copy_from_nonoverlapping(memory.as_ptr(), need);" => "";
    VerifyKeepsClaim, "the invalidation after registers and memory disagree" => verify::BROKEN, "I1, I11", "kernel residue", 0, At(2),
        "verify.rs": "drop(state.make_memory_valid_write());" => "";
    IdleKeepsClaim, "the invalidation after an idle CPU gave up registers" => idle::BETWEEN, "I1, I2", "torn state", 0, At(1),
        "cpu.rs": "closed.end_claims();" => "";
    IdleReopensEarly, "the order: the CPU is open again before the registers are given up" => idle::INTERRUPT, "I2, I3", "torn state", 0, At(1),
        "cpu.rs":
         "unsafe { closed.cpu().backend().release() };
         let cpu = closed.into_cpu();" =>
         "let cpu = closed.into_cpu();
         unsafe { cpu.backend().release() };";
    SaveSkipsRegisters, "the registers from every save" => switch::SWITCH, "I1", "stale registers", 0, At(1),
        "protocol/steps.rs": "unsafe { cpu.backend().save(context.area) };" => "";
    SaveMarksFirst, "the order of every save and its mark" => wrong::IN, "I1", "Causality violation", 0, At(1),
        "protocol/steps.rs":
         "unsafe { cpu.backend().save(context.area) };
         EventKind::Saved
         };
         context.word.publish(word);" =>
         "context.word.publish(word);
         unsafe { cpu.backend().save(context.area) };
         EventKind::Saved
         };";
    SaveMarkRelaxed, "the release of every mark after a save" => wrong::IN, "I1", "Causality violation", 0, Not(ORDERING),
        "protocol/steps.rs":
         "context.word.publish(word);" =>
         "context.word.mark_live(Stamp::from_bits(word.bits()));";
    UnchangedUnasked, "the question whether an area holds the registers already" => switch::UNCHANGED, "I1", "stale registers", 0, At(1),
        "protocol/steps.rs": "if cpu.unchanged(address) ||" => "if address != 0 ||";
    UnchangedOverruled, "the witness's and the backend's \"no\"" => switch::UNCHANGED, "I1", "stale registers", 0, At(1),
        "protocol/steps.rs":
         "if cpu.unchanged(address) || unsafe { cpu.backend().unchanged(context.area) } {" =>
         "if !(cpu.unchanged(address) || unsafe { cpu.backend().unchanged(context.area) }) {";
    UnchangedForgetsMark, "the mark where a save is left out" => switch::UNCHANGED, "I1", "unsaved state", 0, At(1),
        "protocol/steps.rs":
         "{
         EventKind::Unchanged
         } else {" =>
         "{
         return context.tell(cpu, EventKind::Unchanged);
         } else {";
    UnchangedMarksFirst, "the order of the question and the mark" => wrong::IN, "I1", "Causality violation", 0, At(1),
        "protocol/steps.rs":
         "let address = context.word.as_ptr() as usize;" =>
         "context.word.publish(word);
         let address = context.word.as_ptr() as usize;";
    UnchangedNeverAsked, "the saves that are left out" => [COST], "no save without need", "saved, and nobody was asked", At(1),
        "protocol/steps.rs":
         "if cpu.unchanged(address) || unsafe { cpu.backend().unchanged(context.area) } {" =>
         "if address == 0 {";
    UnchangedToldAsSaved, "the event of a save that is left out" => [EVENT], "events", "told of a save that was left out", At(1),
        "protocol/steps.rs":
         "{
         EventKind::Unchanged
         } else {" =>
         "{
         EventKind::Saved
         } else {";
    LoadMarksFirst, "the order of a load and its mark" => restore::FAILED, "I4", "undefined registers", 0, At(1),
        "protocol/steps.rs":
         "unsafe { restore(context, cpu) }?;
         context.word.mark_live(stamp);" =>
         "context.word.mark_live(stamp);
         unsafe { restore(context, cpu) }?;";
    LoadHidesFailure, "the error of every load that the hardware refuses" => restore::FAILED, "I4", "undefined registers", 0, At(1),
        "protocol/steps.rs": "return Err(Error::RestoreFailed(why));" => "let _ = why;";
    IdleAsksBeforeClose, "the order: an idle CPU is asked before it is closed" => [SCENARIO], "I2", "the wrong answer before a sleep", At(2),
        "cpu.rs":
         "let mut closed = Closed::new(self, gate::SESSION)?;
         // SAFETY: C10: pinned (K2), enabled (K4), soft-float (K9); the CPU is closed.
         if !unsafe { closed.cpu().backend().keeps_awake() } {" =>
         "let keeps_awake = unsafe { self.backend().keeps_awake() };
         let mut closed = Closed::new(self, gate::SESSION)?;
         if !keeps_awake {";
    IdleReleasesNothing, "the release of the registers by an idle CPU" => [COST], "idle", "the wrong answer before a sleep", At(1),
        "cpu.rs": "unsafe { closed.cpu().backend().release() };" => "";
    InvalidateStaysClosed, "the reopening after an invalidation" => power::RESUME, "liveness", "Busy", 0, At(1),
        "protocol/closed.rs": "open(cpu, found.next());" => "found.next().closed().set(cpu);";
    OpenRefusesWhileClosed, "the reopening before the error of a refused session is chosen" => wrong::ELSEWHERE, "I1", "not reported: session", 0, At(1),
        "session/open.rs":
         "Place::Elsewhere => return Err(closed.refuse(word))," =>
         "Place::Elsewhere => return Err(word.refusal(closed.cpu().words())),";
    SectionRefusesWhileClosed, "the reopening before the error of a refused section is chosen" => wrong::ELSEWHERE, "I1", "not reported: section", 0, At(1),
        "section.rs":
         "Place::Elsewhere => Err(closed.refuse(word))," =>
         "Place::Elsewhere => Err(word.refusal(closed.cpu().words())),";
    LiveHereIsLost, "the comparison that tells a live context from a lost one" => [REASON], "I1", "not refused: run_guest", At(1),
        "protocol/word.rs": "_ if w == cpu.resident() => 4," => "";
    PersistentIgnoresNmi, "the refusal of a persistent run in an NMI, ahead of all others" => section::NMI, "I5", "wrong error: in an NMI", 0, At(2),
        "section.rs": "if self.level() == Level::Nmi {" => "if false {";
    OfflineLeavesGate, "the gate of a CPU that is offline" => power::OFFLINE, "liveness", "Busy", 0, At(1),
        "protocol/closed.rs":
         "compiler_fence(Ordering::SeqCst);
         set_gate(cpu, gate::OFFLINE);" =>
         "compiler_fence(Ordering::SeqCst);";
    ReopenGateFirst, "the order of word and gate in opening" => section::INTERRUPT, "liveness", "Busy", 0, At(1),
        "protocol/closed.rs":
         "stamp.set(cpu);
         compiler_fence(Ordering::SeqCst);
         set_gate(cpu, gate::OPEN);" =>
         "set_gate(cpu, gate::OPEN);
         compiler_fence(Ordering::SeqCst);
         stamp.set(cpu);";
    ReturnNeverSkips, "the skip of a restore on return" => switch::BOUNCE, "no restore without need", "restore not skipped", 0, At(3),
        "protocol/steps.rs": "Place::Both => Ok(OnEntry::Mark(current))," => "",
        "protocol/steps.rs": "Place::Memory => {" => "Place::Both | Place::Memory => {";
    PersistentNeverSkips, "the skip of a restore before a persistent run" => [COST], "no restore without need", "registers are loaded that hold it already", At(2),
        "section.rs": "if let Place::Both = closed.place(persistent.word.load()) {" => "if false {";
    SectionSavesAgain, "the skip of a save where memory is valid" => [COST], "no save without need", "an image is saved that is valid already", At(3),
        "section.rs": "Place::Registers => Ok((closed, current))," => "Place::Registers | Place::Both => Ok((closed, current)),",
        "section.rs": "Place::Both | Place::Memory => Ok((closed, None))," => "Place::Memory => Ok((closed, None)),";
    LoadKeepsNoClaim, "the claim after a session's load" => section::SESSION, "no restore without need", "loaded twice", 0, At(1),
        "protocol/steps.rs": "context.word.publish(Word::both(stamp));" => "";
    SavedToldEarly, "the order of a mark and its event" => [EVENT], "events", "told of too early", At(1),
        "protocol/steps.rs":
         "context.word.publish(word);
         context.tell(cpu, done);" =>
         "context.tell(cpu, done);
         context.word.publish(word);";
    ResetMarksLate, "the order of mark and image at exec" => [SCENARIO], "I1", "written while CPU 0 claims what was there", At(2),
        "task.rs": "self.word.mark_nowhere();" => "",
        "task.rs":
         "unsafe { closed.cpu().backend().write_initial(self.base()) };" =>
         "unsafe { closed.cpu().backend().write_initial(self.base()) };
         self.word.mark_nowhere();";
    OnlineTakesNoStep, "the stamp taken by coming online" => [SCENARIO], "I2", "wrong contents", At(4),
        "protocol/cpu_word.rs": "back.another()" => "Ok(back)";
    OfflineAndBackTakeNoStep, "the stamps taken by going offline and by coming online" => power::OFFLINE, "I2", "undefined registers", 0, At(2),
        "protocol/cpu_word.rs": "self.another().unwrap_or(self.used_up()).closed()" => "self.closed()",
        "protocol/cpu_word.rs": "back.another()" => "Ok(back)";
    ClaimEndRelaxed, "the release of the end of a claim" => wrong::IN_WRITE, "I1", "Causality violation", 0, Not(ORDERING),
        "session/typed.rs":
         "self.drop_claim();
         self.become_state()
         }

         fn" =>
         "self.word().mark_nowhere();
         self.become_state()
         }

         fn";
    OtherClaimEndRelaxed, "the release of the end of another CPU's claim" => wrong::IN_MEMORY_WRITE, "I1", "Causality violation", 0, Not(ORDERING),
        "session/typed.rs":
         "if self.word().load() != Word::NOWHERE {
         self.drop_claim();" =>
         "if self.word().load() != Word::NOWHERE {
         self.word().mark_nowhere();";
    StoppedMarkRelaxed, "the release of the end of a claim before a debugger writes" => wrong::IN_STOPPED_WRITE, "I1", "Causality violation", 0, Not(ORDERING),
        "stopped.rs": "self.task.word.publish(Word::NOWHERE);" => "self.task.word.mark_nowhere();";
    LoadBesideMarkRelaxed, "the release of the mark after a session's load" => wrong::IN_WRITE, "I1", "Causality violation", 0, Not(ORDERING),
        "protocol/steps.rs":
         "context.word.publish(Word::both(stamp));" =>
         "context.word.mark_live(Stamp::from_bits(Word::both(stamp).bits()));";
}
