//! Who turns are of: each task once, by a small number, with the control group that it was in.

use super::groups::{self, Groups, Owner};
use super::options::By;
use super::records::turn;
use crate::task::{Comm, Task, Tid};
use std::collections::HashMap;
use std::path::Path;

/// A number for a task, under one name and in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Person {
    pub tid: Tid,
    pub tgid: Tid,
    pub comm: [u8; 16],
    pub cgroup: u64,
}

/// A person as it is written down.
#[derive(Clone, Debug, Default)]
pub struct Address {
    pub cgroup: String,
    pub owner: Owner,
}

const MOST: usize = 50_000;

/// Whose turn it was.
pub fn runner(turn: &turn) -> Person {
    Person { tid: Tid(turn.tid), tgid: Tid(turn.tgid), comm: turn.comm, cgroup: turn.cgroup }
}

/// Who comes next.
pub fn next(turn: &turn) -> Person {
    Person {
        tid: Tid(turn.next_tid),
        tgid: Tid(turn.next_tgid),
        comm: turn.next_comm,
        cgroup: turn.next_cgroup,
    }
}

#[derive(Default)]
pub struct People {
    known: Vec<Person>,
    numbers: HashMap<Person, Who>,
    latest: HashMap<Tid, Who>,
    groups: Option<Groups>,
}

impl People {
    pub fn new() -> People {
        // Without control groups of version 2 nobody is in any.
        let groups = groups::mount(Path::new("/")).and_then(|mount| Groups::read(&mount).ok());
        People { groups, ..People::default() }
    }

    pub fn number(&mut self, person: Person) -> Who {
        let next = Who(self.known.len() as u32);
        let who = *self.numbers.entry(person).or_insert_with(|| {
            self.known.push(person);
            next
        });
        self.latest.insert(person.tid, who);
        who
    }

    /// Somebody whose turn has not come: the one who had this number and name last.
    pub fn waiter(&mut self, task: &Task) -> Who {
        let comm = task.comm.padded();
        let latest = self.latest.get(&task.tid).copied();
        match latest.filter(|&who| self.get(who).is_some_and(|person| person.comm == comm)) {
            Some(who) => who,
            None => {
                let tgid = task.tgid.unwrap_or(task.tid);
                self.number(Person { tid: task.tid, tgid, comm, cgroup: 0 })
            }
        }
    }

    /// Whether there are more than are worth the room.
    pub fn are_too_many(&self) -> bool {
        self.known.len() > MOST
    }

    pub fn get(&self, who: Who) -> Option<&Person> {
        self.known.get(who.0 as usize)
    }

    /// Learns of groups that are new.
    pub fn look_up_groups(&mut self) {
        if let Some(groups) = &mut self.groups {
            groups.learn(self.known.iter().map(|person| person.cgroup));
        }
    }

    pub fn address(&self, person: &Person) -> Address {
        match self.groups.as_ref().and_then(|groups| groups.get(person.cgroup)) {
            Some(group) => Address { cgroup: group.to_string(), owner: group.owner() },
            None => Address::default(),
        }
    }

    /// What a person is added up under; those who are in no container, say, under one name for all
    /// of them.
    pub fn label(&self, person: &Person, by: By) -> String {
        let name = match person.tid {
            Tid(0) => "idle".to_string(),
            _ => Comm::new(&person.comm).to_string(),
        };
        let address = || self.address(person);
        let in_none = |found: Option<String>| found.unwrap_or_else(|| "-".to_string());
        match by {
            By::Name => name,
            By::Task if person.tid == Tid(0) => name,
            By::Task => format!("{name}-{}", person.tid),
            By::ControlGroup => in_none(Some(address().cgroup).filter(|path| !path.is_empty())),
            By::Container => in_none(address().owner.container),
            By::Pod => in_none(address().owner.pod),
        }
    }

    /// Forgets all, so that those who have long ended take no room.
    pub fn forget(&mut self) {
        self.known.clear();
        self.numbers.clear();
        self.latest.clear();
    }
}
