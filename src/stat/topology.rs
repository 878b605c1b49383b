//! The topology of the CPUs: hardware threads of a core, last-level caches, NUMA nodes, packages.
//!
//! A core and a cache are identified by their lowest CPU, because not every architecture has
//! numbers for them. If the kernel does not show a relation, the simplest is assumed: a core has
//! one hardware thread, a package one last-level cache, the machine one node and one package.

use crate::cpus::CpuSet;
use crate::host::{MOST_CPUS, line};
use crate::task::Cpu;
use std::fs;
use std::path::Path;

/// The core, the cache, the node and the package of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuLocation {
    /// The lowest CPU of its core.
    pub core: Cpu,
    /// The lowest CPU that shares its last-level cache.
    pub llc: Cpu,
    /// The kernel's number of its node.
    pub node: u32,
    /// The kernel's number of its package.
    pub package: u32,
}

/// The locations of all CPUs in sysfs, including those that are offline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The locations in the order of the CPUs.
    locations: Vec<(Cpu, CpuLocation)>,
}

impl Topology {
    /// Reads sysfs below `root`. Without CPUs there, the topology is empty.
    pub fn read(root: &Path) -> Topology {
        let nodes = nodes(root);
        let mut locations: Vec<(Cpu, CpuLocation)> = Vec::new();
        let mut without_cache = Vec::new();
        for cpu in numbered(root, "sys/devices/system/cpu", "cpu").into_iter().map(Cpu) {
            let dir = format!("sys/devices/system/cpu/cpu{cpu}");
            let package = line(root, &format!("{dir}/topology/physical_package_id"));
            // Some firmware reports -1.
            let package = package.and_then(|id| id.parse().ok()).unwrap_or(0);
            let core = lowest(root, &format!("{dir}/topology/thread_siblings_list")).unwrap_or(cpu);
            let node = nodes.iter().find(|(_, cpus)| cpus.contains(cpu)).map_or(0, |&(node, _)| node);
            let llc = last_level_cache(root, &dir).unwrap_or_else(|| {
                without_cache.push(locations.len());
                cpu
            });
            locations.push((cpu, CpuLocation { core, llc, node, package }));
        }
        for index in without_cache {
            let package = locations[index].1.package;
            if let Some(&(first, _)) = locations.iter().find(|(_, location)| location.package == package) {
                locations[index].1.llc = first;
            }
        }
        Topology { locations }
    }

    #[cfg(test)]
    pub(super) fn cpus(&self) -> impl Iterator<Item = Cpu> + '_ {
        self.locations.iter().map(|&(cpu, _)| cpu)
    }

    /// Returns the location of a CPU. An unknown CPU is a core of its own; its cache, node and
    /// package are 0.
    pub(super) fn location(&self, cpu: Cpu) -> CpuLocation {
        let known = self.locations.binary_search_by_key(&cpu, |&(cpu, _)| cpu);
        known.map_or(CpuLocation { core: cpu, ..CpuLocation::default() }, |index| self.locations[index].1)
    }

    /// Returns the other hardware threads of the core of `cpu`.
    pub(super) fn siblings(&self, cpu: Cpu) -> impl Iterator<Item = Cpu> + '_ {
        let core = self.location(cpu).core;
        let others =
            self.locations.iter().filter(move |(other, location)| location.core == core && *other != cpu);
        others.map(|&(other, _)| other)
    }

    /// Returns whether the CPUs have different last-level caches.
    pub fn crosses_llc(&self, from: Cpu, to: Cpu) -> bool {
        self.location(from).llc != self.location(to).llc
    }

    /// Returns whether the CPUs are on different nodes.
    pub fn crosses_node(&self, from: Cpu, to: Cpu) -> bool {
        self.location(from).node != self.location(to).node
    }
}

/// Returns the numbers in names such as `cpu3` in a directory, ascending.
fn numbered(root: &Path, dir: &str, prefix: &str) -> Vec<u32> {
    let entries = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix(prefix)?.parse().ok().filter(|&number| number < MOST_CPUS);
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str().and_then(number)).collect();
    numbers.sort_unstable();
    // Other names may parse to the same number: `cpu1` and `cpu01`.
    numbers.dedup();
    numbers
}

/// Returns the nodes, and the CPUs of each.
fn nodes(root: &Path) -> Vec<(u32, CpuSet)> {
    let cpus = |node| list(root, &format!("sys/devices/system/node/node{node}/cpulist"));
    let nodes = numbered(root, "sys/devices/system/node", "node");
    // A node may have memory only.
    nodes.into_iter().filter_map(|node| Some((node, cpus(node)?))).collect()
}

/// Returns the lowest CPU that shares the cache of the highest level. `None` if the kernel shows
/// only level 1, which belongs to a core.
fn last_level_cache(root: &Path, cpu: &str) -> Option<Cpu> {
    let caches = numbered(root, &format!("{cpu}/cache"), "index").into_iter();
    let level = |index: &u32| {
        let level = line(root, &format!("{cpu}/cache/index{index}/level"));
        level.and_then(|level| level.parse::<u32>().ok()).unwrap_or(0)
    };
    let last = caches.filter(|index| level(index) > 1).max_by_key(level)?;
    lowest(root, &format!("{cpu}/cache/index{last}/shared_cpu_list"))
}

fn lowest(root: &Path, path: &str) -> Option<Cpu> {
    list(root, path)?.iter().next()
}

