//! The parts of live tests and benches: real starvation (`Rig`), the daemon (`Stalld`), and the
//! conditions under which both run (`live`).
//!
//! Every wait is for an event and has a bound.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod attack;
pub mod boosts;
#[cfg(has_bpf)]
pub mod bpf;
pub mod c;
pub mod costs;
pub mod daemon;
pub mod json;
mod log;
mod mounts;
pub mod process;
mod program;
pub mod scratch;
mod stalld_process;
pub mod stallstat;
mod starve;
pub mod stunt;
pub mod throttling;
pub mod worker;

pub use log::{Log, Record};
pub use mounts::add_kernel_filesystems;
pub use program::Program;
pub use stalld_process::Stalld;
pub use starve::{Event, Rig};

use stalld::cpus::CpuSet;
use stalld::sys::{lock, sched};
use stalld::task::{Cpu, Nanos, Policy, Tid};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;

use throttling::Throttling;

/// The longest time for one step of a rig or a daemon.
pub const TIMEOUT: Nanos = Nanos::from_secs(60);

/// The environment variable with a directory whose files take the place of those in packaging.
pub const PACKAGING: &str = "STALLD_TEST_PACKAGING";

/// Returns the path of a file of packaging.
pub fn packaged(file: &str) -> PathBuf {
    let other = std::env::var_os(PACKAGING).map(|directory| Path::new(&directory).join(file));
    other.filter(|path| path.exists()).unwrap_or_else(|| Path::new(c::ROOT).join("packaging").join(file))
}

/// The conditions of a live test. While a thread holds this, no other live test runs on the host,
/// the kernel's throttling of real-time tasks is off, and the thread sees debugfs, tracefs and
/// securityfs.
pub struct Live {
    _throttling: Throttling,
    // Dropped last, so that the next live test finds the restored settings.
    _lock: File,
}

/// Waits for its turn and prepares the calling thread, with every process and thread that it starts
/// later. Panics with the reason where no live test can run.
pub fn live() -> Live {
    as_root();
    if let Some(reason) = obstacle() {
        panic!("live tests can't run here: {reason}");
    }
    // All roots and containers of a host share this file's inode, which nothing else locks.
    let file = File::open(ONLINE).expect("cannot open the file that serves as a lock");
    lock::lock(&file).expect("cannot take the lock");
    Live { _throttling: Throttling::off(), _lock: file }
}

/// Prepares the calling thread, and all that it starts later, for a test that needs root and
/// starves no task: it sees debugfs, tracefs and securityfs. Panics in a process that is not root.
pub fn as_root() {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    assert!(is_root, "this test needs root");
    // In a mount namespace of its own, a thread may not see the path of its program.
    build_directory();
    mounts::add_kernel_filesystems();
}

/// Why root can run no live test here; `None` if it can.
fn obstacle() -> Option<String> {
    if online().len() < 2 {
        return Some("only one CPU is online, and the hog would starve the test on it".to_string());
    }
    // A thread of its own, because it keeps the priority until it ends.
    let raised = thread::spawn(|| sched::set_fifo(Tid(0), 1)).join().expect("a thread has panicked");
    raised.err().map(|e| format!("no thread can be made SCHED_FIFO: {e}"))
}

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Measures once more if the first time is above `most`, because a hypervisor may take a CPU away
/// for that long. Returns the shorter time.
pub fn shorter_of_two(most: Nanos, measure: impl Fn() -> Nanos) -> Nanos {
    let first = measure();
    if first <= most { first } else { first.min(measure()) }
}

pub fn online() -> CpuSet {
    let online = fs::read_to_string(ONLINE).expect("cannot read which CPUs are online");
    CpuSet::parse(online.trim(), 8192).expect("unknown form of a CPU list")
}

/// The CPU that the rig hogs by default.
pub fn hogged_cpu() -> Cpu {
    online().iter().last().expect("no CPU is online")
}

/// Keeps the calling thread off the hogged CPU, at a priority at which it sees events when they
/// happen. Its children stay off that CPU too, but are ordinary tasks.
pub fn keep_away_from_the_hog() {
    let hogged = hogged_cpu();
    let elsewhere: CpuSet = online().iter().filter(|&cpu| cpu != hogged).collect();
    if !elsewhere.is_empty() {
        let _ = sched::set_affinity(Tid(0), &elsewhere);
    }
    let _ = sched::set_scheduler(Tid(0), Policy::FIFO, 20, true);
}

/// The directory of the build that the running test or bench belongs to, such as target/debug.
fn build_directory() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let own = std::env::current_exe().expect("cannot find the path of this program");
        own.ancestors().nth(2).expect("a test binary is in target/PROFILE/deps").to_path_buf()
    });
    &DIRECTORY
}
