//! Limits and defaults of the threshold, of the granularity, and of the times of a boost.

use crate::task::Nanos;
use std::ops::RangeInclusive;

/// Allowed thresholds. A task that waits for the threshold starves.
pub const THRESHOLD: RangeInclusive<Nanos> = Nanos::from_millis(10)..=Nanos::from_secs(3600);
/// Allowed granularities. The granularity is the longest time between two scans.
pub const GRANULARITY: RangeInclusive<Nanos> = Nanos::from_millis(10)..=Nanos::from_secs(600);
/// Allowed durations of a boost, which lasts for at least one period.
pub const DURATION: RangeInclusive<Nanos> = *PERIOD.start()..=Nanos::from_secs(60);
pub const PERIOD: RangeInclusive<Nanos> = Nanos::from_millis(200)..=Nanos::from_secs(4);
pub const RUNTIME: RangeInclusive<Nanos> = Nanos::from_micros(8)..=Nanos::from_millis(1);

// The kernel requires that the runtime is at most the period, which holds for all allowed values.
const _: () = assert!(RUNTIME.end().0 <= PERIOD.start().0);

pub const DEFAULT_THRESHOLD: Nanos = Nanos::from_secs(60);
pub const DEFAULT_GRANULARITY: Nanos = Nanos::from_secs(5);

/// The times of a boost: the task gets `runtime` in each `period`, for `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boost {
    pub duration: Nanos,
    pub period: Nanos,
    pub runtime: Nanos,
}

/// A conflict between two of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The boost lasts longer than the threshold.
    Duration,
    /// The period is longer than the boost.
    Period,
}

impl Boost {
    /// Returns a boost with the given times. Chooses the other times so that all fit the threshold.
    pub fn fit(
        threshold: Nanos,
        duration: Option<Nanos>,
        period: Option<Nanos>,
        runtime: Option<Nanos>,
    ) -> Boost {
        let shortest = *DURATION.start();
        let duration = duration.unwrap_or(Nanos::from_secs(3).min(threshold).max(shortest));
        let period = period.unwrap_or(Nanos::from_secs(1).min(duration));
        Boost { duration, period, runtime: runtime.unwrap_or(Nanos::from_micros(20)) }
    }

    pub fn misfit(&self, threshold: Nanos) -> Option<Misfit> {
        // With a threshold below the shortest duration, each duration is too long, and that is
        // accepted.
        if self.duration > threshold && threshold >= *DURATION.start() {
            Some(Misfit::Duration)
        } else if self.period > self.duration {
            Some(Misfit::Period)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_times_fit_the_given_ones() {
        let ms = Nanos::from_millis;
        for (threshold, duration, period, expected) in [
            (60_000, None, None, (3000, 1000)),
            (1000, None, None, (1000, 1000)),
            (10, None, None, (200, 200)),
            (2000, Some(500), None, (500, 500)),
            (2000, Some(2000), Some(300), (2000, 300)),
        ] {
            let threshold = ms(threshold);
            let boost = Boost::fit(threshold, duration.map(ms), period.map(ms), None);
            let (duration, period) = expected;
            assert_eq!((boost.duration, boost.period), (ms(duration), ms(period)));
            assert_eq!((boost.runtime, boost.misfit(threshold)), (Nanos::from_micros(20), None));
        }
    }

    #[test]
    fn conflicting_times_are_named() {
        let ms = |millis| Some(Nanos::from_millis(millis));
        let second = Nanos::from_secs(1);
        assert_eq!(Boost::fit(second, ms(1001), None, None).misfit(second), Some(Misfit::Duration));
        assert_eq!(Boost::fit(second, ms(500), ms(501), None).misfit(second), Some(Misfit::Period));
    }
}
