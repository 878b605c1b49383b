//! The bound on what a hog loses to boosts in any second (`--max-loss`).

use super::rules::SPACING;
use crate::task::Nanos;

/// The time from the end of a runtime until the hog has its CPU again, while stalld restores the
/// task.
const RESTORE_TIME: Nanos = Nanos::from_micros(30);

const SECOND: Nanos = Nanos::from_secs(1);

/// The most CPU time that all pulses on a CPU together may take from its hog in any second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxLoss {
    pub per_second: Nanos,
    /// The time that the CPU takes to switch from the hog to the boosted task and back.
    pub switching: Nanos,
}

impl MaxLoss {
    /// Returns the time for which a pulse of this runtime keeps the hog off its CPU.
    pub fn hold(&self, runtime: Nanos) -> Nanos {
        runtime + RESTORE_TIME + self.switching
    }

    /// Returns how many pulses of this runtime fit into each second at least.
    pub fn pulses_of_a_second(&self, runtime: Nanos) -> u64 {
        let hold = self.hold(runtime);
        (SECOND.0 / self.pause_after(hold, hold).0).max(1)
    }

    /// Returns the pause from a pulse of this cost to the next one on its CPU, which costs at most
    /// `next`.
    ///
    /// Let a second meet the pulses 1 to n, and let pulse i cost c(i). The pause after each is
    /// c(i) / rest seconds, so pulses 1 to n-1 have cost at most `rest` together. The last one
    /// costs at most `next`. So all of them cost at most `rest + next`, which is `per_second`. Only
    /// a pulse that is longer than expected costs more, once.
    pub(super) fn pause_after(&self, cost: Nanos, next: Nanos) -> Nanos {
        let rest = self.per_second - next;
        // This fits into 64 bits, because a cost of a second or more has the longest pause anyhow.
        let pause = cost.min(SECOND).0 * SECOND.0 / rest.0.max(1);
        // No second meets two pulses that are a second apart.
        Nanos(pause).clamp(SPACING, SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_costs_more_than_the_bound() {
        let us = Nanos::from_micros;
        for (share, runtime) in [(1000, 20), (1000, 100), (60, 20), (20_000, 1000)] {
            let max = MaxLoss { per_second: us(share), switching: us(4) };
            let runtime = us(runtime);
            let mut pulses: Vec<(Nanos, Nanos)> = Vec::new();
            let mut now = Nanos::ZERO;
            for number in 0..200u64 {
                // Most tasks use all of a pulse, and some sleep at once.
                let used = if number % 7 == 3 { Nanos::ZERO } else { runtime + RESTORE_TIME };
                pulses.push((now, used + max.switching));
                let pause = max.pause_after(used + max.switching, max.hold(runtime));
                assert!((SPACING..=SECOND).contains(&pause));
                now = now + pause;
            }
            for &(begin, _) in &pulses {
                let within = pulses.iter().filter(|&&(at, _)| at >= begin && at < begin + SECOND);
                let sum = within.fold(Nanos::ZERO, |sum, &(_, cost)| sum + cost);
                assert!(sum <= max.per_second, "{sum:?} of {max:?} from {begin:?}");
            }
            // The bound is used, too, where pulses need not be 20 ms apart.
            let all = pulses.iter().fold(Nanos::ZERO, |sum, &(_, cost)| sum + cost);
            let seconds = now.0 as f64 / SECOND.0 as f64;
            let used_share = all.0 as f64 / seconds / max.per_second.0 as f64;
            assert!(share != 1000 || used_share > 0.7, "{used_share} of {max:?}");
        }
    }
}
