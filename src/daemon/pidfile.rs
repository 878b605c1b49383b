//! The file that tells scripts which process is the daemon.

use super::lockfile::{LockFile, Taken};
use crate::error::{Context, Error, Result};
use crate::sys::process;
use std::fs;
use std::path::Path;

/// Everybody may read it.
const MODE: u32 = 0o644;

/// Removed when dropped, unless it has become somebody else's or this is a forked child.
#[derive(Debug)]
pub struct Pidfile {
    lock: LockFile,
    owner: u32,
}

impl Pidfile {
    pub fn create(path: &Path) -> Result<Pidfile> {
        let lock = take(path)?;
        let pidfile = Pidfile { lock, owner: std::process::id() };
        pidfile.lock.write_pid()?;
        Ok(pidfile)
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if std::process::id() == self.owner && self.lock.is_in_place() {
            // Still locked, so nobody can have made it theirs in between.
            let _ = fs::remove_file(self.lock.path());
        }
    }
}

fn take(path: &Path) -> Result<LockFile> {
    let what = || format!("write the pidfile {}", path.display());
    let holder = match LockFile::take(path, MODE)? {
        Taken::Ours(lock) => return Ok(lock),
        Taken::Theirs(holder) => holder,
    };
    // Who can read a file can lock it. Any user could keep stalld from starting again by a lock on what
    // a killed one left behind: a file whose process is dead is replaced.
    if holder.is_some_and(|pid| !process::is_alive(pid)) {
        fs::remove_file(path).context(what())?;
        if let Taken::Ours(lock) = LockFile::take(path, MODE)? {
            return Ok(lock);
        }
    }
    let by = holder.map(|pid| format!(" as pid {pid}")).unwrap_or_default();
    Err(Error::new(format!("cannot {}: the process that runs{by} holds it", what()))
        .with_cure("stop that first, or name another file by --pidfile"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::lock;
    use rig::scratch::Scratch;
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_pidfile_tells_the_pid_to_everybody_and_goes_with_its_process() {
        let scratch = Scratch::new("pidfile");
        let path = scratch.join("stalld.pid");
        let pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_process_is_told_who_has_the_pidfile() {
        let scratch = Scratch::new("pidfile-held");
        let path = scratch.join("stalld.pid");
        let _first = Pidfile::create(&path).unwrap();
        assert_eq!(
            Pidfile::create(&path).unwrap_err().to_string(),
            format!(
                "cannot write the pidfile {}: the process that runs as pid {} holds it; \
                 stop that first, or name another file by --pidfile",
                path.display(),
                std::process::id()
            )
        );
        assert!(path.exists());
    }

    #[test]
    fn a_lock_on_what_a_dead_process_left_keeps_nobody_from_starting() {
        let scratch = Scratch::new("pidfile-squatted");
        let path = scratch.join("stalld.pid");
        fs::write(&path, format!("{}\n", i32::MAX)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let squatter = File::open(&path).unwrap();
        assert!(lock::try_lock(&squatter).unwrap());
        let _pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_pidfile_that_is_no_longer_ours_stays() {
        let scratch = Scratch::new("pidfile-replaced");
        let path = scratch.join("stalld.pid");
        let pidfile = Pidfile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(pidfile);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_pidfile_that_can_not_be_written_is_one_clear_error() {
        let scratch = Scratch::new("pidfile-nowhere");
        let path = scratch.join("missing/stalld.pid");
        assert_eq!(
            Pidfile::create(&path).unwrap_err().to_string(),
            format!("cannot open {}: No such file or directory", path.display())
        );
    }
}
