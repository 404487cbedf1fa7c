//! Plans settled on machines that refuse, misplace or forget anything: the plan that is left is what works.

use std::{collections::BTreeSet, println, vec::Vec};

use super::*;
use crate::{
    plan::Quirk,
    ring0::ControlState,
    tests::sample::Random,
    tests::words::{big_core, server, tiles, Words},
};

/// A machine of whose promises some do not hold. What it refuses, it refuses whatever else is asked for.
#[derive(Clone, Debug)]
struct Machine {
    no_osxsave: bool,
    /// XSETBV raises #GP with one of these set.
    xcr0_refuses: Components,
    /// XCR0 takes these without a fault and does not hold them.
    xcr0_forgets: Components,
    no_xss: bool,
    xss_refuses: Components,
    /// It takes each of its components, and not two.
    xss_takes_one: bool,
    xss_forgets: Components,
    no_xfd: bool,
    /// Restores by these raise #UD.
    no_restore: BTreeSet<SaveInstruction>,
    /// Saves do.
    no_save: BTreeSet<SaveInstruction>,
    misplaced: Components,
    keeps_mxcsr: bool,
}

impl Machine {
    /// What `enable_given` would say of a plan, in its order.
    fn answer(&self, plan: &Plan) -> Result<(), EnableError> {
        use ControlRegister as R;
        let refused = |register| Err(EnableError::Refused { register, vector: 13 });
        let should = ControlState::of(plan);
        if should.cr4 & CR4_OSXSAVE != 0 && self.no_osxsave {
            return refused(R::Cr4);
        }
        let (xcr0, xss) = (plan.xcr0(), plan.xss());
        if should.xcr0.is_some() && xcr0.intersects(self.xcr0_refuses) {
            return refused(R::Xcr0);
        }
        let several = self.xss_takes_one && xss.numbers().count() > 1;
        if should.xss.is_some() && (self.no_xss || several || xss.intersects(self.xss_refuses)) {
            return refused(R::Xss);
        }
        if should.xfd.is_some() && self.no_xfd {
            return refused(R::Xfd);
        }
        for (register, set, forgets) in
            [(R::Xcr0, should.xcr0, self.xcr0_forgets), (R::Xss, should.xss, self.xss_forgets)]
        {
            let expected = Components::from_bits_retain(set.unwrap_or(0));
            if expected.intersects(forgets) {
                let found = Some(expected.difference(forgets).bits());
                let why = ControlMismatch { register, expected: set, found };
                return Err(EnableError::Verify(why));
            }
        }
        if self.no_restore.contains(&plan.save_instruction()) {
            return Err(EnableError::InitialState { vector: 6 });
        }
        if self.keeps_mxcsr && !plan.scrubs() {
            return Err(EnableError::KeepsMxcsr);
        }
        if self.no_save.contains(&plan.save_instruction()) {
            return Err(EnableError::Measured(Measured::SaveFault { vector: 6 }));
        }
        match plan.components().intersection(self.misplaced).numbers().next() {
            Some(number) => {
                let component = Components::of_number(number).unwrap();
                Err(EnableError::Measured(Measured::Elsewhere { component, at: 0 }))
            }
            None => Ok(()),
        }
    }

    fn accepts_in_xcr0(&self, plan: &Plan) -> Components {
        if self.xcr0_refuses.intersects(Components::LEGACY) {
            return Components::SUPERVISOR;
        }
        let refused = self.xcr0_refuses.with_dependents();
        plan.xcr0().difference(refused) | Components::SUPERVISOR
    }

    fn settle(&self, mut plan: Plan) -> (Result<Plan, EnableError>, usize) {
        for steps in 0.. {
            assert!(steps < 40, "it goes on for ever: {self:x?} {plan:x?}");
            let Err(why) = self.answer(&plan) else { return (Ok(plan), steps) };
            let before = plan.clone();
            let xss = |plan: &Plan| (!self.no_xss).then(|| plan.xss().difference(self.xss_refuses));
            if let Err(why) = plan.shrink(why, |plan| self.accepts_in_xcr0(plan), xss) {
                return (Err(why), steps);
            }
            assert!(
                before.components().contains(plan.components())
                    && plan.save_instruction() <= before.save_instruction()
            );
            assert_ne!(before, plan, "nothing was done about {why}");
        }
        unreachable!()
    }

