//! The machines that this host can run.

use std::path::Path;

use super::{
    bochs::{self, Bochs},
    cpuid::Recorded,
    faults::{Fault, Needs},
    machines::{Emulator, Machine, AVX, AVX512},
    params::Params,
    qemu,
};

/// The emulators, or what to do to have them.
#[derive(Clone, Debug)]
pub struct Host {
    /// The version of QEMU.
    pub qemu: Result<String, String>,
    /// Bochs.
    pub bochs: Result<Bochs, String>,
    /// Whether the host's own CPU may be used.
    pub kvm: Result<(), String>,
    /// The CPUs to use.
    pub cpus: usize,
}

impl Host {
    /// Looks for the emulators. `target` is where cargo builds.
    #[must_use]
    pub fn new(target: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self { qemu: qemu::version(), bochs: bochs::find(target), kvm: qemu::kvm(), cpus }
    }

    /// Checks that the host can run this machine.
    ///
    /// # Errors
    ///
    /// The reason why not, and the remedy.
    pub fn has(&self, machine: &Machine) -> Result<(), String> {
        match machine.emulator {
            Emulator::Bochs => self.bochs.as_ref().map(drop).map_err(String::clone),
            Emulator::Tcg => self.qemu.as_ref().map(drop).map_err(String::clone),
            Emulator::Kvm => {
                self.qemu.as_ref().map(drop).map_err(String::clone).and(self.kvm.clone())
            }
        }
    }

    /// Checks that the host can run this machine, and the machine can do what it is told.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn can_run(&self, machine: &Machine, params: &Params) -> Result<(), String> {
        self.has(machine)?;
        if let Some(fault) = params.fault {
            can_show(fault, machine, params)?;
        }
        if params.cpuid.is_some_and(Recorded::xsave) && machine.hangs_at_osxsave() {
            let why =
                "it hangs where CPUID says XSAVE and the machine has none, in place of a fault";
            return Err(why.into());
        }
        match params.rung {
            Some(rung) if !machine.has(rung) => {
                let best = machine.rung.unwrap_or_default();
                Err(format!(
                    "it has no {rung}, or the library refuses it there; the best is {best}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The emulators in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let qemu = self.qemu.as_ref().map_or("no QEMU".into(), |v| format!("QEMU {v}"));
        let bochs = self.bochs.as_ref();
        let bochs = bochs.map_or("no Bochs".into(), |b| format!("Bochs {}", b.version));
        let cpus = match self.cpus {
            1 => "one CPU".into(),
            cpus => format!("{cpus} CPUs"),
        };
        format!("{qemu}, {bochs}, on {cpus} of this host")
    }
}

/// Checks that the fault can show on the machine, if the kernel saves as it is told.
///
/// # Errors
///
/// The reason why not.
pub fn can_show(fault: Fault, machine: &Machine, params: &Params) -> Result<(), String> {
    let why = match fault.needs() {
        Needs::Pku if !machine.pku => "the machine has no protection keys",
        Needs::Pku if params.rung == Some("fxsave") => "FXSAVE's images have no place for PKRU",
        Needs::BadImage if !machine.refuses_bad_images(params.rung) => {
            "QEMU loads any image by FXRSTOR"
        }
        Needs::Standard if !machine.standard(AVX, params.rung) => {
            "AVX is not saved in the standard format"
        }
        Needs::Standard512 if !machine.standard(AVX512, params.rung) => {
            "AVX-512 is not saved in the standard format"
        }
        Needs::Supervisor if !machine.saves_supervisor_state(params.rung) => {
            "no supervisor state is saved"
        }
        Needs::Unscrubbed
            if !machine.unscrubbed || !machine.saves_supervisor_state(params.rung) =>
        {
            "it needs XRSTORS without a scrub"
        }
        Needs::Svm | Needs::SvmAvx | Needs::SvmPku if !machine.has_svm() => {
            "the machine has no SVM"
        }
        Needs::SvmAvx if !machine.standard(AVX, params.rung) => {
            "AVX is not saved in the standard format"
        }
        Needs::SvmPku if !machine.pku || params.rung == Some("fxsave") => {
            "the machine has no protection keys"
        }
        Needs::Demand if !machine.demand || params.rung == Some("fxsave") => {
            "no tiles come on demand"
        }
        Needs::Trap if !machine.traps() => "CR0.TS does not cover all registers",
        Needs::SecondCpu if params.cpus < 2 => "it needs a second CPU",
        _ => return Ok(()),
    };
    Err(format!("{} cannot show there: {why}", fault.name()))
}
