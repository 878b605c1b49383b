//! What the facts mean for a run with these options. No fact is looked up here, so that a test can
//! change one and see what follows.

mod boosting;
mod kernel;
mod looking;
mod rights;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use crate::daemon::options::Options;
use crate::error::Error;
use crate::observe::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Ok,
    /// Good to know; stalld does its work all the same.
    Note,
    /// Something does not work as it should, or will hurt.
    Warning,
    /// stalld would not protect this host.
    Failure,
}

/// One thing about this host, in a sentence.
#[derive(Clone, Debug)]
pub struct Finding {
    pub level: Level,
    pub fact: String,
    pub cure: Option<String>,
    /// What it keeps stalld from, in a few words.
    hinders: Option<String>,
}

impl Finding {
    fn new(level: Level, fact: impl Into<String>) -> Finding {
        Finding { level, fact: fact.into(), cure: None, hinders: None }
    }

    fn ok(fact: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, fact)
    }

    fn note(fact: impl Into<String>) -> Finding {
        Finding::new(Level::Note, fact)
    }

    fn warning(fact: impl Into<String>) -> Finding {
        Finding::new(Level::Warning, fact)
    }

    fn failure(fact: impl Into<String>, hinders: impl Into<String>) -> Finding {
        Finding { hinders: Some(hinders.into()), ..Finding::new(Level::Failure, fact) }
    }

    fn cure(self, cure: impl Into<String>) -> Finding {
        Finding { cure: Some(cure.into()), ..self }
    }
}

/// All findings: first what sees who starves, then what helps them, then what is amiss besides.
pub fn of(facts: &Facts, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(rights::namespaces(facts));
    findings.extend(rights::hidepid(facts));
    findings.extend(rights::descriptors(facts));
    findings.extend(looking::backends(facts, options));
    findings.push(looking::btf(facts, options));
    findings.push(looking::sched_info(facts, options));
    findings.push(rights::lockdown(facts));
    findings.extend(rights::capabilities(facts, options));
    findings.push(boosting::boosting(facts, options));
    findings.push(boosting::throttling(facts, options));
    findings.extend(boosting::hrtick(facts, options));
    findings.extend(kernel::dl_server(facts));
    findings.extend(kernel::thresholds(facts, options));
    findings.extend(kernel::left_behind(facts));
    findings
}

/// The last line: whether stalld would do its work, and by what, or what keeps it from that.
pub fn verdict(facts: &Facts, options: &Options, findings: &[Finding]) -> String {
    let mut hindrances: Vec<&str> = findings.iter().filter_map(|f| f.hinders.as_deref()).collect();
    hindrances.dedup();
    if !hindrances.is_empty() {
        return format!("stalld would not protect this host: {}", hindrances.join(", "));
    }
    let sees = looking::chosen(facts, options).map_or("nothing", Kind::name);
    let boosts = if boosting::by_deadline(facts, options) { "SCHED_DEADLINE" } else { "SCHED_FIFO" };
    format!("stalld would protect this host: {sees} sees who starves, {boosts} lets them run")
}

/// What only a BPF backend suffers from is no trouble where another one was asked for.
fn for_bpf(options: &Options, fact: &str) -> Finding {
    let level = if options.backend == Some(Kind::SchedDebug) { Level::Note } else { Level::Warning };
    Finding::new(level, fact)
}

/// Why something in debugfs was refused.
fn why(facts: &Facts, refusal: &Error) -> String {
    match refusal.errno() {
        Some(libc::EPERM) if facts.lockdown.is_on() => format!("kernel lockdown is '{}'", facts.lockdown),
        _ => refusal.to_string(),
    }
}
