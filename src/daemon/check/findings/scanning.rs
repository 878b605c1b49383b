//! Findings about scans: which backends work, and what they need.

use super::{Finding, for_bpf};
use crate::daemon::check::facts::Facts;
use crate::daemon::options::Options;
use crate::error::Result;
use crate::observe::Kind;

/// Returns the backend that a run would use.
pub(super) fn chosen(facts: &Facts, options: &Options) -> Option<Kind> {
    let asked = |kind: Kind| options.backend.is_none_or(|asked| asked == kind);
    let usable = |(kind, outcome): &&(Kind, Result<()>)| asked(*kind) && outcome.is_ok();
    facts.backends.iter().find(usable).map(|(kind, _)| *kind)
}

pub(super) fn backends(facts: &Facts, options: &Options) -> Vec<Finding> {
    let finding = |(kind, outcome): &(Kind, Result<()>)| {
        let (kind, name) = (*kind, kind.name());
        match outcome {
            Ok(()) if kind == Kind::QueueTrack => Finding::ok("queue_track loads; it is not attached here"),
            Ok(()) => Finding::ok(format!("{name} works")),
            Err(error) => {
                let fact = format!("{name}: {error}");
                match options.backend {
                    Some(asked) if asked == kind => Finding::failure(
                        fact,
                        format!("{name} does not work, and -b allows no other backend"),
                    ),
                    None if chosen(facts, options).is_none() => Finding::failure(fact, "no backend works"),
                    _ => Finding::note(fact),
                }
            }
        }
    };
    facts.backends.iter().map(finding).collect()
}

pub(super) fn btf(facts: &Facts, options: &Options) -> Finding {
    if facts.btf {
        return Finding::ok("BTF is there");
    }
    for_bpf(options, "BTF is missing (/sys/kernel/btf/vmlinux can't be read), which the BPF backends need")
        .cure("run a kernel that is built with CONFIG_DEBUG_INFO_BTF")
}

pub(super) fn sched_info(facts: &Facts, options: &Options) -> Finding {
    if facts.stamps_queued_tasks {
        return Finding::ok("the kernel records when a task is queued (SCHED_INFO)");
    }
    for_bpf(options, "the kernel does not record when a task is queued (SCHED_INFO), which task_iter goes by")
        .cure("boot without 'nodelayacct', or with 'delayacct'; or run a kernel with CONFIG_SCHED_INFO")
}
