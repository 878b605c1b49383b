//! `stallstat`: who waits for a CPU, for whom, and how long.
//!
//! The kernel's own programs count, each task and each CPU in histograms of its own
//! ([`collector`]); what they have counted is read once an interval and put into tables
//! ([`counted`], [`report`], [`table`]). [`count`], [`hogs`] and the others are what a command line
//! can ask for.

mod blame;
pub mod collector;
pub mod columns;
mod count;
mod counted;
pub mod groups;
pub mod histogram;
mod hogs;
pub mod jitter;
pub mod options;
pub mod parquet;
mod people;
mod perf;
mod record;
// As bindgen writes it.
#[allow(non_camel_case_types, clippy::unreadable_literal)]
mod records;
mod report;
pub mod resctrl;
pub mod schedstat;
mod screen;
mod select;
mod table;
mod thrift;
mod timers;
pub mod topology;
mod trace;
mod turns;
mod waiting;

use crate::command_line::{self, Host};
use crate::error::Result;
use crate::sys::cpu;
use options::Command;
use std::process::ExitCode;

const NAME: &str = "stallstat";

/// A command line that makes no sense.
const USAGE: u8 = 22;

pub fn main() -> ExitCode {
    let host = Host { configured_cpus: cpu::configured(), notify_socket: false };
    match options::parse(std::env::args_os().skip(1), &host) {
        Ok(Command::Help) => command_line::print(NAME, &options::help()),
        Ok(Command::Version) => command_line::print(NAME, concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Ok(command) => match run(command) {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads has had enough.
            Err(error) if error.errno() == Some(libc::EPIPE) => ExitCode::SUCCESS,
            Err(error) => command_line::complain(NAME, &error.to_string(), ExitCode::FAILURE),
        },
        Err(error) => {
            command_line::complain(NAME, &format!("{error}\nTry 'stallstat --help'."), ExitCode::from(USAGE))
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Count(options) => count::run(&options),
        Command::Hogs(options) => hogs::run(&options),
        Command::Jitter(options) => timers::run(&options),
        Command::Record(options, path) => record::run(&options, &path),
        Command::Trace(options, path) => trace::run(&options, &path),
        Command::Help | Command::Version => Ok(()),
    }
}
