//! The files that a run keeps for others: the pidfile, the metrics, the trace.
//!
//! Each has a thread of its own, which alone opens, writes and closes it: a disk that does not
//! answer must delay no scan, no boost, no start and no end. A file that can't be used is a
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

/// The time that all files together have to be finished, once all boosts have ended.
const END_TIMEOUT: Nanos = Nanos::from_millis(500);

/// The shortest time between two writes of the metrics.
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

/// All files of a run.
#[derive(Default)]
pub struct Files {
    pidfile: Option<Worker>,
    metrics: Option<Worker>,
    trace: Option<Trace>,
}

impl Files {
    /// Begins the trace, if the options ask for one. Returns the log that it is drawn from.
    pub fn begin_trace(&mut self, options: &Options, log: &Reports) -> Option<Logger> {
        let path = options.trace.clone()?;
        self.trace = log.unless_refused("there is no trace", Trace::start(path, log.clone()));
        self.trace.as_ref().map(Trace::teller)
    }

    /// Begins the others that the options ask for.
    pub fn begin(&mut self, options: &Options, figures: Arc<Figures>, kind: Kind, log: &Reports) {
        if let Some(path) = options.pidfile.clone() {
            let reports = log.clone();
            let life = move |orders: &Orders| keep_pidfile(path, orders, &reports);
            self.pidfile = log.unless_refused("there is no pidfile", Worker::start("stalld-pidfile", life));
        }
        if let Some(path) = options.metrics.clone() {
            let reports = log.clone();
            let life = move |orders: &Orders| keep_metrics(path, &figures, kind, orders, &reports);
            self.metrics = log.unless_refused("there are no metrics", Worker::start("stalld-metrics", life));
        }
    }

    /// Whether the pidfile and the metrics are there, or refused.
    pub fn have_settled(&self) -> bool {
        [&self.pidfile, &self.metrics].into_iter().flatten().all(Worker::has_settled)
    }

    /// Finishes all files, and warns about those for which there is no time. Boosts have to be over
    /// by now.
    pub fn end(self, log: &Logger) {
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

/// Where the files' warnings go: to the log, and to the terminal of a user who has started a
/// daemon.
#[derive(Clone)]
pub struct Reports {
    pub log: Logger,
    /// None in the foreground, where the terminal has the log.
    pub starter: Option<log::Format>,
}

impl Reports {
    pub fn new(log: &Logger, options: &Options) -> Reports {
        Reports { log: log.clone(), starter: (!options.foreground).then_some(options.log_format) }
    }

    pub fn warn(&self, what: &str, error: Error) {
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

/// Adds what helps, unless the error says so itself.
fn with_cure(error: Error) -> Error {
    let cure = match error.errno() {
        None => return error,
        Some(libc::ENOENT | libc::ENOTDIR) => "make its directory, or name another file",
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "name a file that stalld may write (in a service, see ReadWritePaths=)"
        }
        Some(libc::ENOSPC | libc::EDQUOT) => "make room on its disk, or name another file",
        Some(_) => "name another file",
    };
    error.with_cure(cure)
}

/// A thread that keeps a file until it is asked to end.
struct Worker {
    thread: Thread,
    orders: Arc<Orders>,
    /// Nothing is ever sent: the other end goes when the thread ends.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Orders {
    end: AtomicBool,
    settled: AtomicBool,
}

impl Worker {
    fn start(name: &str, life: impl FnOnce(&Orders) + Send + 'static) -> Result<Worker> {
        let orders = Arc::new(Orders::default());
        let (running, ended) = sync_channel::<()>(0);
        let theirs = Arc::clone(&orders);
        let spawned = thread::Builder::new().name(name.to_string()).stack_size(STACK).spawn(move || {
            // An ordinary thread would wait for its CPU behind a hog. With a reservation (-R) it is
            // born as one.
            let _ = raise();
            life(&theirs);
            drop(running);
        });
        let thread = spawned.context(format_args!("start the thread {name}"))?.thread().clone();
        Ok(Worker { thread, orders, ended })
    }

    fn has_settled(&self) -> bool {
        self.orders.settled.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.orders.end.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Returns false if it has not ended in time. Then it goes on, and ends with the process.
    fn await_end(self, until: Nanos) -> bool {
        let left = Duration::from_nanos((until - clock::monotonic()).0);
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Orders {
    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }
}

fn keep_pidfile(path: PathBuf, orders: &Orders, reports: &Reports) {
    let pidfile = reports.unless_refused("there is no pidfile", Pidfile::create(&path));
    orders.settle();
    if pidfile.as_ref().is_some_and(|pidfile| pidfile.was_open_to_others) {
        let path = path.display();
        reports.log.warning(format_args!("replaced {path}: other users could have written to it"));
    }
    while !orders.is_over() {
        thread::park();
    }
}

fn keep_metrics(path: PathBuf, figures: &Figures, kind: Kind, orders: &Orders, reports: &Reports) {
    let file = AtomicFile::at(&path);
    let mut is_refused = false;
    let mut is_new = true;
    loop {
        if figures.take_changed() || is_new {
            let written =
                file.as_ref().map_err(Error::clone).and_then(|file| file.write(&figures.text(kind)));
            // A file that could not be written is tried again.
            is_new = written.is_err();
            if let (Err(e), false) = (&written, is_refused) {
                reports.warn("the metrics are out of date", e.clone());
            }
            is_refused = written.is_err();
            orders.settle();
        }
        thread::park_timeout(METRICS_INTERVAL);
        if orders.is_over() {
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
    fn a_thread_whose_disk_does_not_answer_is_waited_for_no_longer_than_said() {
        let (disk, never) = sync_channel::<()>(0);
        let worker = Worker::start("stuck", move |orders| {
            orders.settle();
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
        let worker = Worker::start("idle", |orders| {
            orders.settle();
            while !orders.is_over() {
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
        assert!(refused(libc::EROFS).ends_with("ReadWritePaths=)"));
        assert!(refused(libc::ENOSPC).contains("; make room on its disk"));
        let link = Error::new("cannot use x: it is a symbolic link").with_cure("remove it");
        assert_eq!(with_cure(link.clone()), link);
    }
}
