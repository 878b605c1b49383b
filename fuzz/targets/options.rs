//! The options of the C interface: a struct of any size with anything in it, read by stalld_open().
//!
//! The first byte is a mask of the pointers that are set. The size, the bytes of the struct, more
//! bytes of a larger struct, and the strings follow, with NULs between them. Valid options are not
//! opened, because that would scan this machine. The same size is tried for the results of the
//! library.

use super::{choice, is_one_line, item};
use crate::abi::{STALLD_EPANIC, STALLD_LOG_ERROR, STALLD_LOG_INFO, stalld_options, stalld_waiter};
use crate::api::{stalld_last_error, stalld_open};
use crate::input::Places;
use crate::options::{self, Options};
use libc::{E2BIG, EFAULT, EINVAL, c_char, c_int, c_void};
use stalld::observe::Kind;
use stalld::sys::cpu;
use stalld::timing::{DURATION, GRANULARITY, PERIOD, RUNTIME, THRESHOLD};
use std::ffi::{CStr, CString};
use std::mem::offset_of;
use std::ptr;

const WORD: usize = size_of::<usize>();
const STRINGS: [usize; 4] = [
    offset_of!(stalld_options, cpus),
    offset_of!(stalld_options, ignore_threads),
    offset_of!(stalld_options, ignore_processes),
    offset_of!(stalld_options, journal),
];

unsafe extern "C" fn log(_userdata: *mut c_void, level: c_int, message: *const c_char) {
    // SAFETY: the library passes a string.
    let message = unsafe { CStr::from_ptr(message) }.to_str().expect("text");
    assert!((STALLD_LOG_ERROR..=STALLD_LOG_INFO).contains(&level) && is_one_line(message), "{message:?}");
}

pub fn run(input: &[u8]) {
    let (mask, rest) = choice(input);
    let Some((sz, rest)) = rest.split_first_chunk() else { return };
    let sz = usize::from_le_bytes(*sz);
    places(sz, rest.first().map_or(0, |&count| usize::from(count % 4)));
    let (body, mut rest) = rest.split_at(rest.len().min(size_of::<stalld_options>() - WORD));
    let tail = item(&mut rest);
    let strings = STRINGS.map(|at| (at, CString::new(item(&mut rest)).unwrap_or_default()));

    // The memory has the size that the struct claims, so that a sanitizer finds reads beyond it. It
    // consists of words, as C aligns it.
    let words = if (WORD..=4096).contains(&sz) { sz / WORD } else { 1 };
    let mut bytes = sz.to_ne_bytes().to_vec();
    bytes.extend(body.iter().chain(tail));
    bytes.resize(words * WORD, 0);
    let mut put = |at: usize, pointer: usize| {
        if let Some(place) = bytes.get_mut(at..at + WORD) {
            place.copy_from_slice(&pointer.to_ne_bytes());
        }
    };
    for (bit, (at, string)) in strings.iter().enumerate() {
        put(*at, if mask >> bit & 1 == 1 { string.as_ptr().expose_provenance() } else { 0 });
    }
    put(offset_of!(stalld_options, log), if mask & 16 == 0 { 0 } else { log as *const () as usize });
    let memory: Vec<usize> = bytes
        .chunks_exact(WORD)
        .map(|word| usize::from_ne_bytes(word.try_into().unwrap_or_default()))
        .collect();
    let options = memory.as_ptr().cast::<stalld_options>();

    // SAFETY: there are as many bytes as the struct claims, unless its size is invalid. Its strings
    // live until the end of this function.
    match unsafe { Options::read(options) } {
        Ok(options) => check(&options),
        Err(failure) => {
            assert!(failure.code == EINVAL || failure.code == E2BIG, "{failure:?}");
            assert!(is_one_line(&failure.text), "{failure:?}");
            let mut handle = ptr::dangling_mut();
            // SAFETY: as above. The call is refused before it does anything.
            let refused = unsafe { stalld_open(&mut handle, options) };
            // The call has silenced panics.
            drop(std::panic::take_hook());
            assert!(refused == -failure.code && refused != -STALLD_EPANIC && handle.is_null());
            // SAFETY: a string that is valid until the next call fails.
            let message = unsafe { CStr::from_ptr(stalld_last_error()) }.to_str().expect("text");
            assert!(
                failure.text.starts_with(message) && (message == failure.text || message.len() > 1000),
                "{message:?}"
            );
        }
    }
}

fn check(options: &Options) {
    let boost = options.boost;
    assert!(
        THRESHOLD.contains(&options.limits.threshold) && GRANULARITY.contains(&options.limits.granularity)
    );
    assert!(DURATION.contains(&boost.duration) && PERIOD.contains(&boost.period), "{boost:?}");
    assert!(RUNTIME.contains(&boost.runtime) && boost.misfit(options.limits.threshold).is_none());
    assert!(options.flags < 16 && (1..=65536).contains(&options.events), "{options:?}");
    let configured = cpu::configured();
    assert!(!options.cpus.is_empty() && options.cpus.iter().all(|cpu| cpu.0 < configured), "{options:?}");
    assert!(options.journal.as_ref().is_none_or(|path| !path.as_os_str().is_empty()));
    let number = options.backend.map_or(0, options::number_of);
    // SAFETY: a string that lives forever.
    let name = unsafe { CStr::from_ptr(options::name_of_backend(number)) };
    assert_eq!(name.to_str(), Ok(options.backend.map_or("auto", Kind::name)));
    assert!(options::name_of_backend(-1 - number).is_null());
    // SAFETY: NULL is allowed, and means a struct of zeros.
    let defaults = unsafe { Options::read(ptr::null()) }.expect("the defaults are good");
    assert!(options.flags != 0 || !defaults.has(u64::MAX), "{defaults:?}");
    let lists = [options.ignore_threads.sources(), options.ignore_processes.sources()].concat();
    assert_eq!(options.ignore().newly_ignored().count(), 0);
    for list in lists {
        options.log.error(format_args!("{list:?}"));
        options.log.warning(format_args!("{list:?}"));
        options.log.info(format_args!("{list:?}"));
    }
}

/// Checks places of `sz` bytes each, to which the library writes results.
fn places(sz: usize, count: usize) {
    const FIRST: usize = 104;
    let refusal = |start, count, sz| {
        // SAFETY: the library writes nothing to places that it refuses.
        unsafe { Places::<stalld_waiter>::new(start, count, sz, FIRST, "it") }
            .err()
            .map(|failure| failure.code)
    };
    let dangling = ptr::dangling_mut();
    if !(FIRST..=4096).contains(&sz) {
        let expected = if sz < FIRST { EINVAL } else { E2BIG };
        return assert_eq!(refusal(dangling, count, sz), Some(expected));
    }
    assert_eq!(refusal(dangling, usize::MAX / 8, sz), Some(E2BIG));
    assert_eq!(refusal(ptr::null_mut(), 1, sz), Some(EFAULT));
    let mut bytes = vec![0xffu8; sz * count];
    // SAFETY: there are this many bytes, and no other code uses them.
    let places = unsafe { Places::<stalld_waiter>::new(bytes.as_mut_ptr().cast(), count, sz, FIRST, "it") };
    let mut places = places.unwrap_or_else(|failure| panic!("{failure:?}"));
    let waiter = stalld_waiter::default();
    assert!((0..count).all(|at| places.put(at, &waiter)) && !places.put(count, &waiter));
    assert!(bytes.iter().all(|&byte| byte == 0), "zeros, and more of them than are known");
}
