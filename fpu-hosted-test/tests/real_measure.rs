//! The measurement of a plan, on this CPU's registers: right plans pass, and plans made from words that lie are
//! found out, whatever the lie.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_hosted_test::real::serve_fixups;
use fpu_x86::{Components, CpuidInfo, Measured, Plan, PlanError, SaveInstruction};
use raw_cpuid::{CpuIdReader, CpuIdReaderNative, CpuIdResult};

/// This CPU's words, of which one component's are changed.
#[derive(Clone)]
struct Liar {
    number: u32,
    offset: u32,
}

impl CpuIdReader for Liar {
    fn cpuid2(&self, leaf: u32, subleaf: u32) -> CpuIdResult {
        let mut words = CpuIdReaderNative.cpuid2(leaf, subleaf);
        if (leaf, subleaf) == (0xD, self.number) {
            words.ebx = self.offset;
        }
        words
    }
}

/// A plan for what is enabled, except tiles.
fn plan(facts: CpuidInfo, rung: SaveInstruction) -> Result<Plan, PlanError> {
    Plan::for_user(facts, 0, Components::all())?.with_save_instruction(rung)
}

fn measured(plan: &Plan) -> Result<(), Measured> {
    serve_fixups();
    // SAFETY: C26, C2: no code looks at the registers meanwhile. C6: ring 3; tiles are not tried.
    unsafe { plan.measure() }
}

/// # Safety
///
/// C7: nothing here uses tiles.
unsafe fn without_tiles(plan: Plan) -> Plan {
    // SAFETY: the caller's.
    unsafe { plan.trusting(Components::AMX) }
}

#[test]
fn every_instruction_saves_what_the_plan_says() {
    let mut tried = 0;
    for rung in SaveInstruction::ALL {
        let plan = match plan(CpuidInfo::of_this_cpu().unwrap(), rung) {
            Ok(plan) => plan,
            Err(PlanError::Unavailable(_) | PlanError::TooNarrow { .. }) => continue,
            Err(why) => panic!("{rung:?}: {why}"),
        };
        // SAFETY: C7: no task here uses tiles.
        let plan = unsafe { without_tiles(plan) };
        assert_eq!(measured(&plan), Ok(()), "{rung:?}");
        tried += 1;
    }
    // FXSAVE, where more than x87 and SSE is enabled.
    // SAFETY: C23: this test puts nothing into the other registers.
    let plan = unsafe { Plan::detect_user_without(!Components::LEGACY) }.unwrap();
    assert_eq!(measured(&plan.with_save_instruction(SaveInstruction::Fxsave).unwrap()), Ok(()));
    assert!(tried > 0, "not one plan for all that is enabled");
    println!("{tried} plans");
}

/// In the standard format every component lies where CPUID says. Each is said to lie at every other place that
/// a plan takes.
#[test]
fn a_component_that_lies_elsewhere_than_cpuid_says_is_found() {
    let true_facts = CpuidInfo::of_this_cpu().unwrap();
    let xcr0 = true_facts.xcr0().unwrap_or(Components::LEGACY);
    let true_plan = match plan(true_facts, SaveInstruction::Xsave) {
        Ok(plan) => plan,
        Err(PlanError::Unavailable(_)) => {
            return println!("SKIP: this CPU or its system has no XSAVE");
        }
        Err(why) => panic!("{why}"),
    };
    let tried = true_plan.components().difference(Components::LEGACY | Components::AMX);
    if tried.is_empty() {
        return println!("SKIP: XSAVE saves no more than x87 and SSE here");
    }
    let mut found = 0;
    for number in tried.numbers() {
        let component = Components::of_number(number).unwrap();
        let (right, _) = true_plan.place(component).unwrap();
        for offset in (576..8192).step_by(64).filter(|offset| *offset != right as u32) {
            let facts = CpuidInfo::from_cpuid(Liar { number, offset }).unwrap().with_xcr0(xcr0);
            for rung in [SaveInstruction::Xsave, SaveInstruction::Xsaveopt] {
                // A place in another component is refused when the plan is made.
                let plan = match plan(facts.clone(), rung) {
                    Ok(plan) => plan,
                    Err(PlanError::Unavailable(_) | PlanError::Required { .. }) => continue,
                    Err(why) => panic!("{why}"),
                };
                // SAFETY: C7: no task here uses tiles.
                let plan = unsafe { without_tiles(plan) };
                assert!(measured(&plan).is_err(), "{component:?} at {offset}, {rung:?}");
                found += 1;
            }
        }
    }
    println!("{found} lies");
    assert!(found > 50, "{found}");
    // SAFETY: C7: no task here uses tiles.
    assert_eq!(measured(&unsafe { without_tiles(true_plan) }), Ok(()));
}
