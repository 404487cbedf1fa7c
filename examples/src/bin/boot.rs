//! `cargo boot`: the example kernel on emulated CPUs.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    fpu_examples::boot::main(std::env::args_os().skip(1)).into()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("boot: starts the emulators of an x86-64 Linux; here is none");
    std::process::ExitCode::FAILURE
}
