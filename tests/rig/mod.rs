//! What live tests are made of: real starvation (`Rig`), the daemon (`Stalld`), and leave to run them (`live`).
//!
//! All waits are for an event, and bounded.

// Each test binary compiles this for itself, and uses a part of it.
#![allow(dead_code)]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod boosts;
pub mod daemon;
pub mod json;
pub mod process;
#[path = "../../src/daemon/scratch.rs"]
pub mod scratch;
#[cfg(feature = "bpf")]
pub mod stallstat;
pub mod stunt;
pub mod throttling;
pub mod worker;

use stalld::cpus::CpuSet;
use stalld::sys::{clock, lock, sched};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use throttling::Throttling;

/// Longer than any rig and any daemon of these tests takes for one step.
pub const PATIENCE: Nanos = Nanos::from_secs(60);

/// Leave to run a live test; while it is held, no other one runs, and the kernel lets a hog have all of its
/// CPU.
pub struct Live {
    _throttling: Throttling,
    // Dropped last: what the next test finds is what was put back.
    _lock: File,
}

/// None, and the reason on stderr, where no live test can run. In CI they have to: there it panics.
pub fn live() -> Option<Live> {
    if let Some(reason) = obstacle() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "live tests must run in CI, but {reason}");
        eprintln!("skipped: {reason}");
        return None;
    }
    let path = std::env::temp_dir().join("stalld-live.lock");
    let file = File::options().create(true).append(true).open(&path).expect("cannot open the lock file");
    lock::lock(&file).expect("cannot take the lock");
    Some(Live { _throttling: Throttling::off(), _lock: file })
}

fn obstacle() -> Option<String> {
    if fs::metadata("/proc/self").map(|own| own.uid()).ok() != Some(0) {
        return Some("this is not root".to_string());
    }
    if online().len() < 2 {
        return Some("there is only one CPU".to_string());
    }
    // On a thread of its own, which takes the priority with it.
    let raised = thread::spawn(|| sched::set_fifo(Tid(0), 1)).join().expect("a thread has panicked");
    raised.err().map(|e| format!("no thread can be made SCHED_FIFO: {e}"))
}

pub fn online() -> CpuSet {
    let online =
        fs::read_to_string("/sys/devices/system/cpu/online").expect("cannot read which CPUs are online");
    CpuSet::parse(online.trim(), 8192).expect("unknown form of a CPU list")
}

/// The CPU that the rig hogs unless told otherwise.
pub fn hogged_cpu() -> Cpu {
    online().iter().last().expect("no CPU is online")
}

/// Keeps the calling thread off the hogged CPU and lets it run at once, so that it can tell when something
/// happened. What it starts keeps away too, but is an ordinary task.
pub fn keep_away_from_the_hog() {
    let hogged = hogged_cpu();
    let elsewhere: CpuSet = online().iter().filter(|&cpu| cpu != hogged).collect();
    if !elsewhere.is_empty() {
        let _ = sched::set_affinity(Tid(0), &elsewhere);
    }
    let _ = sched::set_scheduler(Tid(0), Policy::FIFO, 20, true);
}

/// A program at work, and what it has said so far. Killed when dropped.
pub struct Program {
    name: &'static str,
    child: Child,
    arriving: Receiver<(Nanos, String)>,
    lines: Vec<(Nanos, String)>,
    /// How many of them have been looked at.
    seen: usize,
}

