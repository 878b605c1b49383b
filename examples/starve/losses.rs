//! The CPU time that a thread loses to other tasks in its worst second.

use stalld::task::Nanos;

/// A gap up to this length is no loss: it is longer than a step of the thread, and shorter than a
/// run of another task on its CPU.
const OWN_STEP: Nanos = Nanos::from_micros(5);

/// The last `SLICES` slices make the second.
const SLICE: Nanos = Nanos::from_millis(10);
const SLICES: u64 = 100;

/// The losses of the second that ends now. The second moves on in steps of a slice.
pub struct Losses {
    slices: [Nanos; SLICES as usize],
    /// The number of the latest slice, counted from zero of the clock.
    latest: u64,
    sum: Nanos,
    most: Nanos,
}

impl Default for Losses {
    fn default() -> Losses {
        Losses { slices: [Nanos::ZERO; SLICES as usize], latest: 0, sum: Nanos::ZERO, most: Nanos::ZERO }
    }
}

impl Losses {
    /// Notes that the thread has read the clock at these two moments, and not in between. Returns
    /// true if no second was worse before.
    pub fn note(&mut self, before: Nanos, now: Nanos) -> bool {
        if now - before <= OWN_STEP {
            return false;
        }
        let former = self.most;
        let mut from = before.max(now - Nanos::from_secs(1));
        while from < now {
            let number = from.0 / SLICE.0;
            let until = Nanos((number + 1) * SLICE.0).min(now);
            self.lose(number, until - from);
            from = until;
        }
        self.most > former
    }

    pub fn most_in_a_second(&self) -> Nanos {
        self.most
    }

    fn lose(&mut self, number: u64, lost: Nanos) {
        for next in (self.latest + 1..=number).take(SLICES as usize) {
            self.sum = self.sum - std::mem::take(self.slice(next));
        }
        self.latest = self.latest.max(number);
        let slice = self.slice(number);
        *slice = *slice + lost;
        self.sum = self.sum + lost;
        self.most = self.most.max(self.sum);
    }

    fn slice(&mut self, number: u64) -> &mut Nanos {
        &mut self.slices[(number % SLICES) as usize]
    }
}