    /// IA32_XSS takes each of what it does not refuse, and not all.
    fn refuses_all_of_xss(&self, plan: &Plan) -> bool {
        let left = plan.xss().difference(self.xss_refuses.with_dependents());
        self.xss_takes_one && left.numbers().count() > 1
    }

    /// The components that no instruction can save rightly here, or that cannot be enabled.
    fn unusable(&self, plan: &Plan) -> Components {
        let xfd = |number: &u32| plan.cpuid_info().described(*number).is_some_and(|one| one.xfd);
        let mut bad = self.xcr0_refuses | self.xcr0_forgets | self.misplaced;
        if self.no_xfd && plan.cpuid_info().xfd() {
            for number in plan.components().numbers().filter(xfd) {
                bad |= Components::of_number(number).unwrap();
            }
        }
        if self.no_xss
            || self.refuses_all_of_xss(plan)
            || self.no_restore.contains(&SaveInstruction::Xsaves)
            || self.no_save.contains(&SaveInstruction::Xsaves)
        {
            bad |= Components::SUPERVISOR;
        }
        bad | self.xss_refuses | self.xss_forgets
    }
}

fn cpus() -> [Words; 4] {
    let cet = |words: Words, xss| {
        words
            .with(0xD, 1, [0x1F, 10752, xss, 0])
            .with(0xD, 10, [8, 0, 1, 0])
            .with(0xD, 11, [16, 0, 1, 0])
            .with(0xD, 12, [24, 0, 1, 0])
    };
    let mpx = cet(tiles(), 0x1C00)
        .with(0xD, 0, [0x6_02FF, 11008, 11008, 0])
        .with(0xD, 3, [64, 960, 0, 0])
        .with(0xD, 4, [64, 1024, 0, 0]);
    [server(), big_core(), cet(tiles(), 0x1C00), mpx]
}

fn random_set(random: &mut Random, of: Components) -> Components {
    let bits = random.word() & random.word() & random.word() & of.bits();
    Components::from_bits_retain(if random.word() % 4 == 0 { bits } else { 0 })
}

fn machine(random: &mut Random, plan: &Plan) -> Machine {
    let all = plan.components();
    let extended = all.difference(Components::LEGACY);
    let (user, supervisor) = (extended.user_part(), extended.intersection(Components::SUPERVISOR));
    let mut rarely = || random.word() % 12 == 0;
    let (no_osxsave, no_xss, no_xfd, keeps_mxcsr) = (rarely(), rarely(), rarely(), rarely());
    let xss_takes_one = rarely();
    let (no_legacy, mut bad) = (rarely(), |_: &SaveInstruction| rarely());
    let instructions = || {
        SaveInstruction::ALL
            .into_iter()
            .filter(|instruction| *instruction != SaveInstruction::Fxsave)
    };
    let (no_restore, no_save) =
        (instructions().filter(&mut bad).collect(), instructions().filter(&mut bad).collect());
    let legacy = if no_legacy { Components::LEGACY } else { Components::empty() };
    Machine {
        no_osxsave,
        xcr0_refuses: random_set(random, user) | legacy,
        xcr0_forgets: random_set(random, user),
        no_xss,
        xss_takes_one,
        xss_refuses: random_set(random, supervisor),
        xss_forgets: random_set(random, supervisor),
        no_xfd,
        no_restore,
        no_save,
        misplaced: random_set(random, extended),
        keeps_mxcsr,
    }
}

