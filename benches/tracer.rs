//! The kernel's own tracer, in an instance of its own: nobody else's tracing is disturbed.

use crate::observer::{Event, Observer, read};
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, file};
use stalld::task::Nanos;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

const EVENTS: [&str; 6] = [
    "sched/sched_switch",
    "sched/sched_wakeup",
    "sched/sched_wakeup_new",
    "sched/sched_process_exit",
    "syscalls/sys_enter_sched_setattr",
    "syscalls/sys_enter_sched_setscheduler",
];

/// Of each CPU, in KiB: seconds of a busy one.
const BUFFER: &str = "32768";

/// How often the buffers are emptied.
const PAUSE: Nanos = Nanos::from_millis(50);

/// Traces until it is ended.
pub struct Tracer {
    over: Arc<AtomicBool>,
    reader: JoinHandle<Result<(Observer, u64)>>,
}

impl Tracer {
    /// Has the observer told of every event from now on, on a thread that starts with `set_up`.
    pub fn start(observer: Observer, set_up: fn()) -> Result<Tracer> {
        let instance = Instance::new()?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let body = move || {
            set_up();
            follow(&instance, observer, &is_over)
        };
        Ok(Tracer { over, reader: thread::Builder::new().spawn(body).context("start a thread")? })
    }

    /// What was observed, and how many events were lost.
    pub fn end(self) -> Result<(Observer, u64)> {
        self.over.store(true, SeqCst);
        self.reader.join().unwrap_or_else(|_| Err(Error::new("the thread that reads the trace has panicked")))
    }
}

/// Removed when dropped, and its events with it.
struct Instance(PathBuf);

impl Instance {
    fn new() -> Result<Instance> {
        let path = Path::new(INSTANCES).join(format!("stalld-soak-{}", std::process::id()));
        fs::create_dir(&path).context(format!("create {}", path.display())).map_err(|e| {
            e.with_cure("this needs root and tracefs: mount -t tracefs tracefs /sys/kernel/tracing")
        })?;
        let instance = Instance(path);
        // That of the rig, and of this program.
        instance.write("trace_clock", "mono")?;
        instance.write("buffer_size_kb", BUFFER)?;
        for event in EVENTS {
            instance.write(&format!("events/{event}/enable"), "1")?;
        }
        Ok(instance)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, text).context(format!("write '{text}' to {}", path.display()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn follow(instance: &Instance, mut observer: Observer, over: &AtomicBool) -> Result<(Observer, u64)> {
    let path = instance.0.join("trace_pipe");
    let mut pipe = File::open(&path).context(format!("read {}", path.display()))?;
    file::never_wait(&pipe).context("make a file non-blocking")?;
    let (mut text, mut events, mut lost) = (Vec::new(), Vec::new(), 0);
    loop {
        let last = over.load(SeqCst);
        let start = clock::monotonic();
        drain(&mut pipe, &mut text).context(format!("read {}", path.display()))?;
        take_lines(&mut text, &mut events, &mut lost);
        // The CPUs' buffers are read in turn: what was there when that began is complete now.
        events.sort_by_key(|event: &Event| event.at);
        let complete = events.partition_point(|event| event.at < start);
        events.drain(..complete).for_each(|event| observer.note(event));
        if last {
            observer.finish(start, |tid| Path::new(&format!("/proc/{tid}")).exists());
            return Ok((observer, lost));
        }
        clock::nap(PAUSE);
    }
}

/// Reads what there is.
fn drain(pipe: &mut File, text: &mut Vec<u8>) -> std::io::Result<()> {
    let mut chunk = [0; 8 << 10];
    loop {
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => text.extend(chunk.iter().take(count)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Takes the whole lines.
fn take_lines(text: &mut Vec<u8>, events: &mut Vec<Event>, lost: &mut u64) {
    let end = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    for line in String::from_utf8_lossy(&text[..end]).lines() {
        // CPU:1 [LOST 17 EVENTS]
        if let Some((_, count)) = line.split_once("[LOST ") {
            *lost += count.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(1);
        }
        events.extend(read(line));
    }
    text.drain(..end);
}
