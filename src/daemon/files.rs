//! Writes the files of a run: the pidfile, the metrics, the trace.
//!
//! Each file has a thread of its own. Only that thread opens, writes and closes the file, so that a
//! stuck disk delays no scan, boost, start or exit. A file that can't be used causes only a
//! warning.

use super::log::{self, Level, Logger};
use super::metrics::{AtomicFile, Figures};
use super::options::Options;
use super::pidfile::Pidfile;
use super::run::raise;
use super::trace::Trace;
use crate::error::{Context, Error, Result};
use crate::observe::Kind;
use crate::sys::clock;
use crate::task::Nanos;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

const STACK: usize = 128 * 1024;

/// The longest time that the main thread waits for all files together, after all boosts have ended.
const END_TIMEOUT: Nanos = Nanos::from_millis(500);

/// The shortest time between two writes of the metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// All files of a run.
#[derive(Default)]
pub(super) struct Files {
    pidfile: Option<Worker>,
    metrics: Option<Worker>,
    trace: Option<Trace>,
}

impl Files {
    /// Starts the thread of the trace, if the options name a trace. Returns the logger that feeds
    /// it.
    pub(super) fn begin_trace(&mut self, options: &Options, log: &Reports) -> Option<Logger> {
        let path = options.trace.clone()?;
        self.trace = log.unless_refused("there is no trace", Trace::start(path, log.clone()));
        self.trace.as_ref().map(Trace::logger)
    }

    /// Starts the threads of the pidfile and the metrics, if the options name these files.
    pub(super) fn begin(&mut self, options: &Options, figures: Arc<Figures>, kind: Kind, log: &Reports) {
        if let Some(path) = options.pidfile.clone() {
            let reports = log.clone();
            let life = move |flags: &WorkerFlags| keep_pidfile(path, flags, &reports);
            self.pidfile = log.unless_refused("there is no pidfile", Worker::start("stalld-pidfile", life));
        }
        if let Some(path) = options.metrics.clone() {
            let reports = log.clone();
            let life = move |flags: &WorkerFlags| keep_metrics(path, &figures, kind, flags, &reports);
            self.metrics = log.unless_refused("there are no metrics", Worker::start("stalld-metrics", life));
        }
    }

    /// Returns whether the pidfile and the metrics are written, or have failed.
    pub(super) fn have_settled(&self) -> bool {
        [&self.pidfile, &self.metrics].into_iter().flatten().all(Worker::has_settled)
    }

    /// Ends all threads, and warns about each file whose thread does not end in time. Call it after
    /// all boosts have ended.
    pub(super) fn end(self, log: &Logger) {
        let Files { pidfile, metrics, trace } = self;
        [&pidfile, &metrics].into_iter().flatten().for_each(Worker::end);
        let until = clock::monotonic() + END_TIMEOUT;
        let ended = [
            ("trace", trace.is_none_or(|trace| trace.close(until - clock::monotonic()))),
            ("pidfile", pidfile.is_none_or(|worker| worker.await_end(until))),
            ("metrics", metrics.is_none_or(|worker| worker.await_end(until))),
        ];
        for (file, _) in ended.iter().filter(|(_, ended)| !ended) {
            log.warning(format_args!("the {file} file is left as it is: its disk does not answer"));
        }
    }
}

/// Reports warnings about files: to the log, and to the terminal of a user who has started a
/// daemon.
#[derive(Clone)]
pub(super) struct Reports {
    pub log: Logger,
    /// The format for that terminal. `None` in the foreground, where the terminal shows the log.
    pub starter: Option<log::Format>,
}

impl Reports {
    pub(super) fn new(log: &Logger, options: &Options) -> Reports {
        Reports { log: log.clone(), starter: (!options.foreground).then_some(options.log_format) }
    }

    pub(super) fn warn(&self, what: &str, error: Error) {
        let error = with_cure(error).of(what);
        self.log.warning(format_args!("{error}"));
        if let Some(format) = self.starter {
            log::on_stderr(Level::Warning, &error, format);
        }
    }

    fn unless_refused<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.warn(what, e)).ok()
    }
}

/// Adds advice that depends on the errno, if the error has one.
fn with_cure(error: Error) -> Error {
    let cure = match error.errno() {
        None => return error,
        Some(libc::ENOENT | libc::ENOTDIR) => "make its directory, or name another file",
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "name a file that stalld may write (in a service, see BindPaths=)"
        }
        Some(libc::ENOSPC | libc::EDQUOT) => "make room on its disk, or name another file",
        Some(_) => "name another file",
    };
    error.with_cure(cure)
}

