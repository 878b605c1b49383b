//! Memory that processes share through a file or a memfd: words of 64 bits with atomic access.

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
    /// Allocates `len` words in the file, and maps it. On a full file system this returns an error.
    /// Without the allocation, a later write would raise SIGBUS.
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
        // bits are a valid AtomicU64, and no other user can make the file shorter: it belongs to
        // root, and so does its directory.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: unmaps what `map` mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<AtomicU64>()) };
    }
}

/// Creates a file in memory that has no name, and that the kernel frees with its last descriptor.
pub fn nameless_file() -> io::Result<File> {
    // SAFETY: the name ends with a NUL.
    let fd = check(unsafe { libc::memfd_create(c"stalld-journal".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the call made this descriptor for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
