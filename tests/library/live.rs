//! Starvation for real: seen, boosted and restored by a C program, whatever becomes of that.

use crate::c::{Program as Built, ROOT, library};
use crate::rig::process::{self, eventually};
use crate::rig::scratch::Scratch;
use crate::rig::{self, Event, PATIENCE, Program, Rig, Stalld, live};
use stalld::proc;
use stalld::sys::sched;
use stalld::task::{Policy, Tid};
use std::fs;
use std::process::Command;

const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";

const OWN: (Policy, u32) = (Policy::FIFO, 1);

fn policy(tid: Tid) -> Option<(Policy, u32)> {
    sched::get_attr(tid).ok().map(|attr| (attr.policy, attr.priority))
}

fn is_boosted(tid: Tid) -> bool {
    policy(tid).is_some_and(|(policy, _)| policy == Policy::DEADLINE)
}

/// The example ffi/examples/watch.c, at work.
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
            rig::hogged_cpu()
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

fn is_restored(victim: &Event) {
    eventually("the victim is what it was", || (policy(victim.tid()) == Some(OWN)).then_some(()));
}

#[test]
fn who_starves_is_told_boosted_and_restored() {
    let Some(_live) = live() else { return };
    let mut watch = Watch::start(&["-b", "-t", "1000", "-d", "1000"]);
    let mut rig = Rig::start(&["--for", "3.5"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let told = watch.program.line_with(&format!("starving {} (victim)", victim.tid())).1;
    assert!(told.contains(&format!("behind {} (hog)", hog.tid())), "{told}");
    watch.program.line_with(&format!("boosted {} (victim)", victim.tid()));
    watch.program.line_with(&format!("restored {} (victim) to FIFO 1 after", victim.tid()));
    assert_eq!(policy(victim.tid()), Some(OWN));
    let (code, said) = rig.finish();
    assert!(code == Some(0) && !said.contains("first_ran_after=never"), "{said}");
    watch.signal("TERM");
    assert_eq!(watch.program.finish(PATIENCE), Some(0));
}

#[test]
fn who_only_watches_changes_nothing() {
    let Some(_live) = live() else { return };
    let mut watch = Watch::start(&["-t", "500"]);
    let mut rig = Rig::start(&["--for", "2.5"]);
    let victim = rig.event("victim");
    for _ in 0..2 {
        watch.program.line_with(&format!("starving {} (victim)", victim.tid()));
        assert_eq!(policy(victim.tid()), Some(OWN));
    }
}

#[test]
fn stopped_in_the_middle_of_a_boost_it_restores_first() {
    let Some(_live) = live() else { return };
    let mut watch = Watch::start(&["-b", "-t", "1000"]);
    let (_rig, victim) = watch.boosts("4");
    watch.signal("INT");
    watch.program.line_with(&format!("restored {} (victim) to FIFO 1", victim.tid()));
    assert_eq!(watch.program.finish(PATIENCE), Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN));
}

#[test]
fn killed_it_leaves_nothing_behind_where_it_has_a_guardian() {
    let Some(_live) = live() else { return };
    let mut watch = Watch::start(&["-b", "-g", "-t", "1000"]);
    let guardian = watch.guardian();
    let (_rig, victim) = watch.boosts("4");
    watch.signal("KILL");
    is_restored(&victim);
    process::await_end(guardian);
}

#[test]
fn a_guardian_that_was_killed_is_missed_and_takes_nobody_with_it() {
    let Some(_live) = live() else { return };
    let mut watch = Watch::start(&["-g", "-t", "500"]);
    process::signal(watch.guardian(), "KILL");
    watch.program.line_with("the guardian has been killed");
    watch.signal("TERM");
    assert_eq!(watch.program.finish(PATIENCE), Some(0));
}

#[test]
fn a_journal_in_a_file_outlives_the_guardian_too() {
    let Some(_live) = live() else { return };
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
fn throttling_is_off_if_that_is_asked_for_and_back_after_any_end() {
    let Some(_live) = live() else { return };
    let limit = || fs::read_to_string(LIMIT).unwrap().trim().to_string();
    let before = limit();
    for signal in ["TERM", "KILL"] {
        fs::write(LIMIT, "950000").unwrap();
        let _plain = Watch::start(&["-b", "-g"]);
        assert_eq!(limit(), "950000");
        let watch = Watch::start(&["-u", "-g"]);
        assert_eq!(limit(), "-1");
        watch.signal(signal);
        eventually("throttling is what it was", || (limit() == "950000").then_some(()));
    }
    fs::write(LIMIT, before).unwrap();
}

#[test]
fn a_child_that_lives_on_does_not_keep_the_guardian_from_its_work() {
    let Some(_live) = live() else { return };
    let before = fs::read_to_string(LIMIT).unwrap();
    fs::write(LIMIT, "950000").unwrap();
    let built = Built::build("tests/orphan.c", &[]);
    let mut orphan = Program::start("orphan", built.command(&[]));
    let child = orphan.line_with("child ").1;
    let child = Tid(child.trim_start_matches("child ").parse().unwrap());
    process::signal(orphan.pid(), "KILL");
    eventually("throttling is what it was", || {
        (fs::read_to_string(LIMIT).unwrap().trim() == "950000").then_some(())
    });
    assert!(!process::has_ended(child));
    process::signal(child, "KILL");
    fs::write(LIMIT, before.trim()).unwrap();
}

#[test]
fn told_to_it_boosts_in_pulses_of_fifo() {
    let Some(_live) = live() else { return };
    let mut watch = Watch::start(&["-b", "-f", "-t", "1000", "-d", "1000"]);
    let mut rig = Rig::start(&["--for", "3.5"]);
    let victim = rig.event("victim");
    watch.program.line_with(&format!("boosted {} (victim) cpu {} by FIFO", victim.tid(), rig::hogged_cpu()));
    let (code, said) = rig.finish();
    assert!(code == Some(0) && !said.contains("first_ran_after=never"), "{said}");
}

#[test]
fn a_task_is_boosted_on_request_and_restored() {
    let Some(_live) = live() else { return };
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
    assert_eq!(program.finish(PATIENCE), Some(0));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn python_sees_who_starves() {
    let Some(_live) = live() else { return };
    if !crate::c::has("python3") {
        return;
    }
    let mut command = Command::new("python3");
    command.args(["examples/watch.py", "500", "60"]).current_dir(ROOT).env("LD_LIBRARY_PATH", library());
    let mut python = Program::start("watch.py", command);
    python.line_with("backend ");
    let mut rig = Rig::start(&["--for", "2"]);
    let victim = rig.event("victim");
    python.line_with(&format!("{} ('victim') starves on CPU {}", victim.tid(), rig::hogged_cpu()));
    assert_eq!(policy(victim.tid()), Some(OWN));
}
