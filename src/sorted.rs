//! A map in one vector, which is sorted by key.

use crate::room::prefaulted_vec;
use crate::steps;

/// A map with a binary search. It allocates only when its vector is full.
pub(crate) struct Sorted<K, V> {
    entries: Vec<(K, V)>,
}

/// An empty map without memory.
impl<K, V> Default for Sorted<K, V> {
    fn default() -> Sorted<K, V> {
        Sorted { entries: Vec::new() }
    }
}

impl<K: Ord + Copy, V: Copy> Sorted<K, V> {
    /// Makes an empty map with memory for `room` entries. `some` is any entry that is not all
    /// zeros.
    pub(crate) fn with_room(room: usize, some: (K, V)) -> Sorted<K, V> {
        Sorted { entries: prefaulted_vec(room, some) }
    }

    /// Makes an empty map with memory for 64 entries, whose pages may not be present yet.
    pub(crate) fn new() -> Sorted<K, V> {
        Sorted { entries: Vec::with_capacity(64) }
    }

    pub(crate) fn get(&self, key: K) -> Option<V> {
        self.find(key).ok().and_then(|index| self.entries.get(index)).map(|&(_, value)| value)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.find(key).is_ok()
    }

    /// Returns the value of a key. Inserts `value` if the key is new.
    pub(crate) fn entry(&mut self, key: K, value: V) -> &mut V {
        let index = self.find(key).unwrap_or_else(|index| {
            self.entries.insert(index, (key, value));
            index
        });
        &mut self.entries[index].1
    }

    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        *self.entry(key, value) = value;
    }

    pub(crate) fn remove(&mut self, key: K) {
        if let Ok(index) = self.find(key) {
            self.entries.remove(index);
        }
    }

    /// Replaces all entries. If several have the same key, a search may find any of them.
    pub(crate) fn refill(&mut self, entries: impl Iterator<Item = (K, V)>) {
        self.entries.clear();
        self.entries.extend(entries);
        self.entries.sort_unstable_by_key(|&(key, _)| key);
        steps::count(self.entries.len() * steps_of_search(self.entries.len()));
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Frees the memory beyond `room` entries.
    pub(crate) fn shrink(&mut self, room: usize) {
        self.entries.shrink_to(room);
    }

    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&V) -> bool) {
        steps::count(self.entries.len());
        self.entries.retain(|(_, value)| stays(value));
    }

    /// Calls `stays` for each value, which `stays` may change. Drops the values for which `stays`
    /// returns false.
    pub(crate) fn update(&mut self, mut stays: impl FnMut(&mut V) -> bool) {
        steps::count(self.entries.len());
        self.entries.retain_mut(|(_, value)| stays(value));
    }

    /// Drops the values for which `stays` returns false if the map has `most` entries or more.
    pub(crate) fn update_if(&mut self, most: usize, stays: impl FnMut(&V) -> bool) {
        if self.entries.len() >= most {
            self.retain(stays);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().inspect(|_| steps::count(1)).map(|(_, value)| value)
    }

    /// Iterates over all entries in the order of their keys.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (*key, value))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() == self.entries.capacity()
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        steps::count(steps_of_search(self.entries.len()));
        self.entries.binary_search_by_key(&key, |&(key, _)| key)
    }
}

fn steps_of_search(len: usize) -> usize {
    len.checked_ilog2().unwrap_or_default() as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_until_it_is_removed() {
        let mut map = Sorted::with_room(2, (1, 1));
        for key in [5, 1, 3, 5] {
            map.insert(key, 10 * key);
        }
        assert_eq!([1, 2, 3, 5].map(|key| map.get(key)), [Some(10), None, Some(30), Some(50)]);
        *map.entry(3, 7) += 1;
        assert_eq!((*map.entry(4, 7), map.get(3)), (7, Some(31)));
        map.remove(1);
        map.remove(2);
        map.retain(|&value| value != 50);
        assert_eq!([1, 3, 4, 5].map(|key| map.contains(key)), [false, true, true, false]);
        map.refill([(9, 1), (8, 2)].into_iter());
        assert_eq!([3, 8, 9].map(|key| map.get(key)), [None, Some(2), Some(1)]);
        map.clear();
        assert!(!map.contains(8));
    }
}
