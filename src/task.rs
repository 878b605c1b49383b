//! Types for a task: its numbers, its name, its scheduling and its owner.

use std::fmt::{self, Write};

/// The number of a thread, as gettid(2) returns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub i32);

/// The identity of a task. A tid alone is not enough, because the kernel reuses the tid of a task
/// that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    pub tid: Tid,
    /// When the task started, in clock ticks since boot as /proc/PID/stat has it; 0 if the backend
    /// does not know it.
    pub start: u64,
}

/// A CPU, by the kernel's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub u32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds: a length of time, or a moment on CLOCK_MONOTONIC. All arithmetic saturates, so that
/// a wait is never negative: the clocks of two CPUs may differ by a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    pub const ZERO: Nanos = Nanos(0);
    pub const MAX: Nanos = Nanos(u64::MAX);

    pub const fn from_secs(secs: u64) -> Nanos {
        Nanos(secs.saturating_mul(1_000_000_000))
    }

    pub const fn from_millis(millis: u64) -> Nanos {
        Nanos(millis.saturating_mul(1_000_000))
    }

    pub const fn from_micros(micros: u64) -> Nanos {
        Nanos(micros.saturating_mul(1_000))
    }

    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl std::ops::Add for Nanos {
    type Output = Nanos;
    fn add(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Nanos {
    type Output = Nanos;
    fn sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
}

/// The name of a task: up to 15 bytes. The task can choose any bytes, also control characters, so
/// `Display` escapes them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm {
    bytes: [u8; 16],
}

impl Comm {
    /// Takes the bytes up to the first NUL, 15 at most.
    pub fn new(name: &[u8]) -> Comm {
        let len = name.iter().position(|&b| b == 0).unwrap_or(name.len()).min(15);
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&name[..len]);
        Comm { bytes }
    }

    /// Returns the name with NULs up to 16 bytes, as in the kernel.
    pub fn padded(&self) -> [u8; 16] {
        self.bytes
    }

    pub fn as_bytes(&self) -> &[u8] {
        let len = self.bytes.iter().position(|&b| b == 0).unwrap_or(15);
        &self.bytes[..len]
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Escaped(self.as_bytes()).fmt(f)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Shows bytes from outside so that no control character reaches a log or a terminal. Bytes that
/// are not printable text become `\xHH`, and a backslash is doubled.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c => Visible(c).fmt(f)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Shows a character; `\xHH` for each of its bytes if `is_visible` is false for it.
pub struct Visible(pub char);

impl fmt::Display for Visible {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if is_visible(self.0) {
            return f.write_char(self.0);
        }
        self.0.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
    }
}

/// Returns false for control characters and for the characters in `UNSEEN`.
pub fn is_visible(c: char) -> bool {
    // Most names are ASCII, and the table has no ASCII character.
    c.is_ascii() && !c.is_ascii_control() || !c.is_control() && !is_unseen(c)
}

fn is_unseen(c: char) -> bool {
    let after = UNSEEN.partition_point(|&(_, last)| last < c);
    UNSEEN.get(after).is_some_and(|&(first, _)| first <= c)
}

/// Characters that reorder, hide or break the text around them, or show as nothing. In terms of
/// Unicode 16 these are Bidi_Control, Default_Ignorable_Code_Point (with its reserved code points),
/// and the categories Cf, Zl and Zp. The ranges are sorted, and include their last character.
const UNSEEN: [(char, char); 25] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// A scheduling policy, by the kernel's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy(pub u32);

impl Policy {
    pub const OTHER: Policy = Policy(0);
    pub const FIFO: Policy = Policy(1);
    pub const RR: Policy = Policy(2);
    pub const BATCH: Policy = Policy(3);
    pub const IDLE: Policy = Policy(5);
    pub const DEADLINE: Policy = Policy(6);
    const EXT: Policy = Policy(7);

    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Policy::OTHER => "SCHED_OTHER",
            Policy::FIFO => "SCHED_FIFO",
            Policy::RR => "SCHED_RR",
            Policy::BATCH => "SCHED_BATCH",
            Policy::IDLE => "SCHED_IDLE",
            Policy::DEADLINE => "SCHED_DEADLINE",
            Policy::EXT => "SCHED_EXT",
            _ => return None,
        })
    }

    /// Returns whether the policy is FIFO or RR.
    pub fn is_realtime(self) -> bool {
        self == Policy::FIFO || self == Policy::RR
    }
}

/// The scheduling of a task, as far as the backend knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sched {
    /// `None` for the backend sched_debug, which sees only the priority.
    pub policy: Option<Policy>,
    /// The priority on the kernel's scale, with priority inheritance: below 0 DEADLINE, 0-98
    /// real-time (99 minus the RT priority), 100-139 fair.
    pub prio: i32,
}

impl Sched {
    pub fn is_realtime(self) -> bool {
        (0..100).contains(&self.prio)
    }

    pub fn is_deadline(self) -> bool {
        self.prio < 0 || self.policy == Some(Policy::DEADLINE)
    }

    /// Returns the name of the policy, or of the class if the policy is unknown.
    pub fn name(self) -> &'static str {
        match self.policy.and_then(Policy::name) {
            Some(name) => name,
            None if self.prio < 0 => "SCHED_DEADLINE",
            // FIFO and RR have the same priorities.
            None if self.is_realtime() => "real-time",
            None => "fair",
        }
    }
}

impl fmt::Display for Sched {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())?;
        if self.is_realtime() {
            write!(f, " {}", 99 - self.prio)?;
        }
        Ok(())
    }
}

