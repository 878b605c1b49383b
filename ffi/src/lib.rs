//! The C library: `stalld`'s engine behind an interface that stays as it is.
//!
//! [`api`] has the functions and [`abi`] the types; both are what include/stalld.h is made from.
//! What stands behind them is [`handle`], and that is the engine of the daemon.

// C's pointers are what it deals with.
#![allow(unsafe_code)]

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
