//! Finds tasks that were started lately, and their parents.

use super::{ProcText, text, with_stack_str};
use crate::task::{TaskId, Tid};
use std::fs::{self, File};
use std::io::Read;
use std::sync::OnceLock;

/// A task, its start and its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    pub tid: Tid,
    pub start: u64,
    /// The parent process; for a thread, the parent of its process.
    pub parent: Tid,
    /// Its priority on the kernel's scale, where real-time ranks are below 100.
    pub prio: i32,
}

impl Birth {
    pub(crate) fn id(&self) -> TaskId {
        TaskId { tid: self.tid, start: self.start }
    }
}

/// Reads the start and the parent of a task; `None` if it has ended.
pub(crate) fn birth(tid: Tid) -> Option<Birth> {
    let stat = ProcText::stat(tid).ok()?;
    let stat = stat.as_bytes();
    let (start, parent, prio) = (text::start(stat)?, text::parent(stat)?, text::prio(stat)?);
    Some(Birth { tid, start, parent, prio })
}

/// The progress of a walk over the newest tasks. The kernel assigns tids in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The highest tid that was read.
    pub top: i32,
    /// The lowest tid that was read.
    pub bottom: i32,
    /// Whether all tasks below `bottom` are too old.
    pub is_complete: bool,
    /// How many tids without a task one pass reads again; `None` for all of them.
    rereads: Option<usize>,
    /// Tids without a task when they were read. A fork assigns the tid before /proc shows the task.
    missing: Vec<i32>,
    /// The index in `missing` of the tid to replace next.
    oldest: usize,
    /// The index in `missing` of the tid to read again next.
    next: usize,
}

/// The largest number of tids without a task that are read again.
const MISSING: usize = 256;

impl Walk {
    /// Returns a walk of which each pass reads at most `rereads` tids without a task again.
    pub(crate) fn with_rereads(rereads: usize) -> Walk {
        Walk { rereads: Some(rereads), ..Walk::default() }
    }

    /// Starts a new walk at the newest tid, and restarts a walk if the kernel has begun again with
    /// low tids.
    fn begin(&mut self, newest: i32) {
        if self.top == 0 || newest < self.top {
            let bottom = newest.saturating_add(1);
            *self = Walk { top: newest, bottom, rereads: self.rereads, ..Walk::default() };
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

/// Calls `each` with every task that was started since `since` and that this walk has not reported
/// before, and with `None` for each tid without such a task. Stops when `each` returns false.
/// Returns whether the walk is done.
pub(crate) fn births(walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
    let loadavg = ProcText::try_of(format_args!("/proc/loadavg"));
    let Some(newest) = loadavg.ok().and_then(|text| text::newest(text.as_bytes())) else { return true };
    walk.begin(newest);
    let rereads = walk.missing.len().min(walk.rereads.unwrap_or(MISSING));
    for _ in 0..rereads {
        walk.next = if walk.next < walk.missing.len() { walk.next } else { 0 };
        let Some(&number) = walk.missing.get(walk.next) else { break };
        let late = birth(Tid(number));
        if late.is_some() {
            walk.missing.swap_remove(walk.next);
        } else {
            walk.next += 1;
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

/// The most bytes of a list of children that are read.
const CHILDREN: usize = 64 * 1024;

/// Returns whether the thread `tid` of the process `tgid` has started `child`; `None` if it is
/// unknown.
///
/// The kernel takes tasklist_lock to list the children of a task. On a real-time kernel the owner
/// of that lock may starve, and a reader lends it no priority. So the list is not read there.
pub(crate) fn is_child(tgid: Tid, tid: Tid, child: Tid) -> Option<bool> {
    if is_realtime_kernel() {
        return None;
    }
    let open = |path: &str| File::open(path).ok();
    let mut list = with_stack_str(format_args!("/proc/{tgid}/task/{tid}/children"), open)?;
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
    fn a_bounded_number_of_tids_without_a_task_is_read_again() {
        let mut walk = Walk::default();
        for number in 1..=10 * MISSING as i32 {
            walk.miss(number);
        }
        assert_eq!(walk.missing.len(), MISSING);
        assert!(walk.missing.contains(&(10 * MISSING as i32)) && !walk.missing.contains(&1));
        // The walk may read the tid of this thread while the fork that starts it still runs.
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
