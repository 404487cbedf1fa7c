//! Finds QEMU, and starts it on a machine.

use std::{
    fs::OpenOptions,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    child::SERIAL,
    machines::{Emulator, Machine},
    params::Params,
};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The disk image's name in the run's directory.
pub const DISK: &str = "disk.img";

/// The file of its log of resets.
pub const RESETS: &str = "resets";

/// QEMU's version, if QEMU is installed.
///
/// # Errors
///
/// The remedy.
pub fn version() -> Result<String, String> {
    let mut command = Command::new(PROGRAM);
    let output = command.arg("--version").stdin(Stdio::null()).output();
    let missing = |_| format!("no {PROGRAM}: install the package qemu-system-x86");
    let output = output.map_err(missing)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let version = version.ok_or_else(|| format!("{PROGRAM} --version says: {}", text.trim()))?;
    Ok(version.to_owned())
}

/// Checks that the host's own CPU can be used. A run may still end in ring 0, which shows when the kernel boots.
///
/// # Errors
///
/// The reason why not.
pub fn kvm() -> Result<(), String> {
    let path = Path::new("/dev/kvm");
    if !path.exists() {
        return Err("no /dev/kvm: this host offers no virtualisation".into());
    }
    let open = OpenOptions::new().read(true).write(true).open(path);
    open.map(drop).map_err(|why| format!("/dev/kvm: {why}: join the group kvm"))
}

/// The command that boots `elf`, or the disk image in the run's directory.
#[must_use]
pub fn command(machine: &Machine, params: &Params, elf: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    let accelerator = if machine.emulator == Emulator::Kvm { "kvm" } else { "tcg" };
    command.args(["-accel", accelerator, "-cpu", machine.cpu, "-m", "64"]);
    command.args(["-smp", &params.cpus.to_string()]);
    command.args(["-display", "none", "-nodefaults", "-no-reboot"]);
    command.args(["-serial", &format!("file:{SERIAL}")]);
    command.args(["-d", "cpu_reset", "-D", RESETS]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    if machine.disk {
        command.args(["-drive", &format!("file={DISK},format=raw,if=ide")]);
    } else {
        command.arg("-kernel").arg(elf).args(["-append", &params.to_string()]);
    }
    command
}
