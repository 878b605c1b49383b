//! A machine at its limits: no memory left, and threads that come and go by the thousand.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{await_own_policy, start};
use rig::process::{await_end, eventually};
use rig::{Rig, Stalld, hogged_cpu, keep_away_from_the_hog, live};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Rescues a victim, and tells how long that took from the moment at which it was due.
fn rescue(stalld: &mut Stalld) -> Nanos {
    let mut rig = Rig::start(&["--for", "4"]);
    let victim = rig.event("victim");
    let text = format!("boosted pid {} (victim) (cpu {})", victim.tid(), hogged_cpu());
    let (at, _) = stalld.line_with(&text);
    stalld.line_with(&format!("restored pid {}", victim.tid()));
    await_own_policy(victim.tid());
    at - victim.moment("since") - Nanos::from_secs(1)
}

/// A control group of ours, with a limit on memory.
struct Limited {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Limited {
    fn new() -> Option<Limited> {
        let [version_1, version_2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let (above, limit, usage) = if version_1.join("memory.limit_in_bytes").exists() {
            (version_1, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            (version_2, "memory.max", "memory.current")
        };
        let directory = above.join(format!("stalld-test-{}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        let limited = Limited { directory, limit, usage };
        // Where nothing is enabled for the root's children it is a group without a limit.
        limited.directory.join(limit).exists().then_some(limited)
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
        // What was in it may be on its way out.
        eventually("the group is empty", || fs::remove_dir(&self.directory).ok());
    }
}

#[test]
fn it_rescues_with_no_memory_left_to_take() {
    let Some(_live) = live() else { return };
    let Some(limited) = Limited::new() else {
        return eprintln!("skipped: there is no limit on memory to set");
    };
    // Whoever gets its memory after that has to take it from itself.
    let script = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", limited.directory.display());
    let mut stalld = rig::boosts::start_by(&["sh", "-c", &script, "sh"], &["-t", "1"]);
    limited.take(stalld.pid());
    rescue(&mut stalld);
    fs::write(limited.directory.join(limited.limit), limited.usage().to_string()).unwrap();
    let late = rescue(&mut stalld);
    println!("with no memory left it was {:.1} ms late", late.0 as f64 / 1e6);
    assert!(late < Nanos::from_secs(1), "{late:?}");
    let pid = stalld.pid();
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0), "{said:#?}");
    await_end(pid);
}

#[test]
fn threads_that_come_and_go_by_the_thousand_hide_nobody() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1"]);
    let (goes_on, born) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    // Ordinary threads, away from the hog.
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
    eventually("some have come and gone", || (born.load(Relaxed) > 1000).then_some(()));
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
    assert!(late < Nanos::from_secs(1), "{late:?}");
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0), "{said:#?}");
    assert!(!said.iter().any(|(_, line)| line.contains("look is lost")), "{said:#?}");
}
