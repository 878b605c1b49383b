//! Memory that is allocated before a scan needs it.

use std::hint::black_box;

/// The number of waiters that a scan can store without allocating.
pub(crate) const ROOM: usize = 256;

/// Returns an empty vector with room for `count` values, whose pages are present.
///
/// It writes `value` to all of them. The value must not be all zeros, because an allocator that is
/// asked for zeros may return pages that become present only when they are used.
pub(crate) fn prefaulted_vec<T: Clone>(count: usize, value: T) -> Vec<T> {
    let mut room = vec![value; count];
    black_box(&mut room).clear();
    room
}
