//! The C library libstalld: the engine of stalld behind a stable interface.
//!
//! [`api`] has the functions and [`abi`] the types; include/stalld.h is generated from both.
//! [`handle`] implements the functions by the engine, which the daemon also uses.

// The interface has raw pointers.
#![allow(unsafe_code)]
// cbindgen exports only what is `pub`.
#![allow(unreachable_pub)]

mod abi;
mod api;
mod boosts;
mod entry;
mod events;
mod failure;
mod handle;
mod input;
mod options;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
