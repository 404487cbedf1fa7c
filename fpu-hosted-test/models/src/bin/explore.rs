//! The explorer within other bounds than the suite's.
//!
//! ```text
//! cargo run --release -p fpu-models --bin explore -- --cpus 3 --tasks 2 --no-interrupts --moves
//! ```

use fpu_models::explore::{explore, Bounds};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut bounds = Bounds::SUITE;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        let flags = [
            ("interrupts", &mut bounds.interrupts),
            ("forgotten", &mut bounds.forgotten),
            ("lifecycle", &mut bounds.lifecycle),
            ("others", &mut bounds.others),
            ("moves", &mut bounds.moves),
            ("grows", &mut bounds.grows),
            ("unchanged", &mut bounds.unchanged),
        ];
        let name = word.trim_start_matches("--");
        let (off, name) = name.strip_prefix("no-").map_or((false, name), |name| (true, name));
        if let Some((_, flag)) = flags.into_iter().find(|(flag, _)| *flag == name) {
            *flag = !off;
            continue;
        }
        if word == "--stamps" {
            bounds.stamps = words.next().and_then(|word| word.parse().ok());
            continue;
        }
        let place = match (off, name) {
            (false, "cpus") => &mut bounds.cpus,
            (false, "tasks") => &mut bounds.tasks,
            (false, "bound") => &mut bounds.bound,
            (false, "depth") => bounds.depth.insert(0),
            _ => return usage(&word),
        };
        match words.next().and_then(|word| word.parse().ok()) {
            Some(number @ 0..=2) if name == "bound" => *place = number,
            Some(number) if name == "depth" || name != "bound" && (1..=3).contains(&number) => {
                *place = number;
            }
            _ => return usage(&word),
        }
    }
    let found = explore(bounds);
    println!("{found}");
    match &found.violation {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

const HELP: &str = "\
explore [OPTIONS]: every order of calls on the real core, within these bounds

  --cpus 1..3         CPUs (2)
  --tasks 1..3        tasks; a guest comes on top (2)
  --bound 0..2        contexts that the first CPU owns (0)
  --depth N           no further than N moves
  --stamps N          N stamps are left to each CPU
  --[no-]interrupts   an interrupt at each step of each operation (on)
  --[no-]forgotten    an interrupt that forgets a guard (on)
  --[no-]lifecycle    an interrupt that takes the CPU offline or online (on)
  --[no-]others       another CPU's whole operation at each step, interrupts on
                      and off (off)
  --[no-]moves        contexts change places in memory (off)
  --[no-]grows        areas that have more room and less (off)
  --[no-]unchanged    saves are left out where memory holds the registers
                      already (off)
  --help              this text

Exit code: 0 if nothing was wrong, 1 if something was, 2 if an option was not
understood.";

#[cfg(test)]
#[test]
fn the_help_fits_79_columns() {
    assert!(HELP.lines().all(|line| line.chars().count() <= 79), "{HELP}");
}

fn usage(word: &str) -> ExitCode {
    eprintln!("not understood: {word}\n{HELP}");
    ExitCode::from(2)
}
