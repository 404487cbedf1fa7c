//! The conformance suite passes on the simulated backend and sees every way in which it can be broken.

use fpu_hosted_test::{
    conformance::{self, Verdict},
    sim::{Flaw, SimHarness, AREA_LEN, LAYOUT},
};

#[path = "support/allocator.rs"]
mod allocator;
use allocator::allocations;

#[test]
fn the_simulated_backend_conforms() {
    let report = conformance::check(&mut SimHarness::new().counting(allocations));
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert_eq!(report.counts(), (report.checks.len(), 0, 0), "none may be skipped: {report}");
}

#[test]
fn every_flaw_is_seen_by_the_check_of_its_duty() {
    let table = [
        (Flaw::LengthGrows, "size-is-constant"),
        (Flaw::OddAlignment, "size-is-constant"),
        (Flaw::WritesBeyond, "stays-inside"),
        (Flaw::WritesBefore, "stays-inside"),
        (Flaw::SaveClobbers, "save-keeps-registers"),
        (Flaw::SaveSkipsComponent, "save-writes-everything"),
        (Flaw::SaveTears, "save-writes-everything"),
        (Flaw::SaveForgetsHeader, "save-writes-everything"),
        (Flaw::RestoreLeavesResidue, "restore-clears-absent"),
        (Flaw::RestoreLoadsOldBytes, "old-bytes-stay-unseen"),
        (Flaw::RestoreSkipsComponent, "restore-loads-everything"),
        (Flaw::RestoreIgnoresFault, "refused-image-unchanged"),
        (Flaw::RestoreWritesImage, "refused-image-unchanged"),
        (Flaw::RestoreClearsOldBytes, "restore-leaves-image"),
        (Flaw::RestoreMarksPresent, "restore-leaves-image"),
        (Flaw::RestoreCompletesImage, "restore-leaves-image"),
        (Flaw::RestoreAsksTheBytes, "absent-over-old-bytes"),
        (Flaw::SaveKeepsPresent, "old-bytes-stay-unseen"),
        (Flaw::RestoreRefusesInitial, "own-images-accepted"),
        (Flaw::RestoreStaysBroken, "good-image-after-refused"),
        (Flaw::InitialKeepsHeader, "initial-over-anything"),
        (Flaw::InitialZeroControl, "initial-over-anything"),
        (Flaw::ChildInheritsAll, "child-inherits-the-right"),
        (Flaw::ChildGetsHeaderOnly, "child-inherits-the-right"),
        (Flaw::ChildTakesFromParent, "child-leaves-parent"),
        (Flaw::ChildClearsOldBytes, "child-leaves-parent"),
        (Flaw::DefaultsMissing, "kernel-defaults"),
        (Flaw::DefaultsForAll, "kernel-defaults"),
        (Flaw::EndBreaksRestores, "section-end"),
        (Flaw::ImageShowsOldBytes, "view-shows-registers"),
        (Flaw::ImageWriteForgetsHeader, "view-write-is-loaded"),
        (Flaw::ModifiedIgnoresAddress, "unchanged-since-restore"),
        (Flaw::RestoreSkipsSameAddress, "unchanged-since-restore"),
        (Flaw::UnchangedGuesses, "save-left-out"),
        (Flaw::UnchangedSkipsComponent, "save-left-out"),
        (Flaw::UnchangedAsksHeader, "save-left-out"),
        (Flaw::UnchangedForgetsAdoption, "save-after-adoption"),
        (Flaw::UnchangedClobbers, "save-left-out"),
        (Flaw::SaveAllocates, "no-allocation-no-panic"),
        (Flaw::SavePanics, "no-allocation-no-panic"),
        (Flaw::CompareSkipsComponent, "compare-sees-every-change"),
        (Flaw::CompareAsksHeader, "compare-ignores-the-bytes"),
        (Flaw::CompareSeesOldBytes, "compare-ignores-the-bytes"),
        (Flaw::CompareWrites, "compare-writes-nothing"),
        (Flaw::NeverKeepsAwake, "idle-asks-the-hardware"),
        (Flaw::ReleaseKeeps, "idle-gives-up-no-more"),
        (Flaw::ReleaseTears, "idle-gives-up-no-more"),
        (Flaw::ReleaseClobbers, "idle-gives-up-no-more"),
        (Flaw::TrapMissesComponent, "trap-covers-everything"),
        (Flaw::ArmClobbers, "trap-changes-nothing"),
        (Flaw::DisarmForgets, "trap-changes-nothing"),
    ];
    std::panic::set_hook(Box::new(|_| {})); // one flaw panics in most checks
    let mut missed = Vec::new();
    for (flaw, check) in table {
        let report = conformance::check(&mut SimHarness::with_flaw(flaw).counting(allocations));
        let seen: Vec<_> = report
            .checks
            .iter()
            .filter(|c| matches!(c.verdict, Verdict::Failed(_)))
            .map(|c| c.name)
            .collect();
        println!("{:24} {check:24} ({} checks fail)", format!("{flaw:?}"), seen.len());
        if !seen.contains(&check) {
            missed.push(format!("{flaw:?} is not seen by {check}, but by {seen:?}"));
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn the_layout_lies_inside_the_area_and_does_not_overlap() {
    let mut parts: Vec<_> = LAYOUT.iter().map(|c| (c.offset, c.offset + 8 * c.words)).collect();
    parts.push((0, 64));
    parts.sort_unstable();
    assert!(parts.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{parts:?}");
    assert!(parts.iter().all(|part| part.1 <= AREA_LEN), "{parts:?}");
}

/// A safe call through a flawed backend could write outside an area, so no context gets one.
#[test]
#[should_panic(expected = "a context would have a flawed backend")]
fn a_flawed_backend_makes_no_context() {
    use fpu_hosted_test::conformance::Harness;
    let harness = SimHarness::with_flaw(Flaw::WritesBefore);
    let _ = harness.fpu().the_backend();
}
