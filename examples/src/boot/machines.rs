//! The machines that the kernel is booted on: an emulator, a model of CPU, and what is expected of it.

use fpu_x86::Components;

/// The emulators that run the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    /// QEMU, translating.
    Tcg,
    /// QEMU on this CPU.
    Kvm,
    /// Bochs, interpreting.
    Bochs,
}

impl Emulator {
    /// The name in tables and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "QEMU",
            Self::Kvm => "KVM",
            Self::Bochs => "Bochs",
        }
    }
}

/// The components that the library enables on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enables {
    /// XCR0. `None`: there is no XSAVE.
    pub xcr0: Option<u64>,
    /// `IA32_XSS`; 0 without XSAVES too.
    pub xss: u64,
}

/// AVX in XCR0.
pub const AVX: u64 = Components::AVX.bits();
/// AVX-512 in XCR0: opmask, and both parts of ZMM.
pub const AVX512: u64 = Components::AVX512.bits();

/// One machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// The name on the command line.
    pub name: &'static str,
    /// The emulator.
    pub emulator: Emulator,
    /// The model, as the emulator calls it.
    pub cpu: &'static str,
    /// Whether the machine boots from a disk image, through a BIOS; otherwise the emulator loads the ELF file itself.
    pub disk: bool,
    /// The instruction that the library must choose. `None`: it depends on the host.
    pub rung: Option<&'static str>,
    /// The components that the library must enable, with that rung. `None`: they depend on the host.
    pub enables: Option<Enables>,
    /// Whether the kernel trusts the library about AMX: no task has tiles, or the kernel mends what is saved of them.
    pub trusts_tiles: bool,
    /// Whether tiles come on demand, and tasks use them.
    pub demand: bool,
    /// Whether the kernel's restores do not scrub, and the kernel makes sure that they need not.
    pub unscrubbed: bool,
    /// Whether the machine has protection keys, and images of its plan a place for them: the kernel uses them.
    pub pku: bool,
    /// The purpose.
    pub about: &'static str,
}

/// What the library can save with, the best first; as `rung=` has them.
pub const RUNGS: [&str; 5] = ["xsaves", "xsavec", "xsaveopt", "xsave", "fxsave"];

/// Without XSAVE.
const NOTHING: Enables = Enables { xcr0: None, xss: 0 };

const fn enables(xcr0: u64, xss: u64) -> Enables {
    Enables { xcr0: Some(xcr0), xss }
}

const fn qemu(
    name: &'static str,
    cpu: &'static str,
    rung: &'static str,
    enables: Enables,
    pku: bool,
    about: &'static str,
) -> Machine {
    let (rung, enables) = (Some(rung), Some(enables));
    let (emulator, disk, trusts_tiles, demand) = (Emulator::Tcg, false, false, false);
    let unscrubbed = false;
    Machine {
        name,
        emulator,
        cpu,
        disk,
        rung,
        enables,
        trusts_tiles,
        demand,
        unscrubbed,
        pku,
        about,
    }
}

const fn bochs(
    name: &'static str,
    cpu: &'static str,
    rung: &'static str,
    enables: Enables,
    pku: bool,
    about: &'static str,
) -> Machine {
    let machine = qemu(name, cpu, rung, enables, pku, about);
    Machine { emulator: Emulator::Bochs, disk: true, ..machine }
}