#[test]
fn what_is_left_is_all_that_works() {
    let mut random = Random(0x5E77_1E00);
    let (mut least, mut most, mut whole) = (0, 0, 0);
    for round in 0..20_000 {
        let cpus = cpus();
        let first = cpus[round % cpus.len()].kernel(Components::all()).unwrap();
        let machine = machine(&mut random, &first);
        let (settled, steps) = machine.settle(first.clone());
        let plan = settled.unwrap_or_else(|why| panic!("{why}: {machine:x?}"));
        most = most.max(steps);
        assert_eq!(machine.answer(&plan), Ok(()));
        assert_eq!(plan.components(), plan.xcr0() | plan.xss());
        assert!(plan.area_len() >= plan.layout.len() && plan.scrubs() == machine.keeps_mxcsr);
        // The best instruction that works, and everything that it can save and the machine can enable.
        let works = |instruction: &SaveInstruction| {
            first.cpuid_info().offers(*instruction)
                && !machine.no_restore.contains(instruction)
                && !machine.no_save.contains(instruction)
                && (*instruction != SaveInstruction::Xsaves
                    || !(machine.no_xss || machine.refuses_all_of_xss(&first)))
        };
        let xsave = !machine.no_osxsave && !machine.xcr0_refuses.intersects(Components::LEGACY);
        let best = SaveInstruction::ALL
            .into_iter()
            .filter(works)
            .find(|instruction| xsave || *instruction == SaveInstruction::Fxsave);
        let best = best.unwrap();
        let due = match best {
            SaveInstruction::Fxsave => Components::LEGACY,
            _ => first.components().difference(machine.unusable(&first).with_dependents()),
        };
        // FXSAVE is the best of all for x87 and SSE alone, without protection keys.
        let legacy = due == Components::LEGACY && !plan.has_keys();
        let best = if legacy { SaveInstruction::Fxsave } else { best };
        assert_eq!((plan.save_instruction(), plan.components()), (best, due), "{machine:x?}");
        // Everything that is not there is named.
        let named = plan.quirks().fold(Components::empty(), |set, quirk| match quirk {
            Quirk::LeftOut { components, .. } => set | components,
            _ => set,
        });
        assert_eq!(named, first.components().difference(plan.components()), "{machine:x?}");
        assert_eq!(plan.quirks().count() == 0, steps == 0);
        let empty =
            |quirk| matches!(quirk, Quirk::LeftOut { components, .. } if components.is_empty());
        assert!(!plan.quirks().any(empty), "{machine:x?}");
        whole += u32::from(steps == 0);
        least += u32::from(plan.save_instruction() == SaveInstruction::Fxsave);
    }
    println!("{whole} as planned, {least} with FXSAVE, at most {most} steps");
    assert!(least > 500 && whole > 500 && most >= 6, "{least}, {whole}, {most}");
}

/// What the kernel requires is not left out, however it is refused.
#[test]
fn what_is_required_is_the_error() {
    let mut random = Random(0x5E77_1E01);
    let mut refused = 0;
    for round in 0..5_000 {
        let cpus = cpus();
        let first = cpus[round % cpus.len()].kernel(Components::all()).unwrap();
        let required = Components::AVX | Components::LEGACY;
        let first = first.requiring(required).unwrap();
        let machine = machine(&mut random, &first);
        match machine.settle(first.clone()).0 {
            Ok(plan) => assert!(plan.components().contains(required)),
            Err(EnableError::Plan(PlanError::Required { component, .. })) => {
                assert_eq!(component, Components::AVX);
                let without = cpus[round % cpus.len()].kernel(Components::all()).unwrap();
                let plan = machine.settle(without).0.unwrap();
                assert!(!plan.components().contains(Components::AVX), "{machine:x?}");
                refused += 1;
            }
            Err(why) => panic!("{why}"),
        }
    }
    assert!(refused > 500, "{refused}");
}

