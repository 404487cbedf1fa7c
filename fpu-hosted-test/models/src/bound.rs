// The faults of contexts that are bound to a CPU, and of those whose first use traps, as rows of `protocol.rs`.
bound! {
    BoundEntryKeepsDeferred, "the deferred save before a load" => bound::MOVES, "I15", "unsaved state lost", 0, At(2),
        "protocol/steps.rs": "settle_before(live, cpu);" => "";
    BoundStepsKeepDeferred, "the deferred save before the steps to user mode" => [SCENARIO], "I15", "unsaved state lost", At(3),
        "deferred.rs": "settle_before(live, cpu);" => "";
    BoundSwitchKeepsDeferred, "the deferred save before a switch's steps" => [SCENARIO], "I15", "unsaved state lost", At(2),
        "deferred/switch.rs": "settle_before(stamp, cpu);" => "";
    BoundClaimsEndEarly, "the deferred save before a section, a persistent run and an idle core" => [SCENARIO], "I15", "refused: Lost", At(1),
        "protocol/closed.rs": "self.settle();
         self.stamp = self.stamp.next();" => "self.stamp = self.stamp.next();";
    BoundSessionKeepsDeferred, "the deferred save before a session's load" => [SCENARIO], "I15", "another's", At(2),
        "protocol/closed.rs": "self.settle();
         self.stamp = self.stamp.another()?;" => "self.stamp = self.stamp.another()?;";
    BoundGuestKeepsDeferred, "the deferred save before a guest's steps" => [SCENARIO], "I15", "told of too early or too late", At(2),
        "deferred/section.rs": "closed.settle();" => "";
    BoundOfflineKeepsDeferred, "the deferred save before a CPU goes offline" => [SCENARIO], "I15", "unsaved state lost", At(2),
        "protocol/closed.rs": "witness.settle(Settle(Asked::Under(found.bits())));" => "";
    BoundMarksUnsaved, "the save itself, where it was deferred" => bound::MOVES, "I1", "stale registers", 0, At(2),
        "bound/per_cpu.rs": "unsafe { steps::save(context, cpu, Word::both(stamp)) };" => "context.word.publish(Word::both(stamp));";
    BoundForgetsMark, "the mark after a deferred save" => bound::MOVES, "I15", "unsaved state lost", 0, At(1),
        "bound/per_cpu.rs": "unsafe { steps::save(context, cpu, Word::both(stamp)) };" => "unsafe { cpu.backend().save(context.area) };";
    BoundReturnForgetsWhom, "the name of the context that was loaded last" => [SCENARIO], "I15", "refused: Lost", At(1),
        "bound/context.rs": "steps::enter(self.task().context(), cpu, drop)?;
         self.owner.last.store(self.index, Ordering::Relaxed);" => "steps::enter(self.task().context(), cpu, drop)?;";
    BoundOpenForgetsWhom, "the name of the context that a session may load" => [SCENARIO], "I15", "unsaved state lost", At(2),
        "bound/context.rs": "closed.settle();
         owner.last.store(self.index, Ordering::Relaxed);" => "closed.settle();";
    BoundOpenKeepsDeferred, "the deferred save of another context before a session names its own" => [SCENARIO], "I15", "unsaved state lost", At(2),
        "bound/context.rs": "closed.settle();
         owner.last" => "owner.last";
    BoundUnbindMarkRelaxed, "the release of the mark after the save before a context can move" => bound::UNORDERED, "I1, I15", "Causality violation", 0, Not(ORDERING),
        "bound/context.rs": "open.and_then(|()| steps::leave(self.task().context(), cpu))" => "open.map(|()| {
         let (context, stamp) = (self.task().context(), Stamp::of(cpu.words()));
         if context.word.peek().is_live_under(stamp) {
         unsafe { cpu.backend().save(context.area) };
         let saved = crate::protocol::word::Word::both(stamp).bits();
         context.word.mark_live(Stamp::from_bits(saved));
         }
         })";
    BoundUnbindSkipsSave, "the save before a context can move" => bound::MOVES, "I15", "unsaved state elsewhere", 1, At(2),
        "bound/context.rs": "open.and_then(|()| steps::leave(self.task().context(), cpu))" => "open";
    BoundBindSkipsSave, "the save of a context that is bound while it is live" => [SCENARIO], "I15", "unsaved state lost", At(2),
        "bound/context.rs": "steps::leave(task.context(), cpu)?;" => "";
    BoundSlotKeepsStamp, "the new word of a slot that is used again" => [SCENARIO], "I2", "wrong contents", At(2),
        "bound/slot.rs": "let room = unsafe { &mut *self.task.get() };" => "let room = unsafe { &mut *self.task.get() };
         let stale = old.then(|| unsafe { room.assume_init_ref() }.word.load());",
        "bound/slot.rs": "room.write(task);" => "let put = room.write(task);
         if let Some(stale) = stale {
         put.word.publish(stale);
         }";
    BoundReturnTrustsCpu, "the comparison of CPU numbers before a load" => [SCENARIO], "I15", "not refused on CPU 1", At(1),
        "bound/context.rs": "refuse_unless_open(cpu.words(), self.owner.number)?;
         // Saves the one that was loaded last, by the witness." => "";
    BoundOpenTrustsCpu, "the comparison of CPU numbers before a session" => [SCENARIO], "I15", "not refused on CPU 1", At(1),
        "bound/context.rs": "if !closed.stamp().is_of(owner.number) {" => "if false {";
    TrapNotArmed, "the trap on the way to a task that was never seen to use a register" => [SCENARIO], "I14", "runs without the trap", At(2),
        "trap.rs": "unsafe { cpu.backend().arm() };" => "";
    TrapStaysArmed, "the end of the trap" => [SCENARIO], "I14", "the trap is armed for a context that is used, or for none", At(2),
        "trap.rs": "unsafe { cpu.backend().disarm() };" => "";
    TrapForgetsUse, "the mark of a first use" => [SCENARIO], "I14", "counts as never used, and has contents", At(2),
        "trap.rs": "self.set(USED);\nOk(())\n}\n\n/// Runs `code`" => "Ok(())\n}\n\n/// Runs `code`";
    TrapFailsDisarmed, "the trap after a first use that cannot load" => [SCENARIO], "I14", "a first use that fails", At(2),
        "trap.rs": "self.arm(cpu, stamp).map_err(TrapError::Refused)?;" => "let _ = stamp;";
    TrapInSection, "the end of the trap before a section" => [SCENARIO], "I14", "kernel code meets the trap", At(2),
        "trap.rs": "disarmed = self.disarm(cpu)?;" => "";
    TrapLeftBySection, "the trap after a section" => [SCENARIO], "I14", "leaves the trap disarmed", At(2),
        "trap.rs": "self.arm(closed.cpu(), closed.stamp())?;" => "";
    TrapKeptForUsed, "the question whether the next task has used its registers" => [SCENARIO], "I14", "counts as never used, and has contents", At(3),
        "trap/switch.rs": "prev.is_armed(stamp) && next.state() == NEVER && stamp.is_open()" => "prev.is_armed(stamp) && stamp.is_open()";
    TrapUnderDebugger, "the end of the trap when a debugger writes" => [SCENARIO], "I14", "the trap is armed for a context that is used", At(2),
        "trap.rs": "self.disarm(closed.cpu())?;" => "";
    TrapUsedOpen, "the closing while a context becomes one like any other" => [SCENARIO], "I14", "the trap is armed for a context that is used", At(2),
        "trap.rs": "let closed = Closed::new(cpu, gate::SESSION)?;" => "",
        "trap.rs": "self.disarm(closed.cpu())?;" => "self.disarm(cpu)?;";
    TrapChildForgets, "the mark of a child that gets a copy" => [SCENARIO], "I14", "counts as never used, and has contents", At(3),
        "trap.rs": "child.set(USED);" => "";
    TrapResetKeeps, "the initial state at exec" => [SCENARIO], "I14", "a first use that fails", At(4),
        "trap.rs": "self.context.reset(cpu)?;" => "";
}
