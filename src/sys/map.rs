//! BPF maps, and what programs and this process hand each other through them.

use super::bpf::negative;
use super::memory::page_size;
use libbpf_sys as bpf;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An array map that the kernel's programs and this process share.
pub struct SharedArray<T: Copy> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: it is memory of the process, not of a thread, and is only read.
unsafe impl<T: Copy + Send> Send for SharedArray<T> {}

impl<T: Copy> SharedArray<T> {
    /// `len` must be what the map was made with; the kernel refuses to map more than there is.
    pub fn map(fd: BorrowedFd, len: usize) -> io::Result<SharedArray<T>> {
        assert!(size_of::<T>() % 8 == 0, "the kernel rounds a value's size up to 8");
        // SAFETY: asks for a new mapping at no given address.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len * size_of::<T>(),
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(SharedArray { start: start.cast(), len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn get(&self, index: usize) -> Option<T> {
        // SAFETY: within the mapping; volatile, because the kernel writes there at any time.
        (index < self.len).then(|| unsafe { self.start.as_ptr().add(index).read_volatile() })
    }
}

impl<T: Copy> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: unmaps what `map` mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

/// Reads the one value of a map such as `.data`.
pub fn read_value<T: Copy + Default>(map: BorrowedFd) -> io::Result<T> {
    let key = 0u32;
    sizes(map).and_then(|sizes| fits(sizes, size_of::<u32>(), size_of::<T>()))?;
    let mut value = T::default();
    // SAFETY: the kernel reads a u32 and writes `value_size` bytes, the size of a T.
    negative(unsafe {
        bpf::bpf_map_lookup_elem(
            map.as_raw_fd(),
            ptr::from_ref(&key).cast(),
            ptr::from_mut(&mut value).cast(),
        )
    })?;
    Ok(value)
}

/// Views the bytes that a program wrote as the records that they are; a rest is left out.
pub fn records<T: Copy>(bytes: &[u8]) -> impl std::iter::Iterator<Item = T> + '_ {
    // SAFETY: each chunk is as long as a T, and T is made of integers, for which any bits will do.
    bytes.chunks_exact(size_of::<T>()).map(|chunk| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() })
}

/// Sets one value. Key and value must be as long as the map's own.
pub fn update<K: Copy, V: Copy>(map: BorrowedFd, key: &K, value: &V) -> io::Result<()> {
    sizes(map).and_then(|sizes| fits(sizes, size_of::<K>(), size_of::<V>()))?;
    // SAFETY: the kernel reads a key and a value, which are as long as it takes them to be.
    negative(unsafe {
        bpf::bpf_map_update_elem(
            map.as_raw_fd(),
            ptr::from_ref(key).cast(),
            ptr::from_ref(value).cast(),
            u64::from(bpf::BPF_ANY),
        )
    })
    .map(drop)
}

/// Forgets one value, if there is one.
pub fn delete<K: Copy>(map: BorrowedFd, key: &K) -> io::Result<()> {
    sizes(map).and_then(|(key, value)| fits((key, value), size_of::<K>(), value))?;
    // SAFETY: the kernel reads a key, which is as long as it takes it to be.
    negative(unsafe { bpf::bpf_map_delete_elem(map.as_raw_fd(), ptr::from_ref(key).cast()) }).map(drop)
}

/// How long the keys and values of a map are.
fn sizes(map: BorrowedFd) -> io::Result<(usize, usize)> {
    let mut info = bpf::bpf_map_info::default();
    let mut size = size_of::<bpf::bpf_map_info>() as u32;
    // SAFETY: `info` is `size` bytes long.
    negative(unsafe { bpf::bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut size) })?;
    Ok((info.key_size as usize, info.value_size as usize))
}

fn fits(sizes: (usize, usize), key: usize, value: usize) -> io::Result<()> {
    if sizes == (key, value) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The reader's end of a ring buffer.
pub struct Ring {
    /// The page where the reader tells how far it has come; behind it the page where the kernel does, and the data,
    /// twice, so that no record has a seam.
    start: NonNull<AtomicU64>,
    page: usize,
    size: usize,
}

/// As the kernel has it before each record: its length, with two bits of their own.
const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

impl Ring {
    /// `size` must be what the map was made with; the kernel refuses to map more than there is.
    pub fn map(fd: BorrowedFd, size: usize) -> io::Result<Ring> {
        let page = page_size();
        let length = 2 * page + 2 * size;
        let map = |at: *mut libc::c_void, length, protection, flags, offset: usize| {
            // SAFETY: a new mapping at no given address, or, with MAP_FIXED, over a part of one of our own.
            let start =
                unsafe { libc::mmap(at, length, protection, flags, fd.as_raw_fd(), offset as libc::off_t) };
            if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start) }
        };
        // The whole for reading; then its first page once more, for writing too.
        // SAFETY: asks for address space only, so that both parts are side by side.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let start = NonNull::new(start).filter(|start| start.as_ptr() != libc::MAP_FAILED);
        let start = start.ok_or_else(io::Error::last_os_error)?;
        let ring = Ring { start: start.cast(), page, size };
        let shared = libc::MAP_SHARED | libc::MAP_FIXED;
        map(start.as_ptr(), page, libc::PROT_READ | libc::PROT_WRITE, shared, 0)?;
        // SAFETY: one page behind the start is still within the address space asked for.
        let behind = unsafe { start.as_ptr().byte_add(page) };
        map(behind, page + 2 * size, libc::PROT_READ, shared, page)?;
        Ok(ring)
    }

    /// Hands over what has come since the last time, record by record.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) {
        // SAFETY: both counters are at the start of their pages, and live as long as the mapping.
        let (consumer, producer) =
            unsafe { (&*self.start.as_ptr(), &*self.start.as_ptr().byte_add(self.page)) };
        let mut at = consumer.load(Ordering::Relaxed);
        while at < producer.load(Ordering::Acquire) {
            let offset = at as usize & (self.size - 1);
            // SAFETY: the data begins behind two pages and goes on for twice its size, and a record is at most as
            // long as that size.
            let record = unsafe { self.start.as_ptr().byte_add(2 * self.page + offset) };
            // SAFETY: a header is within the data, and as aligned as every record.
            let header = unsafe { &*record.cast::<AtomicU32>() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let length = ((header & !DISCARDED) as usize).min(self.size - HEADER);
            if header & DISCARDED == 0 {
                // SAFETY: the kernel writes to a record no more once it isn't busy, until the reader is beyond it.
                each(unsafe { std::slice::from_raw_parts(record.byte_add(HEADER).cast(), length) });
            }
            at += (HEADER + length).next_multiple_of(8) as u64;
            consumer.store(at, Ordering::Release);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: unmaps what `map` mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), 2 * self.page + 2 * self.size) };
    }
}