/// FXSAVE that does not work leaves nothing.
#[test]
fn without_a_working_fxsave_there_is_no_plan() {
    let plan = server()
        .kernel(Components::LEGACY)
        .unwrap()
        .with_save_instruction(SaveInstruction::Fxsave)
        .unwrap();
    for why in [
        EnableError::InitialState { vector: 6 },
        EnableError::Measured(Measured::SaveFault { vector: 6 }),
        EnableError::Measured(Measured::Elsewhere { component: Components::SSE, at: 160 }),
        EnableError::Measured(Measured::Outside { present: Components::X87, at: 512 }),
    ] {
        let mut left = plan.clone();
        let result = left.shrink(why, |_| unreachable!(), |_| unreachable!());
        let required = |why| {
            matches!(why, EnableError::Plan(PlanError::Required { component, .. })
            if component == Components::LEGACY)
        };
        assert!(result.is_err_and(required), "{why}");
        assert_eq!(left, plan, "nothing has changed");
    }
    // What no smaller plan mends is handed on.
    let cr0 = ControlMismatch { register: ControlRegister::Cr0, expected: Some(2), found: Some(0) };
    for why in [EnableError::UserPlan, EnableError::WrongRing(3), EnableError::Verify(cr0)] {
        let mut left = plan.clone();
        assert_eq!(left.shrink(why, |_| unreachable!(), |_| unreachable!()), Err(why));
    }
    let scrubbing = plan.scrubbing();
    let mut left = scrubbing.clone();
    let why = EnableError::KeepsMxcsr;
    assert_eq!(left.shrink(why, |_| unreachable!(), |_| unreachable!()), Err(why));
    let names: Vec<_> = left.quirks().collect();
    assert!(names.is_empty());
}

/// All components, with IA32_XSS and IA32_XFD.
fn whole() -> Plan {
    cpus()[2].kernel(Components::all()).unwrap()
}

fn shrunk(plan: &Plan, why: EnableError, accepted: Components) -> Result<Plan, EnableError> {
    let mut left = plan.clone();
    left.shrink(why, |_| accepted, |_| Some(accepted)).map(|()| left)
}

fn kept(plan: &Plan, register: ControlRegister, kept: Components) -> Result<Plan, EnableError> {
    let found = Some(kept.bits());
    let why = EnableError::Verify(ControlMismatch { register, expected: None, found });
    shrunk(plan, why, Components::empty())
}

/// Where there is no XSAVE, or XCR0 is no use, the next plan is that of FXSAVE: no instruction of XSAVE is tried.
#[test]
fn what_is_refused_as_a_whole_leaves_fxsave_at_once() {
    use ControlRegister as R;
    let plan = whole();
    let all = Components::all();
    let refused = |register| EnableError::Refused { register, vector: 13 };
    for left in [
        shrunk(&plan, refused(R::Cr4), all),
        shrunk(&plan, refused(R::Xcr0), Components::SUPERVISOR),
        // Each group is accepted, and all of them are not; or more is held than was written.
        shrunk(&plan, refused(R::Xcr0), all),
        kept(&plan, R::Xcr0, plan.xcr0() | Components::MPX),
        kept(&plan, R::Xcr0, Components::X87),
    ] {
        let left = left.unwrap();
        assert_eq!(
            (left.save_instruction(), left.components()),
            (SaveInstruction::Fxsave, Components::LEGACY)
        );
        assert_eq!(ControlState::of(&left).cr4 & CR4_OSXSAVE, 0);
        let lost = plan.components().difference(Components::LEGACY);
        let named =
            |quirk| matches!(quirk, Quirk::LeftOut { components, .. } if lost.contains(components));
        assert!(left.quirks().any(named));
    }
}

