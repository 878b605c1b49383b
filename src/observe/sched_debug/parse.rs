//! Parses the text: one section per CPU, a table of tasks in each.
//!
//! A task chooses its name, which may contain all that the text consists of: `cpu#3,`, an empty
//! line, a whole row. So the parser recognizes structure by position only. A table begins after its
//! header, and ends with an empty line *where a row would begin*. In between, the layout gives the
//! rows, and each name has a fixed length. A section begins only outside of a table. The name of a
//! cgroup comes after text of the kernel on the same line, and can't contain a newline. A text that
//! breaks these rules is rejected as a whole.
//!
//! The text does not show two things. A task that was preempted just before it would have slept is
//! still queued, but is printed as sleeping. Under a sched_ext scheduler, outside of the root
//! cgroup, a waiting task and one out of quota are printed alike.

use super::format::{Layout, Numbers, Row, State, decimal, next_word};
use crate::cpus::CpuSet;
use crate::error::{Error, Result};
use crate::observe::{Load, Snapshot, Waiter};
use crate::task::{Comm, Cpu, Escaped, Owner, Sched, Task, Tid};

/// The CPUs to parse, the thread to skip, and memory for parsing.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The monitored CPUs. Sections of other CPUs are skipped.
    pub cpus: CpuSet,
    /// The thread that reads the text. It is skipped, because it is runnable only in order to read.
    pub reader: Option<Tid>,
    /// The cgroups with a fair run queue in the current section. They are kept here, so that a scan
    /// allocates nothing.
    groups: Vec<Group>,
}

impl Scope {
    pub fn new(cpus: CpuSet, reader: Option<Tid>) -> Scope {
        Scope { cpus, reader, groups: Vec::new() }
    }
}

/// Adds the tasks of the text to `snapshot`. The error names what could not be parsed.
///
/// The text is not of one moment. A task that migrated meanwhile may be in two sections. The later
/// section counts, and if the task runs in either one, it is no waiter.
pub fn parse(text: &[u8], scope: &mut Scope, snapshot: &mut Snapshot) -> Result<()> {
    let mut rest = text;
    let mut open: Option<Section> = None;
    let mut last: Option<Cpu> = None;
    while let Some(line) = next_line(&mut rest) {
        if let Some(title) = line.strip_prefix(b"cpu#") {
            let cpu = section_cpu(title).ok_or_else(|| Error::new("a section names no CPU"))?;
            if let Some(section) = open {
                return Err(section.error("has no table of tasks"));
            }
            if last.is_some_and(|last| last >= cpu) {
                return Err(Error::new(format!("the section of CPU {cpu} is out of order")));
            }
            last = Some(cpu);
            scope.groups.clear();
            open = Some(Section::new(cpu, scope.cpus.contains(cpu)));
        } else if line == b"runnable tasks:" {
            let section = open.take().ok_or_else(|| Error::new("a table of tasks belongs to no CPU"))?;
            section.read_table(text, &mut rest, scope, snapshot)?;
        } else if let Some(section) = &mut open {
            let end = text.len() - rest.len() - 1;
            section.read_line(line, end, &mut scope.groups);
        }
    }
    if !rest.is_empty() {
        return Err(Error::new("its last line is cut off"));
    }
    match (open, last) {
        (Some(section), _) => Err(section.error("has no table of tasks")),
        (None, None) => Err(Error::new("it has no table 'runnable tasks:'")),
        (None, Some(_)) => {
            settle(snapshot);
            Ok(())
        }
    }
}

/// A cgroup's fair run queue on the CPU of a section.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// The position of its path in the text.
    start: usize,
    end: usize,
    throttled: bool,
}

impl Group {
    fn path<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// The values above the table of a CPU.
struct Section {
    cpu: Cpu,
    monitored: bool,
    nr_running: Option<u32>,
    /// The kernel has no fair group scheduling: run queues are printed without a path.
    without_groups: bool,
}

impl Section {
    fn new(cpu: Cpu, monitored: bool) -> Section {
        Section { cpu, monitored, nr_running: None, without_groups: false }
    }

    fn error(&self, what: &str) -> Error {
        Error::new(format!("the section of CPU {} {what}", self.cpu))
    }