/// All machines, in the order of the table.
pub static ALL: &[Machine] = &[
    qemu("qemu64", "qemu64", "fxsave", NOTHING, false, "FXSAVE: a CPU without XSAVE"),
    qemu(
        "max-noxsave",
        "max,-xsave",
        "fxsave",
        NOTHING,
        false,
        "FXSAVE: a new CPU, XSAVE taken away",
    ),
    qemu(
        "max-noopt",
        "max,-xsaveopt",
        "xsave",
        enables(7, 0),
        true,
        "XSAVE, no choice of what to leave out",
    ),
    qemu(
        "max-level-a",
        "max,level=0xa",
        "fxsave",
        NOTHING,
        false,
        "FXSAVE: CPUID says XSAVE, and ends before leaf 0xD",
    ),
    qemu("max-noavx", "max,-avx", "xsaveopt", enables(3, 0), true, "XSAVEOPT, AVX taken away"),
    qemu("haswell", "Haswell", "xsaveopt", enables(7, 0), false, "XSAVEOPT: x87, SSE, AVX"),
    qemu(
        "milan",
        "EPYC-Milan",
        "xsaveopt",
        enables(7, 0),
        true,
        "XSAVEOPT on AMD, with protection keys",
    ),
    qemu(
        "max",
        "max",
        "xsaveopt",
        enables(7, 0),
        true,
        "XSAVEOPT: all that QEMU emulates; the fastest",
    ),
    Machine {
        name: "max-disk",
        emulator: Emulator::Tcg,
        cpu: "max",
        disk: true,
        rung: Some("xsaveopt"),
        enables: Some(enables(7, 0)),
        trusts_tiles: false,
        demand: false,
        unscrubbed: false,
        pku: true,
        about: "the same from the disk image: the other way to boot",
    },
    bochs("arrandale", "corei5_arrandale_m520", "fxsave", NOTHING, false, "FXSAVE as on silicon"),
    bochs(
        "ryzen",
        "ryzen",
        "xsavec",
        enables(7, 0),
        false,
        "XSAVEC: family 17h, where erratum 1386 bars XSAVES",
    ),
    bochs("skylake-x", "corei7_skylake_x", "xsaves", enables(0xe7, 0), false, "XSAVES: AVX-512"),
    bochs(
        "icelake",
        "corei7_icelake_u",
        "xsaves",
        enables(0xe7, 0),
        true,
        "XSAVES: AVX-512, protection keys",
    ),
    bochs(
        "sapphire",
        "sapphire_rapids",
        "xsaves",
        // XSAVES of Bochs 3.0 takes tiles in use for initial, and the other way round: the library leaves AMX out.
        enables(0xe7, 0x800),
        true,
        "XSAVES: AVX-512, keys, IA32_XSS; its AMX loses tiles",
    ),
    Machine {
        name: "tiles",
        emulator: Emulator::Bochs,
        cpu: "sapphire_rapids",
        disk: true,
        rung: Some("xsaves"),
        enables: Some(enables(0x600e7, 0x800)),
        trusts_tiles: true,
        demand: false,
        unscrubbed: false,
        pku: true,
        about: "the same with AMX by trust: what gives tiles up",
    },
    Machine {
        name: "demand",
        emulator: Emulator::Bochs,
        cpu: "sapphire_rapids",
        disk: true,
        rung: Some("xsaves"),
        enables: Some(enables(0x600e7, 0x800)),
        trusts_tiles: true,
        demand: true,
        unscrubbed: false,
        pku: true,
        about: "tiles on demand; the kernel emulates IA32_XFD",
    },
    Machine {
        name: "xrstors",
        emulator: Emulator::Bochs,
        cpu: "sapphire_rapids",
        disk: true,
        rung: Some("xsaves"),
        enables: Some(enables(0xe7, 0x800)),
        trusts_tiles: false,
        demand: false,
        unscrubbed: true,
        pku: true,
        about: "the same, restored without a scrub",
    },
    Machine {
        name: "kvm",
        emulator: Emulator::Kvm,
        // A nested hypervisor may refuse to set the bits of IA32_ARCH_CAPABILITIES; nothing here needs them.
        cpu: "host,-arch-capabilities",
        disk: false,
        rung: None,
        enables: None,
        trusts_tiles: false,
        demand: false,
        unscrubbed: false,
        pku: false,
        about: "this CPU itself, where KVM runs ring 0 natively",
    },
];

/// Tried in this order where no machine is named: the first that can run is the best.
pub const BEST: [&str; 4] = ["kvm", "sapphire", "max", "qemu64"];

/// The machine of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Machine> {
    ALL.iter().find(|machine| machine.name == name)
}

