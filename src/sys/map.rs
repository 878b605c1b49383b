//! BPF maps, and the values that BPF programs and this process exchange through them.

use super::bpf::negative;
use libbpf_sys as bpf;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

/// Plain data: a type as which any bytes that a BPF program wrote may be read. [`plain!`]
/// implements it for a struct.
///
/// # Safety
///
/// Every bit pattern must be a valid value. This is so for integers, and for structs and arrays of
/// plain data, but not for `bool`, `char`, enums, references and pointers.
pub unsafe trait Plain: Copy {}

macro_rules! integers {
    ($($integer:ty)+) => {
        // SAFETY: every bit pattern is an integer.
        $(unsafe impl Plain for $integer {})+
    };
}
integers!(u8 i8 u16 i16 u32 i32 u64 i64);

// SAFETY: an array is nothing but its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Implements [`Plain`](crate::sys::map::Plain) for structs whose fields all are plain data. It
/// does not compile for any other struct, nor if a field is left out.
#[macro_export]
macro_rules! plain {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {$(
        const _: fn($name) = |value| {
            fn check<T: $crate::sys::map::Plain>(_: T) {}
            let $name { $($field),+ } = value;
            $(check($field);)+
        };
        #[allow(unsafe_code)]
        // SAFETY: the function above takes the struct apart, and shows that each of its fields is
        // plain data.
        unsafe impl $crate::sys::map::Plain for $name {}
    )+};
}

/// An array map that is mapped into this process, which only reads it.
pub(crate) struct SharedArray<T: Plain> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: it is memory of the process, not of a thread, and is only read.
unsafe impl<T: Plain + Send> Send for SharedArray<T> {}

impl<T: Plain> SharedArray<T> {
    const STRIDE: usize = {
        assert!(size_of::<T>() > 0 && size_of::<T>() % 8 == 0, "the kernel rounds a value's size up to 8");
        size_of::<T>()
    };

    /// Maps the first `len` values of a map whose values have the size of a `T`.
    pub(crate) fn map(fd: BorrowedFd, len: usize) -> io::Result<SharedArray<T>> {
        sizes(fd).and_then(|sizes| fits(sizes, size_of::<u32>(), Self::STRIDE))?;
        // SAFETY: asks for a new mapping at no given address. The kernel refuses one that is longer
        // than the map.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len.checked_mul(Self::STRIDE).ok_or(io::ErrorKind::InvalidInput)?,
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

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, index: usize) -> Option<T> {
        // SAFETY: within the mapping; volatile, because the kernel writes there at any time.
        (index < self.len).then(|| unsafe { self.start.as_ptr().add(index).read_volatile() })
    }
}

impl<T: Plain> Drop for SharedArray<T> {
    fn drop(&mut self) {
        // SAFETY: unmaps what `map` mapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

/// Reads the one value of a map such as `.data`.
pub(crate) fn read_value<T: Plain + Default>(map: BorrowedFd) -> io::Result<T> {
    let key = 0u32;
    sizes(map).and_then(|sizes| fits(sizes, size_of::<u32>(), size_of::<T>()))?;
    let mut value = T::default();
    // SAFETY: the kernel reads a u32 and writes `value_size` bytes, the size of a T, which is plain
    // data.
    negative(unsafe {
        bpf::bpf_map_lookup_elem(
            map.as_raw_fd(),
            ptr::from_ref(&key).cast(),
            ptr::from_mut(&mut value).cast(),
        )
    })?;
    Ok(value)
}

/// Splits the bytes that a BPF program wrote into records. An incomplete last record is dropped.
pub fn records<T: Plain>(bytes: &[u8]) -> impl std::iter::Iterator<Item = T> + '_ {
    // SAFETY: each chunk is as long as a T, which is plain data.
    bytes.chunks_exact(size_of::<T>()).map(|chunk| unsafe { chunk.as_ptr().cast::<T>().read_unaligned() })
}

/// Sets one value. Key and value must have the sizes that the map has.
pub(crate) fn update<K: Plain, V: Plain>(map: BorrowedFd, key: &K, value: &V) -> io::Result<()> {
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

/// Returns the sizes of a map's keys and values.
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

/// A queue of values, which BPF programs may also push and pop.
pub(crate) struct BpfQueue<V> {
    map: OwnedFd,
    of: PhantomData<V>,
}

impl<V: Plain + Default> BpfQueue<V> {
    /// The values of the map must have the size of a `V`.
    pub(crate) fn new(map: OwnedFd) -> io::Result<BpfQueue<V>> {
        sizes(map.as_fd()).and_then(|sizes| fits(sizes, 0, size_of::<V>()))?;
        Ok(BpfQueue { map, of: PhantomData })
    }

    pub(crate) fn push(&self, value: V) -> io::Result<()> {
        let any = u64::from(bpf::BPF_ANY);
        // SAFETY: a queue has no keys, and the kernel reads `value_size` bytes, the size of a V.
        negative(unsafe {
            bpf::bpf_map_update_elem(self.map.as_raw_fd(), ptr::null(), ptr::from_ref(&value).cast(), any)
        })
        .map(drop)
    }

    /// Removes and returns the oldest value; `None` if the queue is empty.
    pub(crate) fn pop(&self) -> io::Result<Option<V>> {
        let mut value = V::default();
        let to = ptr::from_mut(&mut value).cast();
        // SAFETY: a queue has no keys, and the kernel writes `value_size` bytes, the size of a V,
        // which is plain data.
        match negative(unsafe { bpf::bpf_map_lookup_and_delete_elem(self.map.as_raw_fd(), ptr::null(), to) })
        {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(C)]
    struct Pair {
        long: u64,
        bytes: [u8; 4],
        short: i32,
    }

    plain!(Pair { long, bytes, short });

    #[test]
    fn records_are_read_wherever_they_lie_and_a_rest_is_left_out() {
        let mut bytes = vec![0u8];
        for long in [1u64, u64::MAX] {
            bytes.extend(long.to_ne_bytes());
            bytes.extend([1, 2, 3, 4]);
            bytes.extend((-7i32).to_ne_bytes());
        }
        bytes.extend([9; 5]);
        let pair = |long| Pair { long, bytes: [1, 2, 3, 4], short: -7 };
        let found: Vec<Pair> = records(&bytes[1..]).collect();
        assert_eq!(found, [pair(1), pair(u64::MAX)]);
    }

    #[test]
    fn a_file_that_is_no_map_is_not_mapped() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(SharedArray::<Pair>::map(file.as_fd(), 1).is_err());
    }
}
