//! A cgroup whose threads get 1 ms of CPU time a second. They seem to be runnable, but are
//! throttled for the rest of it.

use stalld::error::{Context, Error, Result};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";
const NAME: &str = "stalld-starve-";

/// The cgroup. Dropping this removes it. If a rig was killed, the next one removes its group.
pub struct Quota {
    /// The file that takes the tids of threads.
    threads: PathBuf,
    /// The file of the limit, and the text that removes the limit.
    unlimited: (PathBuf, &'static str),
    /// The directories to remove, the innermost first.
    directories: Vec<PathBuf>,
    /// The group of this process before, to which it returns; `None` in version 1.
    home: Option<PathBuf>,
}

impl Quota {
    /// Creates the group. All threads of this process must be fair and not yet pinned.
    pub fn new() -> Result<Quota> {
        if Path::new(V1).join("cpu.cfs_quota_us").exists() {
            return Quota::version_1();
        }
        // The controllers of the root's children are a choice of the whole system, so this does not
        // change them.
        let control = Path::new(V2).join("cgroup.subtree_control");
        match fs::read_to_string(&control) {
            Ok(enabled) if enabled.split_whitespace().any(|controller| controller == "cpu") => {
                Quota::version_2()
            }
            Ok(_) => Err(Error::new("the cpu controller is not enabled")
                .with_cure(format!("echo +cpu > {}", control.display()))),
            Err(_) => Err(Error::new(format!("there is no cpu controller under {V2}"))),
        }
    }

    fn version_1() -> Result<Quota> {
        let group = fresh(Path::new(V1))?;
        let quota = Quota {
            threads: group.join("tasks"),
            unlimited: (group.join("cpu.cfs_quota_us"), "-1"),
            directories: vec![group.clone()],
            home: None,
        };
        write(&group.join("cpu.cfs_period_us"), "1000000")?;
        write(&group.join("cpu.cfs_quota_us"), "1000")?;
        Ok(quota)
    }

    /// Creates two groups. In version 2 a group may have single threads of a process only below a
    /// group that has the whole process.
    fn version_2() -> Result<Quota> {
        let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let group = fresh(Path::new(V2))?;
        let inner = group.join("throttled");
        let quota = Quota {
            threads: inner.join("cgroup.threads"),
            unlimited: (inner.join("cpu.max"), "max"),
            directories: vec![inner.clone(), group.clone()],
            home: Some(Path::new(V2).join(own)),
        };
        fs::create_dir(&inner).context(format!("create {}", inner.display()))?;
        write(&inner.join("cgroup.type"), "threaded")?;
        write(&group.join("cgroup.subtree_control"), "+cpu")?;
        write(&inner.join("cpu.max"), "1000 1000000")?;
        write(&group.join("cgroup.procs"), "0")?;
        Ok(quota)
    }

    pub fn admit(&self, tid: Tid) -> Result<()> {
        write(&self.threads, &tid.to_string())
    }
}

impl Drop for Quota {
    /// Removes the group once its threads have ended. They may still be on their last steps in the
    /// kernel, and throttled there. So this removes the quota first, and retries for a second.
    fn drop(&mut self) {
        let (limit, none) = &self.unlimited;
        let _ = write(limit, none);
        if let Some(home) = &self.home {
            let _ = write(&home.join("cgroup.procs"), "0");
        }
        for directory in &self.directories {
            let until = clock::monotonic() + Nanos::from_secs(1);
            while fs::remove_dir(directory).is_err_and(|e| e.kind() == ErrorKind::ResourceBusy)
                && clock::monotonic() < until
            {
                clock::nap(Nanos::from_millis(1));
            }
        }
    }
}

/// Creates a group below `root`, after it has removed the groups of rigs that have ended.
fn fresh(root: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(root).context(format!("read {}", root.display()))?;
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(pid) = name.strip_prefix(NAME) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir(root.join(&name).join("throttled"));
            let _ = fs::remove_dir(root.join(&name));
        }
    }
    let group = root.join(format!("{NAME}{}", std::process::id()));
    fs::create_dir(&group).context(format!("create {}", group.display()))?;
    Ok(group)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(format!("write '{text}' to {}", path.display()))
}
