//! What waits to be written. Putting something in never waits, and never allocates.

use super::{Level, Line, LogEvent};
use crate::sorted::Sorted;
use crate::sys::clock;
use crate::task::{Cpu, Nanos};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

const LINES: usize = 1024;
/// Places beyond these, for the first starving task and the first boost of each CPU.
const FIRST_LINES: usize = 512;
const BYTES: usize = 64 * 1024;
/// Tries at the lock before the message is given up: some microseconds, where the lock is held for
/// a fraction of one. Its holder may have lost its CPU to the very hog that is to be reported, so
/// nobody waits for longer.
const TRIES: u32 = 200;

pub struct Queue {
    batch: Mutex<Batch>,
    /// Given up, by level.
    lost: [AtomicU64; Level::ALL.len()],
    closed: AtomicBool,
}

/// Messages in the order in which they came. Two of them change places, so that the writer holds
/// the lock for the moment of a swap and no buffer is ever given back.
pub struct Batch {
    text: String,
    entries: Vec<(Nanos, Body)>,
    /// CPUs that have a starving task, or a boost, in this batch.
    cpus: Sorted<Cpu, (bool, bool)>,
}

#[derive(Clone, Copy)]
enum Body {
    /// So many bytes of `text`.
    Text(Level, usize),
    LogEvent(LogEvent),
}

/// What a message is made of.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    Text(Level, &'a str),
    LogEvent(&'a LogEvent),
}

impl Message<'_> {
    pub fn level(&self) -> Level {
        match self {
            Message::Text(level, _) => *level,
            Message::LogEvent(told) => told.level(),
        }
    }
}

impl Queue {
    pub fn new() -> Queue {
        Queue { batch: Mutex::new(Batch::new()), lost: Default::default(), closed: AtomicBool::new(false) }
    }

    /// False, and counted, where there is no room.
    pub fn put(&self, level: Level, line: &Line) -> bool {
        self.enter(Message::Text(level, line.as_str()))
    }

    pub fn tell(&self, told: &LogEvent) -> bool {
        self.enter(Message::LogEvent(told))
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

    /// Takes all there is in exchange for an empty batch; false where there is nothing. For the
    /// writer only: it waits for the lock.
    pub fn take(&self, empty: &mut Batch) -> bool {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut *batch, empty);
        !empty.entries.is_empty()
    }

    /// How many messages of which level were given up since this was last asked.
    pub fn take_lost(&self) -> impl Iterator<Item = (Level, u64)> + '_ {
        let lost = Level::ALL.into_iter().zip(&self.lost);
        lost.map(|(level, count)| (level, count.swap(0, Ordering::Relaxed))).filter(|&(_, count)| count > 0)
    }

    /// Whether the writer would find anything new, be it that something was lost.
    pub fn is_idle(&self) -> bool {
        let batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.entries.is_empty()
            && !self.is_closed()
            && self.lost.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Batch {
    pub fn new() -> Batch {
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
            Message::LogEvent(told) => (at, Body::LogEvent(*told)),
        });
        true
    }

    /// Notes the CPU of a starving task or a boost. Returns whether it is the first there in this
    /// batch.
    fn is_first(&mut self, message: &Message) -> bool {
        let (cpu, is_boost) = match message {
            Message::LogEvent(LogEvent::Starved { task, .. }) => (task.cpu, false),
            Message::LogEvent(LogEvent::Boosted { task, .. }) => (task.cpu, true),
            _ => return false,
        };
        if self.cpus.is_full() && !self.cpus.contains(cpu) {
            return false;
        }
        let (has_starved, has_boost) = self.cpus.entry(cpu, (false, false));
        !std::mem::replace(if is_boost { has_boost } else { has_starved }, true)
    }

    /// Hands out all messages, with the moments at which they came, and leaves the batch empty.
    pub fn drain(&mut self, mut each: impl FnMut(Nanos, Message)) {
        let mut rest = self.text.as_str();
        for (at, body) in self.entries.drain(..) {
            match body {
                Body::Text(level, len) => {
                    let (text, after) = rest.split_at_checked(len).unwrap_or_default();
                    rest = after;
                    each(at, Message::Text(level, text));
                }
                Body::LogEvent(told) => each(at, Message::LogEvent(&told)),
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
                Message::LogEvent(told) => told.line(None).to_string(),
            };
            all.push((message.level(), text));
        });
        all
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let queue = Queue::new();
        assert!(queue.is_idle());
        assert!(queue.put(Level::Info, &line("one")));
        assert!(queue.tell(&LogEvent::Dropped { lines: 2 }));
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
    fn what_does_not_fit_is_counted_by_level() {
        let queue = Queue::new();
        let long = line(&"x".repeat(512));
        let fitting = (0..1000).filter(|_| queue.put(Level::Debug, &long)).count();
        assert_eq!(fitting, BYTES / 512);
        assert!(!queue.put(Level::Error, &long));
        // What has no text yet takes no room for it.
        assert!(queue.tell(&LogEvent::Dropped { lines: 1 }));
        assert!(!queue.is_idle());
        let lost: Vec<_> = queue.take_lost().collect();
        assert_eq!(lost, [(Level::Error, 1), (Level::Debug, 1000 - fitting as u64)]);
        assert_eq!(queue.take_lost().count(), 0);
        assert_eq!(drained(&queue).len(), fitting + 1);
    }

    #[test]
    fn there_is_an_end_to_messages_without_text_too() {
        let queue = Queue::new();
        for _ in 0..LINES / 2 {
            assert!(queue.put(Level::Info, &line("")));
            assert!(queue.tell(&LogEvent::Dropped { lines: 1 }));
        }
        assert!(!queue.put(Level::Info, &line("")));
        assert!(!queue.tell(&LogEvent::Dropped { lines: 1 }));
        assert_eq!(queue.take_lost().collect::<Vec<_>>(), [(Level::Warning, 1), (Level::Info, 1)]);
    }

    #[test]
    fn the_first_starving_task_and_the_first_boost_of_a_cpu_have_a_place_in_a_full_queue() {
        let queue = Queue::new();
        let starved =
            |cpu| LogEvent::Starved { task: on(cpu), since: Nanos::ZERO, wait: Nanos::ZERO, exact: false };
        let boosted = |cpu| LogEvent::Boosted { task: on(cpu), how: BoostPolicy::Fifo };
        let accepted = (0..10_000).filter(|_| queue.tell(&starved(0))).count();
        assert_eq!(accepted, LINES);
        assert!(queue.tell(&boosted(0)) && !queue.tell(&boosted(0)));
        for cpu in 1..200 {
            assert!(queue.tell(&starved(cpu)) && queue.tell(&boosted(cpu)), "CPU {cpu}");
            assert!(!queue.tell(&starved(cpu)) && !queue.tell(&boosted(cpu)), "CPU {cpu}");
        }
        assert!(!queue.tell(&LogEvent::Dropped { lines: 1 }));
        assert_eq!(drained(&queue).len(), LINES + 1 + 2 * 199);
        // There is an end to them too.
        let firsts = (0..LINES as u32 + 1000).filter(|&cpu| queue.tell(&starved(cpu))).count();
        assert!((LINES..=LINES + FIRST_LINES).contains(&firsts), "{firsts}");
    }

    fn on(cpu: u32) -> Task {
        Task { cpu: Cpu(cpu), ..Task::default() }
    }

    #[test]
    fn a_message_is_given_up_while_another_thread_holds_the_lock() {
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
