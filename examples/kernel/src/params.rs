//! Boot parameters: `key=value` words, from the loader's command line or from the disk.

use fpu_x86::SaveInstruction;
use spin::Once;

use crate::faults::Fault;

static PARAMS: Once<Params> = Once::new();

/// The boot parameters, or the defaults while there are none.
pub fn given() -> Params {
    PARAMS.get().copied().unwrap_or_default()
}
/// Keeps them, once.
pub fn keep(params: Params) -> Params {
    *PARAMS.call_once(|| params)
}

/// CPUs that the kernel has blocks for.
pub const MAX_CPUS: usize = 8;

/// What the run shall be like.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// CPUs to start, the first included.
    pub cpus: usize,
    /// Run at least this long, in seconds of this machine's own time.
    pub seconds: u64,
    /// Goals that are not reached by then never will be.
    pub limit: u64,
    /// Switches that each task must have had.
    pub switches: u64,
    /// Migrations that each task must have had; without effect on one CPU.
    pub migrations: u64,
    /// For patterns and moments.
    pub seed: u64,
    /// The seeded fault.
    pub fault: Option<Fault>,
    /// The instruction, if not the best.
    pub rung: Option<SaveInstruction>,
    /// Compare the registers with the claims on the way to user mode.
    pub check: bool,
    /// Take the library's word for AMX: an emulator's saves lose tiles. No task uses some, or `amx` mends the saves.
    pub trust: bool,
    /// AMX's tiles on demand, behind IA32_XFD or what stands for it.
    pub demand: bool,
    /// Restore without scrubbing, on an emulator that keeps MXCSR: every image has SSE state.
    pub unscrubbed: bool,
    /// What CPUID says, for [`cpuid::record`](crate::cpuid::record).
    pub cpuid: Option<&'static str>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            cpus: 2,
            seconds: 0,
            limit: 60,
            switches: 200,
            migrations: 50,
            seed: 1,
            fault: None,
            rung: None,
            check: false,
            trust: false,
            demand: false,
            unscrubbed: false,
            cpuid: None,
        }
    }
}

impl Params {
    /// Reads them; the error is the word that could not be read.
    pub fn parse(text: &'static [u8]) -> Result<Self, &'static str> {
        let mut params = Self::default();
        let text = core::str::from_utf8(text).map_err(|_| "not text")?;
        for word in text.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').ok_or(word)?;
            let number = || value.parse::<u64>().map_err(|_| word);
            match key {
                "cpus" => match number()? as usize {
                    cpus @ 1..=MAX_CPUS => params.cpus = cpus,
                    _ => return Err(word),
                },
                "seconds" => params.seconds = number()?,
                "limit" => params.limit = number()?,
                "switches" => params.switches = number()?,
                "migrations" => params.migrations = number()?,
                "seed" => params.seed = number()?,
                "check" => params.check = number()? != 0,
                "trust" => params.trust = number()? != 0,
                "demand" => params.demand = number()? != 0,
                "unscrubbed" => params.unscrubbed = number()? != 0,
                "fault" => params.fault = Some(Fault::named(value).ok_or(word)?),
                "cpuid" => params.cpuid = Some(value),
                "rung" => params.rung = Some(rung(value).ok_or(word)?),
                _ => return Err(word),
            }
        }
        Ok(params)
    }
}

/// By its name on the command line.
fn rung(name: &str) -> Option<SaveInstruction> {
    SaveInstruction::ALL.into_iter().find(|rung| rung_name(*rung) == name)
}

/// The name of a rung in parameters and in the result.
pub fn rung_name(rung: SaveInstruction) -> &'static str {
    match rung {
        SaveInstruction::Xsaves => "xsaves",
        SaveInstruction::Xsavec => "xsavec",
        SaveInstruction::Xsaveopt => "xsaveopt",
        SaveInstruction::Xsave => "xsave",
        _ => "fxsave",
    }
}
