//! Ways in which a backend can be wrong. Tests show that the conformance suite notices each.

/// One thing that a broken simulated backend does wrong.
///
/// ```
/// use fpu_hosted_test::{conformance::Harness, sim::{Flaw, SimHarness}};
/// assert_eq!(SimHarness::with_flaw(Flaw::SaveClobbers).fpu().flaw(), Some(Flaw::SaveClobbers));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The size it asks for grows.
    LengthGrows,
    /// The alignment it asks for is no power of two.
    OddAlignment,
    /// A save writes one word too many.
    WritesBeyond,
    /// An initial image is written from eight bytes before the area.
    WritesBefore,
    /// A save changes a register.
    SaveClobbers,
    /// A save leaves out the last component.
    SaveSkipsComponent,
    /// A save leaves out one word of a component.
    SaveTears,
    /// A save does not write the header.
    SaveForgetsHeader,
    /// A restore leaves a component alone that the image does not have.
    RestoreLeavesResidue,
    /// A restore loads the bytes of a component that the image does not have.
    RestoreLoadsOldBytes,
    /// A restore leaves out the first component.
    RestoreSkipsComponent,
    /// A restore says that an illegal image was loaded.
    RestoreIgnoresFault,
    /// A refused restore repairs the image.
    RestoreWritesImage,
    /// A restore writes the initial values into the image of components that it does not have.
    RestoreClearsOldBytes,
    /// A restore makes components present that the image does not have, over whatever is there.
    RestoreMarksPresent,
    /// A restore writes those initial values and makes the components present: the image holds the same, and was
    /// written.
    RestoreCompletesImage,
    /// A restore loads the bytes of a component that the image does not have if they are not zero.
    RestoreAsksTheBytes,
    /// A save leaves the header bits of components that are initial now.
    SaveKeepsPresent,
    /// A restore refuses an image in the initial state.
    RestoreRefusesInitial,
    /// A restore that was refused makes all that follow refused.
    RestoreStaysBroken,
    /// An initial image keeps the header that was there.
    InitialKeepsHeader,
    /// An initial image has zero control words.
    InitialZeroControl,
    /// A child inherits everything.
    ChildInheritsAll,
    /// A child gets the header only.
    ChildGetsHeaderOnly,
    /// A copy for a child takes from the parent what the child does not inherit.
    ChildTakesFromParent,
    /// A copy for a child clears the parent's bytes of components that its image does not have.
    ChildClearsOldBytes,
    /// A section finds the user's control words.
    DefaultsMissing,
    /// A section that asked for no unit finds its registers changed.
    DefaultsForAll,
    /// After a section has ended, restores are refused.
    EndBreaksRestores,
    /// The view shows the bytes of a component that the image does not have.
    ImageShowsOldBytes,
    /// A write through the view does not make the component present.
    ImageWriteForgetsHeader,
    /// A save leaves out what was not written since a restore from *another* address.
    ModifiedIgnoresAddress,
    /// A restore from an address counts as done if the last one came from there.
    RestoreSkipsSameAddress,
    /// Every save is said not to be needed.
    UnchangedGuesses,
    /// A component is left out of the comparison that says so.
    UnchangedSkipsComponent,
    /// A component that the image does not have is taken for unchanged.
    UnchangedAsksHeader,
    /// Registers are taken for unchanged since the last restore, whichever area it was from.
    UnchangedForgetsAdoption,
    /// The question changes a register.
    UnchangedClobbers,
    /// Every save allocates.
    SaveAllocates,
    /// A save panics if a component is not in use.
    SavePanics,
    /// A comparison leaves out the last component.
    CompareSkipsComponent,
    /// A comparison asks which components are present, not whether they are initial.
    CompareAsksHeader,
    /// A comparison looks at the bytes of components that an image does not have.
    CompareSeesOldBytes,
    /// A comparison makes the first image hold what the second holds.
    CompareWrites,
    /// A core is said to be able to sleep although a component keeps it awake.
    NeverKeepsAwake,
    /// What keeps a core awake is not given up.
    ReleaseKeeps,
    /// Only a part of what keeps a core awake is given up.
    ReleaseTears,
    /// All registers are given up together with what keeps a core awake.
    ReleaseClobbers,
    /// The trap does not cover the last component.
    TrapMissesComponent,
    /// Arming the trap changes registers.
    ArmClobbers,
    /// The trap stays armed.
    DisarmForgets,
}
