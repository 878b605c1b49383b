//! The thread that writes the log. It is the only one that waits for a sink.

use super::queue::Batch;
use super::{Logger, Outlet, Queue, Record};
use crate::error::{Context, Result};
use crate::sys::clock;
use crate::task::Nanos;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

const STACK: usize = 128 * 1024;

/// The number of tries to write what is left at the end, 5 ms apart.
const CLOSING_TRIES: usize = 20;

/// The running writer thread. If dropped without `close`, it continues until the process ends.
pub struct Writer {
    queue: Arc<Queue>,
    thread: Thread,
    /// Receives no message. The channel closes when the thread ends.
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread `name`. It first calls `on_start`, which can set its priority. The thread
    /// inherits the blocked signals of the caller.
    pub fn start(
        name: &str,
        outlets: Vec<Outlet>,
        on_start: impl FnOnce() + Send + 'static,
    ) -> Result<(Logger, Writer)> {
        let queue = Arc::new(Queue::new());
        let up_to = outlets.iter().map(Outlet::up_to).max();
        let (running, ended) = sync_channel::<()>(0);
        let theirs = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name(name.to_string())
            .stack_size(STACK)
            .spawn(move || {
                on_start();
                write_all(&theirs, outlets);
                drop(running);
            })
            .context(format_args!("start the thread {name}"))?
            .thread()
            .clone();
        let logger = Logger { queue: Arc::clone(&queue), writer: thread.clone(), up_to };
        Ok((logger, Writer { queue, thread, ended }))
    }

    /// Waits until the thread has written all messages and ended. Returns false if it still runs
    /// after the time `within`, so that the process can exit while a sink is stuck.
    pub fn close(self, within: Nanos) -> bool {
        self.queue.close();
        self.thread.unpark();
        self.ended.recv_timeout(Duration::from_nanos(within.0)) == Err(RecvTimeoutError::Disconnected)
    }
}

fn write_all(queue: &Queue, mut outlets: Vec<Outlet>) {
    let started = Instant::now();
    let clock = || Nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut batch = Batch::new();
    loop {
        // Checked before `take`, so that this batch has all messages that were logged before
        // `close`.
        let closed = queue.is_closed();
        queue.take(&mut batch);
        batch.drain(|at, message| {
            Record::with(at, message, |record| {
                outlets.iter_mut().for_each(|outlet| outlet.write(record, clock()));
            });
        });
        for (level, count) in queue.take_lost() {
            outlets.iter_mut().for_each(|outlet| outlet.lose(level, count, clock()));
        }
        outlets.iter_mut().for_each(|outlet| outlet.remark(clock()));
        if closed {
            close(outlets);
            return;
        }
        // Check the queue right before parking. An unpark in between is kept. An earlier unpark may
        // be lost, because a sink may have parked this thread.
        if queue.is_idle() {
            match outlets.iter().filter_map(Outlet::due).min() {
                Some(due) => thread::park_timeout(Duration::from_nanos((due - clock()).0)),
                None => thread::park(),
            }
        }
    }
}

