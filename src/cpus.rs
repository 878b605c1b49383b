//! Sets of CPUs, and their form as text: `0,2-4`.

use crate::task::Cpu;
use std::fmt;

/// A set of CPUs, which is as large as its highest CPU number needs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CpuSet {
    words: Vec<u64>,
}

impl CpuSet {
    pub fn new() -> CpuSet {
        CpuSet::default()
    }

    /// Returns the set of the CPUs 0 to `count - 1`.
    pub fn first(count: u32) -> CpuSet {
        (0..count).map(Cpu).collect()
    }

    pub fn insert(&mut self, cpu: Cpu) {
        let word = cpu.0 as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (cpu.0 % 64);
    }

    /// Removes all CPUs, and keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    pub fn contains(&self, cpu: Cpu) -> bool {
        self.words.get(cpu.0 as usize / 64).is_some_and(|word| word >> (cpu.0 % 64) & 1 == 1)
    }

    pub fn iter(&self) -> impl Iterator<Item = Cpu> + '_ {
        (0..self.words.len() as u32 * 64).map(Cpu).filter(|&cpu| self.contains(cpu))
    }

    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Reads a list of numbers and ascending ranges, such as `0,2-4`. All numbers must be below
    /// `configured`. Blanks around a number are ignored. The error is the reason why the list was
    /// rejected.
    pub fn parse(list: &str, configured: u32) -> Result<CpuSet, String> {
        let number = |text: &str| match text.trim().parse::<u32>() {
            Ok(n) if !text.trim().starts_with('+') && n < configured => Ok(n),
            Ok(n) if !text.trim().starts_with('+') => {
                Err(format!("CPU {n} does not exist, the last one is {}", configured.saturating_sub(1)))
            }
            _ if text.trim().is_empty() => Err("a CPU number is missing".to_string()),
            _ => Err(format!("'{}' is not a CPU number", text.trim())),
        };
        let mut set = CpuSet::new();
        for item in list.split(',') {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(item)?, number(item)?),
            };
            if first > last {
                return Err(format!("the range {first}-{last} runs backwards"));
            }
            (first..=last).for_each(|cpu| set.insert(Cpu(cpu)));
        }
        Ok(set)
    }
}

impl FromIterator<Cpu> for CpuSet {
    fn from_iter<I: IntoIterator<Item = Cpu>>(cpus: I) -> CpuSet {
        let mut set = CpuSet::new();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| next.0 == last.0 + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_and_writes_as_the_same_set() {
        for (list, shown) in
            [("0", "0"), ("0,2-4", "0,2-4"), (" 1 , 3 - 5 ", "1,3-5"), ("4,2,3", "2-4"), ("63,64", "63-64")]
        {
            assert_eq!(CpuSet::parse(list, 128).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (list, reason) in [
            ("", "a CPU number is missing"),
            ("1,", "a CPU number is missing"),
            (",1", "a CPU number is missing"),
            ("1-", "a CPU number is missing"),
            ("1 2", "'1 2' is not a CPU number"),
            ("+1", "'+1' is not a CPU number"),
            ("0x1", "'0x1' is not a CPU number"),
            ("1-2-3", "'2-3' is not a CPU number"),
            ("3-1", "the range 3-1 runs backwards"),
            ("8", "CPU 8 does not exist, the last one is 7"),
            ("0-99999999999", "'99999999999' is not a CPU number"),
        ] {
            assert_eq!(CpuSet::parse(list, 8).unwrap_err(), reason, "{list:?}");
        }
    }

    #[test]
    fn membership_does_not_depend_on_the_size_of_the_set() {
        let set: CpuSet = [Cpu(1), Cpu(200)].into_iter().collect();
        assert!(set.contains(Cpu(200)) && !set.contains(Cpu(2)) && !set.contains(Cpu(100_000)));
        assert_eq!(set.len(), 2);
    }
}
