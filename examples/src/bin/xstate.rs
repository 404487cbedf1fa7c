//! `xstate`: this machine's save area, drawn, explained, and read out of files.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    fpu_examples::xstate::main(std::env::args_os().skip(1)).into()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("xstate: reads the CPUID of an x86-64 CPU under Linux; here is none");
    std::process::ExitCode::FAILURE
}
