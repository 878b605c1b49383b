//! A victim for the live tests: a process that does something difficult as soon as it has been
//! rescued. Another program makes the hog. `stunt --help` describes it.

use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, process, sched};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;

const HELP: &str = "\
stunt: a task of SCHED_FIFO 1 that starves, and does something difficult once it runs again

Usage: stunt CPU SECONDS [thread] ACT

It moves to CPU, where a hog should be, and computes. When it has been kept from that for 300 ms
and then runs again, somebody has rescued it, and it does what ACT says:
  spin    goes on computing
  end     ends
  sleep   sleeps to the end of its time
  policy  makes itself SCHED_RR 7, and goes on computing
  exec    becomes a sleep(1) of that many seconds
  fork    forks and starts threads, 20 of each, as fast as it can; they sleep to the end of its time
With 'thread' that is done by a second thread, while the first one, SCHED_FIFO 1 as well, waits
for it on another CPU. After that many seconds it ends, wherever it is.

On stdout: 'victim tid=N' before it starves, and after a 'fork' 'born forks=N threads=N refused=N'.
";

/// A gap that means that the task has starved: no scheduler keeps a task that is alone on its CPU
/// waiting for so long.
const STARVED: Nanos = Nanos::from_millis(300);

/// The number of forks, and of threads.
const BIRTHS: usize = 20;

#[derive(Clone, Copy)]
enum Act {
    Spin,
    End,
    Sleep,
    Policy,
    Exec,
    Fork,
}

#[derive(Clone, Copy)]
struct Stunt {
    cpu: Cpu,
    seconds: u64,
    until: Nanos,
    by_thread: bool,
    act: Act,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(stunt) = Stunt::parse(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    match stunt.play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stunt: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Stunt {
    fn parse(words: &[&str]) -> Option<Stunt> {
        let (&cpu, &seconds, by_thread, &act) = match words {
            [cpu, seconds, "thread", act] => (cpu, seconds, true, act),
            [cpu, seconds, act] => (cpu, seconds, false, act),
            _ => return None,
        };
        let act = match act {
            "spin" => Act::Spin,
            "end" => Act::End,
            "sleep" => Act::Sleep,
            "policy" => Act::Policy,
            "exec" => Act::Exec,
            "fork" => Act::Fork,
            _ => return None,
        };
        // CPU 0 is refused, because without a hog there this task would be one.
        let cpu = cpu.parse().ok().filter(|&cpu| cpu != 0).map(Cpu)?;
        let seconds = seconds.parse().ok().filter(|seconds| (1..=60).contains(seconds))?;
        Some(Stunt { cpu, seconds, until: clock::monotonic() + Nanos::from_secs(seconds), by_thread, act })
    }

    fn play(self) -> Result<()> {
        // Becomes real-time on another CPU than the hog's. If a fair task does so while the
        // kernel's DL server runs it behind the hog, it keeps the CPU from the hog [6.18].
        let elsewhere = sched::get_affinity(Tid(0)).context("ask for the CPUs that it may use")?;
        let elsewhere = elsewhere.iter().filter(|&cpu| cpu != self.cpu).collect();
        sched::set_affinity(Tid(0), &elsewhere).context("keep away from the hog")?;
        sched::set_fifo(Tid(0), 1).context("become SCHED_FIFO")?;
        if !self.by_thread {
            return self.starve();
        }
        let thread = thread::Builder::new().spawn(move || self.starve()).context("start a thread")?;
        thread.join().map_err(|_| Error::new("the thread has panicked"))?
    }

    fn starve(self) -> Result<()> {
        println!("victim tid={}", sched::gettid());
        let mut before = clock::monotonic();
        sched::set_affinity(Tid(0), &[self.cpu].into_iter().collect()).context("move to the hog's CPU")?;
        loop {
            let now = clock::monotonic();
            if now - before >= STARVED {
                break self.act();
            }
            if now >= self.until {
                break Ok(());
            }
            before = now;
        }
    }

    fn act(self) -> Result<()> {
        match self.act {
            Act::Spin => {}
            Act::End => return Ok(()),
            Act::Sleep => clock::sleep_until(self.until),
            Act::Policy => {
                sched::set_scheduler(Tid(0), Policy::RR, 7, false).context("become SCHED_RR")?;
            }
            Act::Exec => {
                let error = Command::new("sleep").arg(self.seconds.to_string()).exec();
                return Err(Error::io("become a sleep", &error));
            }
            Act::Fork => self.fork(),
        }
        while clock::monotonic() < self.until {}
        Ok(())
    }

    fn fork(self) {
        let life = move || clock::sleep_until(self.until);
        let (mut forks, mut threads, mut refused) = (0, 0, 0);
        for _ in 0..BIRTHS {
            match process::sleeping_child(c"child", self.until) {
                Ok(_) => forks += 1,
                Err(_) => refused += 1,
            }
            match thread::Builder::new().stack_size(64 * 1024).spawn(life) {
                Ok(_) => threads += 1,
                Err(_) => refused += 1,
            }
        }
        println!("born forks={forks} threads={threads} refused={refused}");
    }
}
