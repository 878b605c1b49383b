//! flock(2): a lock on an open file. The kernel drops it with the last descriptor, however its
//! owner ends.

use super::check;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes the lock. Blocks while another open file has it.
pub fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, libc::LOCK_EX) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Takes the lock if it is free. Returns whether it did.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, libc::LOCK_EX | libc::LOCK_NB) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

fn flock(file: &File, operation: i32) -> io::Result<()> {
    // SAFETY: no memory is passed, and `file` keeps its descriptor open during the call.
    check(unsafe { libc::flock(file.as_raw_fd(), operation) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_open_file_and_ends_with_it() {
        let path = std::env::temp_dir().join(format!("stalld-lock-test-{}", std::process::id()));
        let first = File::create(&path).unwrap();
        let second = File::open(&path).unwrap();
        lock(&first).unwrap();
        assert!(!try_lock(&second).unwrap());
        drop(first);
        assert!(try_lock(&second).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
