//! A cgroup whose threads get 1 ms of CPU in a second: runnable in name, throttled for the rest.

use stalld::error::{Context, Error, Result};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";
const NAME: &str = "stalld-starve-";

/// The group, for as long as this lives. One that a killed rig left behind is removed by the next.
pub struct Quota {
    /// The file that takes the numbers of threads.
    threads: PathBuf,
    /// The file of the limit, and what to write there for none.
    unlimited: (PathBuf, &'static str),
    /// Innermost first.
    directories: Vec<PathBuf>,
    /// Version 2: where this process was before, for it to go back to.
    home: Option<PathBuf>,
}

impl Quota {
    /// To be called while all threads of this process are fair and not yet pinned.
    pub fn new() -> Result<Quota> {
        if Path::new(V1).join("cpu.cfs_quota_us").exists() {
            return Quota::version_1();
        }
        // What is enabled for the root's children is a choice of the whole system, and not changed
        // here.
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

    /// Version 2 has single threads of a process in a group only below a group that the whole
    /// process is in.
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
    /// To be done when the threads inside have come to their end. They may still be in the kernel
    /// on their last steps, and throttled there: so the quota is lifted, and the removal tried for
    /// a while.
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

/// A new group below `root`, once those of rigs that are no more are gone.
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