/// Writes what is left, and waits some time for sinks without room.
fn close(mut outlets: Vec<Outlet>) {
    for _ in 0..CLOSING_TRIES {
        outlets.retain_mut(|outlet| !outlet.close());
        if outlets.is_empty() {
            return;
        }
        clock::nap(Nanos::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::log::{Format, Kmsg, Level, LogEvent, Sink, Terminal};
    use crate::engine::Hog;
    use crate::sys::process;
    use crate::task::{Cpu, Task};
    use std::fmt;
    use std::io::{self, BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Sender, channel};

    /// Sends each line to the test.
    struct Wire(Sender<String>);

    impl Sink for Wire {
        fn write(&mut self, record: &Record) -> io::Result<()> {
            self.0.send(record.text.to_string()).map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    /// A time limit that is long enough for any machine.
    const PLENTY: Nanos = Nanos::from_secs(600);

    #[test]
    fn a_message_is_written_by_a_thread_that_was_prepared_for_it() {
        let (hook, prepared) = channel();
        let (wire, lines) = channel();
        let outlets = vec![Outlet::new(Wire(wire), Level::Info)];
        let (logger, writer) = Writer::start("stalld-log", outlets, move || {
            hook.send(thread::current().name().map(str::to_string)).unwrap();
        })
        .unwrap();
        assert_eq!(prepared.recv().unwrap().as_deref(), Some("stalld-log"));
        logger.error(format_args!("one"));
        assert_eq!(lines.recv().unwrap(), "one");
        logger.verbose(format_args!("not shown"));
        logger.emit(&LogEvent::Late { late: Nanos::from_secs(2) });
        assert_eq!(lines.recv().unwrap(), "scan is 2000 ms later than planned");
        logger.warning(format_args!("last\nwords"));
        assert!(writer.close(PLENTY));
        assert_eq!(lines.iter().collect::<Vec<_>>(), ["last\\x0awords"]);
    }

    #[test]
    fn a_message_that_no_sink_shows_is_not_formatted() {
        struct Unshowable;
        impl fmt::Display for Unshowable {
            fn fmt(&self, _: &mut fmt::Formatter) -> fmt::Result {
                unreachable!()
            }
        }
        let (logger, writer) = Writer::start("stalld-log", Vec::new(), || {}).unwrap();
        assert!(!logger.shows(Level::Error));
        logger.error(format_args!("{Unshowable}"));
        assert!(writer.close(PLENTY));
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_no_thread_and_losses_are_counted() {
        let (reader, stuck) = UnixStream::pair().unwrap();
        let outlets = vec![Outlet::new(Kmsg::new(OwnedFd::from(stuck).into()), Level::Info)];
        let (logger, writer) = Writer::start("stalld-log", outlets, || {}).unwrap();
        // These are more lines than the socket, both batches and the allowance can hold. The loop
        // ends only if no call blocks.
        let sent = 10_000;
        for i in 0..sent {
            logger.info(format_args!("line {i} {}", "x".repeat(800)));
        }
        let (mut written, mut dropped) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| assert!(writer.close(PLENTY)));
            for line in BufReader::new(reader).lines() {
                let line = line.unwrap();
                let text = line.split_once("]: ").unwrap().1;
                match text.split_once(" message") {
                    Some((count, _)) => dropped += count.parse::<u32>().unwrap(),
                    None => written += 1,
                }
            }
        });
        assert!(written > 0 && dropped > 0);
        assert_eq!(written + dropped, sent);
    }

    /// Makes each line longer than one write to a pipe.
    struct Long(Terminal, String);

    impl Sink for Long {
        fn write(&mut self, record: &Record) -> io::Result<()> {
            let hog = Hog { task: Task::default(), seen_since: Nanos::ZERO };
            let held = LogEvent::Held { cpu: Cpu(0), hog, at: Nanos::ZERO };
            let Record { at, level, text, .. } = *record;
            self.0.write(&Record { at, level, text, event: Some(&held), cgroup: Some(&self.1) })
        }

        fn finish(&mut self) -> bool {
            self.0.finish()
        }
    }

    #[test]
    fn a_long_line_in_a_full_pipe_does_not_block_other_sinks() {
        let (reader, full) = process::pipe().unwrap();
        let (wire, lines) = channel();
        let long = Long(Terminal::new(full, Format::Json), "x".repeat(9_001));
        let outlets = vec![Outlet::new(long, Level::Info), Outlet::new(Wire(wire), Level::Info)];
        let (logger, writer) = Writer::start("stalld-log", outlets, || {}).unwrap();
        let sent = 40;
        for i in 0..sent {
            logger.info(format_args!("line {i}"));
        }
        for i in 0..sent {
            let line = lines.recv_timeout(Duration::from_secs(10));
            assert_eq!(line, Ok(format!("line {i}")), "another sink waits for the pipe");
        }
        let (mut written, mut dropped) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for line in BufReader::new(reader).lines() {
                    let line = line.unwrap();
                    assert!(line.starts_with(r#"{"time":"#) && line.ends_with(r#"x"}"#), "{line}");
                    let text = line.split_once(r#""message":""#).unwrap().1;
                    match text.split_once(" message") {
                        Some((count, _)) => dropped += count.parse::<u32>().unwrap(),
                        None => written += 1,
                    }
                }
            });
            assert!(writer.close(PLENTY));
        });
        assert!(written > 0 && dropped > 0, "{written} {dropped}");
        assert_eq!(written + dropped, sent);
    }

    #[test]
    fn closing_does_not_wait_for_a_stuck_sink() {
        struct Stuck(Receiver<()>);
        impl Sink for Stuck {
            fn write(&mut self, _: &Record) -> io::Result<()> {
                let _ = self.0.recv();
                Ok(())
            }
        }
        let (release, gate) = channel();
        let (logger, writer) =
            Writer::start("stalld-log", vec![Outlet::new(Stuck(gate), Level::Info)], || {}).unwrap();
        logger.info(format_args!("never written"));
        assert!(!writer.close(Nanos::from_millis(1)));
        drop(release);
    }

    #[test]
    fn a_message_logged_while_a_sink_waits_is_written_without_another_one() {
        struct Slow(Receiver<()>, Sender<String>);
        impl Sink for Slow {
            fn write(&mut self, record: &Record) -> io::Result<()> {
                // A channel parks the thread, which uses up the unpark of a message that comes
                // meanwhile.
                self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
                self.1.send(record.text.to_string()).map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
        let (release, gate) = channel();
        let (wire, lines) = channel();
        let (logger, writer) =
            Writer::start("stalld-log", vec![Outlet::new(Slow(gate, wire), Level::Info)], || {}).unwrap();
        for i in 0..100 {
            logger.info(format_args!("first {i}"));
            logger.info(format_args!("second {i}"));
            release.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), format!("first {i}"));
            release.send(()).unwrap();
            assert_eq!(lines.recv().unwrap(), format!("second {i}"));
        }
        assert!(writer.close(PLENTY));
    }
}
