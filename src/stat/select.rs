//! The selection of tasks by the options. Verdicts on names and groups are stored in the maps of
//! the BPF programs.

use super::bpf_abi::{NAME_ANYWHERE, NAME_IN_GROUP, VERDICT_UNWANTED, VERDICT_WANTED};
use super::cgroups::{self, Cgroups};
use super::collector::{Collector, Counts};
use super::options::Options;
use super::task_table::TaskIdentity;
use crate::cpus::CpuSet;
use crate::error::{Error, Result};
use crate::patterns::Patterns;
use crate::proc;
use crate::task::{Comm, Cpu, Tid};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) struct Selection {
    numbers: Vec<Tid>,
    cpus: Option<CpuSet>,
    names: Patterns,
    global_names: Patterns,
    /// `None` if the options select no group.
    wanted: Option<Wanted>,
}

struct Wanted {
    paths: Patterns,
    groups: Cgroups,
    ids: BTreeSet<u64>,
}

impl Selection {
    pub(super) fn new(options: &Options) -> Result<Selection> {
        let wanted = match options.control_groups.is_empty() {
            true => None,
            false => Some(Wanted::new(options.control_groups.clone())?),
        };
        Ok(Selection {
            numbers: options.numbers.clone(),
            cpus: options.cpus.clone(),
            names: options.names.clone(),
            global_names: options.global_names.clone(),
            wanted,
        })
    }

    pub(super) fn by_name(&self) -> bool {
        !self.names.is_empty() || !self.global_names.is_empty()
    }

    pub(super) fn by_group(&self) -> bool {
        self.wanted.is_some()
    }

    /// Returns whether a task is selected. If the programs could not decide, stores the verdicts
    /// for them.
    pub(super) fn wants(&mut self, counts: &Counts, collector: &Collector) -> bool {
        if !counts.is_open {
            return true;
        }
        let name = self.name_verdict(counts.comm.as_bytes());
        collector.judge_name(&counts.comm, name as u8);
        let in_group = match &mut self.wanted {
            None => true,
            Some(wanted) => {
                let verdict = wanted.has(counts.cgroup);
                let verdict_number = if verdict { VERDICT_WANTED } else { VERDICT_UNWANTED };
                collector.judge_group(counts.cgroup, verdict_number as u8);
                verdict
            }
        };
        name & NAME_ANYWHERE != 0 || name & NAME_IN_GROUP != 0 && in_group
    }

    /// Stores a verdict on the name of each task that exists, so that the programs can decide.
    pub(super) fn judge_names(&self, collector: &Collector) {
        if !self.by_name() {
            return;
        }
        for comm in proc::processes().into_iter().flat_map(proc::threads).filter_map(proc::comm) {
            collector.judge_name(&comm, self.name_verdict(comm.as_bytes()) as u8);
        }
    }

    pub(super) fn watches(&self, cpu: Cpu) -> bool {
        self.cpus.as_ref().is_none_or(|cpus| cpus.contains(cpu))
    }

    /// Returns whether a task is selected that no program has judged.
    pub(super) fn covers(&mut self, task: &TaskIdentity) -> bool {
        let TaskIdentity { tid, tgid, comm, cgroup } = *task;
        if !self.numbers.is_empty() && !self.numbers.contains(&tid) && !self.numbers.contains(&tgid) {
            return false;
        }
        let name = self.name_verdict(Comm::new(&comm).as_bytes());
        let in_group = |wanted: &mut Option<Wanted>| wanted.as_mut().is_none_or(|wanted| wanted.has(cgroup));
        name & NAME_ANYWHERE != 0 || name & NAME_IN_GROUP != 0 && in_group(&mut self.wanted)
    }

    fn name_verdict(&self, name: &[u8]) -> u32 {
        let anywhere = self.global_names.matches(name);
        let in_group = match self.names.is_empty() {
            true => self.by_group() || self.global_names.is_empty(),
            false => self.names.matches(name),
        };
        NAME_ANYWHERE * u32::from(anywhere) + NAME_IN_GROUP * u32::from(in_group)
    }
}

impl Wanted {
    fn new(paths: Patterns) -> Result<Wanted> {
        let mount = cgroups::mount(Path::new("/")).ok_or_else(|| {
            Error::new("--cgroup needs control groups of version 2: mount -t cgroup2 none /sys/fs/cgroup")
        })?;
        let groups = Cgroups::read(&mount)?;
        let ids = groups.within(|path| paths.matches(path));
        Ok(Wanted { paths, groups, ids })
    }

    fn has(&mut self, id: u64) -> bool {
        if self.groups.get(id).is_none() {
            self.groups.learn([id]);
            self.ids = self.groups.within(|path| self.paths.matches(path));
        }
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_wanted_anywhere_in_the_groups_asked_for_or_not_at_all() {
        let list = |text: &str| {
            let mut list = Patterns::default();
            if !text.is_empty() {
                list.add(text).unwrap();
            }
            list
        };
        let no_groups = || Wanted {
            paths: list("^/a$"),
            groups: Cgroups::read(std::env::temp_dir().as_path()).unwrap(),
            ids: BTreeSet::new(),
        };
        const BOTH: u32 = NAME_IN_GROUP | NAME_ANYWHERE;
        for (names, global_names, with_groups, verdicts) in [
            // The verdicts are those of `ant` and of `bee`.
            ("", "", false, [NAME_IN_GROUP, NAME_IN_GROUP]),
            ("^a", "", false, [NAME_IN_GROUP, 0]),
            ("", "^b", false, [0, NAME_ANYWHERE]),
            ("^a", "^b", false, [NAME_IN_GROUP, NAME_ANYWHERE]),
            ("", "", true, [NAME_IN_GROUP, NAME_IN_GROUP]),
            ("^a", "", true, [NAME_IN_GROUP, 0]),
            ("", "^b", true, [NAME_IN_GROUP, BOTH]),
            ("^a", "^b", true, [NAME_IN_GROUP, NAME_ANYWHERE]),
        ] {
            let wanted = with_groups.then(no_groups);
            let (names_here, names_anywhere) = (list(names), list(global_names));
            let selection = Selection {
                numbers: Vec::new(),
                cpus: None,
                names: names_here,
                global_names: names_anywhere,
                wanted,
            };
            let found = [&b"ant"[..], b"bee"].map(|name| selection.name_verdict(name));
            assert_eq!(found, verdicts, "-c '{names}' --global-comm '{global_names}' {with_groups}");
        }
    }
}
