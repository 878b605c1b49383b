//! Regular expressions for the names of tasks that are to be left alone.

use crate::proc;
use crate::task::{Comm, Escaped, Nanos, Task, Tid};
use regex_lite::{Regex, RegexBuilder};

/// A task is on the list if one of the expressions matches its name somewhere, case and all.
///
/// Names are bytes, expressions text: a name that is not UTF-8 is matched in the escaped form in which
/// it stands in the log.
#[derive(Clone, Debug, Default)]
pub struct Denylist {
    regexes: Vec<Regex>,
    sources: Vec<String>,
}

impl Denylist {
    /// Adds the expressions of a list such as `^ktimers/,rcu`. A comma always separates two of them, so
    /// none can contain one; blanks around them are not part of them. If one is refused, the reason
    /// comes back and the list stays as it was.
    pub fn add(&mut self, list: &str) -> Result<(), String> {
        let regexes = list.split(',').map(|item| compile(item.trim())).collect::<Result<Vec<_>, _>>()?;
        self.regexes.extend(regexes);
        self.sources.push(list.to_string());
        Ok(())
    }

    /// The lists that were added, as they were written.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    pub fn is_empty(&self) -> bool {
        self.regexes.is_empty()
    }

    pub fn matches(&self, name: &[u8]) -> bool {
        let any = |name: &str| self.regexes.iter().any(|regex| regex.is_match(name));
        match std::str::from_utf8(name) {
            Ok(name) => any(name),
            Err(_) => !self.is_empty() && any(&Escaped(name).to_string()),
        }
    }
}

fn compile(item: &str) -> Result<Regex, String> {
    if item.is_empty() {
        return Err("an expression is missing".to_string());
    }
    // A task may put a newline into its name, and regcomp(3) lets `.` match it.
    let regex = RegexBuilder::new(item).dot_matches_new_line(true).build();
    regex.map_err(|reason| format!("cannot compile '{item}': {reason}"))
}

/// The tasks that are to be let alone: on one list by their own name, on the other by that of their process.
/// And without a word, those that belong to stalld.
#[derive(Clone, Default)]
pub struct Ignore {
    /// Number and start.
    own: Vec<(Tid, Option<u64>)>,
    threads: Denylist,
    processes: Denylist,
    /// Those who have been judged, so that each is asked for its process and told of once.
    known: Vec<Judged>,
    new: Vec<Ignored>,
}

/// A task that is let alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub task: Task,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its name is on a denylist, ...
    Name,
    /// ... or that of its process.
    Process(Comm),
    /// The name of its process could not be read, for want of memory or descriptors, and may be on a denylist. It is
    /// asked for again each time.
    Unknown,
}

#[derive(Clone)]
struct Judged {
    tid: Tid,
    start: u64,
    name: Comm,
    /// None where it is not let alone.
    why: Option<Why>,
    seen: Nanos,
}

/// A judgement is remembered for as long after it was last needed.
const MEMORY: Nanos = Nanos::from_secs(600);

impl Ignore {
    pub fn new(threads: Denylist, processes: Denylist) -> Ignore {
        Ignore { threads, processes, ..Ignore::default() }
    }

    /// A process of ours, such as the guardian: it does not starve, or nobody could help it.
    pub fn own(&mut self, process: Tid) {
        self.own.push((process, proc::start(process)));
    }

    fn is_own(&self, task: &Task) -> bool {
        let start = || if task.start == 0 { proc::start(task.tid) } else { Some(task.start) };
        self.own.iter().any(|&(tid, since)| tid == task.tid && since == start())
    }

    pub fn covers(&mut self, task: &Task, now: Nanos) -> bool {
        if self.is_own(task) {
            return true;
        }
        if self.threads.is_empty() && self.processes.is_empty() {
            return false;
        }
        // Who takes another name is another for this purpose.
        let is_it = |it: &Judged| (it.tid, it.start, it.name) == (task.tid, task.start, task.comm);
        let known = self.known.iter().position(is_it);
        let before = known.and_then(|index| self.known.get_mut(index)).map(|known| {
            known.seen = now;
            known.why
        });
        match before {
            None | Some(Some(Why::Unknown)) => {}
            Some(why) => return why.is_some(),
        }
        let why = self.judge(task);
        if before != Some(why) {
            known.map(|index| self.known.swap_remove(index));
            self.known.retain(|known| now - known.seen < MEMORY);
            let Task { tid, start, comm: name, .. } = *task;
            self.known.push(Judged { tid, start, name, why, seen: now });
            self.new.extend(why.map(|why| Ignored { task: *task, why }));
        }
        why.is_some()
    }

