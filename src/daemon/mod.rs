//! The program around the engine: command line, log, signals, and everything else that a library must
//! not do.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
