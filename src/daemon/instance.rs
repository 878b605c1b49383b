//! Allows one boosting stalld per host. Any number of log-only ones (-l) may run beside it.

use super::lockfile::{LockFile, Taken};
use crate::boost::journal::Journal;
use crate::error::{Context, Error, Result};
use crate::guardian::journal_file::{self, Leftover};
use crate::host::own_file::{check_private, refusal};
use crate::proc;
use crate::sys::{clock, process};
use crate::task::Nanos;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(super) const RUNTIME_DIR: &str = "/run/stalld";

/// The lock that allows this process to boost on this host.
#[derive(Debug)]
pub(super) struct Instance {
    lock: LockFile,
    dir: PathBuf,
}

/// The longest time that a new stalld waits for the guardian of an ended one.
const GUARDIAN: Nanos = Nanos::from_secs(5);

impl Instance {
    /// Takes the lock. Waits if an ended stalld's guardian still holds it.
    pub(super) fn claim(runtime_dir: &Path) -> Result<Instance> {
        make_runtime_dir(runtime_dir)?;
        let path = runtime_dir.join("stalld.lock");
        let until = clock::monotonic() + GUARDIAN;
        loop {
            // Mode 0600, because a user who can open the file can also lock it.
            let holder = match LockFile::take(&path, 0o600)? {
                Taken::Ours(lock) => {
                    // The pid is for other processes. The lock also works without it, for example
                    // on a full file system.
                    let _ = lock.write_pid();
                    return Ok(Instance { lock, dir: runtime_dir.to_path_buf() });
                }
                Taken::Theirs(holder) => holder,
            };
            // The guardian of an ended stalld holds the lock until it has restored all tasks.
            let has_ended = holder.is_some_and(|pid| matches!(proc::state(pid), None | Some(b'Z')));
            if has_ended && clock::monotonic() < until {
                clock::nap(Nanos::from_millis(5));
                continue;
            }
            let by = holder.map(|pid| format!(" as pid {pid}")).unwrap_or_default();
            return Err(Error::new(format!(
                "stalld is already running{by} (its lock is {})",
                path.display()
            ))
            .with_cure("stop it first, or use -l to watch beside it"));
        }
    }

    /// Returns the descriptors that the guardian must keep open to share the lock.
    pub(super) fn descriptors(&self) -> [RawFd; 1] {
        [self.lock.descriptor()]
    }

    /// Restores what an earlier stalld has left in the journal. Returns the empty journal and what
    /// was restored.
    pub(super) fn open_journal(&self) -> Result<(Journal, Vec<Leftover>)> {
        journal_file::open(&self.dir.join("journal"))
    }
}

/// Creates the directory if it is missing. Fails if another user can write to it.
pub(super) fn make_runtime_dir(path: &Path) -> Result<()> {
    let is_root = process::effective_uid() == 0;
    let others = "run stalld as root, or with -l, which only watches";
    match DirBuilder::new().mode(0o755).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        made => made
            .context(format_args!("create the runtime directory {}", path.display()))
            .map_err(|e| if is_root { e } else { e.with_cure(others) })?,
    }
    let seen = fs::symlink_metadata(path).context(format_args!("look at {}", path.display()))?;
    let verdict =
        if seen.is_dir() { check_private(&seen, 0o755) } else { Err("it is no directory".to_string()) };
    let cure = if is_root { "remove it, stalld makes a new one" } else { others };
    verdict.map_err(|reason| refusal(path, reason).with_cure(cure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn refused(dir: &Path) -> String {
        Instance::claim(dir).unwrap_err().to_string()
    }

    #[test]
    fn a_second_instance_gets_an_error_with_the_pid_and_the_cure() {
        let scratch = Scratch::new("instance");
        let dir = scratch.join("run");
        let first = Instance::claim(&dir).unwrap();
        assert_eq!(
            refused(&dir),
            format!(
                "stalld is already running as pid {} (its lock is {}/stalld.lock); \
                 stop it first, or use -l to watch beside it",
                std::process::id(),
                dir.display()
            )
        );
        drop(first);
        Instance::claim(&dir).unwrap();
    }

    #[test]
    fn no_other_user_can_open_the_lock() {
        let scratch = Scratch::new("instance-mode");
        let _instance = Instance::claim(&scratch.join("run")).unwrap();
        assert_eq!(fs::metadata(scratch.join("run/stalld.lock")).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let scratch = Scratch::new("instance-hostile");
        let dir = scratch.join("run");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
        let cure = match process::effective_uid() {
            0 => "remove it, stalld makes a new one",
            _ => "run stalld as root, or with -l, which only watches",
        };
        let path = dir.display();
        assert_eq!(
            refused(&dir),
            format!("cannot use {path}: its mode is 0777, which allows more than 0755; {cure}")
        );
        assert!(!dir.join("stalld.lock").exists());
    }

    #[test]
    fn a_link_to_a_directory_is_refused() {
        let scratch = Scratch::new("instance-link");
        fs::create_dir(scratch.join("elsewhere")).unwrap();
        symlink(scratch.join("elsewhere"), scratch.join("run")).unwrap();
        assert!(refused(&scratch.join("run")).contains("it is no directory"));
        assert!(!scratch.join("elsewhere/stalld.lock").exists());
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let scratch = Scratch::new("instance-lock-link");
        symlink(scratch.join("target"), scratch.join("stalld.lock")).unwrap();
        fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(refused(scratch.path()).contains("it is a symbolic link"));
        assert!(!scratch.join("target").exists());
    }
}
