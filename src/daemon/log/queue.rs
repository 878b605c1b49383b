//! What waits to be written. Putting something in never waits and, text only, never allocates.

use super::{Level, Line};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Text that is still to be made, by the thread that writes.
pub type Deferred = Box<dyn FnOnce() -> String + Send>;

const LINES: usize = 1024;
const BYTES: usize = 64 * 1024;
/// Tries at the lock before the message is given up: some microseconds, where the lock is held for a
/// fraction of one. Its holder may have lost its CPU to the very hog that is to be reported, so nobody
/// waits for longer.
const TRIES: u32 = 200;

pub struct Queue {
    batch: Mutex<Batch>,
    /// Given up, by level.
    lost: [AtomicU64; Level::ALL.len()],
    closed: AtomicBool,
}

/// Messages in the order in which they came. Two of them change places, so that the writer holds the
/// lock for the moment of a swap and no buffer is ever given back.
pub struct Batch {
    text: String,
    entries: Vec<(Level, Body)>,
}

enum Body {
    /// So many bytes of `text`.
    Text(usize),
    Deferred(Deferred),
}

impl Queue {
    pub fn new() -> Queue {
        Queue { batch: Mutex::new(Batch::new()), lost: Default::default(), closed: AtomicBool::new(false) }
    }

    /// False, and counted, where there is no room.
    pub fn put(&self, level: Level, line: &Line) -> bool {
        self.enter(level, |batch| batch.push(level, line.as_str()))
    }

    /// As `put`, for a text that takes time to make, or that can block.
    pub fn defer(&self, level: Level, text: Deferred) -> bool {
        self.enter(level, |batch| batch.push_deferred(level, text))
    }

    fn enter(&self, level: Level, push: impl FnOnce(&mut Batch) -> bool) -> bool {
        let accepted = self.try_lock().is_some_and(|mut batch| push(&mut batch));
        if !accepted {
            self.lost[level as usize].fetch_add(1, Ordering::Relaxed);
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

    /// Takes all there is in exchange for an empty batch; false where there is nothing. For the writer
    /// only: it waits for the lock.
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
        Batch { text: String::with_capacity(BYTES), entries: Vec::with_capacity(LINES) }
    }

    fn push(&mut self, level: Level, text: &str) -> bool {
        if self.entries.len() == LINES || self.text.len() + text.len() > BYTES {
            return false;
        }
        self.text.push_str(text);
        self.entries.push((level, Body::Text(text.len())));
        true
    }

    fn push_deferred(&mut self, level: Level, text: Deferred) -> bool {
        if self.entries.len() == LINES {
            return false;
        }
        self.entries.push((level, Body::Deferred(text)));
        true
    }

    /// Hands out all messages, makes those that are still to be made, and leaves the batch empty.
    pub fn drain(&mut self, mut each: impl FnMut(Level, &str)) {
        let mut rest = self.text.as_str();
        for (level, body) in self.entries.drain(..) {
            match body {
                Body::Text(len) => {
                    let (text, after) = rest.split_at_checked(len).unwrap_or_default();
                    rest = after;
                    each(level, text);
                }
                Body::Deferred(make) => each(level, Line::of(format_args!("{}", make())).as_str()),
            }
        }
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::of(format_args!("{text}"))
    }

    fn drained(queue: &Queue) -> Vec<(Level, String)> {
        let mut batch = Batch::new();
        let mut all = Vec::new();
        queue.take(&mut batch);
        batch.drain(|level, text| all.push((level, text.to_string())));
        all
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let queue = Queue::new();
        assert!(queue.is_idle());
        assert!(queue.put(Level::Info, &line("one")));
        assert!(queue.defer(Level::Warning, Box::new(|| "two\n".to_string())));
        assert!(queue.put(Level::Error, &line("")));
        assert!(queue.put(Level::Debug, &line("three")));
        assert!(!queue.is_idle());
        let expected =
            [(Level::Info, "one"), (Level::Warning, "two\\x0a"), (Level::Error, ""), (Level::Debug, "three")];
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
        // Text that is made later takes no room yet.
        assert!(queue.defer(Level::Error, Box::new(String::new)));
        assert!(!queue.is_idle());
        let lost: Vec<_> = queue.take_lost().collect();
        assert_eq!(lost, [(Level::Error, 1), (Level::Debug, 1000 - fitting as u64)]);
        assert_eq!(queue.take_lost().count(), 0);
        assert_eq!(drained(&queue).len(), fitting + 1);
    }

    #[test]
    fn there_is_an_end_to_empty_and_deferred_messages_too() {
        let queue = Queue::new();
        for _ in 0..LINES / 2 {
            assert!(queue.put(Level::Info, &line("")));
            assert!(queue.defer(Level::Info, Box::new(String::new)));
        }
        assert!(!queue.put(Level::Info, &line("")));
        assert!(!queue.defer(Level::Info, Box::new(String::new)));
        assert_eq!(queue.take_lost().collect::<Vec<_>>(), [(Level::Info, 2)]);
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
