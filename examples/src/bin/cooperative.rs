//! `cooperative`: a scheduler in a program that is compiled with vector instructions.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    fpu_examples::cooperative::main(std::env::args_os().skip(1)).into()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> std::process::ExitCode {
    eprintln!("cooperative: runs on the real registers of an x86-64 CPU under Linux; here is none");
    std::process::ExitCode::FAILURE
}