    /// Reads a line above the table. `end` is the position in the text at which the line ends.
    fn read_line(&mut self, line: &[u8], end: usize, groups: &mut Vec<Group>) {
        if !self.monitored {
            return;
        }
        if let Some(rest) = line.strip_prefix(b"cfs_rq[") {
            let path = rest.iter().position(|&b| b == b':').map_or(&[][..], |at| &rest[at + 1..]);
            self.without_groups |= path.is_empty();
            groups.push(Group { start: end - path.len(), end, throttled: false });
        } else if let Some((name, value)) = field(line) {
            match name {
                // The CPU's own value comes first. Each cgroup's run queue has one, too.
                b"nr_running" if self.nr_running.is_none() => self.nr_running = decimal(value),
                b"throttled" | b"throttle_count" => {
                    if let Some(group) = groups.last_mut() {
                        group.throttled |= value != b"0";
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads from the header to the empty line that ends the table.
    fn read_table(
        &self,
        text: &[u8],
        rest: &mut &[u8],
        scope: &mut Scope,
        snapshot: &mut Snapshot,
    ) -> Result<()> {
        let header = next_line(rest).ok_or_else(|| self.error("ends before its table"))?;
        let layout = Layout::from_header(header).map_err(Error::new)?;
        if !next_line(rest).is_some_and(|line| line.starts_with(b"---")) {
            return Err(self.error("has no line under its header"));
        }
        scope.groups.sort_unstable_by(|a, b| a.path(text).cmp(b.path(text)));
        let quota = Quota { text, groups: &scope.groups, known: !self.without_groups };

        let mut load = Load { cpu: self.cpu, ..Load::default() };
        let (mut own, mut running) = (0, None);
        loop {
            match rest.first() {
                None => return Err(self.error("is cut off")),
                Some(b'\n') => break,
                Some(_) => {}
            }
            let here = *rest;
            let (row, after) = layout.split_row(here).ok_or_else(|| self.odd_row(here))?;
            *rest = after;
            if !self.monitored || row.state == State::Other {
                continue;
            }
            let numbers = layout.numbers(&row).ok_or_else(|| self.odd_row(here))?;
            let task = self.task(&row, &numbers);
            let stops = self.is_stop_thread(&row, &numbers);
            if stops && !layout.has_state() {
                // A stop thread almost never waits, so this table lists sleeping tasks, too.
                return Err(Error::new("it lists tasks that sleep without saying that they do"));
            }
            if task.tid.0 <= 0 {
                // The idle task.
                continue;
            }
            if scope.reader == Some(task.tid) {
                own += 1;
            } else if row.state == State::Running {
                load.realtime += u32::from(task.sched.is_realtime() && !stops);
                running = Some(task);
            } else if !stops && !task.sched.is_deadline() && !quota.is_used_up(&numbers) {
                load.realtime += u32::from(task.sched.is_realtime());
                snapshot.waiters.push(Waiter { task, since: None });
            }
        }
        if self.monitored {
            let nr_running = self.nr_running.ok_or_else(|| self.error("has no .nr_running"))?;
            load.runnable = nr_running.saturating_sub(own);
            snapshot.load.push(load);
            // If the CPU switched tasks between two rows, both are printed as running. The later
            // row is right.
            snapshot.running.extend(running);
        }
        Ok(())
    }

    fn task(&self, row: &Row, numbers: &Numbers) -> Task {
        Task {
            tid: Tid(numbers.pid),
            tgid: None,
            cpu: self.cpu,
            start: 0,
            progress: numbers.switches,
            sched: Sched { policy: None, prio: numbers.prio },
            owner: Owner::Unknown,
            misranked: false,
            comm: Comm::new(row.name),
        }
    }

    /// Returns whether a row is the stop thread of this CPU, `migration/N`. It outranks all tasks,
    /// so it runs as soon as it is woken. FIFO 99 has the same priority, so the name counts, too.
    fn is_stop_thread(&self, row: &Row, numbers: &Numbers) -> bool {
        numbers.prio == 0 && row.name.strip_prefix(b"migration/").and_then(decimal) == Some(self.cpu.0)
    }

    fn odd_row(&self, text: &[u8]) -> Error {
        let row = text.split(|&b| b == b'\n').next().unwrap_or_default();
        let shown = row.get(..row.len().min(60)).unwrap_or_default();
        self.error(&format!("has a row that is none: '{}'", Escaped(shown)))
    }
}

/// The cgroups that have used up their CPU quota. Their fair tasks are throttled, not starving.
///
/// Kernels before 5.1 print the run queue of such a cgroup with its `.throttle_count`. Later
/// kernels print only run queues that are not throttled, and these include every other one with a
/// queued task. So a cgroup that is not listed is out of quota.
struct Quota<'a> {
    text: &'a [u8],
    /// Sorted by path.
    groups: &'a [Group],
    known: bool,
}

impl Quota<'_> {
    fn is_used_up(&self, task: &Numbers) -> bool {
        // The root cgroup has no quota, and no quota applies to real-time tasks.
        if !self.known || task.prio < 100 || task.group.len() <= 1 {
            return false;
        }
        let mut parents = task.group.iter().enumerate().filter(|&(at, &b)| at > 0 && b == b'/');
        self.is_throttled(task.group).unwrap_or(true)
            || parents.any(|(at, _)| self.is_throttled(&task.group[..at]).unwrap_or(false))
    }

    /// Returns whether a cgroup is throttled; `None` if it is not listed.
    fn is_throttled(&self, path: &[u8]) -> Option<bool> {
        let at = self.groups.binary_search_by(|group| group.path(self.text).cmp(path)).ok()?;
        self.groups.get(at).map(|group| group.throttled)
    }
}

fn settle(snapshot: &mut Snapshot) {
    // Sections are in the order of the CPUs. If a task has two records, the one of the higher CPU
    // is newer.
    snapshot.waiters.sort_unstable_by_key(|waiter| (waiter.task.tid, waiter.task.cpu));
    snapshot.waiters.dedup_by(|newer, kept| {
        let same = newer.task.tid == kept.task.tid;
        if same {
            *kept = *newer;
        }
        same
    });
    for task in &snapshot.running {
        if let Ok(at) = snapshot.waiters.binary_search_by_key(&task.tid, |waiter| waiter.task.tid) {
            snapshot.waiters.remove(at);
        }
    }
}

/// Removes the next line from the text and returns it without its newline; `None` for a last line
/// without a newline.
fn next_line<'a>(text: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = text.iter().position(|&b| b == b'\n')?;
    let line = &text[..end];
    *text = &text[end + 1..];
    Some(line)
}

/// Parses the CPU in `3, 2596.135 MHz`, or in `3` on machines that do not report their frequency.
fn section_cpu(title: &[u8]) -> Option<Cpu> {
    title.split(|&b| b == b',').next().and_then(decimal).map(Cpu)
}

/// Splits `  .name      : value`.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = line.strip_prefix(b"  .")?;
    let name = next_word(&mut rest)?;
    let colon = next_word(&mut rest)?;
    let value = next_word(&mut rest)?;
    (colon == b":").then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = " S            task   PID         tree-key  switches  prio     wait-time             sum-exec\n\
                          -------------------------------------------------------------------------------------\n";

    fn row(mark: &str, name: &str, pid: i32, prio: i32, group: &str) -> String {
        format!("{mark} {name:>15} {pid:>5}         0.000000         7 {prio:>5}         0.000000 {group}\n")
    }

    fn section(cpu: u32, nr_running: u32, groups: &str, rows: &[String]) -> String {
        format!(
            "cpu#{cpu}, 2000.000 MHz\n  .nr_running                    : {nr_running}\n\n{groups}\n\
             runnable tasks:\n{HEADER}{}\n",
            rows.concat()
        )
    }

    fn group(cpu: u32, path: &str, throttle_count: u32) -> String {
        format!(
            "cfs_rq[{cpu}]:{path}\n  .nr_running                    : 9\n  .throttle_count                : \
             {throttle_count}\n\n"
        )
    }

    fn scan(text: &str) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        parse(text.as_bytes(), &mut Scope::new(CpuSet::first(2), Some(Tid(77))), &mut snapshot)?;
        Ok(snapshot)
    }

