//! A list of regular expressions, and the name of a task behind a NUL.

use super::{is_one_line, item};
use stalld::denylist::Ignore;
use stalld::patterns::Patterns;
use stalld::task::{Comm, Escaped, Nanos, Task, Tid};

pub fn run(mut input: &[u8]) {
    let Ok(list) = std::str::from_utf8(item(&mut input)) else { return };
    let name = input;
    // Longer texts show nothing new, and take more time.
    if list.len() > 200 || name.len() > 64 {
        return;
    }
    let read = |list: &str| {
        let mut denylist = Patterns::default();
        denylist.add(list).map(|()| denylist)
    };
    let items: Result<Vec<Patterns>, String> = list.split(',').map(read).collect();
    let all = match read(list) {
        Ok(all) => all,
        Err(reason) => {
            assert_eq!(items.err().as_ref(), Some(&reason));
            assert!(is_one_line(&Escaped(reason.as_bytes()).to_string()), "{reason:?}");
            let mut kept = read("kept").unwrap_or_default();
            assert!(kept.add(list).is_err() && kept.sources() == ["kept"] && !kept.matches(b"name"));
            return;
        }
    };
    let items = items.unwrap_or_else(|reason| panic!("{list:?} in parts: {reason}"));
    assert!(!all.is_empty() && all.sources() == [list]);
    assert_eq!(all.matches(name), items.iter().any(|item| item.matches(name)), "{list:?} {name:?}");

    // A task of this name, in the process of this program.
    let comm = Comm::new(name);
    let own = Tid(std::process::id() as i32);
    let task = Task { tid: own, tgid: Some(own), start: 7, comm, ..Task::default() };
    let mut threads = Ignore::new(all.clone(), Patterns::default());
    let ignored = all.matches(comm.as_bytes());
    // A verdict is forgotten only if no scan has needed it for ten minutes.
    for now in [1, 500, 1000].map(Nanos::from_secs) {
        assert_eq!(threads.verdict(&task, now), Some(ignored));
    }
    assert_eq!(threads.newly_ignored().count(), usize::from(ignored), "it is reported once");
    let mut processes = Ignore::new(Patterns::default(), all.clone());
    let process = stalld::proc::comm(own).unwrap_or_default();
    assert_eq!(processes.verdict(&task, Nanos(1)), Some(all.matches(process.as_bytes())));
    // Without a list only stalld's own processes are ignored, and that is not reported.
    let mut without_list = Ignore::default();
    assert_eq!(without_list.verdict(&task, Nanos(1)), Some(false));
    without_list.own(own);
    assert_eq!(without_list.verdict(&Task { start: 0, ..task }, Nanos(1)), Some(true));
    assert_eq!(without_list.newly_ignored().count(), 0);
}
