//! Gives any bytes to the code that reads input, and checks the results.
//!
//! `make fuzz` builds it as libFuzzer's program, and the variable FUZZ names the target. Otherwise
//! it takes a target and files, or directories of them, and runs each file once: `fuzz cpu_list
//! fuzz/corpus/cpu_list`.

#![allow(unreachable_pub)]
// libFuzzer calls a C function, and one target is a C interface.
#![allow(unsafe_code)]
// A target panics if a promise is broken.
#![allow(clippy::expect_used, clippy::panic)]
#![cfg_attr(fuzzing, no_main)]

mod targets;

// The C library exports only C names, so its modules are included here. No target calls the
// functions that only C needs.
#[path = "../ffi/src/abi.rs"]
mod abi;
#[path = "../ffi/src/api.rs"]
mod api;
#[path = "../ffi/src/boosts.rs"]
mod boosts;
#[path = "../ffi/src/entry.rs"]
mod entry;
#[path = "../ffi/src/events.rs"]
mod events;
#[path = "../ffi/src/failure.rs"]
mod failure;
#[path = "../ffi/src/handle.rs"]
mod handle;
#[path = "../ffi/src/input.rs"]
mod input;
#[path = "../ffi/src/options.rs"]
mod options;

#[cfg(fuzzing)]
#[unsafe(no_mangle)]
extern "C" fn LLVMFuzzerTestOneInput(bytes: *const u8, len: usize) -> libc::c_int {
    use std::sync::OnceLock;
    static TARGET: OnceLock<targets::Target> = OnceLock::new();
    let named = || targets::find(&std::env::var("FUZZ").unwrap_or_default());
    let target = TARGET.get_or_init(|| named().expect("FUZZ names no target"));
    // SAFETY: libFuzzer passes `len` bytes that are valid during this call. The pointer to an empty
    // input may be NULL.
    target(if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(bytes, len) } });
    0
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(target) = args.next().and_then(|name| targets::find(&name)) else {
        eprintln!("usage: fuzz TARGET FILE-OR-DIRECTORY..., the targets are {}", targets::names());
        return std::process::ExitCode::FAILURE;
    };
    let mut runs = 0;
    for path in args {
        for file in files(path.as_ref()) {
            // If the program ends here, the last name that it printed is the input that ended it.
            println!("{}", file.display());
            target(&std::fs::read(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())));
            runs += 1;
        }
    }
    println!("{runs} inputs");
    std::process::ExitCode::SUCCESS
}

#[cfg(not(fuzzing))]
fn files(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_path_buf()] };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}
