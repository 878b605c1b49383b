//! Writes traces for the viewers Perfetto and chrome://tracing: a JSON array, one event per line.
//!
//! Both viewers accept an array without its end, and so the trace of a program that was killed.

use crate::error::{Context, Error, Result};
use crate::json::{Object, Value};
use crate::task::Nanos;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The size of the buffer, which is written to the file when it is half full.
const BUFFER: usize = 64 * 1024;

/// The end of the array.
const END: &str = "\n]\n";

/// One event. A viewer shows a process as a group of tracks, and a thread as one track. `pid` and
/// `tid` may stand for something else, for example a CPU.
#[derive(Clone, Copy)]
pub(crate) struct TraceEvent<'a> {
    pub phase: Phase,
    pub name: &'a str,
    pub category: &'static str,
    pub at: Nanos,
    pub pid: u32,
    pub tid: i32,
    /// Adds the arguments of the event.
    pub args: &'a dyn Fn(&mut Object),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// An event with this length. On one track, two of these are nested or do not overlap.
    Complete(Nanos),
    Begin,
    /// Ends the last open `Begin` of the track.
    End,
    /// The start of an event with this number, which may overlap with other events.
    AsyncBegin(i64),
    AsyncEnd(i64),
    Instant,
    /// A name for a process or a thread: the event is `process_name` or `thread_name`, and its
    /// argument `name` holds the name.
    Metadata,
}

/// A trace file, up to a limit.
pub(crate) struct ChromeTrace {
    file: File,
    path: PathBuf,
    text: String,
    /// The bytes of whole events in the file.
    written: u64,
    limit: u64,
}

impl ChromeTrace {
    /// Begins a trace of at most `limit` bytes in an empty file. Errors name the file by `path`.
    pub(crate) fn begin(file: File, path: &Path, limit: u64) -> Result<ChromeTrace> {
        let path = path.to_path_buf();
        let mut trace = ChromeTrace { file, path, text: String::with_capacity(BUFFER), written: 0, limit };
        trace.text.push('[');
        trace.flush()?;
        Ok(trace)
    }

    /// Adds an event. After an error the trace holds whole events only, and takes no more.
    pub(crate) fn put(&mut self, event: &TraceEvent) -> Result<()> {
        let before = self.text.len();
        self.text.push_str(if self.written + before as u64 > 1 { ",\n" } else { "\n" });
        write(&mut self.text, event);
        if self.written + (self.text.len() + END.len()) as u64 > self.limit {
            self.text.truncate(before);
            self.flush()?;
            return Err(Error::new(format!(
                "the trace {} has reached its {} MiB",
                self.path.display(),
                self.limit >> 20
            )));
        }
        if self.text.len() >= BUFFER / 2 { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer to the file.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let written = self.file.write_all(self.text.as_bytes());
        if written.is_err() {
            // Remove a partly written event, because it would make the file invalid.
            let _ = self.file.set_len(self.written);
        } else {
            self.written += self.text.len() as u64;
        }
        self.text.clear();
        written.context(format_args!("write the trace {}", self.path.display()))
    }

    /// Closes the array.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.text.push_str(END);
        self.flush()
    }
}

