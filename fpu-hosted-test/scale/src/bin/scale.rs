//! How many cache lines the core moves between CPUs: a table, and a picture.

use std::process::ExitCode;

use fpu_scale::{options::Options, picture, table::Table};

const HELP: &str = "\
Counts the cache lines that fpu-core moves between 2 to 1,024 simulated CPUs,
by the accesses of its own code.

usage: cargo run --release -p fpu-scale -- [options]

  --svg FILE   the picture, too
  --help       this

exit code: 0 counted, 1 a task found other registers or FILE cannot be
           written, 2 bad arguments
";

fn main() -> ExitCode {
    let mut svg = None;
    let mut options = Options::new(std::env::args_os().skip(1));
    let read = loop {
        match options.next_name() {
            Ok(None) => break Ok(()),
            Ok(Some(name)) if name == "--help" => {
                if let Err(why) = options.flag() {
                    break Err(why);
                }
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            Ok(Some(name)) if name == "--svg" => match options.file() {
                Ok(file) => svg = Some(file),
                Err(why) => break Err(why),
            },
            Ok(Some(name)) => break Err(options.unknown(name.as_ref())),
            Err(why) => break Err(why),
        }
    };
    if let Err(why) = read {
        eprintln!("scale: {why}");
        return ExitCode::from(2);
    }
    let done = Table::new().and_then(|table| {
        print!("{}", table.text());
        let Some(file) = &svg else { return Ok(()) };
        let written = std::fs::write(file, picture::document(&table));
        written.map_err(|why| format!("{}: {why}", file.display()))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("scale: {why}");
            ExitCode::FAILURE
        }
    }
}
