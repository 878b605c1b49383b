//! The program around the engine: command line, log, signals, and everything else that a library must
//! not do.

pub mod instance;
mod lockfile;
pub mod log;
pub mod pidfile;
#[cfg(test)]
mod scratch;

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
