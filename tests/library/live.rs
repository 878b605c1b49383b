//! C programs that see, boost and restore starving tasks on this host, and how they end.

use rig::boosts::{OWN, await_own_policy, is_boosted, policy};
use rig::c::{Program as Built, ROOT, library};
use rig::process::{self, eventually};
use rig::scratch::Scratch;
use rig::throttling::{limit, set_limit};
use rig::{Event, Program, Rig, Stalld, TIMEOUT, hogged_cpu, live};
use stalld::proc;
use stalld::sys::sched;
use stalld::task::{Policy, Tid};
use std::process::Command;

/// The running example ffi/examples/watch.c.
struct Watch {
    program: Program,
    _built: Built,
}

impl Watch {
    fn start(args: &[&str]) -> Watch {
        rig::keep_away_from_the_hog();
        let built = Built::build("examples/watch.c", &[]);
        let mut program =
            Program::start("watch", built.command(&[&["-i", Stalld::RIG_ONLY[1]], args].concat()));
        program.line_with("backend ");
        Watch { program, _built: built }
    }

    /// A rig with one victim that is in the middle of its boost.
    fn boosts(&mut self, seconds: &str) -> (Rig, Event) {
        let mut rig = Rig::start(&["--for", seconds]);
        let victim = rig.event("victim");
        self.program.line_with(&format!(
            "boosted {} (victim) cpu {} by DEADLINE",
            victim.tid(),
            hogged_cpu()
        ));
        assert!(is_boosted(victim.tid()));
        (rig, victim)
    }

    fn signal(&self, name: &str) {
        process::signal(self.program.pid(), name);
    }

    fn guardian(&self) -> Tid {
        let is_it = |&pid: &Tid| proc::comm(pid).is_some_and(|comm| comm.as_bytes() == b"stall-guard");
        let find = || process::children(self.program.pid()).into_iter().find(is_it);
        eventually("it has a guardian of that name", find)
    }
}

