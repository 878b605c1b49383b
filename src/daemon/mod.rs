//! The `stalld` program: the command line, the log, signals and files around the engine.

mod boosting;
mod check;
mod files;
mod instance;
mod lockfile;
pub mod log;
mod method;
mod metrics;
mod monitors;
mod notify;
pub mod options;
mod pidfile;
mod report;
mod run;
mod standstill;
mod trace;
mod watcher;

use crate::command_line;
use crate::sys::cpu;
use crate::task::Tid;
use instance::Instance;
use options::{Command, HostFacts};
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;

/// The exit status for an invalid command line. The unit names it in RestartPreventExitStatus=.
const USAGE: u8 = 22;

/// The file in the runtime directory that holds the path of the service's pidfile.
const PIDFILE_NOTE: &str = "pidfile";

pub fn main() -> ExitCode {
    let host = HostFacts {
        configured_cpus: cpu::configured(),
        notify_socket: std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty()),
    };
    match options::parse(std::env::args_os().skip(1), &host) {
        Ok(Command::Run(options)) => run::run(options),
        Ok(Command::Check(options)) => {
            let report = check::report(&options);
            let printed = print(&report.text);
            if report.protects { printed } else { ExitCode::FAILURE }
        }
        Ok(Command::Recover) => recover(),
        Ok(Command::WritePidfile { path, pid }) => write_pidfile(path, pid),
        Ok(Command::Help) => print(&options::help()),
        Ok(Command::Version) => print(concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => complain(&format!("{error}\nTry 'stalld --help'."), ExitCode::from(USAGE)),
    }
}

/// Restores all that a killed stalld has left changed, in place of its guardian, which was killed
/// too.
fn recover() -> ExitCode {
    let dir = Path::new(instance::RUNTIME_DIR);
    let undo = |instance: Instance| {
        let (_, recovered) = instance.open_journal()?;
        pidfile::remove_left(&dir.join(PIDFILE_NOTE))?;
        Ok(recovered)
    };
    match Instance::claim(dir).and_then(undo) {
        Ok(recovered) => {
            let all_done = recovered.iter().all(|one| one.is_done());
            let text: String = recovered.iter().map(|one| format!("{one}\n")).collect();
            match print(&text) {
                ExitCode::SUCCESS if all_done => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => complain(&error.to_string(), ExitCode::FAILURE),
    }
}

/// Writes the pidfile of another process if the command line names one.
fn write_pidfile(path: Option<PathBuf>, pid: Tid) -> ExitCode {
    let dir = Path::new(instance::RUNTIME_DIR);
    let write = |path: PathBuf| {
        instance::make_runtime_dir(dir)?;
        pidfile::write_for(&path::absolute(&path).unwrap_or(path), pid, &dir.join(PIDFILE_NOTE))
    };
    match path.map_or(Ok(()), write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), ExitCode::FAILURE),
    }
}

fn print(text: &str) -> ExitCode {
    command_line::print("stalld", text)
}

fn complain(message: &str, code: ExitCode) -> ExitCode {
    command_line::complain("stalld", message, code)
}