/// The owner of a task, as far as it matters for a boost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The backend does not know.
    #[default]
    Unknown,
    /// The task is a kernel thread.
    Kernel,
    /// The task may give itself a real-time policy: it has CAP_SYS_NICE in the initial user
    /// namespace.
    Privileged,
    /// The task is any other task, and belongs to the user with this uid.
    User(u32),
}

impl Owner {
    /// Returns whether the task may set any rank for itself, so that a boost gives it no new
    /// rights.
    pub fn may_take_any_rank(self) -> bool {
        matches!(self, Owner::Kernel | Owner::Privileged)
    }
}

/// One task at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    pub tid: Tid,
    /// The process of the thread; `None` if the backend does not know it.
    pub tgid: Option<Tid>,
    pub cpu: Cpu,
    /// When it started, as in `TaskId`.
    pub start: u64,
    /// A count that grows whenever the task gets a CPU: a waiter with the same count as at the last
    /// scan has not run since.
    pub progress: u64,
    pub sched: Sched,
    pub owner: Owner,
    /// Whether the task has a real-time rank that comes neither from its policy nor from priority
    /// inheritance; false if the backend does not know it.
    pub misranked: bool,
    pub comm: Comm,
}

impl Task {
    pub fn id(&self) -> TaskId {
        TaskId { tid: self.tid, start: self.start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_can_not_leave_its_line() {
        let shown = |name: &[u8]| Comm::new(name).to_string();
        assert_eq!(shown(b"a\nb"), "a\\x0ab");
        assert_eq!(shown(b"\x1b[2J"), "\\x1b[2J");
        assert_eq!(shown(b"cpu#3,"), "cpu#3,");
        assert_eq!(shown(b" R x"), " R x");
        assert_eq!(shown(b"back\\slash"), "back\\\\slash");
        assert_eq!(shown("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
        assert_eq!(shown("ab\u{202e}cd".as_bytes()), "ab\\xe2\\x80\\xaecd");
        assert_eq!(shown("größe".as_bytes()), "größe");
        assert_eq!(shown(b"cut \xc3"), "cut \\xc3");
        assert_eq!(shown(b""), "");
    }

    /// The ranges by property, as the Unicode Character Database lists them.
    const UNICODE: &[(&str, &[(u32, u32)])] = &[
        ("Cc", &[(0, 0x1f), (0x7f, 0x9f)]),
        ("Bidi_Control", &[(0x61c, 0x61c), (0x200e, 0x200f), (0x202a, 0x202e), (0x2066, 0x2069)]),
        ("Zl and Zp", &[(0x2028, 0x2029)]),
        (
            "Cf",
            &[
                (0xad, 0xad),
                (0x600, 0x605),
                (0x61c, 0x61c),
                (0x6dd, 0x6dd),
                (0x70f, 0x70f),
                (0x890, 0x891),
                (0x8e2, 0x8e2),
                (0x180e, 0x180e),
                (0x200b, 0x200f),
                (0x202a, 0x202e),
                (0x2060, 0x2064),
                (0x2066, 0x206f),
                (0xfeff, 0xfeff),
                (0xfff9, 0xfffb),
                (0x110bd, 0x110bd),
                (0x110cd, 0x110cd),
                (0x13430, 0x1343f),
                (0x1bca0, 0x1bca3),
                (0x1d173, 0x1d17a),
                (0xe0001, 0xe0001),
                (0xe0020, 0xe007f),
            ],
        ),
        (
            "Default_Ignorable_Code_Point",
            &[
                (0xad, 0xad),
                (0x34f, 0x34f),
                (0x61c, 0x61c),
                (0x115f, 0x1160),
                (0x17b4, 0x17b5),
                (0x180b, 0x180f),
                (0x200b, 0x200f),
                (0x202a, 0x202e),
                (0x2060, 0x206f),
                (0x3164, 0x3164),
                (0xfe00, 0xfe0f),
                (0xfeff, 0xfeff),
                (0xffa0, 0xffa0),
                (0xfff0, 0xfff8),
                (0x1bca0, 0x1bca3),
                (0x1d173, 0x1d17a),
                (0xe0000, 0xe0fff),
            ],
        ),
    ];

    #[test]
    fn exactly_the_control_and_invisible_characters_are_escaped() {
        let has_property =
            |c: u32| UNICODE.iter().any(|(_, all)| all.iter().any(|it| (it.0..=it.1).contains(&c)));
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            assert_eq!(is_visible(c), !has_property(c.into()), "U+{:04X}", u32::from(c));
            let shown = Visible(c).to_string();
            assert!(shown.chars().all(is_visible), "U+{:04X} is shown as {shown:?}", u32::from(c));
        }
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(UNSEEN.iter().all(|(first, last)| first <= last));
        assert!(UNSEEN.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn a_name_ends_at_its_first_nul_and_has_15_bytes_at_most() {
        assert_eq!(Comm::new(b"ab\0cd").as_bytes(), b"ab");
        assert_eq!(Comm::new(b"0123456789abcdefgh").as_bytes(), b"0123456789abcde");
    }

    #[test]
    fn scheduling_reads_as_people_write_it() {
        let shown = |policy, prio| Sched { policy, prio }.to_string();
        assert_eq!(shown(Some(Policy::FIFO), 49), "SCHED_FIFO 50");
        assert_eq!(shown(Some(Policy::OTHER), 120), "SCHED_OTHER");
        // A fair task that owns an rt_mutex for which a real-time task waits.
        assert_eq!(shown(Some(Policy::OTHER), 49), "SCHED_OTHER 50");
        assert_eq!(shown(None, 0), "real-time 99");
        assert_eq!(shown(None, -1), "SCHED_DEADLINE");
    }
}
