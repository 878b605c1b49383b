//! A file that one process at a time locks with flock(2), and that holds the pid of that process.

use crate::error::{Context, Result};
use crate::host::own_file::{check_private, open, refusal};
use crate::sys::lock;
use crate::task::Tid;
use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The locked file. The lock ends when this is dropped and all children that inherited it have
/// ended.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

/// The result of `LockFile::take`.
#[derive(Debug)]
pub(super) enum Taken {
    Ours(LockFile),
    /// Another process holds the lock. The value is the pid in the file, if there is one.
    Theirs(Option<Tid>),
}

impl LockFile {
    /// Creates or opens the file, and locks it. Rejects a file that another user can have prepared,
    /// or whose mode allows more than `mode`.
    pub(super) fn take(path: &Path, mode: u32) -> Result<Taken> {
        // Retry only if a holder removed the file after this process had opened it.
        for _ in 0..10 {
            let file = open(path)?;
            let seen = file.metadata().context(format_args!("look at {}", path.display()))?;
            check_private(&seen, mode).map_err(|reason| {
                refusal(path, reason).with_cure("make sure that nothing uses it and remove it")
            })?;
            if !lock::try_lock(&file).context(format_args!("lock {}", path.display()))? {
                return Ok(Taken::Theirs(read_pid(&file)));
            }
            let lock = LockFile { file, path: path.to_path_buf() };
            if lock.is_in_place() {
                // Not earlier, because a user who can open the file for reading can also lock it.
                let permissions = Permissions::from_mode(mode);
                lock.file
                    .set_permissions(permissions)
                    .context(format_args!("change the mode of {}", path.display()))?;
                return Ok(Taken::Ours(lock));
            }
        }
        Err(refusal(path, "it is removed again and again"))
    }

    /// Writes the pid of this process, in decimal, with a newline.
    pub(super) fn write_pid(&self) -> Result<()> {
        self.write(std::process::id())
    }

    /// Writes the pid of another process.
    pub(super) fn write_number(&self, pid: Tid) -> Result<()> {
        self.write(pid)
    }

    /// Returns the pid in the file, if there is one.
    pub(super) fn pid(&self) -> Option<Tid> {
        read_pid(&self.file)
    }

    fn write(&self, pid: impl Display) -> Result<()> {
        let text = format!("{pid}\n");
        self.file
            .write_all_at(text.as_bytes(), 0)
            // Truncate after the write, so that a reader sees the new pid or the old one, never an
            // empty file.
            .and_then(|()| self.file.set_len(text.len() as u64))
            .context(format_args!("write {}", self.path.display()))
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns false if the path no longer leads to the locked file.
    pub(super) fn is_in_place(&self) -> bool {
        match (fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(ours)) => there.dev() == ours.dev() && there.ino() == ours.ino(),
            _ => false,
        }
    }
}

fn read_pid(file: &File) -> Option<Tid> {
    let mut bytes = [0; 32];
    let len = match file.read_at(&mut bytes, 0) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => file.read_at(&mut bytes, 0),
        read => read,
    };
    let text = std::str::from_utf8(bytes.get(..len.ok()?)?).ok()?;
    text.lines().next()?.parse().ok().filter(|&pid| pid > 0).map(Tid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::os::unix::fs::{chown, symlink};
    use std::os::unix::net::UnixListener;

    fn us() -> Tid {
        Tid(std::process::id() as i32)
    }

    fn ours(path: &Path, mode: u32) -> LockFile {
        match LockFile::take(path, mode).unwrap() {
            Taken::Ours(lock) => lock,
            Taken::Theirs(pid) => panic!("held by {pid:?}"),
        }
    }

    fn refused(path: &Path) -> String {
        LockFile::take(path, 0o600).unwrap_err().to_string()
    }

    #[test]
    fn a_second_taker_gets_the_pid_of_the_first() {
        let scratch = Scratch::new("second-taker");
        let path = scratch.join("lock");
        let first = ours(&path, 0o600);
        assert!(matches!(LockFile::take(&path, 0o600).unwrap(), Taken::Theirs(None)));
        first.write_pid().unwrap();
        let Taken::Theirs(holder) = LockFile::take(&path, 0o600).unwrap() else { panic!("taken twice") };
        assert_eq!(holder, Some(us()));
        drop(first);
        ours(&path, 0o600);
    }

    #[test]
    fn the_pid_replaces_whatever_was_in_the_file() {
        let scratch = Scratch::new("stale-pid");
        let path = scratch.join("lock");
        fs::write(&path, "99999999999\nand more\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let lock = ours(&path, 0o644);
        lock.write_pid().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", us()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_symbolic_link_is_refused_and_its_target_left_alone() {
        let scratch = Scratch::new("symlink");
        fs::write(scratch.join("target"), "precious").unwrap();
        for (name, target) in [("link", "target"), ("dangling", "nowhere")] {
            symlink(scratch.join(target), scratch.join(name)).unwrap();
            let reason = refused(&scratch.join(name));
            assert!(reason.ends_with("it is a symbolic link; remove it"), "{reason}");
        }
        assert_eq!(fs::read_to_string(scratch.join("target")).unwrap(), "precious");
        assert!(!scratch.join("nowhere").exists());
    }

    #[test]
    fn a_file_that_others_could_have_prepared_is_refused() {
        let scratch = Scratch::new("prepared");
        let open = scratch.join("open");
        fs::write(&open, "").unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o620)).unwrap();
        assert!(refused(&open).contains("its mode is 0620, which allows more than 0600"));

        let private = scratch.join("private");
        drop(ours(&private, 0o600));
        fs::hard_link(&private, scratch.join("alias")).unwrap();
        assert!(refused(&private).contains("it has a second name"));

        let socket = scratch.join("socket");
        let _bound = UnixListener::bind(&socket).unwrap();
        assert!(refused(&socket).starts_with("cannot open "));

        // Only root can give a file away, and in a user namespace only to the users that it maps.
        let foreign = scratch.join("foreign");
        drop(ours(&foreign, 0o600));
        if chown(&foreign, Some(12345), None).is_ok() {
            assert!(refused(&foreign).contains("it belongs to the user 12345, not to "));
        }
    }

    #[test]
    fn a_file_put_in_its_place_is_not_ours() {
        let scratch = Scratch::new("replaced");
        let path = scratch.join("lock");
        let lock = ours(&path, 0o600);
        assert!(lock.is_in_place());
        fs::remove_file(&path).unwrap();
        assert!(!lock.is_in_place());
        fs::write(&path, "").unwrap();
        assert!(!lock.is_in_place());
    }
}