impl Program {
    pub fn start(name: &'static str, mut command: Command) -> Program {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| {
            panic!("cannot start {command:?}: {e}; 'cargo build --examples' makes the rig")
        });
        let (sender, arriving) = mpsc::channel();
        read_lines(child.stdout.take().expect("stdout is piped"), sender.clone());
        read_lines(child.stderr.take().expect("stderr is piped"), sender);
        Program { name, child, arriving, lines: Vec::new(), seen: 0 }
    }

    pub fn pid(&self) -> Tid {
        Tid(self.child.id() as i32)
    }

    /// The next line that has this in it.
    pub fn line_with(&mut self, text: &str) -> (Nanos, String) {
        let found = self.wait_for(|line| line.contains(text), PATIENCE);
        found.unwrap_or_else(|| panic!("{} never said '{text}'", self.name))
    }

    /// The next line that `wanted` likes; those before it count as seen.
    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool, patience: Nanos) -> Option<(Nanos, String)> {
        let until = clock::monotonic() + patience;
        let first = self.seen;
        loop {
            while let Some(line) = self.lines.get(self.seen) {
                self.seen += 1;
                if wanted(&line.1) {
                    return Some(line.clone());
                }
            }
            let left = until - clock::monotonic();
            match self.arriving.recv_timeout(Duration::from_nanos(left.0)) {
                Ok(line) => self.lines.push(line),
                Err(_) => {
                    // Nothing was found, so a later wait for something else begins where this one did.
                    self.seen = first;
                    return None;
                }
            }
        }
    }

    /// Waits until it ends by itself, and kills it when that takes too long. Its exit code; None where
    /// a signal ended it.
    pub fn finish(&mut self, patience: Nanos) -> Option<i32> {
        let until = clock::monotonic() + patience;
        // Liking no line, this collects all there are until the pipes close.
        self.wait_for(|_| false, patience);
        loop {
            if let Some(status) = self.child.try_wait().expect("cannot wait for a child") {
                return status.code();
            }
            if clock::monotonic() >= until {
                eprintln!("{} does not end and is killed", self.name);
                let _ = self.child.kill();
                return self.child.wait().expect("cannot wait for a child").code();
            }
            clock::nap(Nanos::from_millis(1));
        }
    }

    fn said(&self) -> String {
        self.lines.iter().map(|(at, text)| format!("{:>10} us {text}\n", at.0 / 1000)).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.lines.extend(self.arriving.try_iter());
            eprintln!("{} said:\n{}", self.name, self.said());
        }
    }
}

/// Sends each line with the moment it arrived.
fn read_lines(pipe: impl Read + Send + 'static, sender: Sender<(Nanos, String)>) {
    thread::spawn(move || {
        keep_away_from_the_hog();
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let at = clock::monotonic();
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_string();
            if sender.send((at, text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// The example program `starve`, at work.
pub struct Rig(Program);

impl Rig {
    pub fn start(args: &[&str]) -> Rig {
        let mut command = Command::new(Rig::path());
        command.args(args);
        Rig(Program::start("starve", command))
    }

    /// Cargo puts examples beside the directory of the test binaries.
    pub fn path() -> PathBuf {
        let own = std::env::current_exe().expect("cannot tell which program this is");
        let profile = own.ancestors().nth(2).expect("a test binary is in target/PROFILE/deps");
        profile.join("examples/starve")
    }

    /// The next event of this kind: `ready`, `hog`, `victim`, `end hog`, `end victim`, `skipped`.
    pub fn event(&mut self, kind: &str) -> Event {
        self.first_of(&[kind])
    }

    /// The next event of one of these kinds.
    pub fn first_of(&mut self, kinds: &[&str]) -> Event {
        let is = |line: &str, kind: &&str| {
            line.strip_prefix(*kind).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b' ', ..]))
        };
        let found = self.0.wait_for(|line| kinds.iter().any(|kind| is(line, kind)), PATIENCE);
        let (at, line) = found.unwrap_or_else(|| panic!("the rig never said {kinds:?}"));
        Event { at, line }
    }

    pub fn events(&mut self, kind: &str, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event(kind)).collect()
    }

    /// Waits until it ends by itself: its exit code, and all it said.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let code = self.0.finish(PATIENCE);
        let lines: Vec<&str> = self.0.lines.iter().map(|(_, line)| line.as_str()).collect();
        (code, lines.join("\n"))
    }

    pub fn pid(&self) -> Tid {
        self.0.pid()
    }
}

