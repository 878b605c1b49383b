//! The arguments and results of C: pointers, strings, and structs whose size may differ from ours.

use crate::failure::{Failure, Result};
use libc::{E2BIG, EFAULT, EINVAL, c_char};
use std::ffi::CStr;
use std::ptr;

/// The largest size of any version of a struct.
const MOST: usize = 4096;

/// A struct of integers and pointers only, that begins with its size. All zeros are a valid value
/// of it.
///
/// # Safety
/// It must be `repr(C)`, and be such a struct.
pub unsafe trait Versioned: Copy {}

/// Copies a struct of C whose first word is its size, `sz`. A smaller struct is extended by zeros.
/// In a larger one, the additional bytes must be zeros, because this version does not know their
/// meaning.
///
/// # Safety
/// If `from` is not NULL, as many bytes are readable there as its first word states.
pub unsafe fn take<T: Versioned>(from: *const T, name: &str) -> Result<T> {
    not_null(from, name)?;
    // SAFETY: even the smallest version has the word with the size. The struct need not be aligned.
    let sz = unsafe { from.cast::<usize>().read_unaligned() };
    // A size that cuts a member in half is rejected.
    if sz < size_of::<usize>() || sz % align_of::<usize>() != 0 {
        return Err(Failure::new(
            EINVAL,
            format!("{name}: sz is {sz}, which is the size of no version of it"),
        ));
    }
    if sz > MOST {
        return Err(Failure::new(E2BIG, format!("{name}: sz is {sz}: is it set to the size of the struct?")));
    }
    // SAFETY: the caller guarantees that `sz` bytes are readable, and any bytes are valid.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), sz) };
    let known = sz.min(size_of::<T>());
    if let Some(at) = bytes[known..].iter().position(|&byte| byte != 0) {
        let at = known + at;
        return Err(Failure::new(
            E2BIG,
            format!("{name}: byte {at} asks for what this version of the library does not know"),
        ));
    }
    let mut taken = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: both have `known` bytes, and no other code uses `taken`. It holds zeros or bytes of
    // C, and any bytes are valid for a `Versioned`.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), taken.as_mut_ptr().cast::<u8>(), known);
        Ok(taken.assume_init())
    }
}

/// An array in C of `count` structs of `sz` bytes each. `sz` is the size of the struct in the
/// version of the program.
pub struct Places<T> {
    start: *mut T,
    count: usize,
    sz: usize,
}

impl<T: Copy> Places<T> {
    /// `least` is the size of the first version.
    ///
    /// # Safety
    /// If `start` is not NULL, `count` times `sz` bytes are writable there until this is dropped,
    /// and no other code reads or writes them.
    pub unsafe fn new(start: *mut T, count: usize, sz: usize, least: usize, name: &str) -> Result<Places<T>> {
        if count > 0 {
            not_null(start, name)?;
        }
        if sz < least {
            let text = format!("{name}: {sz} is the size of no version of it, the first has {least} bytes");
            return Err(Failure::new(EINVAL, text));
        }
        if sz > MOST {
            return Err(Failure::new(
                E2BIG,
                format!("{name}: {sz} bytes is too large for any version of it"),
            ));
        }
        if count.checked_mul(sz).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(Failure::new(E2BIG, format!("{name}: {count} of {sz} bytes do not fit into memory")));
        }
        Ok(Places { start, count, sz })
    }

    /// Copies the part of `value` that both versions know to one place. The rest of the place
    /// becomes zeros. Returns false if there is no such place.
    pub fn put(&mut self, index: usize, value: &T) -> bool {
        if index >= self.count {
            return false;
        }
        let known = self.sz.min(size_of::<T>());
        // SAFETY: the place is one of those that `new` was given, `sz` bytes long, and `value` has
        // `known` bytes.
        unsafe {
            let place = self.start.cast::<u8>().add(index * self.sz);
            ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), place, known);
            ptr::write_bytes(place.add(known), 0, self.sz - known);
        }
        true
    }
}

pub fn not_null<T>(pointer: *const T, name: &str) -> Result<()> {
    match pointer.is_null() {
        true => Err(Failure::new(EFAULT, format!("{name} is NULL"))),
        false => Ok(()),
    }
}

