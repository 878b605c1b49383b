//! Processes that keep the machine busy during a measurement. Each is this program again, in a
//! role.
//!
//! They end when their stdin is closed, and at the latest after ten minutes, whatever happens to
//! the measurement.

use stalld::cpus::CpuSet;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

/// The argument that makes this program play a role.
pub const ROLE: &str = "--role";

/// The longest life of such a process.
const LONGEST: Nanos = Nanos::from_secs(600);

/// Stack size of a thread, so that many threads that do nothing are cheap.
const STACK: usize = 64 * 1024;

/// The role of such a process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its threads sleep.
    Sleep,
    /// Its threads compute, as ordinary tasks.
    Spin,
    /// Its threads compute, as SCHED_IDLE tasks.
    SpinIdle,
    /// It sends back each byte that it gets.
    Echo,
}

impl Role {
    const ALL: [(&'static str, Role); 4] =
        [("sleep", Role::Sleep), ("spin", Role::Spin), ("spin-idle", Role::SpinIdle), ("echo", Role::Echo)];
}

/// Such a process. Dropping this ends it.
pub struct Load {
    child: Child,
    /// Closing it ends the process.
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
}

impl Load {
    /// Starts a process with this many threads on one CPU, and waits until all of them play their
    /// role.
    pub fn start(role: Role, threads: usize, cpu: Cpu) -> Result<Load> {
        let name = Role::ALL.iter().find(|(_, known)| *known == role).map_or("", |(name, _)| name);
        let own = std::env::current_exe().context("tell which program this is")?;
        let mut child = Command::new(own)
            .args([ROLE, name, &threads.to_string(), &cpu.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start this program once more")?;
        let (Some(stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new("a child has no pipes"));
        };
        let mut ready = [0];
        stdout.read_exact(&mut ready).context(format!("set up {threads} threads"))?;
        Ok(Load { child, stdin, stdout })
    }

    pub fn pid(&self) -> Tid {
        Tid(self.child.id() as i32)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays the role that `Load::start` has given.
pub fn play(arguments: &[String]) -> ExitCode {
    let parsed = match arguments {
        [name, threads, cpu] => (|| {
            let (_, role) = Role::ALL.into_iter().find(|(known, _)| known == name)?;
            Some((role, threads.parse().ok()?, Cpu(cpu.parse().ok()?)))
        })(),
        _ => None,
    };
    let outcome = match parsed {
        Some((Role::Echo, _, cpu)) => echo(cpu),
        Some((role, threads, cpu)) => occupy(role, threads, cpu),
        None => Err(Error::new("no such role")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the process after `LONGEST`, whatever its other threads do.
fn end_in_time() {
    thread::spawn(|| {
        clock::nap(LONGEST);
        process::exit(1);
    });
}

fn report_ready() -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(b"r").and_then(|()| stdout.flush()).context("write to stdout")
}

fn occupy(role: Role, threads: usize, cpu: Cpu) -> Result<()> {
    end_in_time();
    let go = Arc::new(AtomicBool::new(false));
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut handles = Vec::new();
    for _ in 0..threads {
        let (go, waiting) = (go.clone(), waiting.clone());
        let body = move || {
            let set_up = pin(cpu).and_then(|()| match role {
                Role::SpinIdle => sched::set_scheduler(Tid(0), Policy::IDLE, 0, false).context("be idle"),
                _ => Ok(()),
            });
            if let Err(e) = set_up {
                eprintln!("bench: {e}");
                process::exit(1);
            }
            waiting.fetch_add(1, SeqCst);
            while !go.load(SeqCst) {
                thread::park();
            }
            loop {
                match role {
                    Role::Sleep => thread::park(),
                    _ => std::hint::spin_loop(),
                }
            }
        };
        handles.push(thread::Builder::new().stack_size(STACK).spawn(body).context("start a thread")?);
    }
    while waiting.load(SeqCst) < threads {
        clock::nap(Nanos::from_millis(1));
    }
    go.store(true, SeqCst);
    handles.iter().for_each(|handle| handle.thread().unpark());
    report_ready()?;
    let mut stdin = BufReader::new(std::io::stdin());
    while stdin.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
        stdin.consume(1);
    }
    process::exit(0)
}

fn echo(cpu: Cpu) -> Result<()> {
    end_in_time();
    pin(cpu)?;
    report_ready()?;
    // Files have neither the buffers nor the locks of std's handles.
    let own =
        |fd: std::os::fd::BorrowedFd| fd.try_clone_to_owned().map(File::from).context("duplicate a pipe");
    let mut stdin = own(std::io::stdin().as_fd())?;
    let mut stdout = own(std::io::stdout().as_fd())?;
    let mut byte = [0];
    while stdin.read_exact(&mut byte).and_then(|()| stdout.write_all(&byte)).is_ok() {}
    Ok(())
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: Cpu) -> Result<()> {
    let only: CpuSet = [cpu].into_iter().collect();
    sched::set_affinity(Tid(0), &only).context(format!("move to CPU {cpu}"))
}
