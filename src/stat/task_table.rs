//! The tasks of turns. Each has a small index, and the control group that it was in.

use super::bpf_abi::turn;
use super::cgroups::{self, CgroupOwner, Cgroups};
use super::options::By;
use crate::task::{Comm, Task, Tid};
use std::collections::HashMap;
use std::path::Path;

/// The index of a task in the table, under one name and in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskIdx(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TaskIdentity {
    pub tid: Tid,
    pub tgid: Tid,
    pub comm: [u8; 16],
    pub cgroup: u64,
}

/// The group that a task was in, and the container and pod of that.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskOwner {
    pub cgroup: String,
    pub owner: CgroupOwner,
}

/// The table is cleared once it has more tasks.
const MAX_TASKS: usize = 50_000;

/// Returns the task that ran.
pub(super) fn runner(turn: &turn) -> TaskIdentity {
    TaskIdentity { tid: Tid(turn.tid), tgid: Tid(turn.tgid), comm: turn.comm, cgroup: turn.cgroup }
}

/// Returns the task that runs next.
pub(super) fn next(turn: &turn) -> TaskIdentity {
    TaskIdentity {
        tid: Tid(turn.next_tid),
        tgid: Tid(turn.next_tgid),
        comm: turn.next_comm,
        cgroup: turn.next_cgroup,
    }
}

#[derive(Default)]
pub(super) struct TaskTable {
    tasks: Vec<TaskIdentity>,
    index: HashMap<TaskIdentity, TaskIdx>,
    latest: HashMap<Tid, TaskIdx>,
    cgroups: Option<Cgroups>,
}

impl TaskTable {
    pub(super) fn new() -> TaskTable {
        // Without cgroup v2 no task has a group.
        let cgroups = cgroups::mount(Path::new("/")).and_then(|mount| Cgroups::read(&mount).ok());
        TaskTable { cgroups, ..TaskTable::default() }
    }

    /// Returns the index of a task, which is added if it is new.
    pub(super) fn add(&mut self, task: TaskIdentity) -> TaskIdx {
        let next = TaskIdx(self.tasks.len() as u32);
        let idx = *self.index.entry(task).or_insert_with(|| {
            self.tasks.push(task);
            next
        });
        self.latest.insert(task.tid, idx);
        idx
    }

    /// Returns the index of a task that has not had a turn yet: the latest one of its tid and name.
    pub(super) fn add_waiter(&mut self, task: &Task) -> TaskIdx {
        let comm = task.comm.padded();
        let latest = self.latest.get(&task.tid).copied();
        match latest.filter(|&idx| self.get(idx).is_some_and(|known| known.comm == comm)) {
            Some(idx) => idx,
            None => {
                let tgid = task.tgid.unwrap_or(task.tid);
                self.add(TaskIdentity { tid: task.tid, tgid, comm, cgroup: 0 })
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.tasks.len() > MAX_TASKS
    }

    pub(super) fn get(&self, idx: TaskIdx) -> Option<&TaskIdentity> {
        self.tasks.get(idx.0 as usize)
    }

    /// Reads the paths of groups that are new.
    pub(super) fn learn_cgroups(&mut self) {
        if let Some(cgroups) = &mut self.cgroups {
            cgroups.learn(self.tasks.iter().map(|task| task.cgroup));
        }
    }

    pub(super) fn owner(&self, task: &TaskIdentity) -> TaskOwner {
        match self.cgroups.as_ref().and_then(|cgroups| cgroups.get(task.cgroup)) {
            Some(group) => TaskOwner { cgroup: group.to_string(), owner: group.owner() },
            None => TaskOwner::default(),
        }
    }

    /// Returns the name under which the task's times are summed up. Tasks without a container, for
    /// example, share one name.
    pub(super) fn label(&self, task: &TaskIdentity, by: By) -> String {
        let name = match task.tid {
            Tid(0) => "idle".to_string(),
            _ => Comm::new(&task.comm).to_string(),
        };
        let owner = || self.owner(task);
        let or_none = |found: Option<String>| found.unwrap_or_else(|| "-".to_string());
        match by {
            By::Name => name,
            By::Task if task.tid == Tid(0) => name,
            By::Task => format!("{name}-{}", task.tid),
            By::ControlGroup => or_none(Some(owner().cgroup).filter(|path| !path.is_empty())),
            By::Container => or_none(owner().owner.container),
            By::Pod => or_none(owner().owner.pod),
        }
    }

    /// Removes all tasks, so that those that have ended take no memory.
    pub(super) fn clear(&mut self) {
        self.tasks.clear();
        self.index.clear();
        self.latest.clear();
    }
}
