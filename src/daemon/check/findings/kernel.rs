//! Findings about the DL server, the kernel's own reports of stalls, and tasks that a C stalld has
//! left boosted.

use super::{Finding, why};
use crate::daemon::check::facts::Facts;
use crate::daemon::options::Options;
use crate::host::debugfs::Served;
use crate::length::with_unit;
use crate::task::Nanos;

pub(super) fn dl_server(facts: &Facts) -> Option<Finding> {
    let served = match facts.dl_server.as_ref()? {
        Err(e) => {
            return Some(Finding::note(format!(
                "the kernel's DL server gives fair tasks behind real-time ones some time, how much can't be seen ({})",
                why(facts, e)
            )));
        }
        Ok(served) => served.iter().filter(|served| facts.cpus.contains(served.cpu)),
    };
    let mut active = served.filter(|served| served.runtime > Nanos::ZERO);
    let Some(Served { cpu, runtime, period }) = active.next() else {
        return Some(Finding::ok("the kernel's DL server is off"));
    };
    let more = match active.count() {
        0 => String::new(),
        more => format!(", and likewise on {more} more"),
    };
    Some(
        Finding::note(format!(
            "the kernel's DL server gives fair tasks behind real-time ones {} of each {} on CPU {cpu}{more}: they \
             don't starve there",
            with_unit(*runtime),
            with_unit(*period)
        ))
        .cure("to leave that to stalld write 0 to sched/fair_server/cpuN/runtime in debugfs"),
    )
}

pub(super) fn thresholds(facts: &Facts, options: &Options) -> Vec<Finding> {
    let threshold = options.threshold;
    let compare = |limit: Option<Nanos>, what: &str, knob: &str| {
        let limit = limit?;
        let (ours, theirs) = (with_unit(threshold), with_unit(limit));
        Some(if threshold > limit {
            Finding::warning(format!(
                "the threshold is {ours}, but {what} after {theirs}: the kernel complains before stalld acts"
            ))
            .cure(format!("choose a lower -t, or raise {knob}"))
        } else {
            Finding::ok(format!("the threshold is {ours}, and {what} after {theirs}"))
        })
    };
    let rcu = compare(
        facts.rcu_stall,
        "RCU reports a stall",
        "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
    );
    let hung =
        compare(facts.hung_task, "a blocked task is reported as hung", "kernel.hung_task_timeout_secs");
    rcu.into_iter().chain(hung).collect()
}

pub(super) fn left_behind(facts: &Facts) -> impl Iterator<Item = Finding> + '_ {
    facts.left_behind.iter().map(|task| {
        Finding::warning(format!(
            "task {} ({}) is SCHED_DEADLINE with 20 us of each second, as a C stalld leaves it when it is killed",
            task.tid, task.comm
        ))
        .cure(format!("if no stalld boosts it right now: chrt -o -p 0 {}", task.tid))
    })
}