    pub fn newly_ignored(&mut self) -> std::vec::Drain<'_, Ignored> {
        self.new.drain(..)
    }

    fn judge(&self, task: &Task) -> Option<Why> {
        if self.threads.matches(task.comm.as_bytes()) {
            return Some(Why::Name);
        }
        if self.processes.is_empty() {
            return None;
        }
        let tgid = task.tgid.or_else(|| proc::tgid(task.tid));
        match tgid.and_then(proc::comm) {
            // It has ended.
            None if proc::try_start(task.tid).is_ok_and(|start| start.is_none()) => None,
            None => Some(Why::Unknown),
            Some(name) => self.processes.matches(name.as_bytes()).then_some(Why::Process(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denylist(list: &str) -> Denylist {
        let mut denylist = Denylist::default();
        denylist.add(list).unwrap();
        denylist
    }

    #[test]
    fn an_expression_matches_anywhere_in_the_name_unless_anchored() {
        for (list, name, expected) in [
            ("rcu", "rcuc/1", true),
            ("rcu", "my_rcu", true),
            ("^rcu", "my_rcu", false),
            ("rcu$", "my_rcu", true),
            ("RCU", "rcuc/1", false),
            ("a,rcu", "rcuc/1", true),
            (" a , rcu ", "rcuc/1", true),
            ("kworker/[0-9]+:", "kworker/12:3", true),
            ("^(a|b)$", "ab", false),
            ("a.c", "a\nc", true),
            ("größe", "größe", true),
            ("^$", "", true),
        ] {
            assert_eq!(denylist(list).matches(name.as_bytes()), expected, "{list:?} {name:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_matches_by_its_escaped_form() {
        let name = b"w\xc3\\1";
        assert!(denylist(r"^w\\xc3\\\\1$").matches(name));
        assert!(denylist("^w").matches(name));
        assert!(!denylist("^x").matches(name));
        assert!(!Denylist::default().matches(name));
    }

    #[test]
    fn lists_add_up_and_are_kept_as_written() {
        let mut denylist = denylist("a, b");
        denylist.add("c").unwrap();
        assert!([b"a", b"b", b"c"].iter().all(|name| denylist.matches(*name)));
        assert_eq!(denylist.sources(), ["a, b", "c"]);
    }

    #[test]
    fn a_process_of_ours_is_let_alone_and_not_whoever_has_its_number_later() {
        let own = Tid(std::process::id() as i32);
        let mut ignore = Ignore::default();
        ignore.own(own);
        let mut covers = |start| ignore.covers(&Task { tid: own, start, ..Task::default() }, Nanos::ZERO);
        let start = proc::start(own).unwrap();
        assert!(covers(start) && covers(0));
        assert!(!covers(start + 1));
    }

    #[test]
    fn a_refused_list_leaves_nothing_behind() {
        let mut denylist = Denylist::default();
        let missing = "an expression is missing";
        for (list, reason) in [
            ("", missing),
            (" ", missing),
            ("a,", missing),
            (",a", missing),
            ("a,,b", missing),
            ("a,(b", "cannot compile '(b': found open group without closing ')'"),
            (r"(a)\1", r"cannot compile '(a)\1': backreferences are not supported"),
            // The comma ends the expression.
            ("a{1,2}", "cannot compile 'a{1': found incomplete and unclosed counted repetition operator"),
            ("a{9999}{9999}", "cannot compile 'a{9999}{9999}': compiled regex exceeded size limit"),
        ] {
            assert_eq!(denylist.add(list).unwrap_err(), reason, "{list:?}");
            assert!(denylist.is_empty() && denylist.sources().is_empty());
        }
    }

    /// The man page names these differences from POSIX; regex-lite must not change them unnoticed.
    #[test]
    fn the_syntax_is_that_of_the_man_page() {
        for refused in ["{", "a{x}", "*a", "+", r"(a)\1", "[[.a.]]", "[[=a=]]", "[[]", "[a&&b]", ")", r"\y"] {
            assert!(compile(refused).is_err(), "{refused}");
        }
        for (regex, name) in [
            (r"\{", "{"),
            (r"[\[]", "["),
            (r"[\d]", "7"),
            ("[[:alpha:]]", "a"),
            ("[]a]", "]"),
            (r"^a\x2cb$", "a,b"),
            (r"\<b", "a b"),
            (r"a\>", "a b"),
            (r"\bb", "a b"),
            (r"\`", "`"),
            ("a|", "x"),
            ("(?i)RCU", "rcu"),
        ] {
            assert!(compile(regex).unwrap().is_match(name), "{regex}");
        }
        assert!(!compile(r"^[\.]").unwrap().is_match(r"\"));
    }
}
