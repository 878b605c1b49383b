//! Tests calls with failures inside of the library, which C can't cause.

use crate::abi::{self, stalld, stalld_event, stalld_options, stalld_waiter};
use crate::api::*;
use crate::handle::Handle;
use crate::options::Options;
use ::stalld::error::{Error, Result};
use ::stalld::observe::{Backend, Effort, Kind, Snapshot};
use ::stalld::task::Nanos;
use libc::{EBUSY, ECANCELED, EFAULT, ENODATA, c_char, c_int, c_void};
use std::ffi::CStr;
use std::ptr;

/// A backend whose scans return what a function returns.
struct Script(Box<dyn FnMut() -> Result<()> + Send>);

impl Backend for Script {
    fn kind(&self) -> Kind {
        Kind::SchedDebug
    }

    fn snapshot(&mut self, _woke: Nanos, _effort: Effort, _snapshot: &mut Snapshot) -> Result<()> {
        (self.0)()
    }
}

fn open(scan: impl FnMut() -> Result<()> + Send + 'static, options: *const stalld_options) -> *mut stalld {
    // SAFETY: options of a test's own, or NULL.
    let options = unsafe { Options::read(options) }.unwrap();
    let handle = Handle::with(Box::new(Script(Box::new(scan))), &options).unwrap();
    Box::into_raw(Box::new(handle)).cast()
}

fn last() -> String {
    // SAFETY: the text is valid until the next call fails.
    unsafe { CStr::from_ptr(stalld_last_error()) }.to_str().unwrap().to_string()
}

#[test]
fn a_panic_stops_at_the_edge_and_the_handle_can_only_be_closed() {
    let handle = open(|| panic!("on purpose"), ptr::null());
    // SAFETY: a handle as stalld_open() makes them, closed at the end.
    unsafe {
        for _ in 0..2 {
            assert_eq!(stalld_dispatch(handle), -abi::STALLD_EPANIC);
            assert!(last().starts_with("a panic inside of the library was caught"), "{}", last());
        }
        let mut event = stalld_event::default();
        assert_eq!(stalld_next_event(handle, &mut event, size_of_val(&event)), -abi::STALLD_EPANIC);
        assert_eq!(stalld_snapshot(handle, ptr::null_mut(), 0, 104), -abi::STALLD_EPANIC);
        assert_eq!(stalld_backend(handle), -abi::STALLD_EPANIC);
        assert!(stalld_fd(handle) >= 0);
        assert_eq!(stalld_close(handle), 0);
    }
}

#[test]
fn a_scan_that_fails_is_an_error_of_this_scan_only() {
    let mut scans = 0;
    let scan = move || {
        scans += 1;
        let error = Error::new("garbled");
        match scans {
            1 => Err(error),
            2 => Err(error.with_errno(Some(ENODATA))),
            _ => Ok(()),
        }
    };
    let handle = open(scan, ptr::null());
    // SAFETY: as above.
    unsafe {
        assert_eq!(stalld_dispatch(handle), -abi::STALLD_ESCAN);
        assert_eq!(last(), "garbled");
        let mut waiter = stalld_waiter::default();
        assert_eq!(stalld_snapshot(handle, &mut waiter, 1, size_of_val(&waiter)), -ENODATA);
        assert_eq!(stalld_snapshot(handle, &mut waiter, 1, size_of_val(&waiter)), 0);
        // The next scan is not due yet. The only event is STALLD_EVENT_BACKEND.
        assert_eq!(stalld_dispatch(handle), 1);
        assert_eq!(stalld_close(handle), 0);
    }
}

/// Calls the library from inside of a call.
unsafe extern "C" fn call_again(userdata: *mut c_void, level: c_int, message: *const c_char) {
    // SAFETY: the test passes a place for its handle, and the message is a string.
    unsafe {
        let (handle, said) = &mut *userdata.cast::<(*mut stalld, Vec<(c_int, String)>)>();
        assert_eq!(stalld_dispatch(*handle), -EBUSY);
        assert_eq!(stalld_close(*handle), -EBUSY);
        said.push((level, CStr::from_ptr(message).to_str().unwrap().to_string()));
    }
}

#[test]
fn the_log_function_can_not_call_back() {
    let mut state: (*mut stalld, Vec<(c_int, String)>) = (ptr::null_mut(), Vec::new());
    let state = &raw mut state;
    // SAFETY: zeros are valid options; the rest as above.
    unsafe {
        let mut options: stalld_options = std::mem::zeroed();
        options.sz = size_of::<stalld_options>();
        options.log = Some(call_again);
        options.userdata = state.cast();
        let handle = open(|| Err(Error::new("garbled")), &options);
        (*state).0 = handle;
        assert_eq!(stalld_dispatch(handle), -abi::STALLD_ESCAN);
        assert_eq!((*state).1, [(abi::STALLD_LOG_WARNING, "this scan is lost: garbled".to_string())]);
        assert_eq!(stalld_close(handle), 0);
    }
}

#[test]
fn after_stop_each_dispatch_is_canceled() {
    let handle = open(|| Ok(()), ptr::null());
    // SAFETY: as above.
    unsafe {
        assert_eq!(stalld_stop(handle), 0);
        for _ in 0..2 {
            assert_eq!(stalld_dispatch(handle), -ECANCELED);
        }
        let mut event = stalld_event::default();
        assert_eq!(stalld_next_event(handle, &mut event, size_of_val(&event)), 1);
        assert_eq!((event.kind, event.backend), (abi::STALLD_EVENT_BACKEND, abi::STALLD_BACKEND_SCHED_DEBUG));
        assert_eq!(stalld_close(handle), 0);
        assert_eq!(stalld_stop(ptr::null_mut()), -EFAULT);
    }
}

#[test]
fn the_version_of_the_header_is_that_of_the_package() {
    use abi::{STALLD_VERSION_MAJOR, STALLD_VERSION_MINOR, STALLD_VERSION_PATCH};
    let header = format!("{STALLD_VERSION_MAJOR}.{STALLD_VERSION_MINOR}.{STALLD_VERSION_PATCH}");
    assert_eq!(header, env!("CARGO_PKG_VERSION"));
    // SAFETY: it is a string.
    assert_eq!(unsafe { CStr::from_ptr(stalld_version()) }.to_str().unwrap(), header);
}
