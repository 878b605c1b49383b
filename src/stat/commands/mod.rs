//! The commands of stallstat.

mod default;
mod hogs;
mod jitter;
mod record;
mod trace;

use super::options::Command;
use crate::error::Result;

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Count(options) => default::run(&options),
        Command::Hogs(options) => hogs::run(&options),
        Command::Jitter(options) => jitter::run(&options),
        Command::Record(options, path) => record::run(&options, &path),
        Command::Trace(options, path) => trace::run(&options, &path),
        Command::Help | Command::Version => Ok(()),
    }
}
