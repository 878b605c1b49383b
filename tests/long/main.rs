//! Tests that take minutes: `make test-long` runs them, `make test` does not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod c_programs;
mod faults;
mod hog_first;
mod hostile;
mod pressure;
mod stale_waiter;
mod stunts;