fn write(text: &mut String, event: &TraceEvent) {
    let TraceEvent { phase, name, category, at, pid, tid, args } = *event;
    let mut object = Object::open(text);
    let (letter, duration, id) = match phase {
        Phase::Complete(duration) => ("X", Some(duration), None),
        Phase::Begin => ("B", None, None),
        Phase::End => ("E", None, None),
        Phase::AsyncBegin(id) => ("b", None, Some(id)),
        Phase::AsyncEnd(id) => ("e", None, Some(id)),
        Phase::Instant => ("i", None, None),
        Phase::Metadata => ("M", None, None),
    };
    object.put("ph", Value::Text(letter));
    object.put("name", Value::Text(name));
    object.put("cat", Value::Text(category));
    object.put("ts", Value::Micros(at.0));
    if let Some(duration) = duration {
        object.put("dur", Value::Micros(duration.0));
    }
    object.put("pid", Value::Number(pid.into()));
    object.put("tid", Value::Number(tid.into()));
    if let Some(id) = id {
        object.put("id", Value::Number(id));
    }
    if phase == Phase::Instant {
        // Scope "t": the event belongs to its thread.
        object.put("s", Value::Text("t"));
    }
    args(&mut object.object("args"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::fs;

    const EVENT: TraceEvent = TraceEvent {
        phase: Phase::Begin,
        name: "boost",
        category: "boost",
        at: Nanos(1_500_250),
        pid: 2,
        tid: 77,
        args: &|_| (),
    };

    #[test]
    fn each_phase_has_the_members_that_the_format_asks_for() {
        let line = |event: TraceEvent| {
            let mut text = String::new();
            write(&mut text, &event);
            text
        };
        let rest = r#""name":"boost","cat":"boost","ts":1500.250"#;
        let (track, args) = (r#""pid":2,"tid":77"#, r#""args":{}"#);
        for (phase, letter) in [(Phase::Begin, "B"), (Phase::End, "E")] {
            assert_eq!(
                line(TraceEvent { phase, ..EVENT }),
                format!(r#"{{"ph":"{letter}",{rest},{track},{args}}}"#)
            );
        }
        assert_eq!(
            line(TraceEvent { phase: Phase::Complete(Nanos::from_millis(2)), ..EVENT }),
            format!(r#"{{"ph":"X",{rest},"dur":2000.000,{track},{args}}}"#)
        );
        for (phase, letter) in [(Phase::AsyncBegin(9), "b"), (Phase::AsyncEnd(9), "e")] {
            assert_eq!(
                line(TraceEvent { phase, ..EVENT }),
                format!(r#"{{"ph":"{letter}",{rest},{track},"id":9,{args}}}"#)
            );
        }
        assert_eq!(
            line(TraceEvent { phase: Phase::Instant, ..EVENT }),
            format!(r#"{{"ph":"i",{rest},{track},"s":"t",{args}}}"#)
        );
        let args = |args: &mut Object| {
            args.put("name", Value::Bytes(b"a\"b\n"));
            args.put("cpu", Value::Number(1));
        };
        assert_eq!(
            line(TraceEvent { phase: Phase::Metadata, args: &args, ..EVENT }),
            format!(r#"{{"ph":"M",{rest},{track},"args":{{"name":"a\"b\u000a","cpu":1}}}}"#)
        );
    }

    #[test]
    fn a_trace_is_whole_but_for_its_end_at_any_time() {
        let scratch = Scratch::new("trace");
        let path = scratch.join("trace.json");
        let mut trace = ChromeTrace::begin(File::create(&path).unwrap(), &path, 1 << 20).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[");
        trace.put(&EVENT).unwrap();
        trace.put(&EVENT).unwrap();
        trace.flush().unwrap();
        let mut line = String::new();
        write(&mut line, &EVENT);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("[\n{line},\n{line}"));
        trace.end().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("[\n{line},\n{line}\n]\n"));
    }

    #[test]
    fn a_trace_ends_with_a_whole_event_where_there_is_no_room_for_more() {
        let scratch = Scratch::new("trace-limit");
        let path = scratch.join("trace.json");
        let mut trace = ChromeTrace::begin(File::create(&path).unwrap(), &path, 1 << 20).unwrap();
        let error = loop {
            if let Err(e) = trace.put(&EVENT) {
                break e.to_string();
            }
        };
        assert_eq!(error, format!("the trace {} has reached its 1 MiB", path.display()));
        trace.end().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 1 << 20 && text.len() > (1 << 20) - 200, "{}", text.len());
        assert!(text.ends_with("}\n]\n"));
    }

    #[test]
    fn a_full_disk_is_one_clear_error() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let path = PathBuf::from("trace.json");
        let mut trace = ChromeTrace { file, path, text: String::new(), written: 1, limit: 1 << 20 };
        trace.put(&EVENT).unwrap();
        let error = trace.flush().unwrap_err().to_string();
        assert_eq!(error, "cannot write the trace trace.json: No space left on device");
    }
}