impl Machine {
    /// Tells whether the machine has `rung`, by its best one. Not known for the host's own CPU: then the kernel says.
    #[must_use]
    pub fn has(&self, rung: &str) -> bool {
        let place = |name: &str| RUNGS.iter().position(|known| *known == name);
        self.rung.is_none_or(|best| place(best) <= place(rung))
    }
    /// Tells whether setting CR4.OSXSAVE without XSAVE hangs the machine, in place of a fault, as it does QEMU 7.2.
    #[must_use]
    pub fn hangs_at_osxsave(&self) -> bool {
        let without = self.cpu == "qemu64" || self.cpu.ends_with(",-xsave");
        self.emulator == Emulator::Tcg && without
    }
    /// Tells whether these components are saved to where CPUID says, with `rung` or else with the best one. Otherwise
    /// they are packed, or not saved.
    #[must_use]
    pub fn standard(&self, components: u64, rung: Option<&str>) -> bool {
        let xcr0 = self.enables.and_then(|enables| enables.xcr0).unwrap_or_default();
        let all = xcr0 & components == components;
        all && matches!(rung.or(self.rung), Some("xsaveopt" | "xsave"))
    }
    /// Tells whether the machine saves supervisor state, with `rung` or else with its best one.
    #[must_use]
    pub fn saves_supervisor_state(&self, rung: Option<&str>) -> bool {
        let has = self.enables.is_some_and(|enables| enables.xss != 0);
        has && rung.or(self.rung) == Some("xsaves")
    }
    /// Tells whether the machine executes the instructions of `rung`, whether its plan takes them or not. An erratum of
    /// its family keeps the plan for `ryzen` from XSAVES, which Bochs has.
    #[must_use]
    pub fn executes(&self, rung: &str) -> bool {
        self.name == "ryzen" || self.has(rung)
    }
    /// Tells whether the machine refuses to load an image that no CPU may load, with `rung` or else with its best one.
    /// QEMU's FXRSTOR loads any.
    #[must_use]
    pub fn refuses_bad_images(&self, rung: Option<&str>) -> bool {
        self.emulator != Emulator::Tcg || rung.or(self.rung) != Some("fxsave")
    }
    /// Tells whether CR0.TS covers all registers of the machine's plan.
    #[must_use]
    pub fn traps(&self) -> bool {
        let covered = Components::LEGACY | Components::AVX | Components::AVX512;
        self.enables.is_some_and(|enables| {
            enables.xss == 0 && enables.xcr0.unwrap_or(3) & !covered.bits() == 0
        })
    }
    /// Tells whether the machine has SVM, by which the kernel runs guests. Other machines may have it, and then run guests
    /// too.
    #[must_use]
    pub fn has_svm(&self) -> bool {
        let model = self.cpu.split(',').next().unwrap_or_default();
        self.emulator == Emulator::Tcg && ["qemu64", "max", "EPYC-Milan"].contains(&model)
    }
    /// The CPUs of the host that the machine keeps busy with `cpus` of its own.
    #[must_use]
    pub fn weight(&self, cpus: u32) -> usize {
        match self.emulator {
            // One thread, which interprets all CPUs in turn.
            Emulator::Bochs => 1,
            Emulator::Tcg | Emulator::Kvm => cpus as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_all_that_is_referred_to_exists() {
        for machine in ALL {
            assert_eq!(named(machine.name), Some(machine));
            assert!(machine.rung.is_none_or(|rung| RUNGS.contains(&rung)), "{}", machine.name);
            assert_eq!(machine.rung.is_none(), machine.enables.is_none(), "{}", machine.name);
            let without = machine.enables.is_some_and(|enables| enables.xcr0.is_none());
            assert_eq!(without, machine.rung == Some("fxsave"), "{}", machine.name);
            assert!(machine.name.len() <= 12 && machine.about.len() <= 56, "{}", machine.name);
        }
        assert!(BEST.iter().all(|name| named(name).is_some()));
        assert_eq!(named("list"), None);
    }

    #[test]
    fn a_rung_is_had_with_all_below_it() {
        let haswell = named("haswell").unwrap();
        assert!(haswell.has("xsaveopt") && haswell.has("fxsave"));
        assert!(!haswell.has("xsaves") && !haswell.has("xsavec"));
        assert!(named("kvm").unwrap().has("xsaves"));
    }

    #[test]
    fn only_qemus_fxrstor_loads_any_image() {
        for machine in ALL {
            let [best, fxsave] = [None, Some("fxsave")].map(|r| machine.refuses_bad_images(r));
            let translated = machine.emulator == Emulator::Tcg;
            assert_eq!(best, !translated || machine.rung != Some("fxsave"), "{}", machine.name);
            assert_eq!(fxsave, !translated, "{}", machine.name);
        }
    }
}
