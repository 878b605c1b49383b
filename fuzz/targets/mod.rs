//! The targets of the fuzzer. Each takes any bytes, and panics if the result breaks a promise.

mod command_line;
mod cpu_list;
mod denylist;
#[cfg(feature = "bpf")]
mod groups;
mod journal;
mod length;
mod machine;
mod options;
mod proc;
mod sched_debug;
#[cfg(feature = "bpf")]
mod schedstat;

pub type Target = fn(&[u8]);

const ALL: &[(&str, Target)] = &[
    ("sched_debug", sched_debug::run),
    ("cpu_list", cpu_list::run),
    ("command_line", command_line::run),
    ("length", length::run),
    ("denylist", denylist::run),
    ("journal", journal::run),
    ("options", options::run),
    ("proc", proc::run),
    ("machine", machine::run),
    #[cfg(feature = "bpf")]
    ("schedstat", schedstat::run),
    #[cfg(feature = "bpf")]
    ("groups", groups::run),
];

pub fn find(name: &str) -> Option<Target> {
    ALL.iter().find(|(it, _)| *it == name).map(|&(_, target)| target)
}

#[cfg(not(fuzzing))]
pub fn names() -> String {
    ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Returns true if a message can be printed: it is not empty, and nothing in it ends its line or
/// controls a terminal.
fn is_one_line(message: &str) -> bool {
    !message.is_empty() && !message.chars().any(char::is_control)
}

/// Takes the first byte off, which chooses a case; 0 if the input is empty.
fn choice(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, &[][..]), |(&first, rest)| (first, rest))
}

/// Takes the bytes before the first NUL off, and the NUL.
fn item<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let end = input.iter().position(|&b| b == 0).unwrap_or(input.len());
    let item = &input[..end];
    *input = input.get(end + 1..).unwrap_or_default();
    item
}
