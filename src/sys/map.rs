//! BPF maps, and what programs and this process hand each other through them.

use super::bpf::negative;
use libbpf_sys as bpf;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

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

/// A queue of values, which programs put in or take out as well.
pub struct Queue<V> {
    map: OwnedFd,
    of: PhantomData<V>,
}

impl<V: Copy + Default> Queue<V> {
    /// Its values must be as long as a V.
    pub fn new(map: OwnedFd) -> io::Result<Queue<V>> {
        sizes(map.as_fd()).and_then(|sizes| fits(sizes, 0, size_of::<V>()))?;
        Ok(Queue { map, of: PhantomData })
    }

    pub fn push(&self, value: V) -> io::Result<()> {
        let any = u64::from(bpf::BPF_ANY);
        // SAFETY: a queue has no keys, and the kernel reads `value_size` bytes, the size of a V.
        negative(unsafe {
            bpf::bpf_map_update_elem(self.map.as_raw_fd(), ptr::null(), ptr::from_ref(&value).cast(), any)
        })
        .map(drop)
    }

    /// The oldest one, if there is any.
    pub fn pop(&self) -> io::Result<Option<V>> {
        let mut value = V::default();
        let to = ptr::from_mut(&mut value).cast();
        // SAFETY: a queue has no keys, and the kernel writes `value_size` bytes, the size of a V.
        match negative(unsafe { bpf::bpf_map_lookup_and_delete_elem(self.map.as_raw_fd(), ptr::null(), to) })
        {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
