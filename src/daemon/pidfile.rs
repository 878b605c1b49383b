//! The file that tells scripts which process is the daemon.

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

/// Everybody may read it.
const MODE: u32 = 0o644;

/// Removed when dropped, unless it has become somebody else's or this is a forked child.
#[derive(Debug)]
pub struct Pidfile {
    lock: LockFile,
    owner: u32,
    /// It has replaced a file that other users could write to.
    pub was_open_to_others: bool,
}

impl Pidfile {
    pub fn create(path: &Path) -> Result<Pidfile> {
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
            // Still locked, so nobody can have made it theirs in between.
            let _ = fs::remove_file(self.lock.path());
        }
    }
}

/// Longer is no number of a process.
const LONGEST: u64 = 16;

/// Removes a pidfile that other users can write to, and so can't be trusted. The C program leaves
/// such files, of mode 0022: without capabilities root itself can't open them. Returns false if
/// there is none. It must be a file of this user's that holds a number or can't be read.
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

/// Writes the pidfile of another process, and notes its path for `remove_left`. The unit has this
/// done outside of the sandbox, in which stalld cannot see the host's /run.
pub fn write_for(path: &Path, pid: Tid, note: &Path) -> Result<()> {
    if !process::is_alive(pid) {
        return Err(Error::new(format!(
            "cannot write the pidfile {}: there is no process {pid}",
            path.display()
        )));
    }
    own_file::begin(note)?
        .write_all(path.as_os_str().as_bytes())
        .context(format_args!("write {}", note.display()))?;
    remove_open_one(path)?;
    take(path)?.write_number(pid)
}

/// Removes the pidfile that the note names if its process has ended, and the note. The options of
/// the service, which named it, may have changed meanwhile. Keeps a file that holds anything else.
pub fn remove_left(note: &Path) -> Result<()> {
    let noted = match fs::read(note) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        noted => noted.context(format_args!("read {}", note.display()))?,
    };
    let path = Path::new(OsStr::from_bytes(&noted));
    // Taking a file that is not there would create it. In the sandbox the path does not exist, and
    // the note is still needed outside.
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
    // Who can read a file can lock it. Any user could keep stalld from starting again by a lock on
    // what a killed one left behind: a file whose process is dead is replaced.
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
    fn what_is_no_pidfile_is_not_replaced() {
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
        // What a killed service has left is replaced.
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