/// A register that does not hold what is written is left as it is, with what needs it; so is it verified.
#[test]
fn a_register_that_keeps_something_else_is_left_alone() {
    use ControlRegister as R;
    let plan = whole();
    let supervisor = plan.xss();
    assert!(!supervisor.is_empty());
    // Each is accepted, and all of them are not: no XSAVES, and nothing else lost.
    let refused = EnableError::Refused { register: R::Xss, vector: 13 };
    let none = shrunk(&plan, refused, Components::all()).unwrap();
    assert_eq!(
        (none.save_instruction(), none.components()),
        (SaveInstruction::Xsavec, plan.xcr0())
    );
    // More than was written: what is not saved would be in use. Less: that is left out.
    let more = kept(&plan, R::Xss, supervisor | Components::PT).unwrap();
    assert_eq!(
        (more.save_instruction(), more.components()),
        (SaveInstruction::Xsavec, plan.xcr0())
    );
    assert!(more.quirks().any(|quirk| quirk
        == Quirk::LeftAlone { register: R::Xss, why: LeftOut::NotKept { register: R::Xss } }));
    let less = kept(&plan, R::Xss, supervisor.difference(Components::PASID)).unwrap();
    assert_eq!(
        (less.save_instruction(), less.xss()),
        (SaveInstruction::Xsaves, supervisor.difference(Components::PASID))
    );
    let xfd = kept(&plan, R::Xfd, Components::TILEDATA).unwrap();
    assert_eq!(xfd.components(), plan.components().difference(Components::AMX));
    assert!(xfd.quirks().any(|quirk| quirk
        == Quirk::LeftAlone { register: R::Xfd, why: LeftOut::NotKept { register: R::Xfd } }));
    // It may hold anything, where it is left alone and only there.
    for (left, xss, xfd) in [(&more, true, false), (&xfd, false, true), (&plan, false, false)] {
        let of = ControlState::of(left);
        assert_eq!((of.xss.is_none(), of.xfd.is_none()), (xss, xfd));
        for other in [None, Some(1 << 18)] {
            assert_eq!(ControlState { xss: other, ..of }.verify(left).is_ok(), xss);
            assert_eq!(ControlState { xfd: other, ..of }.verify(left).is_ok(), xfd);
        }
    }
}

/// Found with x87 and SSE among others, a fault is the instruction's: no component goes for it.
#[test]
fn what_goes_wrong_with_everything_in_use_is_the_instructions_fault() {
    let plan = cpus()[0].kernel(Components::USER).unwrap();
    let present = plan.components();
    for found in [
        Measured::Outside { present, at: 9000 },
        Measured::Header { present },
        Measured::RestoreFault { vector: 13, present },
        Measured::Absent { missing: present },
    ] {
        let left = shrunk(&plan, EnableError::Measured(found), present).unwrap();
        assert_eq!(
            (left.save_instruction(), left.components()),
            (SaveInstruction::Xsavec, present),
            "{found}"
        );
        let why = LeftOut::Measured(found);
        assert!(left.quirks().eq([Quirk::Barred { instruction: SaveInstruction::Xsaves, why }]));
    }
}

/// AVX takes AVX-512 with it, and sizes that were for both.
#[test]
fn what_is_lost_with_another_one_is_lost_by_all_rules() {
    let why = EnableError::Measured(Measured::Elsewhere { component: Components::AVX, at: 576 });
    let plan = cpus()[0].kernel(Components::USER).unwrap();
    let requiring = plan.clone().requiring(Components::AVX512).unwrap();
    let error = shrunk(&requiring, why, Components::all()).unwrap_err();
    let required = |why| {
        matches!(why, EnableError::Plan(PlanError::Required { component, .. })
        if component == Components::AVX512)
    };
    assert!(required(error), "{error}");
    let after = cpus()[0].clone().with(0xD, 1, [0xF, 9000, 0x100, 0]).cpuid_info().unwrap();
    let sized = plan.with_sizes(&after);
    assert_eq!(sized.area_len(), 9000);
    let left = shrunk(&sized, why, Components::all()).unwrap();
    assert_eq!((left.components(), left.area_len()), (Components::LEGACY, 576));
    // The reason is that of the component which is asked for.
    let none = left.clone().requiring(Components::APX);
    assert_eq!(none, Err(PlanError::NotEnumerated(Components::APX)));
    let gone = left.requiring(Components::OPMASK);
    assert!(matches!(gone, Err(PlanError::Required { component: Components::OPMASK, .. })));
}
