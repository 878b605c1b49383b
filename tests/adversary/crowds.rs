//! Crowds: the most tasks that a user may start, in the ways that are most expensive for a scan.

use crate::scene::{ALL_BACKENDS, Act, BOTH, MAX_GROWTH_KIB, Method, Run, Scene, start_stalld};
use rig::attack::Attack;
use rig::{Rig, live, process, shorter_of_two};
use stalld::sys::clock;
use stalld::task::{Nanos, Tid};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// The size of a flood. STALLD_THREADS=8000 makes a larger one.
fn flood_size() -> u64 {
    let number = std::env::var("STALLD_THREADS").ok().map(|text| text.parse());
    number.transpose().expect("STALLD_THREADS is a number").unwrap_or(2000)
}

/// A crowd counts as this many tasks, whatever its size: it must not delay the boosts of other
/// users.
const COUNTED: u64 = 8;

/// The share of a CPU, in hundredths, that stalld may use in any second because of a crowd.
const MAX_SHARE: u64 = 25;

fn flood() -> Scene {
    let act = Act::crowd("threads", &[&format!("threads:{}", flood_size())]);
    Scene {
        crowd: COUNTED,
        max_share: MAX_SHARE,
        max_growth_kib: MAX_GROWTH_KIB + flood_size(),
        length: Nanos::from_secs(6),
        ..Scene::new("flood", ALL_BACKENDS, vec![act])
    }
}

fn turns() -> Scene {
    let act = Act::crowd("turns", &["turns:1000"]);
    Scene {
        crowd: COUNTED,
        max_share: MAX_SHARE,
        length: Nanos::from_secs(6),
        ..Scene::new("turns", ALL_BACKENDS, vec![act])
    }
}

fn forks() -> Scene {
    Scene::new("forks", BOTH, vec![Act::plain("forks"), Act::plain("brood")])
}

fn sleepers() -> Scene {
    Scene::new("sleepers", BOTH, vec![Act::new("sleepers", &["sleepers:1000"])])
}

scene!("flood", flood, a_flood_of_threads_delays_no_other_user_and_costs_a_quarter_of_a_cpu_at_most,
    a_flood_of_threads_gains_no_rank => "threads",
);

scene!("turns", turns, a_thousand_threads_that_starve_in_turn_delay_no_other_user,
    a_thousand_threads_that_starve_in_turn_gain_no_rank => "turns",
);

scene!("forks", forks, a_thousand_forks_a_second_delay_no_other_user,
    a_task_that_forks_a_thousand_times_a_second_gains_no_rank => "forks",
    a_thousand_children_born_in_a_boost_gain_no_rank => "brood",
);

scene!("sleepers", sleepers, a_process_of_a_thousand_threads_delays_no_other_user,
    a_thread_among_a_thousand_gains_no_rank => "sleepers",
);

#[test]
#[ignore = "starves tasks, as root"]
fn the_memory_of_a_crowd_is_freed_when_it_is_over() {
    let _live = live();
    for backend in ["task_iter", "sched_debug"] {
        let (stalld, _) = start_stalld((backend, Method::Pulses), false, &[]);
        let before = process::anonymous_kib(stalld.pid());
        let grown = || process::anonymous_kib(stalld.pid()).saturating_sub(before);
        let mut crowd = Attack::start(Nanos::from_secs(30), &[&format!("threads:{PER_PROCESS}")]);
        crowd.await_ready();
        process::eventually("stalld knows the crowd", || (grown() > MAX_GROWTH_KIB).then_some(()));
        println!("{backend}: {} KiB for {PER_PROCESS} tasks", grown());
        drop(crowd);
        process::eventually("the memory of the crowd is given back", || {
            (grown() <= MAX_GROWTH_KIB).then_some(())
        });
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

/// No scan may use more CPU time.
const MAX_SCAN: Nanos = Nanos::from_millis(60);

/// The threads of one process. The kernel limits the memory areas of a process, and each thread has
/// some.
const PER_PROCESS: usize = 5000;

/// Returns the number of threads for which this host has room.
fn room() -> usize {
    let number =
        |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<usize>().ok());
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map(number);
    let limit = limits.into_iter().flatten().min().unwrap_or(0);
    let used = process::all().map(|pid| process::threads(pid).len()).sum::<usize>();
    if limit >= used + 31_000 { 30_000 } else { 10_000 }
}

/// Measures the CPU time of a thread between two of its sleeps until `stop` is set. Returns the
/// second longest time, and the number of times. The longest one may include time that a hypervisor
/// took, because the kernel counts that as CPU time.
fn longest_work(tid: Tid, stop: &AtomicBool) -> (Nanos, usize) {
    let sleeps = || process::status(tid, "voluntary_ctxt_switches");
    let (mut works, mut longest) = (Vec::new(), Nanos::ZERO);
    let (mut before, mut begun) = (sleeps(), process::thread_cpu_time(tid));
    while !stop.load(SeqCst) {
        clock::nap(Nanos::from_millis(1));
        // This order makes the time too short, never too long, if the thread sleeps in between.
        let used = process::thread_cpu_time(tid);
        let now = sleeps();
        let (Some(from), Some(to)) = (begun, used) else { break };
        if now == before {
            longest = longest.max(to - from);
        } else {
            works.push(std::mem::take(&mut longest));
            (before, begun) = (now, process::thread_cpu_time(tid));
        }
    }
    works.push(longest);
    works.sort_unstable();
    (works.iter().rev().nth(1).copied().unwrap_or(Nanos::MAX), works.len() - 1)
}

#[test]
#[ignore = "starves tasks, as root"]
fn no_scan_of_thirty_thousand_runnable_threads_takes_long() {
    const RUN: Run = ("task_iter", Method::Deadline);
    let _live = live();
    let count = room();
    println!("{count} threads");
    let length = Nanos::from_secs(70);
    let act = format!("threads:{PER_PROCESS}");
    let mut crowd: Vec<Attack> = (0..count / PER_PROCESS).map(|_| Attack::start(length, &[&act])).collect();
    crowd.iter_mut().for_each(Attack::await_ready);
    for options in [&[][..], &["-i", "^no-thread-has-this-name$"]] {
        // A busy neighbour on the host makes each instruction slower.
        let better_of_two = || shorter_of_two(MAX_SCAN, || longest_scan(RUN, options));
        let longest = shorter_of_two(MAX_SCAN, better_of_two);
        assert!(
            longest <= MAX_SCAN,
            "the attack succeeded: {options:?}: a scan of {count} threads took {} ms, four times",
            longest.as_millis()
        );
    }
}

/// Returns the longest CPU time of a scan while a hog holds its CPU for five seconds.
fn longest_scan(run: Run, options: &[&str]) -> Nanos {
    let (stalld, _) = start_stalld(run, false, options);
    let (tid, stop) = (stalld.pid(), Arc::new(AtomicBool::new(false)));
    let is_over = stop.clone();
    let measured = thread::spawn(move || {
        rig::keep_away_from_the_hog();
        longest_work(tid, &is_over)
    });
    let mut rig = Rig::start(&["--for", "5", "--victim", "spin:1:witness"]);
    rig.event("end hog");
    stop.store(true, SeqCst);
    let (longest, scans) = measured.join().unwrap();
    println!("{options:?}: {scans} scans, the longest took {} ms", longest.as_millis());
    assert!(scans >= 5, "the attack succeeded: {options:?}: only {scans} scans in 5 s");
    assert_eq!(stalld.terminate().0, Some(0));
    longest
}