    fn waiters(text: &str) -> Vec<(i32, u32)> {
        scan(text).unwrap().waiters.iter().map(|w| (w.task.tid.0, w.task.cpu.0)).collect()
    }

    #[test]
    fn tasks_that_can_not_starve_are_no_waiters() {
        let text = section(
            0,
            5,
            "",
            &[
                row(">R", "hog", 10, 49, "/"),
                row(" R", "migration/0", 11, 0, "/"),
                row(" R", "migration/1", 12, 0, "/"),
                row(" R", "deadline", 13, -1, "/"),
                row(" R", "stalld", 77, 120, "/"),
                row(" R", "victim", 14, 120, "/"),
                row(" S", "sleeper", 15, 120, "/"),
                row(" R", "swapper/0", 0, 120, "/"),
            ],
        );
        // Task 12 is no stop thread of CPU 0, because its name has the number of another CPU.
        assert_eq!(waiters(&text), [(12, 0), (14, 0)]);
        let snapshot = scan(&text).unwrap();
        assert_eq!(snapshot.load, [Load { cpu: Cpu(0), runnable: 4, realtime: 2 }]);
        assert_eq!(snapshot.running[0].tid, Tid(10));
    }

    #[test]
    fn a_cgroup_out_of_quota_makes_its_fair_tasks_wait_and_no_others() {
        let groups =
            [group(0, "/", 0), group(0, "/busy box", 0), group(0, "/out", 1), group(0, "/out/below", 0)];
        let text = section(
            0,
            9,
            &groups.concat(),
            &[
                row(" R", "in the root", 10, 120, "/"),
                row(" R", "within quota", 11, 120, "/busy box"),
                row(" R", "out of quota", 12, 120, "/out"),
                row(" R", "below", 13, 120, "/out/below"),
                row(" R", "not listed", 14, 120, "/gone"),
                row(" R", "named alike", 15, 120, "/busy"),
                row(" R", "realtime", 16, 98, "/out"),
            ],
        );
        assert_eq!(waiters(&text), [(10, 0), (11, 0), (16, 0)]);
    }