/// Returns a string as text; `None` for NULL.
///
/// # Safety
/// If it is not NULL it ends with a NUL, and stays as it is for as long as the text is used.
pub unsafe fn text<'a>(from: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller guarantees it.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map(Some).map_err(|_| Failure::new(EINVAL, format!("{name}: it is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Now {
        sz: usize,
        first: u64,
        second: u64,
    }

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Next {
        now: Now,
        third: u64,
    }

    // SAFETY: they are repr(C), of integers, and begin with their size.
    unsafe impl Versioned for Now {}
    // SAFETY: as above.
    unsafe impl Versioned for Next {}

    fn take_as<T: Versioned>(next: &Next) -> Result<T> {
        // SAFETY: `next` is as long as the longest version, and no test claims more without being
        // refused for it.
        unsafe { take(ptr::from_ref(next).cast::<T>(), "options") }
    }

    fn next(sz: usize, third: u64) -> Next {
        Next { now: Now { sz, first: 1, second: 2 }, third }
    }

    #[test]
    fn members_that_a_smaller_struct_lacks_are_zeros() {
        for (sz, first, second) in [(8, 0, 0), (16, 1, 0), (24, 1, 2)] {
            assert_eq!(take_as::<Now>(&next(sz, 9)).unwrap(), Now { sz, first, second });
        }
    }

    #[test]
    fn a_program_of_this_version_runs_with_a_library_of_the_next() {
        let taken: Next = take_as(&next(size_of::<Now>(), 9)).unwrap();
        assert_eq!((taken.now.second, taken.third), (2, 0));
    }

    #[test]
    fn a_larger_struct_must_have_zeros_in_unknown_members() {
        assert_eq!(take_as::<Now>(&next(32, 0)).unwrap().second, 2);
        let refused = take_as::<Now>(&next(32, 1 << 56)).unwrap_err();
        assert_eq!(refused.code, E2BIG);
        assert_eq!(refused.text, "options: byte 31 asks for what this version of the library does not know");
    }

    #[test]
    fn an_invalid_size_is_refused_before_it_is_used() {
        for (sz, code) in [(0, EINVAL), (7, EINVAL), (12, EINVAL), (4104, E2BIG), (usize::MAX - 7, E2BIG)] {
            assert_eq!(take_as::<Now>(&next(sz, 0)).unwrap_err().code, code, "{sz}");
        }
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { take::<Now>(ptr::null(), "options") }.unwrap_err().text, "options is NULL");
    }

    #[test]
    fn a_place_gets_what_both_sides_know_and_zeros_behind_it() {
        let mut bytes = [0xffu8; 96];
        for sz in [16, 24, 32] {
            bytes.fill(0xff);
            // A program may pass a place that is not aligned.
            #[allow(clippy::cast_ptr_alignment)]
            let start = bytes.as_mut_ptr().cast::<Now>();
            // SAFETY: there is room for three places of the largest size.
            let mut places = unsafe { Places::new(start, 2, sz, 16, "it") }.unwrap();
            assert!(places.put(1, &Now { sz: 7, first: 8, second: 9 }) && !places.put(2, &next(0, 0).now));
            let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
            assert_eq!((word(sz), word(sz + 8)), (7, 8));
            if sz >= 24 {
                assert_eq!(word(sz + 16), 9);
            }
            if sz >= 32 {
                assert_eq!(word(sz + 24), 0);
            }
            assert!(bytes[..sz].iter().chain(&bytes[2 * sz..]).all(|&byte| byte == 0xff));
        }
    }

    #[test]
    fn places_that_can_not_be_are_refused() {
        let null = ptr::null_mut::<Now>();
        let code = |start, count, sz| {
            // SAFETY: the test writes to none of these places.
            let places = unsafe { Places::new(start, count, sz, 16, "it") };
            places.map_err(|e| e.code).err()
        };
        assert_eq!(code(null, 1, 24), Some(EFAULT));
        assert_eq!(code(null, 0, 24), None);
        let some = ptr::dangling_mut::<Now>();
        assert_eq!(code(some, 1, 8), Some(EINVAL));
        assert_eq!(code(some, 1, 5000), Some(E2BIG));
        assert_eq!(code(some, usize::MAX / 16, 24), Some(E2BIG));
    }
}
