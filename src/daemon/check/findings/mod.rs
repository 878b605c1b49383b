//! Derives findings from the facts and the options. It reads nothing from the host, so that a test
//! can change single facts.

mod boosting;
mod kernel;
mod rights;
mod scanning;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use crate::daemon::options::Options;
use crate::error::Error;
use crate::observe::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Ok,
    /// Information: stalld works nevertheless.
    Note,
    /// Something does not work as it should, or will cause trouble.
    Warning,
    /// stalld would not protect this host.
    Failure,
}

/// One statement about this host.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub level: Severity,
    pub fact: String,
    pub cure: Option<String>,
    /// The reason in short why stalld would not protect this host.
    hinders: Option<String>,
}

impl Finding {
    fn new(level: Severity, fact: impl Into<String>) -> Finding {
        Finding { level, fact: fact.into(), cure: None, hinders: None }
    }

    fn ok(fact: impl Into<String>) -> Finding {
        Finding::new(Severity::Ok, fact)
    }

    fn note(fact: impl Into<String>) -> Finding {
        Finding::new(Severity::Note, fact)
    }

    fn warning(fact: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, fact)
    }

    fn failure(fact: impl Into<String>, hinders: impl Into<String>) -> Finding {
        Finding { hinders: Some(hinders.into()), ..Finding::new(Severity::Failure, fact) }
    }

    fn cure(self, cure: impl Into<String>) -> Finding {
        Finding { cure: Some(cure.into()), ..self }
    }
}

/// Returns all findings: first about scans, then about boosts, then about the kernel.
pub(crate) fn of(facts: &Facts, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(rights::namespaces(facts));
    findings.extend(rights::hidepid(facts));
    findings.extend(rights::descriptors(facts));
    findings.extend(scanning::backends(facts, options));
    findings.push(scanning::btf(facts, options));
    findings.push(scanning::sched_info(facts, options));
    findings.push(rights::lockdown(facts));
    findings.extend(rights::capabilities(facts, options));
    findings.push(boosting::boosting(facts, options));
    findings.push(boosting::throttling(facts, options));
    findings.extend(boosting::budgets(facts, options));
    findings.extend(boosting::max_loss(facts, options));
    findings.extend(kernel::dl_server(facts));
    findings.extend(kernel::thresholds(facts, options));
    findings.extend(kernel::left_behind(facts));
    findings
}

/// Returns the last line: whether stalld would protect this host, and with which backend and
/// policy, or why not.
pub(crate) fn verdict(facts: &Facts, options: &Options, findings: &[Finding]) -> String {
    let mut hindrances: Vec<&str> = findings.iter().filter_map(|f| f.hinders.as_deref()).collect();
    hindrances.dedup();
    if !hindrances.is_empty() {
        return format!("stalld would not protect this host: {}", hindrances.join(", "));
    }
    let sees = scanning::chosen(facts, options).map_or("nothing", Kind::name);
    let boosts = boosting::policy(facts, options);
    format!("stalld would protect this host: {sees} finds starving tasks, {boosts} lets them run")
}

/// Makes a warning about BPF. With `-b sched_debug` it is a note.
fn for_bpf(options: &Options, fact: &str) -> Finding {
    let level = if options.backend == Some(Kind::SchedDebug) { Severity::Note } else { Severity::Warning };
    Finding::new(level, fact)
}

/// Returns why access to debugfs failed.
fn why(facts: &Facts, refusal: &Error) -> String {
    match refusal.errno() {
        Some(libc::EPERM) if facts.lockdown.is_on() => format!("kernel lockdown is '{}'", facts.lockdown),
        _ => refusal.to_string(),
    }
}
