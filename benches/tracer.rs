//! The kernel's tracer, in an instance of its own, so that other users of tracing are not
//! disturbed.

use crate::trace_line::{Event, lost_events, read};
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, file};
use stalld::task::{Cpu, Nanos};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Size of each CPU's buffer in KiB: it holds the events of a busy CPU for seconds.
const BUFFER_KIB: &str = "32768";

/// Time between two reads of the buffers.
const READ_INTERVAL: Nanos = Nanos::from_millis(50);

/// The number of CPUs in one group of a CPU mask, as the kernel prints and reads masks.
const MASK_GROUP: u32 = 32;

/// Receives each event of a trace, in the order of time.
pub trait Sink: Send + 'static {
    fn note(&mut self, event: Event);
}

impl Sink for Vec<Event> {
    fn note(&mut self, event: Event) {
        self.push(event);
    }
}

/// The events and the CPU of a trace.
#[derive(Clone, Copy)]
pub struct Scope {
    /// Paths below the directory `events`.
    pub events: &'static [&'static str],
    /// `None` means all CPUs.
    pub cpu: Option<Cpu>,
}

impl Scope {
    /// The switches of one CPU.
    pub fn switches_of(cpu: Cpu) -> Scope {
        Scope { events: &["sched/sched_switch"], cpu: Some(cpu) }
    }
}

/// A trace that has ended.
pub struct Trace<S> {
    pub sink: S,
    /// The number of events that found no room in a buffer.
    pub lost: u64,
    /// All events before this moment were read.
    pub until: Nanos,
}

/// A trace in progress. Dropping it ends the trace.
pub struct Tracer<S> {
    over: Arc<AtomicBool>,
    /// `None` once it has been joined.
    reader: Option<JoinHandle<Result<Trace<S>>>>,
}

impl<S: Sink> Tracer<S> {
    /// Starts to trace. The sink receives the events on a new thread, which calls `set_up` first.
    pub fn start(scope: Scope, sink: S, set_up: fn()) -> Result<Tracer<S>> {
        let instance = Instance::new(scope)?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let body = move || {
            set_up();
            follow(&instance, sink, &is_over)
        };
        let reader = thread::Builder::new().spawn(body).context("start a thread")?;
        Ok(Tracer { over, reader: Some(reader) })
    }

    pub fn end(mut self) -> Result<Trace<S>> {
        let outcome = self.join().and_then(thread::Result::ok);
        outcome.unwrap_or_else(|| Err(Error::new("the thread that reads the trace has panicked")))
    }
}

impl<S> Tracer<S> {
    fn join(&mut self) -> Option<thread::Result<Result<Trace<S>>>> {
        self.over.store(true, SeqCst);
        self.reader.take().map(JoinHandle::join)
    }
}

impl<S> Drop for Tracer<S> {
    fn drop(&mut self) {
        self.join();
    }
}

/// An instance of the tracer. Dropping it removes it from the kernel, together with its events.
struct Instance(PathBuf);

impl Instance {
    fn new(scope: Scope) -> Result<Instance> {
        let path = Path::new(INSTANCES).join(format!("stalld-bench-{}", std::process::id()));
        fs::create_dir(&path).context(format!("create {}", path.display())).map_err(|e| {
            e.with_cure("this needs root and tracefs: mount -t tracefs tracefs /sys/kernel/tracing")
        })?;
        let instance = Instance(path);
        // The rig and the bench read the same clock.
        instance.write("trace_clock", "mono")?;
        instance.write("buffer_size_kb", BUFFER_KIB)?;
        if let Some(cpu) = scope.cpu {
            instance.write("tracing_cpumask", &mask(cpu))?;
        }
        for event in scope.events {
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

/// Returns the mask of one CPU: groups of 32 bits in hexadecimal, the highest first.
fn mask(cpu: Cpu) -> String {
    let groups_below = (cpu.0 / MASK_GROUP) as usize;
    format!("{:x}{}", 1u32 << (cpu.0 % MASK_GROUP), ",00000000".repeat(groups_below))
}

fn follow<S: Sink>(instance: &Instance, mut sink: S, over: &AtomicBool) -> Result<Trace<S>> {
    let path = instance.0.join("trace_pipe");
    let mut pipe = File::open(&path).context(format!("read {}", path.display()))?;
    file::never_wait(&pipe).context("make a file non-blocking")?;
    let (mut text, mut events, mut lost) = (Vec::new(), Vec::new(), 0);
    loop {
        let last = over.load(SeqCst);
        let start = clock::monotonic();
        drain(&mut pipe, &mut text).context(format!("read {}", path.display()))?;
        take_lines(&mut text, &mut events, &mut lost);
        // The kernel merges the buffers while CPUs still fill them, so later events may be
        // incomplete.
        events.sort_by_key(|event: &Event| event.at);
        let complete = events.partition_point(|event| event.at < start);
        events.drain(..complete).for_each(|event| sink.note(event));
        if last {
            return Ok(Trace { sink, lost, until: start });
        }
        clock::nap(READ_INTERVAL);
    }
}

/// Reads until the pipe is empty.
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

/// Moves the complete lines from `text` to `events` and `lost`.
fn take_lines(text: &mut Vec<u8>, events: &mut Vec<Event>, lost: &mut u64) {
    let end = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    for line in String::from_utf8_lossy(&text[..end]).lines() {
        *lost += lost_events(line);
        events.extend(read(line));
    }
    text.drain(..end);
}
