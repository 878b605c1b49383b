//! Opens files only if no other user can have prepared them.

use crate::error::{Context, Error, Result};
use crate::fault::{self, Fault};
use crate::sys::process;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes the error `cannot use PATH: REASON`.
pub(crate) fn refusal(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(format!("cannot use {}: {reason}", path.display()))
}

/// Returns an error with the reason if another user can have prepared or can access the file.
pub(crate) fn check_private(seen: &Metadata, mode: u32) -> Result<(), String> {
    let us = process::effective_uid();
    let granted = seen.mode() & 0o777;
    if seen.uid() != us {
        Err(format!("it belongs to the user {}, not to {us}", seen.uid()))
    } else if !seen.is_dir() && !seen.is_file() {
        Err("it is no regular file".to_string())
    } else if granted & !mode != 0 {
        Err(format!("its mode is {granted:04o}, which allows more than {mode:04o}"))
    } else if seen.is_file() && seen.nlink() > 1 {
        // In a directory that all users may write to, another user can make a hard link to any file
        // of this user.
        Err("it has a second name".to_string())
    } else {
        Ok(())
    }
}

/// Creates a file that only this user can read. An existing file is overwritten if no other user
/// can have prepared it.
pub(crate) fn create_private(path: &Path) -> Result<File> {
    let file = open(path)?;
    let what = || format!("write {}", path.display());
    let seen = file.metadata().context(what())?;
    check_private(&seen, 0o600)
        .map_err(|reason| refusal(path, reason).with_cure("remove it, or name another file"))?;
    file.set_len(0).context(what())?;
    Ok(file)
}

/// Creates a file or opens an existing one, but follows no symbolic link.
pub(crate) fn open(path: &Path) -> Result<File> {
    let no_follow = if fault::is(Fault::LinksFollowed) { 0 } else { libc::O_NOFOLLOW };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // std adds O_CLOEXEC. O_NONBLOCK, because opening a FIFO or a device might block.
        .custom_flags(no_follow | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            Err(refusal(path, "it is a symbolic link").with_cure("remove it"))
        }
        opened => opened.context(format_args!("open {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_that_is_begun_is_empty_and_only_this_user_reads_it() {
        let scratch = Scratch::new("own-file");
        let path = scratch.join("file");
        for _ in 0..2 {
            let file = create_private(&path).unwrap();
            assert_eq!(
                (file.metadata().unwrap().len(), fs::metadata(&path).unwrap().mode() & 0o7777),
                (0, 0o600)
            );
            fs::write(&path, "of an earlier run").unwrap();
        }
    }

    #[test]
    fn a_file_that_another_user_could_have_prepared_is_not_written_to() {
        let scratch = Scratch::new("own-file-hostile");
        scratch.file("precious", "as it was");
        symlink(scratch.join("precious"), scratch.join("link")).unwrap();
        fs::hard_link(scratch.join("precious"), scratch.join("second")).unwrap();
        for (name, reason) in [("link", "it is a symbolic link"), ("second", "its mode is"), ("..", "open")] {
            let error = create_private(&scratch.join(name)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(fs::read_to_string(scratch.join("precious")).unwrap(), "as it was");
    }
}
