//! The queue of messages for the writer. `put` and `emit` never block and never allocate.

use super::{Level, Line, LogEvent};
use crate::boost::event::Event;
use crate::sorted::Sorted;
use crate::sys::clock;
use crate::task::{Cpu, Nanos};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The maximum number of messages in a batch, without `FIRST_LINES`.
const LINES: usize = 1024;
/// The number of additional messages, for the first starving task and the first boost of each CPU.
const FIRST_LINES: usize = 512;
/// The maximum number of bytes of text in a batch.
const BYTES: usize = 64 * 1024;
/// The number of tries to get the lock, a few microseconds in all. Usually the lock is held for
/// less than a microsecond. A message is dropped after that, because the hog may have preempted the
/// thread that holds the lock.
const TRIES: u32 = 200;

pub(super) struct Queue {
    batch: Mutex<Batch>,
    /// The number of dropped messages, by level.
    lost: [AtomicU64; Level::ALL.len()],
    closed: AtomicBool,
}

/// Messages in order of arrival. The queue and the writer swap two batches, so that the writer
/// holds the lock only for the swap, and no buffer is freed.
pub(super) struct Batch {
    text: String,
    entries: Vec<(Nanos, Body)>,
    /// The CPUs of this batch: whether each has a starving task, and whether it has a boost.
    cpus: Sorted<Cpu, (bool, bool)>,
}

#[derive(Clone, Copy)]
enum Body {
    /// The number of bytes in `text`.
    Text(Level, usize),
    LogEvent(LogEvent),
}

/// A message in the queue or on its way from it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    Text(Level, &'a str),
    LogEvent(&'a LogEvent),
}

