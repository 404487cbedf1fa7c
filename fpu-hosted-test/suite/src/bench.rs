//! A short run of the benchmark: registers are compared, and one ratio is shown.
//!
//! No check of the suite depends on time, because machines are busy. So the ratio is judged only where somebody has asked
//! for this step alone, and then the best of some attempts.

use serde_json::Value;

use crate::run::{Outcome, Suite};

/// The step's name.
pub const NAME: &str = "bench";
const ROUNDS: &str = "200";
/// The highest ratio that passes, and how often it is tried.
const MOST: f64 = 1.10;
const ATTEMPTS: usize = 5;

/// The class of tasks that counts, or the largest below it that this CPU has.
const CLASSES: [&str; 3] = ["AVX", "SSE", "nothing"];

pub fn check(suite: &Suite) -> Outcome {
    let judged = suite.only == [NAME];
    let (class, mut ratio) = match run(suite, &[]) {
        Ok(found) => found,
        Err(why) => return Outcome::Failed(why),
    };
    let mut attempts = 1;
    while judged && ratio > MOST && attempts < ATTEMPTS {
        match run(suite, &["--class", class]) {
            Ok((_, again)) => ratio = ratio.min(again),
            Err(why) => return Outcome::Failed(why),
        }
        attempts += 1;
    }
    let said = format!("typed / bare, two tasks, {class}, first quartile: {ratio:.3}");
    match (judged, ratio > MOST) {
        (true, true) => {
            Outcome::Failed(format!("{said}, the best of {ATTEMPTS}; at most {MOST:.2} is allowed"))
        }
        (true, false) => {
            Outcome::Passed { count: 1, note: format!("{said}\nat most {MOST:.2} is allowed") }
        }
        (false, _) => {
            let note =
                format!("{said}\nnot judged; `cargo suite --only {NAME}` fails above {MOST:.2}");
            Outcome::Passed { count: 1, note }
        }
    }
}

/// Runs it with these arguments, too. Of the whole workspace: another program that `cargo bench` ran would refuse them.
fn run(suite: &Suite, more: &[&str]) -> Result<(&'static str, f64), String> {
    let args = [&["bench", "-q", "--", "--rounds", ROUNDS, "--json"], more].concat();
    let said = suite.cargo(&args).ok()?;
    ratio(&said).ok_or_else(|| format!("the benchmark does not say this ratio:\n{said}"))
}

/// The first of the classes that was measured, and the ratio of the typed calls to the bare instructions.
fn ratio(json: &str) -> Option<(&'static str, f64)> {
    let run: Value = serde_json::from_str(json).ok()?;
    let lines = run["lines"].as_array()?;
    CLASSES.into_iter().find_map(|class| {
        let line = lines.iter().find(|line| {
            line["class"] == class
                && line["scenario"] == "two tasks, a switch"
                && line["way"] == "fpu-core, typed"
        });
        Some((class, line?["ratio"].as_f64()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(classes: &[(&str, f64)]) -> String {
        let line = |way: &str, class: &str, ratio: f64| {
            format!(
                r#"{{"class": "{class}", "scenario": "two tasks, a switch", "way": "{way}", "ratio": {ratio}}}"#
            )
        };
        let lines = classes.iter().flat_map(|(class, ratio)| {
            [line("bare instructions", class, 1.0), line("fpu-core, typed", class, *ratio)]
        });
        format!(r#"{{"lines": [{}]}}"#, lines.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn the_largest_class_up_to_avx_counts() {
        let all = [("nothing", 1.01), ("SSE", 1.02), ("AVX", 1.03), ("AVX-512", 1.04)];
        assert_eq!(ratio(&document(&all)), Some(("AVX", 1.03)));
        assert_eq!(ratio(&document(&all[..2])), Some(("SSE", 1.02)));
        assert_eq!(ratio(&document(&all[..1])), Some(("nothing", 1.01)));
        assert_eq!(ratio(&document(&[])), None);
        assert_eq!(ratio("not JSON"), None);
    }
}
