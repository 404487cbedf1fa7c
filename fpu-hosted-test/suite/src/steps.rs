//! The list of checks. Those that say most in the least time come first.

use std::{collections::BTreeMap, path::Path};

use crate::{
    api, bench, boot, cpus, habits, hygiene,
    libtest::{cargo_test, counted},
    nostd, object, package,
    run::{Cmd, Outcome, Suite, LIBRARIES},
    toolchains,
};

pub type Check = Box<dyn Fn(&Suite) -> Outcome>;

pub struct Step {
    pub name: String,
    pub about: String,
    /// Left out, and named, with `--quick`.
    pub slow: bool,
    pub check: Check,
}

pub fn all(suite: &Suite) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |name: &str, about: &str, slow: bool, check: Check| {
        steps.push(Step { name: name.into(), about: about.into(), slow, check });
    };
    add(
        "hygiene",
        "sizes of files, leftovers, names at the top, who imports whom, duties",
        false,
        Box::new(hygiene::check),
    );
    add(
        "fmt",
        "rustfmt changes nothing",
        false,
        Box::new(|s| {
            if Cmd::new("cargo").args(&["fmt", "--version"]).ok().is_err() {
                return Outcome::Skipped("no rustfmt: `rustup component add rustfmt`".into());
            }
            Outcome::of(s.cargo(&["fmt", "--all", "--check"]).ok())
        }),
    );
    add(
        "clippy",
        "all targets, warnings are errors",
        false,
        Box::new(|s| {
            if Cmd::new("cargo").args(&["clippy", "--version"]).ok().is_err() {
                return Outcome::Skipped("no clippy: `rustup component add clippy`".into());
            }
            let args = ["clippy", "-q", "--workspace", "--all-targets", "--", "-Dwarnings"];
            Outcome::of(s.cargo(&args).ok())
        }),
    );
    for package in [
        "fpu-core",
        "fpu-x86",
        "fpu-hosted-test",
        "fpu-models",
        "fpu-scale",
        "fpu-suite",
        "fpu-examples",
    ] {
        let about = format!("unit tests of {package}");
        add(
            &format!("unit-{}", &package["fpu-".len()..]),
            &about,
            false,
            Box::new(move |s| {
                // Cargo refuses `--lib` where there is none.
                let library: &[&str] = if package == "fpu-suite" { &[] } else { &["--lib"] };
                cargo_test(s, &[&["-p", package, "--bins"], library].concat())
            }),
        );
    }
    for (name, group) in groups(&suite.root) {
        let slow = name == "loom";
        let about = format!("{}: {}", group.about(&name), group.tests.join(" "));
        add(&name, &about, slow, Box::new(move |s| group.run(s)));
    }
    let faults = "each seeded fault of the core in a build that must fail as its row says";
    add("faults", faults, true, Box::new(seeded));
    add(
        "doc-tests",
        "every example in the documentation",
        false,
        Box::new(|s| {
            let mut args = vec!["--doc", "-p", "fpu-models"];
            args.extend(LIBRARIES.iter().flat_map(|package| ["-p", package]));
            cargo_test(s, &args)
        }),
    );
    add(
        "cpus",
        "the tests on real registers, on CPUs that QEMU emulates, release",
        true,
        Box::new(cpus::check),
    );
    let (no_std, no_sse) = nostd::abouts();
    add("no_std", no_std, false, Box::new(nostd::symbols));
    add("no-sse", no_sse, false, Box::new(nostd::no_sse));
    let conformance = "the conformance suite without the standard library, on fpu-core alone";
    add("no-std-tests", conformance, false, Box::new(nostd::conformance));
    let bare_metal = "the same library for x86_64-unknown-none by rustup's or Debian's compiler";
    add("bare-metal", bare_metal, false, Box::new(nostd::on_bare_metal));
    let oldest = "fpu-core and fpu-x86 on the rust-version that they promise";
    add("rust-version", oldest, false, Box::new(toolchains::oldest));
    let debian = "fpu-core and fpu-x86 on Debian's older compiler";
    add("rustc-web", debian, false, Box::new(toolchains::debian));
    add("no-deps", "a normal build of fpu-core depends on nothing", false, Box::new(no_deps));
    add("object", "the hot paths' instructions against the budget", false, Box::new(object::check));
    let short = "a short run of the benchmark; its ratio is judged only with --only bench";
    add(bench::NAME, short, false, Box::new(bench::check));
    add("kernel-lint", "rustfmt and clippy on the kernel that boots", false, Box::new(boot::lint));
    let quiet = "no vector register wherever the kernel's tasks, handlers and threads go";
    add("kernel-object", quiet, false, Box::new(object::kernel::check));
    let machines = "the kernel on every emulated CPU that this host can run";
    add("boot", machines, true, Box::new(boot::machines));
    let checked = "the kernel of each rung, comparing registers with claims at each return";
    add("boot-check", checked, true, Box::new(boot::checked));
    let cpuid = "the kernel with the CPUID words of every hypervisor in quirks.jsonl";
    add("boot-cpuid", cpuid, true, Box::new(boot::cpuid));
    let controls = "the kernel with every seeded fault, each of which it must notice";
    add("boot-controls", controls, true, Box::new(boot::controls));
    add(
        "rustdoc",
        "documentation builds, no broken link",
        false,
        Box::new(|s| Outcome::of(s.documentation())),
    );
    let snapshot = "every public item of the libraries, against docs/api";
    add("api", snapshot, false, Box::new(api::check));
    let features = "each library with each set of its features, checked";
    add("features", features, false, Box::new(habits::features));
    let deny = "licences, origins and advisories of other packages, by cargo-deny";
    add("deny", deny, false, Box::new(habits::deny));
    let miri = "tests of the core and of the simulated CPU, by Miri";
    add("miri", miri, true, Box::new(habits::miri));
    add("package", "cargo package, complete and buildable", false, Box::new(package::check));
    steps
}

