//! Looks by reading the scheduler's debug file: works without BPF, on every kernel from 3.x on that
//! has the file.
//!
//! The text tells who is runnable and how often each task was switched out, but not since when it
//! waits: the wait counts from the first look that saw the task with this count.

mod format;
mod owners;
mod parse;
mod source;

pub use parse::{Scope, parse};
pub use source::Sources;

use crate::error::{Error, Result};
use crate::observe::{Backend, Effort, Kind, Load, Snapshot, Watch};
use crate::proc;
use crate::sys::{clock, sched};
use crate::task::{Cpu, Nanos};
use owners::Owners;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub struct SchedDebug {
    text: Text,
    scope: Scope,
    owners: Owners,
    own_threads: bool,
    /// What answers whether anybody can be waiting at all; None without idle detection.
    loadavg: Option<File>,
    /// The monitored CPUs that the last text showed: a section stands for a CPU that is online.
    online: Vec<Cpu>,
}

impl SchedDebug {
    /// Finds the file, and reads it once to see that it can be understood.
    pub fn open(watch: &Watch) -> Result<SchedDebug> {
        SchedDebug::with(&Sources::find(Path::new("/"))?, watch)
    }

    /// Reads these files.
    pub fn with(sources: &Sources, watch: &Watch) -> Result<SchedDebug> {
        let mut backend = SchedDebug {
            text: Text::open(&sources.text)?,
            scope: Scope::new(watch.cpus.clone(), None),
            owners: Owners::new(),
            own_threads: watch.own_threads,
            // Without an answer to the cheap question each look reads the text.
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
            // The text doesn't say which process a thread belongs to.
            snapshot.waiters.retain(|waiter| !proc::is_own_thread(waiter.task.tid));
        }
        self.owners.add(&mut snapshot.waiters);
        snapshot.complete = true;
        self.online.clear();
        self.online.extend(snapshot.load.iter().map(|load| load.cpu));
        Ok(())
    }

    /// How many tasks besides the one that asks are runnable on the whole machine; None if that
    /// can't be told.
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
            // It runs, or waits behind the reading of this. On which CPU isn't known, so `load`
            // stays empty.
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

/// The file, held open, and its text of the last look.
struct Text {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// The length of the last text.
    len: usize,
    /// The length of the buffer when memory was last given back.
    kept: usize,
}

impl Text {
    const INITIAL: usize = 64 << 10;
    /// Far above what a million threads make: a file that has no end is not the one we want.
    const LIMIT: usize = 1 << 28;

    fn open(path: &Path) -> Result<Text> {
        let file = File::open(path).map_err(|e| source::refusal(Path::new("/"), path, &e))?;
        Ok(Text {
            path: path.to_path_buf(),
            file,
            buffer: vec![0; Text::INITIAL],
            len: 0,
            kept: Text::INITIAL,
        })
    }

    /// Reads all of it. The kernel makes the text anew for a read at 0, and gives as much of it per
    /// read as it has in its own buffer.
    fn read(&mut self) -> Result<&[u8]> {
        let mut len = 0;
        loop {
            if len == self.buffer.len() {
                if len >= Text::LIMIT {
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

    /// The text has all tasks, so that it grows with those that sleep, too.
    fn has_spare_memory(&self) -> bool {
        let buffer = self.buffer.len();
        buffer > self.kept || buffer >= self.len.max(Text::INITIAL) * 4
    }

    fn shrink(&mut self) {
        // The last text may be of a crowd that has gone: none is read while no task waits.
        let len = self.read().map_or(0, <[u8]>::len);
        self.buffer.truncate(len.next_power_of_two().max(Text::INITIAL));
        self.buffer.shrink_to_fit();
        self.kept = self.buffer.len();
    }
}

#[cfg(test)]
mod tests {
    use super::Text;
    use rig::scratch::Scratch;

    #[test]
    fn a_text_that_has_been_long_gives_its_memory_back() {
        let scratch = Scratch::new("sched-debug-text");
        let write = |len: usize| scratch.file("debug", &"x".repeat(len));
        write(1000);
        let mut text = Text::open(&scratch.join("debug")).unwrap();
        let spare_after = |text: &mut Text, len: usize| {
            write(len);
            assert_eq!(text.read().unwrap().len(), len);
            text.has_spare_memory()
        };
        assert!(!spare_after(&mut text, 1000));
        assert!(spare_after(&mut text, 6 * Text::INITIAL), "it has grown");
        // The tasks are still there.
        text.shrink();
        assert_eq!((text.buffer.len(), text.has_spare_memory()), (8 * Text::INITIAL, false));
        assert!(!spare_after(&mut text, 3 * Text::INITIAL));
        assert!(spare_after(&mut text, 2 * Text::INITIAL), "a quarter of its buffer is enough");
        text.shrink();
        assert_eq!((text.buffer.len(), text.has_spare_memory()), (2 * Text::INITIAL, false));
        write(10);
        text.shrink();
        assert_eq!((text.buffer.len(), text.has_spare_memory()), (Text::INITIAL, false));
    }
}
