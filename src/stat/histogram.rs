//! A histogram of values, mostly times. Each power of two has four slots. Each slot has the sum of
//! its values, so that equal values are shown exactly.

use super::bpf_abi::{self, SLOT_SHIFT, SLOTS};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    /// The slots that are not empty, in the order of their values.
    slots: Vec<HistogramSlot>,
    longest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HistogramSlot {
    sum: u64,
    /// 32 bits, so that a slot takes two words: there are thousands of slots.
    count: u32,
    index: u32,
}

impl Histogram {
    pub(super) fn read(raw: &bpf_abi::histogram) -> Histogram {
        let slots = (0..SLOTS).zip(raw.counts.iter().zip(&raw.sums));
        let filled = slots.filter(|(_, (count, _))| **count > 0);
        let slots = filled.map(|(index, (&count, &sum))| HistogramSlot { sum, count, index }).collect();
        Histogram { slots, longest: raw.longest }
    }

    pub(super) fn add(&mut self, value: u64) {
        self.put(HistogramSlot { sum: value, count: 1, index: slot_of(value) });
        self.longest = self.longest.max(value);
    }

    pub(super) fn merge(&mut self, other: &Histogram) {
        other.slots.iter().for_each(|&slot| self.put(slot));
        self.longest = self.longest.max(other.longest);
    }

    fn put(&mut self, new: HistogramSlot) {
        match self.slots.binary_search_by_key(&new.index, |slot| slot.index) {
            Ok(at) => {
                self.slots[at].count = self.slots[at].count.saturating_add(new.count);
                self.slots[at].sum = self.slots[at].sum.saturating_add(new.sum);
            }
            Err(at) => self.slots.insert(at, new),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.count)).sum()
    }

    pub(super) fn sum(&self) -> u64 {
        self.slots.iter().fold(0, |sum, slot| sum.saturating_add(slot.sum))
    }

    pub(super) fn mean(&self) -> Option<u64> {
        self.sum().checked_div(self.count())
    }

    /// Returns the exact maximum. If it was counted while the kernel's counts were read, returns
    /// the mean of the last slot.
    pub(super) fn longest(&self) -> Option<u64> {
        let last = self.slots.last()?;
        Some(self.longest.max(last.sum / u64::from(last.count.max(1))))
    }

    /// Returns a percentile: the mean of the slot that contains it.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let wanted = (self.count() * percent).div_ceil(100).max(1);
        let mut before = 0;
        let slot = self.slots.iter().find(|slot| {
            before += u64::from(slot.count);
            before >= wanted
        })?;
        Some(slot.sum / u64::from(slot.count.max(1)))
    }
}

/// Returns the slot of a value, as the BPF programs compute it.
fn slot_of(value: u64) -> u32 {
    let Some(octave) = (value >> SLOT_SHIFT).checked_ilog2() else { return 0 };
    let quarter = (value >> (octave + SLOT_SHIFT - 2)) & 3;
    (1 + octave * 4 + quarter as u32).min(SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.add(value));
        histogram
    }

    #[test]
    fn slots_are_quarters_of_powers_of_two() {
        for (value, slot) in [
            (0, 0),
            (1023, 0),
            (1024, 1),
            (1279, 1),
            (1280, 2),
            (2047, 4),
            (2048, 5),
            (1 << 37, 109),
            ((1 << 38) - 1, 112),
            (1 << 38, 113),
            (u64::MAX, 113),
        ] {
            assert_eq!(slot_of(value), slot, "{value}");
        }
    }

    #[test]
    fn equal_values_are_exact() {
        let waits = of([30_000_000_000; 7]);
        let all = [waits.percentile(50), waits.percentile(99), waits.longest(), waits.mean()];
        assert_eq!(all, [Some(30_000_000_000); 4]);
        assert_eq!((waits.count(), waits.sum()), (7, 210_000_000_000));
    }

    #[test]
    fn a_percentile_is_no_further_off_than_a_slot_is_wide() {
        let evenly = of((1..=10_000).map(|n| n * 10_000));
        for percent in [1, 50, 90, 99] {
            let exact = percent as f64 * 1e6;
            let off = (evenly.percentile(percent).unwrap() as f64 - exact).abs() / exact;
            assert!(off < 0.125, "{percent}: {off}");
        }
        assert_eq!(evenly.longest(), Some(100_000_000));
        assert_eq!(evenly.mean(), Some(50_005_000));
    }

    #[test]
    fn halves_that_are_put_together_are_the_whole() {
        let values = || (0..1000u64).map(|n| n * n * 1000);
        let (mut one, other) = (of(values().take(300)), of(values().skip(300)));
        one.merge(&other);
        assert_eq!(one, of(values()));
    }

    #[test]
    fn an_empty_histogram_has_no_figures() {
        let nothing = Histogram::default();
        assert!(nothing.is_empty());
        assert_eq!((nothing.percentile(50), nothing.longest(), nothing.mean()), (None, None, None));
    }
}
