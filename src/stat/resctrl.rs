//! Reads cache occupancy and memory bandwidth of each monitoring group of resctrl, if it is
//! mounted.
//!
//! The root, each control group below it, and each group in a `mon_groups` of these is a monitoring
//! group. A group has a number per last-level cache and event. A number may be missing, because the
//! hardware does not count the event, or temporarily unavailable.

use super::columns::align;
use crate::error::{Context, Result};
use crate::host::{line, mounts};
use crate::task::{Escaped, Nanos};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The numbers of a group for one last-level cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The group's path below the mount: `/` is the root.
    pub group: Vec<u8>,
    /// The kernel's number of the cache.
    pub cache: u32,
    /// The bytes of the cache that the group occupies.
    pub occupancy_bytes: Option<u64>,
    /// The bytes transferred from and to memory.
    pub total_bytes: Option<u64>,
    /// The bytes transferred from and to the memory of the local node.
    pub local_bytes: Option<u64>,
}

/// Returns the mount point; `None` if resctrl is not mounted, as by default.
pub(super) fn mount(root: &Path) -> Option<PathBuf> {
    mounts::of(root, "resctrl").into_iter().next()
}

/// Returns the readings of all groups below `mount`, sorted by path. Skips groups that are removed
/// meanwhile.
pub(super) fn read(mount: &Path) -> Result<Vec<Reading>> {
    fs::read_dir(mount).context(format_args!("list {}", mount.display()))?;
    let mut controls = vec![Vec::new()];
    controls.extend(below(mount, b"").into_iter().filter(|path| !is_own(path)));
    let mut readings = Vec::new();
    for control in controls {
        readings.extend(caches(mount, &control));
        for group in below(mount, &[&control, &b"/mon_groups"[..]].concat()) {
            readings.extend(caches(mount, &group));
        }
    }
    readings.sort_by(|a, b| (&a.group, a.cache).cmp(&(&b.group, b.cache)));
    Ok(readings)
}

/// Returns whether a directory of the root belongs to resctrl itself, and is no group.
fn is_own(path: &[u8]) -> bool {
    [&b"/info"[..], b"/mon_data", b"/mon_groups"].contains(&path)
}

/// Returns the directories in a directory, as paths below the mount.
fn below(mount: &Path, path: &[u8]) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(at(mount, path)).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| [path, b"/", entry.file_name().as_bytes()].concat()).collect()
}

