//! The text of a file of /proc about a task. Each reader gets the text, whichever file it is for.
//! The text also serves as the name in a valid file.

use super::is_one_line;
use stalld::proc::text;
use stalld::task::{Comm, Cpu, Policy, Sched, Tid};

pub fn run(input: &[u8]) {
    let comm = text::comm(input);
    assert!(comm.as_bytes().len() <= 15 && !comm.as_bytes().contains(&0));
    assert!(comm.as_bytes().is_empty() || is_one_line(&comm.to_string()));
    if let Some(group) = text::cgroup(input) {
        assert!(group.is_empty() || is_one_line(&group), "{group:?}");
    }
    if let Some(task) = text::task(Tid(7), input, input, input) {
        assert_eq!((task.tid, task.tgid, task.comm), (Tid(7), text::tgid(input), comm));
        assert!(text::start(input) == Some(task.start) && text::state(input).is_some());
    }
    for number in [text::runs(input), text::number(input)].into_iter().flatten() {
        assert!(contains(input, number), "{number}");
    }
    if let Some(runnable) = text::runnable(input) {
        assert!(contains(input, runnable.into()), "{runnable}");
    }
    round_trip(comm);
}

/// Returns true if the text has the digits of a number, so that no number is invented. A sign or
/// zeros may stand before them.
fn contains(text: &[u8], number: u64) -> bool {
    let digits = number.to_string();
    text.windows(digits.len()).any(|window| window == digits.as_bytes())
}

/// Checks that a task can choose any name, and changes no other field by that.
fn round_trip(comm: Comm) {
    let name = comm.as_bytes();
    let number = name.iter().fold(1u32, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into()));
    let (prio, start) = (number as i32 % 100, u64::from(number) << 20);
    let (cpu, policy) = (number % 8192, number % 8);
    // The fields of /proc/PID/stat from the third one on, which is the state.
    let mut fields = vec![String::from("1"); 50];
    fields[0] = String::from("R");
    fields[15] = prio.to_string();
    fields[19] = start.to_string();
    fields[36] = cpu.to_string();
    fields[38] = policy.to_string();
    let stat = [b"7 (", name, b") ", fields.join(" ").as_bytes(), b"\n"].concat();
    let escaped = comm.to_string();
    let status = [b"Name:\t", escaped.as_bytes(), b"\nUmask:\t0022\nTgid:\t5\nPid:\t7\n"].concat();
    let task = text::task(Tid(7), &stat, &status, &[name, b"\n"].concat()).expect("a good text is read");
    assert_eq!((task.tgid, task.cpu, task.start), (Some(Tid(5)), Cpu(cpu), start), "{comm:?}");
    assert_eq!(task.sched, Sched { policy: Some(Policy(policy)), prio: prio + 100 }, "{comm:?}");
    assert_eq!((task.comm, text::state(&stat)), (comm, Some(b'R')));
}