/// A thread that keeps a file until it is asked to end.
struct Worker {
    thread: Thread,
    flags: Arc<WorkerFlags>,
    /// Receives no message. The channel closes when the thread ends.
    ended: Receiver<()>,
}

/// Flags that a worker shares with the main thread: `end` is a request, `settled` an answer.
#[derive(Default)]
struct WorkerFlags {
    end: AtomicBool,
    settled: AtomicBool,
}

impl Worker {
    fn start(name: &str, life: impl FnOnce(&WorkerFlags) + Send + 'static) -> Result<Worker> {
        let flags = Arc::new(WorkerFlags::default());
        let (running, ended) = sync_channel::<()>(0);
        let theirs = Arc::clone(&flags);
        let spawned = thread::Builder::new().name(name.to_string()).stack_size(STACK).spawn(move || {
            // An ordinary thread would starve behind a hog. With -R new threads are ordinary,
            // because the reservation resets on fork.
            let _ = raise();
            life(&theirs);
            drop(running);
        });
        let thread = spawned.context(format_args!("start the thread {name}"))?.thread().clone();
        Ok(Worker { thread, flags, ended })
    }

    fn has_settled(&self) -> bool {
        self.flags.settled.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.flags.end.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Waits for the thread to end. Returns false if it still runs at `until`; it then ends with
    /// the process.
    fn await_end(self, until: Nanos) -> bool {
        let left = Duration::from_nanos((until - clock::monotonic()).0);
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

impl WorkerFlags {
    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }
}

fn keep_pidfile(path: PathBuf, flags: &WorkerFlags, reports: &Reports) {
    let pidfile = reports.unless_refused("there is no pidfile", Pidfile::create(&path));
    flags.settle();
    if pidfile.as_ref().is_some_and(|pidfile| pidfile.was_open_to_others) {
        let path = path.display();
        reports.log.warning(format_args!("replaced {path}: other users could have written to it"));
    }
    while !flags.is_over() {
        thread::park();
    }
}

fn keep_metrics(path: PathBuf, figures: &Figures, kind: Kind, flags: &WorkerFlags, reports: &Reports) {
    let file = AtomicFile::at(&path);
    let mut is_refused = false;
    let mut is_new = true;
    loop {
        if figures.take_changed() || is_new {
            let written =
                file.as_ref().map_err(Error::clone).and_then(|file| file.write(&figures.text(kind)));
            // Retry a failed write after the interval.
            is_new = written.is_err();
            if let (Err(e), false) = (&written, is_refused) {
                reports.warn("the metrics are out of date", e.clone());
            }
            is_refused = written.is_err();
            flags.settle();
        }
        thread::park_timeout(METRICS_INTERVAL);
        if flags.is_over() {
            break;
        }
    }
    if let Ok(file) = file {
        file.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_a_thread_with_a_dead_disk_ends_in_time() {
        let (disk, never) = sync_channel::<()>(0);
        let worker = Worker::start("stuck", move |flags| {
            flags.settle();
            let _ = never.recv();
        })
        .unwrap();
        worker.end();
        let until = clock::monotonic() + Nanos::from_millis(20);
        assert!(!worker.await_end(until) && clock::monotonic() >= until);
        drop(disk);
    }

    #[test]
    fn a_thread_ends_when_it_is_asked_to() {
        let worker = Worker::start("idle", |flags| {
            flags.settle();
            while !flags.is_over() {
                thread::park();
            }
        })
        .unwrap();
        worker.end();
        assert!(worker.await_end(Nanos::MAX));
    }

    #[test]
    fn a_refusal_names_what_helps_once() {
        let refused = |errno| {
            let error = std::io::Error::from_raw_os_error(errno);
            with_cure(Error::io("open /run/x", &error)).to_string()
        };
        assert_eq!(
            refused(libc::ENOENT),
            "cannot open /run/x: No such file or directory; make its directory, or name another file"
        );
        assert!(refused(libc::EROFS).ends_with("BindPaths=)"));
        assert!(refused(libc::ENOSPC).contains("; make room on its disk"));
        let link = Error::new("cannot use x: it is a symbolic link").with_cure("remove it");
        assert_eq!(with_cure(link.clone()), link);
    }
}