impl Message<'_> {
    pub(super) fn level(&self) -> Level {
        match self {
            Message::Text(level, _) => *level,
            Message::LogEvent(event) => event.level(),
        }
    }
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue { batch: Mutex::new(Batch::new()), lost: Default::default(), closed: AtomicBool::new(false) }
    }

    /// Queues a line. Returns false, and counts it as dropped, if it does not fit.
    pub(super) fn put(&self, level: Level, line: &Line) -> bool {
        self.enter(Message::Text(level, line.as_str()))
    }

    /// Queues an event. Returns false, and counts it as dropped, if it does not fit.
    pub(super) fn emit(&self, event: &LogEvent) -> bool {
        self.enter(Message::LogEvent(event))
    }

    fn enter(&self, message: Message) -> bool {
        let at = clock::monotonic();
        let accepted = self.try_lock().is_some_and(|mut batch| batch.push(at, message));
        if !accepted {
            self.lost[message.level() as usize].fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Batch>> {
        for _ in 0..TRIES {
            match self.batch.try_lock() {
                Ok(batch) => return Some(batch),
                Err(TryLockError::Poisoned(e)) => return Some(e.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    /// Swaps the queued messages for an empty batch. Returns false if there were none. Only the
    /// writer calls it, because it waits for the lock.
    pub(super) fn take(&self, empty: &mut Batch) -> bool {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut *batch, empty);
        !empty.entries.is_empty()
    }

    /// Returns the numbers of messages dropped since the last call, by level.
    pub(super) fn take_lost(&self) -> impl Iterator<Item = (Level, u64)> + '_ {
        let lost = Level::ALL.into_iter().zip(&self.lost);
        lost.map(|(level, count)| (level, count.swap(0, Ordering::Relaxed))).filter(|&(_, count)| count > 0)
    }

    /// Returns whether the writer has nothing to do: no message, none dropped, and not closed. It
    /// waits for the lock.
    pub(super) fn is_idle(&self) -> bool {
        let batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.entries.is_empty()
            && !self.is_closed()
            && self.lost.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            text: String::with_capacity(BYTES),
            entries: Vec::with_capacity(LINES + FIRST_LINES),
            cpus: Sorted::with_room(FIRST_LINES, (Cpu(u32::MAX), (true, true))),
        }
    }

    fn push(&mut self, at: Nanos, message: Message) -> bool {
        let len = if let Message::Text(_, text) = message { text.len() } else { 0 };
        let places = if self.is_first(&message) { LINES + FIRST_LINES } else { LINES };
        if self.entries.len() >= places || self.text.len() + len > BYTES {
            return false;
        }
        self.entries.push(match message {
            Message::Text(level, text) => {
                self.text.push_str(text);
                (at, Body::Text(level, len))
            }
            Message::LogEvent(event) => (at, Body::LogEvent(*event)),
        });
        true
    }

    /// Notes the CPU of a starving task or a boost. Returns whether it is the first there in this
    /// batch.
    fn is_first(&mut self, message: &Message) -> bool {
        let (cpu, is_boost) = match message {
            Message::LogEvent(LogEvent::Starved { task, .. }) => (task.cpu, false),
            Message::LogEvent(LogEvent::Task(Event::Boosted { task, .. })) => (task.cpu, true),
            _ => return false,
        };
        if self.cpus.is_full() && !self.cpus.contains(cpu) {
            return false;
        }
        let (has_starved, has_boost) = self.cpus.entry(cpu, (false, false));
        !std::mem::replace(if is_boost { has_boost } else { has_starved }, true)
    }

    /// Passes all messages to `each` with the times of their arrival, and empties the batch.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Nanos, Message)) {
        let mut rest = self.text.as_str();
        for (at, body) in self.entries.drain(..) {
            match body {
                Body::Text(level, len) => {
                    let (text, after) = rest.split_at_checked(len).unwrap_or_default();
                    rest = after;
                    each(at, Message::Text(level, text));
                }
                Body::LogEvent(event) => each(at, Message::LogEvent(&event)),
            }
        }
        self.text.clear();
        self.cpus.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::journal::BoostPolicy;
    use crate::task::Task;

    fn line(text: &str) -> Line {
        Line::of(format_args!("{text}"))
    }

    fn drained(queue: &Queue) -> Vec<(Level, String)> {
        let mut batch = Batch::new();
        let mut all = Vec::new();
        queue.take(&mut batch);
        batch.drain(|_, message| {
            let text = match message {
                Message::Text(_, text) => text.to_string(),
                Message::LogEvent(event) => event.line(None).to_string(),
            };
            all.push((message.level(), text));
        });
        all
    }

    #[test]
    fn messages_come_out_unchanged_and_in_order() {
        let queue = Queue::new();
        assert!(queue.is_idle());
        assert!(queue.put(Level::Info, &line("one")));
        assert!(queue.emit(&LogEvent::Dropped { lines: 2 }));
        assert!(queue.put(Level::Error, &line("")));
        assert!(queue.put(Level::Debug, &line("three")));
        assert!(!queue.is_idle());
        let expected = [
            (Level::Info, "one"),
            (Level::Warning, "2 messages were dropped"),
            (Level::Error, ""),
            (Level::Debug, "three"),
        ];
        assert_eq!(drained(&queue), expected.map(|(level, text)| (level, text.to_string())));
        assert!(queue.is_idle());
        assert!(drained(&queue).is_empty());
    }

    #[test]
    fn messages_without_room_are_counted_by_level() {
        let queue = Queue::new();
        let long = line(&"x".repeat(512));
        let fitting = (0..1000).filter(|_| queue.put(Level::Debug, &long)).count();
        assert_eq!(fitting, BYTES / 512);
        assert!(!queue.put(Level::Error, &long));
        // An event has no text yet, so it takes no room for text.
        assert!(queue.emit(&LogEvent::Dropped { lines: 1 }));
        assert!(!queue.is_idle());
        let lost: Vec<_> = queue.take_lost().collect();
        assert_eq!(lost, [(Level::Error, 1), (Level::Debug, 1000 - fitting as u64)]);
        assert_eq!(queue.take_lost().count(), 0);
        assert_eq!(drained(&queue).len(), fitting + 1);
    }

    #[test]
    fn messages_without_text_are_limited_too() {
        let queue = Queue::new();
        for _ in 0..LINES / 2 {
            assert!(queue.put(Level::Info, &line("")));
            assert!(queue.emit(&LogEvent::Dropped { lines: 1 }));
        }
        assert!(!queue.put(Level::Info, &line("")));
        assert!(!queue.emit(&LogEvent::Dropped { lines: 1 }));
        assert_eq!(queue.take_lost().collect::<Vec<_>>(), [(Level::Warning, 1), (Level::Info, 1)]);
    }

    #[test]
    fn a_full_queue_has_room_for_the_first_lines_of_each_cpu() {
        let queue = Queue::new();
        let starved =
            |cpu| LogEvent::Starved { task: on(cpu), since: Nanos::ZERO, wait: Nanos::ZERO, exact: false };
        let boosted = |cpu| LogEvent::Task(Event::Boosted { task: on(cpu), how: BoostPolicy::Fifo });
        let accepted = (0..10_000).filter(|_| queue.emit(&starved(0))).count();
        assert_eq!(accepted, LINES);
        assert!(queue.emit(&boosted(0)) && !queue.emit(&boosted(0)));
        for cpu in 1..200 {
            assert!(queue.emit(&starved(cpu)) && queue.emit(&boosted(cpu)), "CPU {cpu}");
            assert!(!queue.emit(&starved(cpu)) && !queue.emit(&boosted(cpu)), "CPU {cpu}");
        }
        assert!(!queue.emit(&LogEvent::Dropped { lines: 1 }));
        assert_eq!(drained(&queue).len(), LINES + 1 + 2 * 199);
        // The number of these lines is limited, too.
        let firsts = (0..LINES as u32 + 1000).filter(|&cpu| queue.emit(&starved(cpu))).count();
        assert!((LINES..=LINES + FIRST_LINES).contains(&firsts), "{firsts}");
    }

    fn on(cpu: u32) -> Task {
        Task { cpu: Cpu(cpu), ..Task::default() }
    }

    #[test]
    fn a_message_is_dropped_while_another_thread_holds_the_lock() {
        let queue = Queue::new();
        let held = queue.batch.lock().unwrap();
        assert!(!queue.put(Level::Error, &line("starved")));
        drop(held);
        assert_eq!(queue.take_lost().collect::<Vec<_>>(), [(Level::Error, 1)]);
    }

    #[test]
    fn the_buffers_neither_grow_nor_move() {
        let queue = Queue::new();
        let mut batch = Batch::new();
        let mut places = Vec::new();
        for _ in 0..4 {
            while queue.put(Level::Info, &line("a line of some length, as lines have")) {}
            queue.take(&mut batch);
            places.push((batch.text.as_ptr(), batch.entries.as_ptr()));
            batch.drain(|_, _| {});
        }
        assert_eq!(places[0], places[2]);
        assert_eq!(places[1], places[3]);
    }
}
