//! How long things may take: what can be asked for, what is taken where nothing was, what does not
//! go together.

use crate::task::Nanos;
use std::ops::RangeInclusive;

/// The threshold at which a wait is starvation.
pub const THRESHOLD: RangeInclusive<Nanos> = Nanos::from_millis(10)..=Nanos::from_secs(3600);
/// The longest time between two looks.
pub const GRANULARITY: RangeInclusive<Nanos> = Nanos::from_millis(10)..=Nanos::from_secs(600);
/// A boost lasts for one period at least.
pub const DURATION: RangeInclusive<Nanos> = *PERIOD.start()..=Nanos::from_secs(60);
pub const PERIOD: RangeInclusive<Nanos> = Nanos::from_millis(200)..=Nanos::from_secs(4);
pub const RUNTIME: RangeInclusive<Nanos> = Nanos::from_micros(8)..=Nanos::from_millis(1);

// The kernel wants the runtime within the period; here the two can't meet.
const _: () = assert!(RUNTIME.end().0 <= PERIOD.start().0);

pub const DEFAULT_THRESHOLD: Nanos = Nanos::from_secs(60);
pub const DEFAULT_GRANULARITY: Nanos = Nanos::from_secs(5);

/// How a starving task is made to run: `runtime` in each `period`, for `duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boost {
    pub duration: Nanos,
    pub period: Nanos,
    pub runtime: Nanos,
}

/// What does not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The boost lasts longer than the threshold.
    Duration,
    /// The period is longer than the boost.
    Period,
}

impl Boost {
    /// What was asked for, and the rest made to fit.
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
        // No boost is short enough for a threshold below the shortest one.
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
    fn what_was_not_asked_for_fits_what_was() {
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
    fn what_can_not_be_is_named() {
        let ms = |millis| Some(Nanos::from_millis(millis));
        let second = Nanos::from_secs(1);
        assert_eq!(Boost::fit(second, ms(1001), None, None).misfit(second), Some(Misfit::Duration));
        assert_eq!(Boost::fit(second, ms(500), ms(501), None).misfit(second), Some(Misfit::Period));
    }
}
