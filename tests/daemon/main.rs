//! The program stalld: its command line, its start and end, its privileges, its log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod check;
mod command_line;
mod daemon;
mod files;
mod footprint;
mod hidden;
mod metrics;
mod monitors;
mod privileges;
mod reports;
mod service;
mod settings;
mod setup;
mod system_logs;
mod text_log;
mod throttlectl;
mod vm_tools;

/// Asserts that a text contains each of these words.
#[track_caller]
fn assert_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is missing in '{text}'");
    }
}

/// Waits until a stalld that refuses to run ends with exit code 1 and one line. Returns the line.
#[cfg(feature = "bpf")]
#[track_caller]
fn refusal(stalld: rig::Stalld) -> String {
    let (code, log) = stalld.finish();
    assert_eq!((code, log.len()), (Some(1), 1), "{log:?}");
    log[0].message().to_string()
}