    #[test]
    fn without_fair_group_scheduling_a_cgroup_has_no_quota() {
        let text = section(0, 1, "cfs_rq[0]:\n", &[row(" R", "victim", 10, 120, "/any")]);
        assert_eq!(waiters(&text), [(10, 0)]);
    }

    #[test]
    fn a_task_that_moved_while_the_text_was_made_counts_where_it_stood_last() {
        let text = [
            section(0, 2, "", &[row(" R", "moved", 10, 120, "/"), row(" R", "got its CPU", 11, 120, "/")]),
            section(1, 2, "", &[row(" R", "moved", 10, 120, "/"), row(">R", "got its CPU", 11, 120, "/")]),
        ];
        assert_eq!(waiters(&text.concat()), [(10, 1)]);
    }

    #[test]
    fn a_cpu_that_is_not_monitored_is_passed_over() {
        let text = [
            section(1, 1, "", &[row(" R", "here", 10, 120, "/")]),
            section(2, 1, "", &[row(" R", "there", 11, 120, "/")]),
        ];
        assert_eq!(waiters(&text.concat()), [(10, 1)]);
        assert_eq!(scan(&text.concat()).unwrap().load.len(), 1);
    }

    #[test]
    fn a_table_without_states_that_lists_sleeping_tasks_is_refused() {
        let header = "            task   PID         tree-key  switches  prio     exec-runtime\n---\n";
        let rows = "     migration/0     7         0.000000        13     0         0.0\n";
        let text = section(0, 1, "", &[]).replace(HEADER, &format!("{header}{rows}"));
        let reason = scan(&text).unwrap_err().to_string();
        assert_eq!(reason, "it lists tasks that sleep without saying that they do");
    }

    #[test]
    fn an_error_names_the_text_that_can_not_be_parsed() {
        let whole = section(0, 1, "", &[row(" R", "victim", 10, 120, "/")]);
        let reason = |text: &str| scan(text).unwrap_err().to_string();
        assert_eq!(reason(""), "it has no table 'runnable tasks:'");
        assert_eq!(reason("N\n"), "it has no table 'runnable tasks:'");
        assert_eq!(reason("runnable tasks:\n"), "a table of tasks belongs to no CPU");
        assert_eq!(reason("cpu#x\n"), "a section names no CPU");
        assert_eq!(reason("cpu#0\n"), "the section of CPU 0 has no table of tasks");
        assert_eq!(reason("cpu#0\ncpu#1\n"), "the section of CPU 0 has no table of tasks");
        assert_eq!(reason(&whole.repeat(2)), "the section of CPU 0 is out of order");
        assert_eq!(reason(&whole.replace("switches", "twitches")), "the header has no column 'switches'");
        assert_eq!(reason(&whole.replace("---", "   ")), "the section of CPU 0 has no line under its header");
        assert_eq!(
            reason(&whole.replace("  .nr_running", "  .nr_walking")),
            "the section of CPU 0 has no .nr_running"
        );
        assert_eq!(
            reason(whole.trim_end()),
            "the section of CPU 0 has a row that is none: ' R          victim    10         0.000000         7   120   '"
        );
        assert_eq!(reason(whole.strip_suffix("\n").unwrap()), "the section of CPU 0 is cut off");
    }
}
