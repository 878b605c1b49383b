//! `stallstat`: shows which tasks wait for a CPU, for which other tasks, and how long.
//!
//! BPF programs count the events of each task and each CPU in histograms ([`collector`]). Once per
//! interval the counts are read and put into tables ([`interval_tables`], [`report`], [`table`]).
//! [`commands`] implements the commands.

mod blame;
// bindgen generates this module.
#[allow(non_camel_case_types, clippy::unreadable_literal, unreachable_pub)]
mod bpf_abi;
pub mod cgroups;
mod collector;
mod columns;
mod commands;
mod histogram;
mod interval_tables;
pub mod options;
pub mod parquet;
mod perf;
mod report;
mod resctrl;
pub mod schedstat;
mod screen;
mod select;
mod table;
mod task_table;
mod thrift;
pub mod timer_probe;
pub mod topology;
mod turns;
mod waiting;

use crate::command_line::{self, HostFacts};
use crate::sys::cpu;
use options::Command;
use std::process::ExitCode;

const NAME: &str = "stallstat";

/// The exit code for an invalid command line.
const USAGE: u8 = 22;

pub fn main() -> ExitCode {
    let host = HostFacts { configured_cpus: cpu::configured(), notify_socket: false };
    match options::parse(std::env::args_os().skip(1), &host) {
        Ok(Command::Help) => command_line::print(NAME, &options::help()),
        Ok(Command::Version) => command_line::print(NAME, concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Ok(command) => match commands::run(command) {
            Ok(()) => ExitCode::SUCCESS,
            // The reader has closed the pipe.
            Err(error) if error.errno() == Some(libc::EPIPE) => ExitCode::SUCCESS,
            Err(error) => command_line::complain(NAME, &error.to_string(), ExitCode::FAILURE),
        },
        Err(error) => {
            command_line::complain(NAME, &format!("{error}\nTry 'stallstat --help'."), ExitCode::from(USAGE))
        }
    }
}
