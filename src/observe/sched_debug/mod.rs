//! The backend sched_debug: scans by reading the scheduler's debug file. It works without BPF, on
//! every kernel from 3.x on that has the file.
//!
//! The text shows which tasks are runnable, and how often each task was switched out. It does not
//! show the start of a wait, so a wait counts from the first scan that saw the task with this
//! count.

mod format;
mod owners;
mod parse;
mod source;

pub use parse::{Scope, parse};
pub use source::Sources;

use crate::error::{Error, Result};
use crate::observe::{Backend, Effort, Kind, Load, Snapshot, Waiter, Watch};
use crate::proc;
use crate::sys::{clock, sched};
use crate::task::{Cpu, Nanos};
use owners::Owners;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All threads of stalld have names that begin so.
const OWN_NAME: &[u8] = b"stalld";

pub struct SchedDebug {
    text: DebugText,
    scope: Scope,
    owners: Owners,
    own_threads: bool,
    /// The file for the cheap check; `None` without idle detection.
    loadavg: Option<File>,
    /// The monitored CPUs in the last text, which has a section for each online CPU.
    online: Vec<Cpu>,
}

impl SchedDebug {
    /// Finds the files, and scans once to check that the text can be parsed.
    pub fn open(watch: &Watch) -> Result<SchedDebug> {
        SchedDebug::with(&Sources::find(Path::new("/"))?, watch)
    }

    /// Opens the backend with these files.
    pub fn with(sources: &Sources, watch: &Watch) -> Result<SchedDebug> {
        let mut backend = SchedDebug {
            text: DebugText::open(&sources.text)?,
            scope: Scope::new(watch.cpus.clone(), None),
            owners: Owners::new(),
            own_threads: watch.own_threads,
            // Without this file, each scan reads the text.
            loadavg: watch.idle_detection.then(|| File::open(&sources.loadavg).ok()).flatten(),
            online: Vec::new(),
        };
        backend.read_text(&mut Snapshot::default()).map_err(|error| error.with_cure("use -b task_iter"))?;
        Ok(backend)
    }

    fn read_text(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.scope.reader = Some(sched::gettid());
        let text = self.text.read()?;
        parse(text, &mut self.scope, snapshot).map_err(|reason| {
            Error::new(format!("cannot make sense of {}: {reason}", self.text.path.display()))
        })?;
        if !self.own_threads {
            // The text does not show the process of a thread, and a file for each waiter of a crowd
            // would cost more than the text.
            snapshot.waiters.retain(|Waiter { task, .. }| {
                !(task.comm.as_bytes().trim_ascii_start().starts_with(OWN_NAME)
                    && proc::is_own_thread(task.tid))
            });
        }
        self.owners.add(&mut snapshot.waiters);
        (snapshot.complete, snapshot.walked) = (true, true);
        self.online.clear();
        self.online.extend(snapshot.load.iter().map(|load| load.cpu));
        Ok(())
    }

    /// Returns how many tasks besides this thread are runnable on the whole machine; `None` if it
    /// is unknown.
    fn others(&self) -> Option<u32> {
        let mut text = [0; 128];
        let len = self.loadavg.as_ref()?.read_at(&mut text, 0).ok()?;
        Some(proc::text::runnable(text.get(..len)?)?.saturating_sub(1))
    }
}

impl Backend for SchedDebug {
    fn kind(&self) -> Kind {
        Kind::SchedDebug
    }

    fn snapshot(&mut self, _woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.clear();
        snapshot.at = clock::monotonic();
        let others = if effort == Effort::All { None } else { self.others() };
        match others {
            Some(0) => {
                snapshot.load.extend(self.online.iter().map(|&cpu| Load { cpu, ..Load::default() }));
                Ok(())
            }
            // The task runs, or waits only for this thread. Its CPU is unknown, so `load` stays
            // empty.
            Some(1) => Ok(()),
            _ => {
                let result = self.read_text(snapshot);
                if result.is_err() {
                    snapshot.clear();
                }
                result
            }
        }
    }

    fn shrink(&mut self) -> bool {
        self.text.shrink();
        self.owners.shrink();
        true
    }

    fn has_spare_memory(&self) -> bool {
        self.text.has_spare_memory()
    }
}

/// The open file, and its text at the last scan.
struct DebugText {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// The length of the last text.
    len: usize,
    /// The length of the buffer when memory was last freed.
    kept: usize,
}

impl DebugText {
    const INITIAL: usize = 64 << 10;
    /// The longest text that is read, far above that of a million threads. A file without an end is
    /// not the debug file.
    const LIMIT: usize = 1 << 28;

    fn open(path: &Path) -> Result<DebugText> {
        let file = File::open(path).map_err(|e| source::refusal(Path::new("/"), path, &e))?;
        Ok(DebugText {
            path: path.to_path_buf(),
            file,
            buffer: vec![0; DebugText::INITIAL],
            len: 0,
            kept: DebugText::INITIAL,
        })
    }

    /// Reads the whole text. The kernel makes a new text for a read at offset 0, and each read
    /// returns at most the size of the kernel's own buffer.
    fn read(&mut self) -> Result<&[u8]> {
        let mut len = 0;
        loop {
            if len == self.buffer.len() {
                if len >= DebugText::LIMIT {
                    return Err(Error::new(format!("cannot read {}: it has no end", self.path.display())));
                }
                self.buffer.resize(len * 2, 0);
            }
            let Some(free) = self.buffer.get_mut(len..) else { break };
            match self.file.read_at(free, len as u64) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(source::refusal(Path::new("/"), &self.path, &e)),
            }
        }
        self.len = len;
        Ok(self.buffer.get(..len).unwrap_or_default())
    }

    /// Returns whether the buffer is too large for the last text. Sleeping tasks are in the text,
    /// too.
    fn has_spare_memory(&self) -> bool {
        let buffer = self.buffer.len();
        buffer > self.kept || buffer >= self.len.max(DebugText::INITIAL) * 4
    }

    fn shrink(&mut self) {
        // No text is read while no task waits, so the last one may be too long. Read a new one.
        let len = self.read().map_or(0, <[u8]>::len);
        self.buffer.truncate(len.next_power_of_two().max(DebugText::INITIAL));
        self.buffer.shrink_to_fit();
        self.kept = self.buffer.len();
    }
}

#[cfg(test)]
mod tests {
    use super::DebugText;
    use rig::scratch::Scratch;

    #[test]
    fn a_text_that_has_been_long_gives_its_memory_back() {
        let scratch = Scratch::new("sched-debug-text");
        let write = |len: usize| scratch.file("debug", &"x".repeat(len));
        write(1000);
        let mut text = DebugText::open(&scratch.join("debug")).unwrap();
        let spare_after = |text: &mut DebugText, len: usize| {
            write(len);
            assert_eq!(text.read().unwrap().len(), len);
            text.has_spare_memory()
        };
        assert!(!spare_after(&mut text, 1000));
        assert!(spare_after(&mut text, 6 * DebugText::INITIAL), "it has grown");
        // The tasks are still there.
        text.shrink();
        assert_eq!((text.buffer.len(), text.has_spare_memory()), (8 * DebugText::INITIAL, false));
        assert!(!spare_after(&mut text, 3 * DebugText::INITIAL));
        assert!(spare_after(&mut text, 2 * DebugText::INITIAL), "a quarter of its buffer is enough");
        text.shrink();
        assert_eq!((text.buffer.len(), text.has_spare_memory()), (2 * DebugText::INITIAL, false));
        write(10);
        text.shrink();
        assert_eq!((text.buffer.len(), text.has_spare_memory()), (DebugText::INITIAL, false));
    }
}
