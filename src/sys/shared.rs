//! Memory that processes share, by a file or a memfd, as words that are only ever read and written
//! whole.

use super::check;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// A mapped file. A forked child shares it.
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: it is memory of the process, not of a thread, and all access is atomic.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Gives the file `len` words, all of them on disk or in memory, and maps it. A full file
    /// system is found out here, where it is an error, and not at a write, where it would be
    /// SIGBUS.
    pub fn map(file: &File, len: usize) -> io::Result<SharedWords> {
        let bytes = len * size_of::<AtomicU64>();
        // SAFETY: takes numbers only. posix_fallocate returns its error.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: asks for a new mapping at no given address.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(SharedWords { start: start.cast(), len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `len` words long and lives as long as `self`; any
        // bits are a valid AtomicU64, and nobody makes the file shorter: it is root's, in a
        // directory of root's.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: unmaps what `map` mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<AtomicU64>()) };
    }
}

/// A file that has no name and is gone with its last user.
pub fn nameless_file() -> io::Result<File> {
    // SAFETY: the name ends with a NUL.
    let fd = check(unsafe { libc::memfd_create(c"stalld-journal".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the call made this descriptor for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
