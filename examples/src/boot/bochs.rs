//! Finds Bochs, checks its version, and starts it on a machine.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    child::SERIAL,
    image::{cylinders, HEADS, SECTORS},
    machines::Machine,
    params::Params,
    qemu::DISK,
};

/// Instructions a second of the machine's own time. Time passes faster than the host's where it
/// interprets more of them.
const IPS: u32 = 20_000_000;

const FETCH: &str = "`cargo boot --fetch-bochs` fetches Bochs 3.0 from Debian's archive";

/// A Bochs that can be used.
#[derive(Clone, Debug)]
pub struct Bochs {
    /// The program.
    pub program: PathBuf,
    /// The version, such as `3.0`.
    pub version: String,
    /// The two ROM images.
    pub bios: PathBuf,
    /// See there.
    pub vga: PathBuf,
}

/// The version in what `bochs --help` prints.
#[must_use]
pub fn version(banner: &str) -> Option<&str> {
    let rest = banner.split_once("Bochs x86 Emulator ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    Some(rest[..end].trim_end_matches('.')).filter(|version| !version.is_empty())
}

/// Checks that this is a Bochs whose XSAVE is right.
///
/// # Errors
///
/// The fault of this Bochs.
pub fn usable(version: &str) -> Result<(), String> {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(3..) => Ok(()),
        _ if version == "2.7" => Err(format!(
            "is Bochs 2.7, whose compacted XSAVE layout is wrong: extended components lie over the \
             header; {FETCH}"
        )),
        _ => Err(format!("is Bochs {version}, and 3.0 is needed; {FETCH}")),
    }
}

/// Of these programs, the first that is there decides.
fn candidates(target: &Path) -> Vec<PathBuf> {
    if let Some(own) = std::env::var_os("FPU_BOCHS") {
        return vec![own.into()];
    }
    let fetched = target.join("bochs3/bochs");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("bochs"));
    std::iter::once(fetched).chain(on_path).filter(|program| program.is_file()).collect()
}

/// Finds a Bochs.
///
/// # Errors
///
/// What is wrong with the one that is there, or how to get one.
pub fn find(target: &Path) -> Result<Bochs, String> {
    let mut refused = format!("no Bochs: {FETCH}");
    for program in candidates(target) {
        match look_at(&program) {
            Ok(bochs) => return Ok(bochs),
            Err(why) => refused = format!("{} {why}", program.display()),
        }
    }
    Err(refused)
}

fn look_at(program: &Path) -> Result<Bochs, String> {
    let mut command = Command::new(program);
    let output = command.arg("--help").stdin(Stdio::null()).output();
    let output = output.map_err(|why| format!("cannot be started: {why}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let version = version(&said).ok_or("does not say which Bochs it is")?;
    usable(version)?;
    let (bios, vga) = roms(program).ok_or(
        "comes without its BIOS: install the packages bochsbios and vgabios, or set BXSHARE",
    )?;
    Ok(Bochs { program: program.into(), version: version.into(), bios, vga })
}

/// The two ROM images, beside the program or where distributions have them.
fn roms(program: &Path) -> Option<(PathBuf, PathBuf)> {
    let set = std::env::var_os("BXSHARE").map(PathBuf::from);
    let real = fs::canonicalize(program).ok()?;
    let beside = real.parent().map(|dir| dir.join("root/usr/share/bochs"));
    let prefix = real.parent().and_then(Path::parent).map(|dir| dir.join("share/bochs"));
    let shares = set.into_iter().chain(beside).chain(prefix);
    shares.chain([PathBuf::from("/usr/share/bochs")]).find_map(|share| {
        let vga = ["../vgabios/vgabios.bin", "VGABIOS-lgpl-latest", "VGABIOS-lgpl-latest.bin"];
        let bios = share.join("BIOS-bochs-latest");
        let vga = vga.iter().map(|name| share.join(name)).find(|path| path.is_file())?;
        bios.is_file().then_some((bios, vga))
    })
}

impl Bochs {
    /// Writes the files of Bochs into the run's directory, beside the disk image. Returns the command.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn command(
        &self,
        machine: &Machine,
        params: &Params,
        image: &[u8],
        dir: &Path,
    ) -> io::Result<Command> {
        // Links, because its configuration knows no quotes.
        for (rom, name) in [(&self.bios, "bios"), (&self.vga, "vgabios")] {
            symlink(fs::canonicalize(rom)?, dir.join(name))?;
        }
        fs::write(dir.join("bochsrc"), configuration(machine, params, cylinders(image)))?;
        // It starts in its debugger: go on.
        fs::write(dir.join("rc"), "c\n")?;
        let mut command = Command::new(&self.program);
        command.args(["-q", "-f", "bochsrc", "-rc", "rc"]).env("TERM", "vt100");
        Ok(command)
    }
}

fn configuration(machine: &Machine, params: &Params, cylinders: usize) -> String {
    let mut text = String::new();
    let Params { cpus, .. } = params;
    let model = machine.cpu;
    let lines = [
        "megs: 64".into(),
        "romimage: file=bios".into(),
        "vgaromimage: file=vgabios".into(),
        format!(
            "cpu: count={cpus}, model={model}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs=0"
        ),
        // The machine's time is counted in instructions: the same seed, the same run.
        "clock: sync=none, time0=1000000000".into(),
        "display_library: term".into(),
        format!(
            "ata0-master: type=disk, path={DISK}, mode=flat, cylinders={cylinders}, heads={HEADS}, \
             spt={SECTORS}"
        ),
        "boot: disk".into(),
        format!("com1: enabled=1, mode=file, dev={SERIAL}"),
        "log: log".into(),
        "panic: action=fatal".into(),
        "error: action=report".into(),
        "info: action=ignore".into(),
        "debug: action=ignore".into(),
    ];
    for line in lines {
        let _infallible = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::machines::named;

    #[test]
    fn versions_are_read_and_the_wrong_ones_refused_by_name() {
        let banner = |v: &str| format!("=====\n      Bochs x86 Emulator {v}\n   Built from\n");
        assert_eq!(version(&banner("3.0")), Some("3.0"));
        assert_eq!(version(&banner("2.7")), Some("2.7"));
        assert_eq!(version(&banner("3.0.devel")), Some("3.0"));
        assert_eq!(version("Usage: bochs [flags]"), None);
        assert_eq!(version(&banner("")), None);
        assert!(usable("3.0").is_ok() && usable("3.1").is_ok() && usable("4").is_ok());
        let old = usable("2.7").unwrap_err();
        assert!(old.contains("Bochs 2.7") && old.contains("--fetch-bochs"), "{old}");
        assert!(usable("2.8").unwrap_err().contains("Bochs 2.8"));
    }

    #[test]
    fn the_configuration_has_the_machines_cpu() {
        let machine = named("sapphire").unwrap();
        let text = configuration(machine, &Params { cpus: 3, ..Params::default() }, 2);
        assert!(text.contains("cpu: count=3, model=sapphire_rapids,"), "{text}");
        assert!(text.contains("cylinders=2, heads=16, spt=63"), "{text}");
        assert!(text.contains("reset_on_triple_fault=0, ignore_bad_msrs=0"));
    }
}