fn list(root: &Path, path: &str) -> Option<CpuSet> {
    CpuSet::parse(&line(root, path)?, MOST_CPUS).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    fn cpu(root: &Scratch, cpu: u32, files: &[(&str, &str)]) {
        let dir = root.join(&format!("sys/devices/system/cpu/cpu{cpu}"));
        fs::create_dir_all(dir).unwrap();
        files
            .iter()
            .for_each(|(path, text)| root.file(&format!("sys/devices/system/cpu/cpu{cpu}/{path}"), text));
    }

    fn location(core: u32, llc: u32, node: u32, package: u32) -> CpuLocation {
        CpuLocation { core: Cpu(core), llc: Cpu(llc), node, package }
    }

    #[test]
    fn two_packages_with_two_hardware_threads_per_core() {
        let root = Scratch::new("topology-two-packages");
        for (number, siblings, llc, package) in [
            (0, "0,4\n", "0-1,4-5\n", "0\n"),
            (1, "1,5\n", "0-1,4-5\n", "0\n"),
            (2, "2,6\n", "2-3,6-7\n", "1\n"),
            (3, "3,7\n", "2-3,6-7\n", "1\n"),
            (4, "0,4\n", "0-1,4-5\n", "0\n"),
            (5, "1,5\n", "0-1,4-5\n", "0\n"),
            (6, "2,6\n", "2-3,6-7\n", "1\n"),
            (7, "3,7\n", "2-3,6-7\n", "1\n"),
        ] {
            cpu(
                &root,
                number,
                &[
                    ("topology/thread_siblings_list", siblings),
                    ("topology/physical_package_id", package),
                    ("cache/index0/level", "1\n"),
                    ("cache/index0/shared_cpu_list", siblings),
                    ("cache/index2/level", "2\n"),
                    ("cache/index2/shared_cpu_list", siblings),
                    ("cache/index3/level", "3\n"),
                    ("cache/index3/shared_cpu_list", llc),
                ],
            );
        }
        root.file("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
        root.file("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
        root.file("sys/devices/system/node/node2/cpulist", "\n");
        // This directory is no CPU.
        root.file("sys/devices/system/cpu/cpufreq/boost", "1\n");

        let topology = Topology::read(root.path());
        assert_eq!(topology.cpus().collect::<Vec<_>>(), (0..8).map(Cpu).collect::<Vec<_>>());
        assert_eq!(topology.location(Cpu(0)), location(0, 0, 0, 0));
        assert_eq!(topology.location(Cpu(7)), location(3, 2, 1, 1));
        assert_eq!(topology.siblings(Cpu(2)).collect::<Vec<_>>(), [Cpu(6)]);
        assert_eq!(topology.siblings(Cpu(5)).collect::<Vec<_>>(), [Cpu(1)]);
        assert!(!topology.crosses_llc(Cpu(0), Cpu(5)) && topology.crosses_llc(Cpu(0), Cpu(2)));
        assert!(!topology.crosses_node(Cpu(3), Cpu(6)) && topology.crosses_node(Cpu(6), Cpu(5)));
    }

    #[test]
    fn a_node_may_have_several_last_level_caches() {
        let root = Scratch::new("topology-clusters");
        for (number, llc) in [(0, "0-1\n"), (1, "0-1\n"), (2, "2-3\n"), (3, "2-3\n")] {
            let files = [("cache/index2/level", "2\n"), ("cache/index2/shared_cpu_list", llc)];
            cpu(&root, number, &files);
        }
        let topology = Topology::read(root.path());
        assert!(topology.crosses_llc(Cpu(1), Cpu(2)) && !topology.crosses_node(Cpu(1), Cpu(2)));
    }

    #[test]
    fn without_caches_a_package_shares_one() {
        let root = Scratch::new("topology-no-caches");
        for (number, package) in [(0, "0\n"), (1, "3\n"), (2, "0\n"), (3, "3\n")] {
            // The cache of the first level alone does not show which CPUs share a cache.
            let first = [("cache/index0/level", "1\n"), ("cache/index0/shared_cpu_list", "9\n")];
            cpu(&root, number, &[("topology/physical_package_id", package), first[0], first[1]]);
        }
        let topology = Topology::read(root.path());
        assert_eq!(topology.location(Cpu(2)), location(2, 0, 0, 0));
        assert_eq!(topology.location(Cpu(3)), location(3, 1, 0, 3));
    }

    #[test]
    fn a_kernel_that_shows_nothing_has_one_of_everything() {
        let root = Scratch::new("topology-nothing");
        let topology = Topology::read(root.path());
        assert_eq!((topology.cpus().count(), topology.location(Cpu(5))), (0, location(5, 0, 0, 0)));
        assert_eq!(topology.siblings(Cpu(5)).count(), 0);

        // CPU 3 is offline, which leaves an empty directory.
        cpu(&root, 2, &[("topology/physical_package_id", "-1\n"), ("topology/thread_siblings_list", "x\n")]);
        cpu(&root, 3, &[]);
        let topology = Topology::read(root.path());
        assert_eq!(topology.location(Cpu(2)), location(2, 2, 0, 0));
        assert_eq!(topology.location(Cpu(3)), location(3, 2, 0, 0));
        assert_eq!(topology.siblings(Cpu(2)).count(), 0);
    }

    #[test]
    fn this_machine_has_the_cpu_it_runs_on() {
        let topology = Topology::read(Path::new("/"));
        let known = topology.cpus().any(|cpu| cpu == crate::sys::cpu::current());
        assert!(known || !Path::new("/sys/devices/system/cpu/cpu0").exists());
    }
}