/// Integration tests of one package that share the word in front of the first `_`.
struct Group {
    package: &'static str,
    tests: Vec<String>,
    /// Optimised, because there is much to try, or because optimised code is the subject.
    release: bool,
}

impl Group {
    fn about(&self, name: &str) -> String {
        match name {
            "loom" => "models, and faults of backends and kernels, release".into(),
            "diff" => "against this CPU's own instructions, release".into(),
            "compiled" => "what optimised code holds where registers change, release".into(),
            "explore" => "every order of calls on the real core, release".into(),
            "scale" => "cache lines between 2 to 1,024 simulated CPUs".into(),
            "ui" => "wrong use does not compile, and says why".into(),
            _ => format!("tests of {}", self.package),
        }
    }
    fn run(&self, suite: &Suite) -> Outcome {
        let mut args = vec!["-p", self.package];
        args.extend(self.tests.iter().flat_map(|test| ["--test", test]));
        if self.release {
            args.push("--release");
        }
        cargo_test(suite, &args)
    }
}

/// Prints what libtest would, and its own children build in parallel.
fn seeded(suite: &Suite) -> Outcome {
    let args = ["run", "-q", "--release", "-p", "fpu-models", "--bin", "faults"];
    counted(suite, suite.cargo(&args))
}

/// The files in the `tests` directories, so that a new file is run without being listed here.
fn groups(root: &Path) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (dir, package) in [
        ("fpu-hosted-test", "fpu-hosted-test"),
        ("fpu-hosted-test/models", "fpu-models"),
        ("fpu-hosted-test/scale", "fpu-scale"),
        ("fpu-core", "fpu-core"),
        ("fpu-x86", "fpu-x86"),
        ("examples", "fpu-examples"),
    ] {
        let Ok(entries) = std::fs::read_dir(root.join(dir).join("tests")) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let Some(stem) = stem.filter(|_| path.extension().is_some_and(|e| e == "rs")) else {
                continue;
            };
            let loom = stem.starts_with("loom") || stem.starts_with("faults");
            let diff = stem.starts_with("real_diff");
            let compiled = stem == "real_compiled";
            let release = diff || compiled || loom || stem.starts_with("explore");
            let word = match stem.split('_').next() {
                _ if loom => "loom",
                _ if diff => "diff",
                _ if compiled => "compiled",
                word => word.unwrap_or(&stem),
            };
            let name = match package {
                "fpu-hosted-test" | "fpu-models" | "fpu-scale" => word.to_owned(),
                _ => format!("{}-{word}", package.trim_start_matches("fpu-")),
            };
            let group = groups.entry(name).or_insert(Group { package, tests: Vec::new(), release });
            group.tests.push(stem);
            group.tests.sort();
        }
    }
    groups
}

fn no_deps(suite: &Suite) -> Outcome {
    let tree = suite
        .cargo(&["tree", "-p", "fpu-core", "-e", "normal", "--target", "all", "--prefix", "none"])
        .ok();
    match tree {
        Ok(text) if text.lines().filter(|line| !line.trim().is_empty()).count() == 1 => {
            Outcome::one()
        }
        Ok(text) => Outcome::Failed(format!("fpu-core depends on something:\n{text}")),
        Err(why) => Outcome::Failed(why),
    }
}
