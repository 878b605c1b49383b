//! How much of a second a thread loses to others, at worst.

use stalld::task::Nanos;

/// Longer than any step of a thread that is let run, shorter than what anybody else does with its
/// CPU.
const OWN_STEP: Nanos = Nanos::from_micros(5);

/// The second is that of the last so many slices.
const SLICE: Nanos = Nanos::from_millis(10);
const SLICES: u64 = 100;

/// What has been lost of the second that ends now, which slides along in steps of a slice.
pub struct Losses {
    slices: [Nanos; SLICES as usize],
    /// The number of the latest one, counted from the beginning of the clock.
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
    /// The thread has looked at the clock at these two moments, and not in between. True if no
    /// second was worse before.
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