/// One line of the rig: `kind key=value... name=all the rest`.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it arrived here.
    pub at: Nanos,
    pub line: String,
}

impl Event {
    pub fn text(&self, key: &str) -> &str {
        let (rest, name) = self.line.split_once(" name=").unwrap_or((&self.line, ""));
        let field = || rest.split(' ').find_map(|word| word.split_once('=').filter(|(k, _)| *k == key));
        match key {
            "name" => name,
            _ => field().unwrap_or_else(|| panic!("no {key} in '{}'", self.line)).1,
        }
    }

    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_else(|_| panic!("{key} is no number in '{}'", self.line))
    }

    pub fn moment(&self, key: &str) -> Nanos {
        Nanos(self.number(key))
    }

    pub fn tid(&self) -> Tid {
        Tid(self.number("tid") as i32)
    }
}

/// The daemon, at work.
pub struct Stalld(Program);

impl Stalld {
    pub fn start(args: &[&str]) -> Stalld {
        Stalld::start_by(&[], args)
    }

    /// Starts it by a program that becomes what it is told to run, such as `setpriv` or `sh -c '... exec "$@"'`.
    pub fn start_by(starter: &[&str], args: &[&str]) -> Stalld {
        Stalld(Program::start("stalld", Stalld::command(starter, args)))
    }

    pub fn command(starter: &[&str], args: &[&str]) -> Command {
        let mut words = starter.iter().copied().chain([Stalld::PATH]).chain(args.iter().copied());
        let mut command = Command::new(words.next().expect("there is one word at least"));
        command.args(words);
        command
    }

    /// Options that leave out all processes but the rig: behind its hog the kernel's own threads starve as well.
    pub const RIG_ONLY: [&str; 2] = ["-I", "^[^s],^s[^t]"];

    pub const PATH: &str = env!("CARGO_BIN_EXE_stalld");

    /// Starts it in the foreground, to say all it has to say of the rig and to change nothing, and waits for its
    /// first look.
    pub fn watch(args: &[&str]) -> Stalld {
        let mut stalld = Stalld::start(&[&["-f", "-l", "-v"], &Stalld::RIG_ONLY[..], args].concat());
        stalld.look();
        stalld
    }

    /// When it tells of its next look, which takes -v.
    pub fn look(&mut self) -> Nanos {
        let is_look =
            |line: &str| ["checking cpu", "waiting tasks", "skipping"].iter().any(|it| line.contains(it));
        self.wait_for(is_look, PATIENCE).expect("stalld tells of no look").0
    }

    /// The next line that has this in it.
    pub fn line_with(&mut self, text: &str) -> (Nanos, String) {
        self.0.line_with(text)
    }

    /// The next line of stdout or stderr that `wanted` likes, and when it arrived. Lines before it are
    /// not looked at again; where none is found, all are.
    pub fn wait_for(&mut self, wanted: impl Fn(&str) -> bool, patience: Nanos) -> Option<(Nanos, String)> {
        self.0.wait_for(wanted, patience)
    }

    pub fn pid(&self) -> Tid {
        self.0.pid()
    }

    /// SIGTERM, and the end of it: its exit code (None where it had to be killed), and all it said.
    pub fn terminate(mut self) -> (Option<i32>, Vec<(Nanos, String)>) {
        self.signal("TERM");
        self.finish_by(PATIENCE)
    }

    /// Waits until it ends by itself.
    pub fn finish(mut self) -> (Option<i32>, Vec<(Nanos, String)>) {
        self.finish_by(PATIENCE)
    }

    fn finish_by(&mut self, patience: Nanos) -> (Option<i32>, Vec<(Nanos, String)>) {
        let code = self.0.finish(patience);
        (code, std::mem::take(&mut self.0.lines))
    }

    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    /// SIGKILL, without the time that it takes to start a shell.
    pub fn kill(&mut self) {
        self.0.child.kill().expect("cannot kill a child");
    }
}
