//! Attacks by numbers of tasks that are used again.

use crate::observer::{Observer, Watched};
use crate::scene::{Method, is_boosted, start_stalld};
use rig::attack::{AS_USER, Attack};
use rig::process::{self, eventually};
use rig::{Rig, live};
use stalld::task::{Nanos, Tid};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The number of attempts, because another process of the host may take the number first.
const TRIES: usize = 20;

/// A process of the user that has a chosen number and sleeps. Killed when dropped.
struct Newcomer(Child);

impl Newcomer {
    /// Retries if another process takes the number first. Returns `None` if that process keeps the
    /// number.
    fn start(number: Tid) -> Option<Newcomer> {
        let [first, rest @ ..] = AS_USER;
        for _ in 0..TRIES {
            fs::write("/proc/sys/kernel/ns_last_pid", (number.0 - 1).to_string()).unwrap();
            let mut command = Command::new(first);
            let child = command.args(rest).args(["sleep", "60"]).process_group(0).spawn().unwrap();
            let newcomer = Newcomer(child);
            if newcomer.0.id() == number.0 as u32 {
                return Some(newcomer);
            }
        }
        None
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns `None` if another process has the number.
fn reuse(method: Method) -> Option<()> {
    let (mut stalld, budget) = start_stalld(("task_iter", method), false, &[]);
    let mut attack = Attack::start(Nanos::from_secs(10), &["end"]);
    attack.await_ready();
    let victim = attack.victims()[0];
    let mut rig = Rig::start(&["--for", "4", "--victim", "spin:1:witness"]);
    rig.event("hog");
    assert!(is_boosted(&mut stalld, victim), "the attack did not take place");
    eventually("the victim has ended", || process::state(victim).is_none().then_some(()));
    let newcomer = Newcomer::start(victim)?;
    let ended = stalld.wait_for(|record| record.is_of("ended", victim), Nanos::ZERO);
    assert!(ended.is_none(), "the boost had ended before the number was used again");
    let watched = Watched { act: "newcomer", group: victim, is_fifo: false };
    let observer = Observer::start(vec![watched], budget, stalld.pid(), 50);
    rig.event("end hog");
    assert_eq!(stalld.terminate().0, Some(0));
    let findings = observer.finish();
    drop(newcomer);
    assert!(findings.is_empty(), "the attack succeeded: {method:?}: {findings:?}");
    Some(())
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_that_gets_the_number_of_a_boosted_one_gains_no_rank() {
    let _live = live();
    for method in [Method::Deadline, Method::Pulses] {
        std::iter::repeat_with(|| reuse(method)).take(5).find_map(|done| done).unwrap();
    }
}
