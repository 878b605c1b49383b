//! The scheduler's debug text, of any kernel.

use super::is_one_line;
use stalld::cpus::CpuSet;
use stalld::observe::sched_debug::{Scope, parse};
use stalld::observe::{Snapshot, Waiter};
use stalld::task::{Task, Tid};
use std::io::Write;

/// The task that read the text in one of the fixtures.
const READER: Tid = Tid(545);

pub fn run(text: &[u8]) {
    let cpus = CpuSet::first(4);
    let mut scope = Scope::new(cpus.clone(), Some(READER));
    let mut scan = |text: &[u8]| {
        let mut snapshot = Snapshot::default();
        parse(text, &mut scope, &mut snapshot).map(|()| snapshot)
    };
    let snapshot = match scan(text) {
        Ok(snapshot) => snapshot,
        Err(error) => return assert!(is_one_line(&error.to_string()), "{error:?}"),
    };
    let loads = &snapshot.load;
    assert!(loads.is_sorted_by(|a, b| a.cpu < b.cpu), "{loads:?}");
    for task in snapshot.waiters.iter().map(|waiter| &waiter.task).chain(&snapshot.running) {
        assert!(task.tid.0 > 0 && task.tid != READER && cpus.contains(task.cpu), "{task:?}");
        assert!(loads.iter().any(|load| load.cpu == task.cpu), "{task:?} on {loads:?}");
    }
    for Waiter { task, since } in &snapshot.waiters {
        assert!(since.is_none() && !task.sched.is_deadline(), "{task:?}");
        assert!(snapshot.running.iter().all(|running| running.tid != task.tid), "{task:?} waits and runs");
    }
    assert!(snapshot.waiters.is_sorted_by(|a, b| a.task.tid < b.task.tid), "{:?}", snapshot.waiters);

    // Neither an earlier text, which the scope remembers, nor text around the sections changes the
    // result.
    let framed = [b"Sched Debug Version\n\n", text, b"\n"].concat();
    assert_eq!(tasks(&scan(&framed).expect("it is as good")), tasks(&snapshot));
    if loads.is_empty() {
        // None of the CPUs was asked for, so there is nothing to print.
        return;
    }
    let again = scan(&print(&snapshot)).unwrap_or_else(|error| panic!("{error}: {snapshot:?}"));
    assert_eq!(tasks(&again), tasks(&snapshot));
    let runnable = |snapshot: &Snapshot| -> Vec<_> {
        snapshot.load.iter().map(|load| (load.cpu, load.runnable)).collect()
    };
    assert_eq!(runnable(&again), runnable(&snapshot));
}

fn tasks(snapshot: &Snapshot) -> (Vec<Task>, &[Task]) {
    (snapshot.waiters.iter().map(|waiter| waiter.task).collect(), &snapshot.running)
}

/// Prints a snapshot as a recent kernel does.
fn print(snapshot: &Snapshot) -> Vec<u8> {
    let mut text = Vec::new();
    for load in &snapshot.load {
        let (cpu, runnable) = (load.cpu, load.runnable);
        let _ = write!(
            text,
            "cpu#{cpu}, 2000.000 MHz\n  .nr_running                    : {runnable}\n\nrunnable tasks:\n \
             S            task   PID       vruntime   eligible    deadline             slice          sum-exec      \
             switches  prio         wait-time        sum-sleep       sum-block  group-path\n---\n"
        );
        let waiting = snapshot.waiters.iter().map(|waiter| (" R", &waiter.task));
        let running = snapshot.running.iter().map(|task| (">R", task));
        for (mark, task) in waiting.chain(running).filter(|(_, task)| task.cpu == cpu) {
            let name = task.comm.as_bytes();
            text.extend([mark.as_bytes(), b" ", &b"               "[name.len()..], name].concat());
            let (tid, switches, prio) = (task.tid, task.progress, task.sched.prio);
            let _ = writeln!(
                text,
                " {tid:>5}     12345.678901   E     12348.678901 S         3.000000      2830.763696 {switches:>9} \
                 {prio:>5}         0.000000         0.000000         0.000000        /"
            );
        }
        text.push(b'\n');
    }
    text
}