fn await_restore(victim: &Event) {
    eventually("the victim is restored", || (policy(victim.tid()) == Some(OWN)).then_some(()));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_starving_task_is_reported_boosted_and_restored() {
    let _live = live();
    let mut watch = Watch::start(&["-b", "-t", "1000", "-d", "1000"]);
    let mut rig = Rig::start(&["--for", "3.5"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let line = watch.program.line_with(&format!("starving {} (victim)", victim.tid())).1;
    assert!(line.contains(&format!("behind {} (hog)", hog.tid())), "{line}");
    watch.program.line_with(&format!("boosted {} (victim)", victim.tid()));
    watch.program.line_with(&format!("restored {} (victim) to FIFO 1 after", victim.tid()));
    await_own_policy(victim.tid());
    let (code, said) = rig.finish();
    assert!(code == Some(0) && !said.contains("first_ran_after=never"), "{said}");
    watch.signal("TERM");
    assert_eq!(watch.program.finish(TIMEOUT), Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_program_that_only_watches_changes_nothing() {
    let _live = live();
    let mut watch = Watch::start(&["-t", "500"]);
    let mut rig = Rig::start(&["--for", "2.5"]);
    let victim = rig.event("victim");
    for _ in 0..2 {
        watch.program.line_with(&format!("starving {} (victim)", victim.tid()));
        assert_eq!(policy(victim.tid()), Some(OWN));
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_program_stopped_during_a_boost_restores_first() {
    let _live = live();
    let mut watch = Watch::start(&["-b", "-t", "1000"]);
    let (_rig, victim) = watch.boosts("4");
    watch.signal("INT");
    watch.program.line_with(&format!("restored {} (victim) to FIFO 1", victim.tid()));
    assert_eq!(watch.program.finish(TIMEOUT), Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_killed_program_with_a_guardian_leaves_nothing_behind() {
    let _live = live();
    let mut watch = Watch::start(&["-b", "-g", "-t", "1000"]);
    let guardian = watch.guardian();
    let (_rig, victim) = watch.boosts("4");
    watch.signal("KILL");
    await_restore(&victim);
    process::await_end(guardian);
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_death_of_the_guardian_is_reported_and_survived() {
    let _live = live();
    let mut watch = Watch::start(&["-g", "-t", "500"]);
    process::signal(watch.guardian(), "KILL");
    watch.program.line_with("the guardian has been killed");
    watch.signal("TERM");
    assert_eq!(watch.program.finish(TIMEOUT), Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_journal_in_a_file_outlives_the_guardian_too() {
    let _live = live();
    let dir = Scratch::new("library-journal");
    let journal = dir.join("journal");
    let args = ["-b", "-g", "-t", "1000", "-j", journal.to_str().unwrap()];
    let mut watch = Watch::start(&args);
    let (_rig, victim) = watch.boosts("6");
    let guardian = watch.guardian();
    // Stopped first, so that neither acts on the other's end.
    process::signal(guardian, "STOP");
    watch.signal("KILL");
    process::signal(guardian, "KILL");
    process::await_end(guardian);
    assert!(is_boosted(victim.tid()));
    let _next = Watch::start(&["-j", journal.to_str().unwrap()]);
    assert_eq!(policy(victim.tid()), Some(OWN));
}

#[test]
#[ignore = "starves tasks, as root"]
fn throttling_is_off_on_request_and_restored_after_any_end() {
    let _live = live();
    for signal in ["TERM", "KILL"] {
        set_limit("950000");
        let _plain = Watch::start(&["-b", "-g"]);
        assert_eq!(limit(), "950000");
        let watch = Watch::start(&["-u", "-g"]);
        assert_eq!(limit(), "-1");
        watch.signal(signal);
        eventually("throttling is restored", || (limit() == "950000").then_some(()));
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_surviving_child_does_not_keep_the_guardian_from_restoring() {
    let _live = live();
    set_limit("950000");
    let built = Built::build("tests/orphan.c", &[]);
    let mut orphan = Program::start("orphan", built.command(&[]));
    let child = orphan.line_with("child ").1;
    let child = Tid(child.trim_start_matches("child ").parse().unwrap());
    process::signal(orphan.pid(), "KILL");
    eventually("throttling is restored", || (limit() == "950000").then_some(()));
    assert!(!process::has_ended(child));
    process::signal(child, "KILL");
}

#[test]
#[ignore = "starves tasks, as root"]
fn on_request_it_boosts_in_fifo_pulses() {
    let _live = live();
    let mut watch = Watch::start(&["-b", "-f", "-t", "1000", "-d", "1000"]);
    let mut rig = Rig::start(&["--for", "3.5"]);
    let victim = rig.event("victim");
    watch.program.line_with(&format!("boosted {} (victim) cpu {} by FIFO", victim.tid(), hogged_cpu()));
    let (code, said) = rig.finish();
    assert!(code == Some(0) && !said.contains("first_ran_after=never"), "{said}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_task_is_boosted_on_request_and_restored() {
    let _live = live();
    let boost = Built::build("examples/boost.c", &[]);
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let tid = Tid(sleeper.id() as i32);
    sched::set_scheduler(tid, Policy::RR, 7, true).unwrap();
    let before = sched::get_attr(tid).unwrap();
    let mut program = Program::start("boost", boost.command(&[&tid.to_string(), "500"]));
    program.line_with(&format!("boosted {tid}"));
    assert!(is_boosted(tid));
    program.line_with(&format!("restored {tid}"));
    assert_eq!(sched::get_attr(tid).unwrap(), before);
    assert_eq!(program.finish(TIMEOUT), Some(0));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
#[ignore = "starves tasks, as root"]
fn python_sees_a_starving_task() {
    let _live = live();
    let mut command = Command::new("python3");
    command.args(["examples/watch.py", "500", "60"]).current_dir(ROOT).env("LD_LIBRARY_PATH", library());
    let mut python = Program::start("watch.py", command);
    python.line_with("backend ");
    let mut rig = Rig::start(&["--for", "2"]);
    let victim = rig.event("victim");
    python.line_with(&format!("{} ('victim') starves on CPU {}", victim.tid(), hogged_cpu()));
    assert_eq!(policy(victim.tid()), Some(OWN));
}
