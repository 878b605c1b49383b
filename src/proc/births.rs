//! Tasks that have been started, and by which process.

use super::{Text, text, with};
use crate::task::{TaskId, Tid};
use std::fs::{self, File};
use std::io::Read;
use std::sync::OnceLock;

/// A task that has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    pub tid: Tid,
    pub start: u64,
    /// The process that has started it, or that has started its process if it is a thread.
    pub parent: Tid,
}

impl Birth {
    pub fn id(&self) -> TaskId {
        TaskId { tid: self.tid, start: self.start }
    }
}

/// Returns when and by which process a task was started.
pub fn birth(tid: Tid) -> Option<Birth> {
    // The shorter path adds up the times of all threads of the process, which may be many.
    let stat = Text::try_of(format_args!("/proc/{tid}/task/{tid}/stat")).ok()?;
    let stat = stat.as_bytes();
    Some(Birth { tid, start: text::start(stat)?, parent: text::parent(stat)? })
}

/// How far a walk over the newest tasks has got. Tasks get their numbers in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The highest number that was asked for.
    pub top: i32,
    /// The lowest one.
    pub bottom: i32,
    /// All below it are too old.
    pub is_complete: bool,
    /// Numbers that no task had when they were asked for. A task that is in the middle of its fork
    /// gets one before it can be seen by it.
    missing: Vec<i32>,
    /// The one of them to be dropped first.
    oldest: usize,
}

/// How many numbers without a task are asked for again.
const MISSING: usize = 256;

impl Walk {
    /// Starts anew at the newest number, unless the walk can go on.
    fn begin(&mut self, newest: i32) {
        if self.top == 0 || newest < self.top {
            *self = Walk { top: newest, bottom: newest.saturating_add(1), ..Walk::default() };
        }
    }

    fn miss(&mut self, number: i32) {
        if self.missing.len() < MISSING {
            self.missing.push(number);
        } else if let Some(oldest) = self.missing.get_mut(self.oldest % MISSING) {
            *oldest = number;
            self.oldest += 1;
        }
    }
}

/// Gives out the tasks that were started since `since` and were not given out in this walk before;
/// `None` for each number that no task has. Stops when `each` returns false. Returns whether it got
/// through.
pub fn births(walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
    let loadavg = Text::try_of(format_args!("/proc/loadavg"));
    let Some(newest) = loadavg.ok().and_then(|text| text::newest(text.as_bytes())) else { return true };
    walk.begin(newest);
    let mut index = 0;
    while let Some(&number) = walk.missing.get(index) {
        let late = birth(Tid(number));
        if late.is_some() {
            walk.missing.swap_remove(index);
        } else {
            index += 1;
        }
        if !each(late) {
            return false;
        }
    }
    while walk.top < newest {
        walk.top += 1;
        let number = walk.top;
        if !each(ask(walk, number)) {
            return false;
        }
    }
    while !walk.is_complete && walk.bottom > 1 {
        walk.bottom -= 1;
        let number = walk.bottom;
        let birth = ask(walk, number);
        walk.is_complete = birth.is_some_and(|birth| birth.start < since);
        if !each(birth.filter(|_| !walk.is_complete)) {
            return walk.is_complete;
        }
    }
    true
}

fn ask(walk: &mut Walk, number: i32) -> Option<Birth> {
    let birth = birth(Tid(number));
    if birth.is_none() {
        walk.miss(number);
    }
    birth
}

/// As much of the list of a task's children is read.
const CHILDREN: usize = 64 * 1024;

/// Whether this thread of a process has started a child; `None` where that is not known.
///
/// To read the list of a task's children, the kernel takes the lock of the list of tasks. On a
/// real-time kernel the task that holds it may starve, and a reader lends it no priority: there the
/// list is not read.
pub fn is_child(tgid: Tid, tid: Tid, child: Tid) -> Option<bool> {
    if is_realtime_kernel() {
        return None;
    }
    let open = |path: &str| File::open(path).ok();
    let mut list = with(format_args!("/proc/{tgid}/task/{tid}/children"), open)?;
    let mut bytes = [0; 4096];
    let (mut number, mut total) = (0i64, 0);
    while total < CHILDREN {
        let len = list.read(&mut bytes).ok()?;
        if len == 0 {
            return Some(false);
        }
        total += len;
        for byte in bytes.get(..len)? {
            match byte {
                b'0'..=b'9' => number = number * 10 % (1 << 40) + i64::from(byte - b'0'),
                _ if number == i64::from(child.0) => return Some(true),
                _ => number = 0,
            }
        }
    }
    None
}

fn is_realtime_kernel() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| fs::read("/sys/kernel/realtime").is_ok_and(|text| text.starts_with(b"1")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::first_threads;
    use crate::sys::{clock, sched};

    #[test]
    fn a_child_is_met_once_in_a_walk_and_known_to_the_thread_that_started_it() {
        let (own, thread) = (Tid(std::process::id() as i32), sched::gettid());
        let mut walk = Walk::default();
        let since = clock::boot_ticks();
        let met = |walk: &mut Walk, since| {
            let mut met = Vec::new();
            assert!(births(walk, since, &mut |birth| {
                met.extend(birth);
                true
            }));
            met
        };
        let before = met(&mut walk, since);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let tid = Tid(child.id() as i32);
        let born = birth(tid).unwrap();
        let (first, second) = (met(&mut walk, since), met(&mut walk, since));
        let (anew, later) = (met(&mut Walk::default(), since), met(&mut Walk::default(), born.start + 1));
        let is_child = [thread, Tid(1)].map(|tid| super::is_child(own, thread, tid));
        let is_its_child = super::is_child(own, thread, tid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(born.parent, own);
        assert!(!before.contains(&born) && first.contains(&born) && !second.contains(&born));
        assert!(anew.contains(&born) && !later.contains(&born), "{anew:?} {later:?}");
        if !is_realtime_kernel() {
            assert_eq!((is_its_child, is_child), (Some(true), [Some(false); 2]));
        }
        assert_eq!(first_threads(own, 1).len(), 1);
    }

    #[test]
    fn a_number_without_a_task_is_asked_for_again_and_not_too_many_of_them() {
        let mut walk = Walk::default();
        for number in 1..=10 * MISSING as i32 {
            walk.miss(number);
        }
        assert_eq!(walk.missing.len(), MISSING);
        assert!(walk.missing.contains(&(10 * MISSING as i32)) && !walk.missing.contains(&1));
        // The walk may ask for the number of this thread while the fork that starts it still runs.
        let own = sched::gettid();
        let mut walk = Walk { top: i32::MAX, bottom: 1, is_complete: true, ..Walk::default() };
        walk.missing = vec![i32::MAX - 1, own.0];
        walk.top = text::newest(&fs::read("/proc/loadavg").unwrap()).unwrap();
        let mut met = Vec::new();
        births(&mut walk, 0, &mut |birth| {
            met.extend(birth);
            met.is_empty()
        });
        assert_eq!((met[0].tid, &walk.missing[..]), (own, &[i32::MAX - 1][..]));
    }
}
