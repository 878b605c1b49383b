//! The pidfile, from which scripts read the pid of the daemon.

use super::lockfile::{LockFile, Taken};
use crate::error::{Context, Error, Result};
use crate::host::own_file;
use crate::sys::process;
use crate::task::Tid;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// All users may read it.
const MODE: u32 = 0o644;

/// The pidfile of this process. Drop removes the file, unless the file was replaced or the caller
/// is a forked child.
#[derive(Debug)]
pub(super) struct Pidfile {
    lock: LockFile,
    owner: u32,
    /// `create` has replaced a file that other users could write to.
    pub was_open_to_others: bool,
}

impl Pidfile {
    pub(super) fn create(path: &Path) -> Result<Pidfile> {
        let was_open_to_others = remove_open_one(path)?;
        let lock = take(path)?;
        let pidfile = Pidfile { lock, owner: std::process::id(), was_open_to_others };
        pidfile.lock.write_pid()?;
        Ok(pidfile)
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if std::process::id() == self.owner && self.lock.is_in_place() {
            // The lock is still held, so no other process can have taken the file over since the
            // check.
            let _ = fs::remove_file(self.lock.path());
        }
    }
}

/// The largest size of a pidfile, in bytes.
const LONGEST: u64 = 16;

/// Removes a pidfile that other users can write to, because it can't be trusted. The C program
/// leaves such files, with mode 0022: without capabilities even root can't open them. Removes only
/// a file of this user that is empty, holds a number or can't be read. Returns whether it removed
/// one.
fn remove_open_one(path: &Path) -> Result<bool> {
    let Ok(seen) = fs::symlink_metadata(path) else { return Ok(false) };
    let is_own = seen.is_file() && seen.uid() == process::effective_uid() && seen.nlink() == 1;
    if !is_own || seen.mode() & 0o022 == 0 || seen.len() > LONGEST {
        return Ok(false);
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let text = OpenOptions::new().read(true).custom_flags(flags).open(path).and_then(io::read_to_string);
    let is_pidfile = match text {
        Ok(text) => text.trim().is_empty() || text.trim().parse::<i32>().is_ok(),
        Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
    };
    if is_pidfile {
        fs::remove_file(path).context(format_args!("replace {}", path.display()))?;
    }
    Ok(is_pidfile)
}

/// Writes the pidfile of another process, and stores its path in `note` for `remove_left`. The unit
/// runs this outside of its sandbox, because stalld inside can't see the host's /run.
pub(super) fn write_for(path: &Path, pid: Tid, note: &Path) -> Result<()> {
    if !process::is_alive(pid) {
        return Err(Error::new(format!(
            "cannot write the pidfile {}: there is no process {pid}",
            path.display()
        )));
    }
    own_file::create_private(note)?
        .write_all(path.as_os_str().as_bytes())
        .context(format_args!("write {}", note.display()))?;
    remove_open_one(path)?;
    take(path)?.write_number(pid)
}

/// Removes the pidfile that `note` names, and the note, if the process of that pidfile has ended.
/// The path comes from the note because the options of the service may have changed. Keeps a file
/// that holds anything else.
pub(super) fn remove_left(note: &Path) -> Result<()> {
    let noted = match fs::read(note) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        noted => noted.context(format_args!("read {}", note.display()))?,
    };
    let path = Path::new(OsStr::from_bytes(&noted));
    // `take` would create a missing file. In the sandbox the path does not exist, and the note is
    // still needed outside.
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let Taken::Ours(lock) = LockFile::take(path, MODE)? else { return Ok(()) };
    if lock.pid().is_some_and(|pid| !process::is_alive(pid)) {
        fs::remove_file(path).context(format_args!("remove the pidfile {}", path.display()))?;
        fs::remove_file(note).context(format_args!("remove {}", note.display()))?;
    }
    Ok(())
}

fn take(path: &Path) -> Result<LockFile> {
    let what = || format!("write the pidfile {}", path.display());
    let holder = match LockFile::take(path, MODE)? {
        Taken::Ours(lock) => return Ok(lock),
        Taken::Theirs(holder) => holder,
    };
    // A user who can read the file can lock it, and so could keep stalld from starting after it was
    // killed. So replace a file whose process is dead.
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn all_users_can_read_the_pid_and_the_file_goes_with_its_process() {
        let scratch = Scratch::new("pidfile");
        let path = scratch.join("stalld.pid");
        let pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_process_gets_an_error_with_the_owner_of_the_pidfile() {
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
    fn a_lock_on_the_pidfile_of_a_dead_process_prevents_no_start() {
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
    fn a_pidfile_that_others_could_write_to_is_replaced() {
        let scratch = Scratch::new("pidfile-open");
        let path = scratch.join("stalld.pid");
        for mode in [0o022, 0o666] {
            fs::write(&path, "1234\n").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let pidfile = Pidfile::create(&path).unwrap();
            assert!(pidfile.was_open_to_others);
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        }
        assert!(!Pidfile::create(&path).unwrap().was_open_to_others);
    }

    #[test]
    fn a_file_that_is_no_pidfile_is_not_replaced() {
        let scratch = Scratch::new("pidfile-foreign");
        let precious = scratch.join("precious");
        fs::write(&precious, "my notes").unwrap();
        fs::set_permissions(&precious, PermissionsExt::from_mode(0o666)).unwrap();
        symlink(&precious, scratch.join("link")).unwrap();
        for name in ["precious", "link"] {
            Pidfile::create(&scratch.join(name)).unwrap_err();
            assert_eq!(fs::read_to_string(&precious).unwrap(), "my notes");
        }
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
    fn the_pidfile_of_another_process_stays_until_that_has_ended() {
        let scratch = Scratch::new("pidfile-of-another");
        let (path, note) = (scratch.join("stalld.pid"), scratch.join("note"));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Tid(child.id() as i32);
        // The pidfile of a killed service is replaced.
        fs::write(&path, format!("{}\n", i32::MAX)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        for _ in 0..2 {
            write_for(&path, pid, &note).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
            remove_left(&note).unwrap();
            assert!(path.exists() && note.exists());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // As in the sandbox, where the host's pidfile is out of sight.
        let hidden = scratch.join("hidden");
        fs::rename(&path, &hidden).unwrap();
        remove_left(&note).unwrap();
        assert!(note.exists());
        fs::rename(&hidden, &path).unwrap();
        remove_left(&note).unwrap();
        assert!(!path.exists() && !note.exists());
        remove_left(&note).unwrap();

        assert_eq!(
            write_for(&path, Tid(i32::MAX), &note).unwrap_err().to_string(),
            format!("cannot write the pidfile {}: there is no process {}", path.display(), i32::MAX)
        );
        assert!(!path.exists() && !note.exists());
    }

    #[test]
    fn only_the_number_of_an_ended_process_is_removed() {
        let scratch = Scratch::new("pidfile-left");
        let (path, note) = (scratch.join("stalld.pid"), scratch.join("note"));
        let ended = format!("{}\n", i32::MAX);
        for (content, stays) in [(ended.as_str(), false), ("", true), ("options\n", true)] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            fs::write(&note, path.as_os_str().as_bytes()).unwrap();
            remove_left(&note).unwrap();
            assert_eq!(path.exists(), stays, "{content}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(scratch.join("target"), &path).unwrap();
        fs::write(&note, path.as_os_str().as_bytes()).unwrap();
        assert!(remove_left(&note).unwrap_err().to_string().contains("it is a symbolic link"));
        assert!(!scratch.join("target").exists());
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
