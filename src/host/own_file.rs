//! Files that nobody but this user could have prepared.

use crate::error::{Context, Error, Result};
use crate::fault::{self, Fault};
use crate::sys::process;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// `cannot use PATH: REASON`
pub fn refusal(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(format!("cannot use {}: {reason}", path.display()))
}

/// Why what is in this place can't be trusted to be ours alone.
pub fn judge(seen: &Metadata, mode: u32) -> Result<(), String> {
    let us = process::effective_uid();
    let granted = seen.mode() & 0o777;
    if seen.uid() != us {
        Err(format!("it belongs to the user {}, not to {us}", seen.uid()))
    } else if !seen.is_dir() && !seen.is_file() {
        Err("it is no regular file".to_string())
    } else if granted & !mode != 0 {
        Err(format!("its mode is {granted:04o}, which allows more than {mode:04o}"))
    } else if seen.is_file() && seen.nlink() > 1 {
        // In a directory that all may write to, the other name can be that of any file of ours.
        Err("it has a second name".to_string())
    } else {
        Ok(())
    }
}

/// Begins a file that only this user can read. One that is there is written over if nobody else
/// could have prepared it.
pub fn begin(path: &Path) -> Result<File> {
    let file = open(path)?;
    let what = || format!("write {}", path.display());
    let seen = file.metadata().context(what())?;
    judge(&seen, 0o600)
        .map_err(|reason| refusal(path, reason).with_cure("remove it, or name another file"))?;
    file.set_len(0).context(what())?;
    Ok(file)
}

/// Creates a file or opens what is there, but follows no link.
pub fn open(path: &Path) -> Result<File> {
    let no_follow = if fault::is(Fault::LinksFollowed) { 0 } else { libc::O_NOFOLLOW };
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // std adds O_CLOEXEC. O_NONBLOCK: a FIFO or a device must not keep us here.
        .custom_flags(no_follow | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            Err(refusal(path, "it is a symbolic link").with_cure("remove it"))
        }
        opened => opened.context(format_args!("open {}", path.display())),
    }
}