fn at(mount: &Path, path: &[u8]) -> PathBuf {
    mount.join(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

fn caches(mount: &Path, group: &[u8]) -> Vec<Reading> {
    let caches = below(mount, &[group, b"/mon_data"].concat());
    let reading = |path: &Vec<u8>| {
        let name = path.rsplit(|&b| b == b'/').next()?;
        let cache = std::str::from_utf8(name).ok()?.strip_prefix("mon_L3_")?.parse().ok()?;
        // `None` for text such as Unavailable or Error.
        let number = |name: &str| line(&at(mount, path), name)?.parse().ok();
        Some(Reading {
            group: if group.is_empty() { b"/".to_vec() } else { group.to_vec() },
            cache,
            occupancy_bytes: number("llc_occupancy"),
            total_bytes: number("mbm_total_bytes"),
            local_bytes: number("mbm_local_bytes"),
        })
    };
    caches.iter().filter_map(reading).collect()
}

/// Returns the bytes transferred between two readings, with the occupancy of the second. If a
/// number is lower in the second, it belongs to a new group of the same name, and is skipped.
pub(super) fn delta(before: &[Reading], after: &[Reading]) -> Vec<Reading> {
    let grown = |after: &Reading| {
        let same = |before: &&Reading| (&before.group, before.cache) == (&after.group, after.cache);
        let before = before.iter().find(same)?;
        let grown = |before: Option<u64>, after: Option<u64>| after?.checked_sub(before?);
        let total_bytes = grown(before.total_bytes, after.total_bytes);
        let local_bytes = grown(before.local_bytes, after.local_bytes);
        Some(Reading { total_bytes, local_bytes, ..after.clone() })
    };
    after.iter().filter_map(grown).collect()
}

/// Returns a table of a delta over `interval`, with a dash for unknown numbers.
pub(super) fn show(delta: &[Reading], interval: Nanos) -> String {
    let title = ["GROUP", "CACHE", "OCCUPANCY KIB", "TOTAL MB/S", "LOCAL MB/S"];
    let mut table = vec![title.map(String::from).to_vec()];
    let dash = || "-".to_string();
    let rate = |bytes: Option<u64>| match bytes {
        Some(bytes) if interval > Nanos::ZERO => format!("{:.1}", bytes as f64 * 1e3 / interval.0 as f64),
        _ => dash(),
    };
    for reading in delta {
        table.push(vec![
            Escaped(&reading.group).to_string(),
            reading.cache.to_string(),
            reading.occupancy_bytes.map_or_else(dash, |bytes| (bytes / 1024).to_string()),
            rate(reading.total_bytes),
            rate(reading.local_bytes),
        ]);
    }
    align(&table)
}

/// Returns the known numbers by names such as `/web.L3_0.occupancy_bytes`.
pub(super) fn rows(readings: &[Reading]) -> Vec<(String, u64)> {
    let of = |reading: &Reading| {
        let whose = format!("{}.L3_{}", Escaped(&reading.group), reading.cache);
        let numbers = [
            ("occupancy_bytes", reading.occupancy_bytes),
            ("total_bytes", reading.total_bytes),
            ("local_bytes", reading.local_bytes),
        ];
        numbers.map(|(name, number)| number.map(|number| (format!("{whose}.{name}"), number)))
    };
    readings.iter().flat_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    /// Two caches; a control group, a monitoring group of the root's and one of the control
    /// group's.
    fn made(name: &str) -> Scratch {
        let root = Scratch::new(name);
        for (group, cache, occupancy, total, local) in [
            ("", "00", "4194304", "1000000", "600000"),
            ("", "01", "Unavailable", "Error", "7"),
            ("mon_groups/watched/", "00", "2048", "30", "20"),
            ("web/", "00", "0", "5", "5"),
            ("web/mon_groups/a\nb/", "00", "1024", "2", "1"),
        ] {
            let dir = format!("{group}mon_data/mon_L3_{cache}");
            root.file(&format!("{dir}/llc_occupancy"), &format!("{occupancy}\n"));
            root.file(&format!("{dir}/mbm_total_bytes"), &format!("{total}\n"));
            root.file(&format!("{dir}/mbm_local_bytes"), &format!("{local}\n"));
        }
        root.file("info/L3_MON/mon_features", "llc_occupancy\n");
        root.file("web/schemata", "L3:0=ff\n");
        root
    }

    fn reading(group: &[u8], cache: u32, numbers: [Option<u64>; 3]) -> Reading {
        let [occupancy_bytes, total_bytes, local_bytes] = numbers;
        Reading { group: group.to_vec(), cache, occupancy_bytes, total_bytes, local_bytes }
    }

    #[test]
    fn each_group_has_its_numbers_of_each_cache() {
        let root = made("resctrl-read");
        let expected = [
            reading(b"/", 0, [Some(4_194_304), Some(1_000_000), Some(600_000)]),
            reading(b"/", 1, [None, None, Some(7)]),
            reading(b"/mon_groups/watched", 0, [Some(2048), Some(30), Some(20)]),
            reading(b"/web", 0, [Some(0), Some(5), Some(5)]),
            reading(b"/web/mon_groups/a\nb", 0, [Some(1024), Some(2), Some(1)]),
        ];
        assert_eq!(read(root.path()).unwrap(), expected);
    }

    #[test]
    fn hardware_with_fewer_counters_shows_fewer_figures() {
        let root = Scratch::new("resctrl-less");
        assert_eq!(read(root.path()), Ok(vec![]));
        root.file("mon_data/mon_L3_00/llc_occupancy", "12\n");
        // Some newer hardware has files with other names, or shows a cache in parts.
        root.file("mon_data/mon_PERF_PKG_00/core_energy", "1.5\n");
        root.file("mon_data/mon_L3_00/mon_sub_L3_00/llc_occupancy", "12\n");
        assert_eq!(read(root.path()).unwrap(), [reading(b"/", 0, [Some(12), None, None])]);
        let error = read(&root.join("gone")).unwrap_err().to_string();
        assert!(error.starts_with("cannot list ") && error.ends_with("No such file or directory"), "{error}");
    }

    #[test]
    fn a_bandwidth_is_what_has_grown() {
        let before = [
            reading(b"/", 0, [Some(10), Some(100), Some(50)]),
            reading(b"/again", 0, [Some(10), Some(100), None]),
            reading(b"/went", 0, [Some(10), Some(100), Some(50)]),
        ];
        let after = [
            reading(b"/", 0, [Some(20), Some(2_000_100), Some(50)]),
            reading(b"/again", 0, [Some(10), Some(99), Some(9)]),
            reading(b"/came", 0, [Some(10), Some(100), Some(50)]),
        ];
        let grown = delta(&before, &after);
        let expected = [
            reading(b"/", 0, [Some(20), Some(2_000_000), Some(0)]),
            reading(b"/again", 0, [Some(10), None, None]),
        ];
        assert_eq!(grown, expected);
    }

    #[test]
    fn the_table_escapes_names_and_has_a_dash_for_what_is_not_known() {
        let delta = [
            reading(b"/", 0, [Some(4096), Some(2_000_000), Some(0)]),
            reading(b"/a\nb", 1, [None, None, Some(600_000)]),
        ];
        assert_eq!(
            show(&delta, Nanos::from_secs(2)),
            "GROUP    CACHE  OCCUPANCY KIB  TOTAL MB/S  LOCAL MB/S
/            0              4         1.0         0.0
/a\\x0ab      1              -           -         0.3
"
        );
        let expected = [
            ("/.L3_0.occupancy_bytes", 4096),
            ("/.L3_0.total_bytes", 2_000_000),
            ("/.L3_0.local_bytes", 0),
            ("/a\\x0ab.L3_1.local_bytes", 600_000),
        ];
        assert_eq!(rows(&delta), expected.map(|(name, value)| (name.to_string(), value)));
    }

    #[test]
    fn it_is_found_where_it_is_mounted() {
        let root = Scratch::new("resctrl-mount");
        assert_eq!(mount(root.path()), None);
        root.file("proc/mounts", "resctrl /sys/fs/resctrl resctrl rw 0 0\n");
        assert_eq!(mount(root.path()), Some(root.join("sys/fs/resctrl")));
    }
}
