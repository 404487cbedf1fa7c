//! The machines that the kernel is booted on: an emulator, a model of CPU, and what is expected of it.

/// What runs the kernel.
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
    /// For tables and documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "QEMU",
            Self::Kvm => "KVM",
            Self::Bochs => "Bochs",
        }
    }
}

/// One machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// What it is asked for by.
    pub name: &'static str,
    /// What runs it.
    pub emulator: Emulator,
    /// The model, as the emulator calls it.
    pub cpu: &'static str,
    /// Boots from a disk image, through a BIOS; else the emulator loads the ELF file itself.
    pub disk: bool,
    /// What the library must choose there. `None`: it depends on the host.
    pub rung: Option<&'static str>,
    /// Has protection keys, and the kernel uses them.
    pub pku: bool,
    /// What it is for.
    pub about: &'static str,
}

/// What the library can save with, the best first; as `rung=` has them.
pub const RUNGS: [&str; 5] = ["xsaves", "xsavec", "xsaveopt", "xsave", "fxsave"];

const fn qemu(
    name: &'static str,
    cpu: &'static str,
    rung: &'static str,
    pku: bool,
    about: &'static str,
) -> Machine {
    Machine { name, emulator: Emulator::Tcg, cpu, disk: false, rung: Some(rung), pku, about }
}

const fn bochs(
    name: &'static str,
    cpu: &'static str,
    rung: &'static str,
    pku: bool,
    about: &'static str,
) -> Machine {
    Machine { name, emulator: Emulator::Bochs, cpu, disk: true, rung: Some(rung), pku, about }
}

/// All of them, in the order of the table.
pub static ALL: &[Machine] = &[
    qemu("qemu64", "qemu64", "fxsave", false, "FXSAVE: a CPU without XSAVE"),
    qemu("max-noxsave", "max,-xsave", "fxsave", false, "FXSAVE: a new CPU, XSAVE taken away"),
    qemu("max-noopt", "max,-xsaveopt", "xsave", true, "XSAVE, no choice of what to leave out"),
    qemu("haswell", "Haswell", "xsaveopt", false, "XSAVEOPT: x87, SSE, AVX"),
    qemu("milan", "EPYC-Milan", "xsaveopt", true, "XSAVEOPT on AMD, with protection keys"),
    qemu("max", "max", "xsaveopt", true, "XSAVEOPT: all that QEMU emulates; the fastest"),
    Machine {
        name: "max-disk",
        emulator: Emulator::Tcg,
        cpu: "max",
        disk: true,
        rung: Some("xsaveopt"),
        pku: true,
        about: "the same from the disk image: the other way to boot",
    },
    bochs("arrandale", "corei5_arrandale_m520", "fxsave", false, "FXSAVE as on silicon"),
    bochs("ryzen", "ryzen", "xsavec", false, "XSAVEC: family 17h, where erratum 1386 bars XSAVES"),
    bochs("skylake-x", "corei7_skylake_x", "xsaves", false, "XSAVES: AVX-512"),
    bochs("icelake", "corei7_icelake_u", "xsaves", true, "XSAVES: AVX-512, protection keys"),
    bochs("sapphire", "sapphire_rapids", "xsaves", true, "XSAVES: AVX-512, AMX, keys, IA32_XSS"),
    Machine {
        name: "kvm",
        emulator: Emulator::Kvm,
        // A nested hypervisor may refuse to set the bits of IA32_ARCH_CAPABILITIES; nothing here needs them.
        cpu: "host,-arch-capabilities",
        disk: false,
        rung: None,
        pku: false,
        about: "this CPU itself, where KVM runs ring 0 natively",
    },
];

/// Tried in this order where no machine is named: the first that can run is the best.
pub const BEST: [&str; 4] = ["kvm", "sapphire", "max", "qemu64"];

/// By its name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Machine> {
    ALL.iter().find(|machine| machine.name == name)
}

impl Machine {
    /// Does it have `rung`, by its best one? Not known for the host's own CPU: then the kernel says.
    #[must_use]
    pub fn has(&self, rung: &str) -> bool {
        let place = |name: &str| RUNGS.iter().position(|known| *known == name);
        self.rung.is_none_or(|best| place(best) <= place(rung))
    }
    /// CPUs of the host that it keeps busy with `cpus` of its own.
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
}
