//! The BPF programs that only tests and benches run.

macro_rules! object {
    ($name:literal) => {
        *include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o"))
    };
}

/// Programs that do nothing.
pub const EMPTY: [u8; object!("empty").len()] = object!("empty");

/// An iterator over the slices of all fair tasks.
pub const SLICE: [u8; object!("slice").len()] = object!("slice");
