//! Notices that the machine stood still: a virtual machine was paused, or stalld was stopped by a
//! signal.

use crate::task::Nanos;

/// A thread that wakes so much later than planned either had to wait for a CPU, or could not run at
/// all.
const STANDSTILL: Nanos = Nanos::from_secs(1);

/// The waits of the thread for a CPU are read before a sleep, but at most once in this time.
const READING_INTERVAL: Nanos = Nanos::from_secs(1);

/// The present sleep of a thread, and its waits for a CPU.
pub(super) struct StandstillDetector {
    /// Returns for how long the thread has waited for a CPU so far; `None` if that is not known.
    waited: fn() -> Option<Nanos>,
    slept_from: Nanos,
    waited_before: Option<Nanos>,
    read_at: Option<Nanos>,
}

impl StandstillDetector {
    pub(super) fn new(waited: fn() -> Option<Nanos>) -> StandstillDetector {
        StandstillDetector { waited, slept_from: Nanos::ZERO, waited_before: None, read_at: None }
    }

    /// Call it before each sleep.
    pub(super) fn sleeps(&mut self, now: Nanos) {
        self.slept_from = now;
        if self.read_at.is_none_or(|at| now >= at + READING_INTERVAL) {
            (self.read_at, self.waited_before) = (Some(now), (self.waited)());
        }
    }

    /// Call it after a sleep that was planned to end at `planned` and ended at `woke`. Returns for
    /// how long the machine stood still; `None` if it did not. Work before the sleep that took
    /// longer than planned is no standstill.
    pub(super) fn woke(&mut self, planned: Nanos, woke: Nanos) -> Option<Nanos> {
        let late = woke - planned.max(self.slept_from);
        if late < STANDSTILL {
            return None;
        }
        self.read_at = None;
        let waits = self.waited_before.zip((self.waited)());
        // If the thread waited for a CPU, other tasks may have waited for one too.
        waits.is_some_and(|(before, now)| Nanos((now - before).0 * 2) < late).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static WAITED: Cell<Option<Nanos>> = const { Cell::new(None) };
    }

    #[test]
    fn only_a_long_delay_without_a_wait_for_a_cpu_is_a_standstill() {
        let ms = Nanos::from_millis;
        for (planned, slept_from, woke, waits, expected) in [
            (1000, 500, 1900, 0, None),
            (1000, 500, 3000, 0, Some(2000)),
            (1000, 500, 3000, 900, Some(2000)),
            (1000, 500, 3000, 1100, None),
            // The turn before the sleep took longer than planned.
            (1000, 7800, 7900, 0, None),
            (1000, 7800, 9000, 0, Some(1200)),
        ] {
            WAITED.set(Some(ms(50)));
            let mut detector = StandstillDetector::new(|| WAITED.get());
            detector.sleeps(ms(slept_from));
            WAITED.set(Some(ms(50 + waits)));
            assert_eq!(
                detector.woke(ms(planned), ms(woke)),
                expected.map(ms),
                "{planned} {slept_from} {woke}"
            );
        }
    }

    #[test]
    fn nothing_is_known_where_the_kernel_does_not_count_waits() {
        let secs = Nanos::from_secs;
        let mut detector = StandstillDetector::new(|| None);
        detector.sleeps(secs(1));
        assert_eq!(detector.woke(secs(2), secs(9)), None);
    }

    #[test]
    fn waits_of_earlier_sleeps_do_not_hide_a_standstill() {
        let secs = Nanos::from_secs;
        WAITED.set(Some(Nanos::ZERO));
        let mut detector = StandstillDetector::new(|| WAITED.get());
        detector.sleeps(secs(1));
        WAITED.set(Some(secs(5)));
        assert_eq!(detector.woke(secs(2), secs(7)), None);
        detector.sleeps(secs(7));
        assert_eq!(detector.woke(secs(8), secs(12)), Some(secs(4)));
    }
}
