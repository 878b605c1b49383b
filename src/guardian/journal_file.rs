//! The memory of the journal: a file, which the next stalld opens after this one and its guardian
//! have ended, or memory without a name.

use crate::boost::journal::Journal;
use crate::boost::kernel::Host;
use crate::boost::recover::{self, Recovered};
use crate::error::{Context, Error, Result};
use crate::host::own_file::{self, check_private, refusal};
use crate::sys::shared::{SharedWords, nameless_file};
use crate::sys::{clock, cpu, lock};
use crate::task::{Nanos, Tid};
use std::path::Path;
use std::{fmt, fs};

/// The records for each CPU: as many as the boosts that a CPU can have.
const RECORDS_PER_CPU: usize = 16;
/// The records for changed settings of the machine.
const SETTINGS: usize = 8;

/// How long to wait for the lock of a process that has just died. The kernel takes a moment to
/// release it.
const LOCK_TIMEOUT: Nanos = Nanos::from_secs(1);

/// Returns the journal in this file, and what a former stalld left in it. Undoes the changes in it,
/// and empties it if that succeeds. The file is locked as long as it is open.
pub fn open(path: &Path) -> Result<(Journal, Vec<Leftover>)> {
    let what = || format!("use the journal {}", path.display());
    let file = own_file::open(path)?;
    let seen = file.metadata().context(what())?;
    check_private(&seen, 0o600)
        .map_err(|reason| refusal(path, reason).with_cure("make sure that nothing uses it and remove it"))?;
    let until = clock::monotonic() + LOCK_TIMEOUT;
    while !lock::try_lock(&file).context(what())? {
        if clock::monotonic() >= until {
            return Err(refusal(path, "another process uses it").with_errno(Some(libc::EBUSY)));
        }
        clock::nap(Nanos::from_millis(5));
    }
    let words = words().max(seen.len() as usize / size_of::<u64>());
    let words = SharedWords::map(&file, words).context(what())?;
    let journal = Journal::over(words).kept_in(file);
    let boot = boot_id()?;
    let mut left = Vec::new();
    match journal.boot_id() {
        Some(then) if then == boot => {
            recover::everything(&Host, &journal, |one| left.push(Leftover::Recovered(one)));
            let garbled = journal.garbled();
            if garbled > 0 {
                left.push(Leftover::Void(format!("{}: {garbled} records make no sense", path.display())));
            }
        }
        Some(_) => left.push(Leftover::Void(format!("{} is of another boot", path.display()))),
        None if seen.len() > 0 => left.push(Leftover::Void(format!("{} is no journal", path.display()))),
        None => {}
    }
    // Records that could not be undone stay for the next stalld.
    if left.iter().all(Leftover::is_done) {
        journal.begin(boot, owner());
    }
    Ok((journal, left))
}

/// Returns a journal in memory, which ends with the processes that share it.
pub fn in_memory() -> Result<Journal> {
    let file = nameless_file().context("make a journal")?;
    let journal = Journal::over(SharedWords::map(&file, words()).context("make a journal")?);
    journal.begin(boot_id()?, owner());
    Ok(journal)
}

fn words() -> usize {
    Journal::words(RECORDS_PER_CPU * cpu::configured() as usize + SETTINGS)
}

fn owner() -> Tid {
    Tid(std::process::id() as i32)
}

/// A remainder of a former stalld in the file of the journal.
#[derive(Debug)]
pub enum Leftover {
    Recovered(Recovered),
    /// Records that can't be used, or a file without any, which is emptied.
    Void(String),
}

impl Leftover {
    pub fn is_done(&self) -> bool {
        !matches!(self, Leftover::Recovered(recovered) if !recovered.is_done())
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Leftover::Recovered(recovered) => write!(f, "left by a former stalld: {recovered}"),
            Leftover::Void(what) => write!(f, "{what}: it is emptied"),
        }
    }
}

fn boot_id() -> Result<u128> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).context(format_args!("read {path}"))?;
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    u128::from_str_radix(&digits, 16).map_err(|_| Error::new(format!("{path} holds no number")))
}
