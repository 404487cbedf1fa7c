//! The last test program of `cargo test` in this repository: says what that has left out. It tests nothing.

fn main() {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cargo/config.toml");
    let listing = std::env::args().any(|arg| arg == "--list");
    // From a package there is no `cargo suite`.
    if !listing && std::path::Path::new(repository).is_file() {
        println!(
            "\n`cargo test` is a part: `cargo suite` runs everything (models, other CPUs, a kernel that boots, \
             object code).\n`cargo suite --quick` leaves out what is slow, `cargo suite --list` names the checks."
        );
    }
}
