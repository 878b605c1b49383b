//! stalld rescues tasks without free memory, and among thousands of threads that start and end.

#![cfg(feature = "bpf")]

use rig::boosts::{await_own_policy, start, start_by};
use rig::process::{await_end, eventually};
use rig::{Rig, Stalld, hogged_cpu, keep_away_from_the_hog, live};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Waits until stalld has rescued a victim, before its hog ends. Returns the time between the
/// threshold and the boost.
fn rescue(stalld: &mut Stalld) -> Nanos {
    let mut rig = Rig::start(&["--for", "30"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let boosted = stalld.event_of("boosted", victim.tid());
    assert_eq!((boosted.text("comm"), boosted.number("cpu")), ("victim", hogged_cpu().0.into()));
    let restored = stalld.event_of("restored", victim.tid());
    assert!(restored.at < hog.moment("until"), "the hog had ended before the rescue");
    await_own_policy(victim.tid());
    boosted.at - victim.moment("since") - Nanos::from_secs(1)
}

/// A control group with a limit on memory. Removed when dropped.
struct Limited {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Limited {
    fn new() -> Limited {
        let [version_1, version_2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let (above, limit, usage) = if version_1.join("memory.limit_in_bytes").exists() {
            (version_1, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            (version_2, "memory.max", "memory.current")
        };
        let directory = above.join(format!("stalld-test-{}", std::process::id()));
        fs::create_dir(&directory).unwrap_or_else(|e| {
            panic!("cannot create {}: {e}; mount a cgroup file system there", directory.display())
        });
        let limited = Limited { directory, limit, usage };
        let file = limited.directory.join(limit);
        // In version 2 the groups below the root have no limit unless the root enables it.
        assert!(
            file.exists(),
            "there is no {}; echo +memory >/sys/fs/cgroup/cgroup.subtree_control",
            file.display()
        );
        limited
    }

    fn take(&self, process: Tid) {
        fs::write(self.directory.join("cgroup.procs"), process.to_string()).unwrap();
    }

    fn usage(&self) -> u64 {
        fs::read_to_string(self.directory.join(self.usage)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // The processes in it may not have ended yet.
        eventually("the group is empty", || fs::remove_dir(&self.directory).ok());
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn it_rescues_at_its_memory_limit() {
    let _live = live();
    let limited = Limited::new();
    // The usage becomes the limit, so each further page takes one from the group itself.
    let script = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", limited.directory.display());
    let mut stalld = start_by(&["sh", "-c", &script, "sh"], &["-t", "1"]);
    limited.take(stalld.pid());
    rescue(&mut stalld);
    fs::write(limited.directory.join(limited.limit), limited.usage().to_string()).unwrap();
    let late = rescue(&mut stalld);
    println!("without free memory it was {:.1} ms late", late.0 as f64 / 1e6);
    let pid = stalld.pid();
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
    await_end(pid);
}

#[test]
#[ignore = "starves tasks, as root"]
fn thousands_of_short_lived_threads_hide_no_starving_task() {
    let _live = live();
    let mut stalld = start(&["-t", "1"]);
    let (goes_on, born) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    // These are ordinary threads on the other CPUs.
    let makers: Vec<_> = (0..4)
        .map(|_| {
            let (goes_on, born) = (goes_on.clone(), born.clone());
            thread::spawn(move || {
                keep_away_from_the_hog();
                sched::set_scheduler(Tid(0), Policy::OTHER, 0, false).unwrap();
                while goes_on.load(Relaxed) {
                    let crowd: Vec<_> = (0..50).map(|_| thread::spawn(thread::yield_now)).collect();
                    born.fetch_add(crowd.len(), Relaxed);
                    crowd.into_iter().for_each(|one| one.join().unwrap());
                }
            })
        })
        .collect();
    eventually("some threads have ended", || (born.load(Relaxed) > 1000).then_some(()));
    let begun = clock::monotonic();
    let late = rescue(&mut stalld);
    goes_on.store(false, Relaxed);
    makers.into_iter().for_each(|maker| maker.join().unwrap());
    println!(
        "{} threads later ({} ms) it was {:.1} ms late",
        born.load(Relaxed),
        (clock::monotonic() - begun).as_millis(),
        late.0 as f64 / 1e6
    );
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
    // A failed scan is a warning.
    log.assert_no_failure();
}
