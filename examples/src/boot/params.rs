//! The boot parameters: `key=value` words, on the command line or in the disk image.

use std::fmt;

use super::{cpuid::Recorded, faults::Fault};

/// Switches and migrations that every task must have had.
pub const SWITCHES: u64 = 200;
/// See [`SWITCHES`].
pub const MIGRATIONS: u64 = 50;
/// Seconds of the machine's own time in which the goals must be reached.
pub const LIMIT: u64 = 60;

/// The parameters of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// CPUs of the machine.
    pub cpus: u32,
    /// The least time that the machine runs, in its own time.
    pub seconds: u64,
    /// After this long, in its own time, a goal that is not reached is a failure.
    pub limit: u64,
    /// The seed of the patterns and the choices.
    pub seed: u64,
    /// The seeded fault.
    pub fault: Option<Fault>,
    /// The instruction that saves, if not the best.
    pub rung: Option<&'static str>,
    /// Registers are compared with claims at each switch.
    pub check: bool,
    /// The library does not measure AMX.
    pub trust: bool,
    /// Tiles come on demand, and tasks use them.
    pub demand: bool,
    /// Restores do not scrub, and every image has SSE state.
    pub unscrubbed: bool,
    /// The CPUID words for the library, if not the machine's own.
    pub cpuid: Option<&'static Recorded>,
}

impl Default for Params {
    fn default() -> Self {
        let (cpus, seconds, limit, seed) = (2, 0, LIMIT, 1);
        let (check, trust, demand, unscrubbed) = (false, false, false, false);
        Self {
            cpus,
            seconds,
            limit,
            seed,
            fault: None,
            rung: None,
            check,
            trust,
            demand,
            unscrubbed,
            cpuid: None,
        }
    }
}

impl Params {
    /// Migrations that every task must have had: one CPU has none.
    #[must_use]
    pub fn migrations(&self) -> u64 {
        if self.cpus > 1 {
            MIGRATIONS
        } else {
            0
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpus, seconds, limit, seed, fault, rung, check, cpuid, .. } = self;
        let Self { trust, demand, unscrubbed, .. } = self;
        let migrations = self.migrations();
        write!(f, "cpus={cpus} seconds={seconds} limit={limit} switches={SWITCHES} ")?;
        write!(f, "migrations={migrations} seed={seed}")?;
        if let Some(fault) = fault {
            write!(f, " fault={}", fault.name())?;
        }
        if let Some(rung) = rung {
            write!(f, " rung={rung}")?;
        }
        if *check {
            write!(f, " check=1")?;
        }
        if *trust {
            write!(f, " trust=1")?;
        }
        if *demand {
            write!(f, " demand=1")?;
        }
        if *unscrubbed {
            write!(f, " unscrubbed=1")?;
        }
        if let Some(cpuid) = cpuid {
            write!(f, " cpuid={}", cpuid.parameter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_kernels() {
        let params = Params::default().to_string();
        assert_eq!(params, "cpus=2 seconds=0 limit=60 switches=200 migrations=50 seed=1");
        let (fault, rung) = (Some(Fault::SkipRestore), Some("xsave"));
        let (check, trust, demand, unscrubbed) = (true, true, true, true);
        let all = Params { cpus: 1, seed: u64::MAX, fault, rung, ..Params::default() };
        let all = Params { check, trust, demand, unscrubbed, ..all };
        let all = all.to_string();
        assert!(all.contains("cpus=1 ") && all.contains(" migrations=0 "), "{all}");
        assert!(all.ends_with(
            "seed=18446744073709551615 fault=skip-restore rung=xsave check=1 trust=1 demand=1 unscrubbed=1"
        ));
    }
}
