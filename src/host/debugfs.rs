//! Files in debugfs: the mounts of debugfs, the scheduler's features, and its DL server.

use super::mounts;
use super::settings::Hrtick;
use crate::error::{Context, Error, Result};
use crate::task::{Cpu, Nanos};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Returns the mounts of debugfs below `root`, the first mount first.
pub fn mounts(root: &Path) -> Vec<PathBuf> {
    mounts::of(root, "debugfs")
}

/// The scheduler feature HRTICK. With it, a DEADLINE budget ends when it is used up; without it, at
/// the next tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HrtickFile {
    /// The file that shows and sets the feature.
    pub path: PathBuf,
    pub feature: Option<Hrtick>,
    pub is_on: Result<bool>,
    pub writable: Result<()>,
}

/// Returns the state of HRTICK; `None` if its file does not exist.
pub fn hrtick(root: &Path) -> Option<HrtickFile> {
    // The second path is the one before 5.13.
    let path = find(root, &["sched/features", "sched_features"])?;
    let text = fs::read_to_string(&path).context(format_args!("read {}", path.display()));
    let found = text.and_then(|text| {
        deadline_hrtick(&text)
            .ok_or_else(|| Error::new(format!("cannot find HRTICK among what {} lists", path.display())))
    });
    let feature = found.as_ref().ok().map(|&(feature, _)| feature);
    let is_on = found.map(|(_, is_on)| is_on);
    // Opening the file for writing changes nothing.
    let opened = File::options().write(true).open(&path);
    let writable = opened.map(drop).context(format_args!("write {}", path.display()));
    Some(HrtickFile { path, feature, is_on, writable })
}

/// Returns the feature for DEADLINE tasks, and whether it is on. From 5.12 on it is HRTICK_DL.
fn deadline_hrtick(features: &str) -> Option<(Hrtick, bool)> {
    let listed = |name: &str| features.split_whitespace().any(|word| word == name);
    [(Hrtick::HrtickDl, "HRTICK_DL", "NO_HRTICK_DL"), (Hrtick::Hrtick, "HRTICK", "NO_HRTICK")]
        .into_iter()
        .find(|(_, on, off)| listed(on) || listed(off))
        .map(|(feature, on, _)| (feature, listed(on)))
}

/// The budget that the kernel's DL server (from 6.12 on) gives the fair tasks of a CPU, when
/// real-time tasks keep them from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub cpu: Cpu,
    pub runtime: Nanos,
    pub period: Nanos,
}

/// Returns the budgets of the DL server, in the order of the CPUs; `None` if the kernel has no DL
/// server or debugfs is not mounted.
pub fn dl_server(root: &Path) -> Option<Result<Vec<Served>>> {
    Some(served(&find(root, &["sched/fair_server"])?))
}

fn served(dir: &Path) -> Result<Vec<Served>> {
    let number = |path: PathBuf| -> Result<Nanos> {
        let what = || format!("read {}", path.display());
        let text = fs::read_to_string(&path).context(what())?;
        let number = text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        number.map(Nanos).context(what())
    };
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).context(format_args!("list {}", dir.display()))? {
        let entry = entry.context(format_args!("list {}", dir.display()))?;
        let cpu = entry.file_name().to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        if let Some(cpu) = cpu {
            let (runtime, period) =
                (number(entry.path().join("runtime"))?, number(entry.path().join("period"))?);
            all.push(Served { cpu: Cpu(cpu), runtime, period });
        }
    }
    all.sort_by_key(|served| served.cpu);
    Ok(all)
}

fn find(root: &Path, names: &[&str]) -> Option<PathBuf> {
    let candidates = mounts(root).into_iter().flat_map(|at| names.iter().map(move |name| at.join(name)));
    candidates.into_iter().find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    const MOUNTED: (&str, &str) =
        ("proc/mounts", "proc /proc proc rw 0 0\nnone /my\\040debug debugfs rw 0 0\n");

    fn root(name: &str, files: &[(&str, &str)]) -> Scratch {
        let root = Scratch::new(&format!("debugfs-{name}"));
        files.iter().for_each(|(path, text)| root.file(path, text));
        root
    }

    #[test]
    fn debugfs_is_where_it_is_mounted() {
        assert_eq!(
            mounts(root("none", &[("proc/mounts", "proc /proc proc rw 0 0\n")]).path()),
            [""; 0].map(PathBuf::from)
        );
        let root = root("mounted", &[MOUNTED]);
        assert_eq!(mounts(root.path()), [root.join("my debug")]);
    }

    #[test]
    fn deadline_tasks_go_by_the_hrtick_of_their_own() {
        for (features, expected) in [
            ("PLACE_LAG HRTICK NO_HRTICK_DL\n", Some((Hrtick::HrtickDl, false))),
            ("NO_HRTICK HRTICK_DL TTWU_QUEUE\n", Some((Hrtick::HrtickDl, true))),
            ("NO_HRTICK NO_DOUBLE_TICK\n", Some((Hrtick::Hrtick, false))),
            ("HRTICK\n", Some((Hrtick::Hrtick, true))),
            ("PLACE_LAG\n", None),
        ] {
            assert_eq!(deadline_hrtick(features), expected, "{features}");
        }
    }

    #[test]
    fn hrtick_is_found_under_both_names() {
        for name in ["my debug/sched/features", "my debug/sched_features"] {
            let root = root("features", &[MOUNTED, (name, "HRTICK\n")]);
            let found = hrtick(root.path()).unwrap();
            let feature = Some(Hrtick::Hrtick);
            assert_eq!(
                found,
                HrtickFile { path: root.join(name), feature, is_on: Ok(true), writable: Ok(()) }
            );
        }
        assert_eq!(hrtick(root("unmounted", &[("my debug/sched/features", "HRTICK\n")]).path()), None);
    }

    #[test]
    fn unavailable_hrtick_has_a_reason() {
        let root = root("directory", &[MOUNTED, ("my debug/sched/features/file", "")]);
        let found = hrtick(root.path()).unwrap();
        assert!(found.is_on.unwrap_err().to_string().starts_with("cannot read "));
        assert!(found.writable.unwrap_err().to_string().starts_with("cannot write "));
    }

    #[test]
    fn the_dl_server_is_read_cpu_by_cpu() {
        let root = root(
            "server",
            &[
                MOUNTED,
                ("my debug/sched/fair_server/cpu10/runtime", "0\n"),
                ("my debug/sched/fair_server/cpu10/period", "1000000000\n"),
                ("my debug/sched/fair_server/cpu9/runtime", "50000000\n"),
                ("my debug/sched/fair_server/cpu9/period", "1000000000\n"),
            ],
        );
        let period = Nanos::from_secs(1);
        let expected = [
            Served { cpu: Cpu(9), runtime: Nanos::from_millis(50), period },
            Served { cpu: Cpu(10), runtime: Nanos::ZERO, period },
        ];
        assert_eq!(dl_server(root.path()).unwrap().unwrap(), expected);
        root.file("my debug/sched/fair_server/cpu9/runtime", "lots\n");
        assert!(dl_server(root.path()).unwrap().is_err());
    }

    #[test]
    fn an_old_kernel_has_no_dl_server() {
        assert_eq!(dl_server(root("old", &[MOUNTED, ("my debug/sched/features", "")]).path()), None);
    }
}
