//! Findings of a stalld that only logs.

use super::*;

#[test]
fn a_stalld_that_only_logs_needs_no_boost() {
    let findings = |change: fn(&mut Facts)| -> Vec<String> {
        let mut facts = good();
        change(&mut facts);
        let options = asked(&["-l"]);
        let findings = of(&facts, &options);
        let verdict = verdict(&facts, &options, &findings);
        findings.iter().map(shown).chain([verdict]).collect()
    };
    let refused = findings(|facts| {
        facts.trial = tried(refused(libc::EPERM), refused(libc::EPERM));
        facts.capabilities = Some(Capabilities::all_but(&[Capability::SysNice]));
    });
    assert!(!refused.iter().any(|line| line.starts_with("Failure")), "{refused:?}");
    assert_eq!(refused.last().unwrap(), "stalld would watch this host: task_iter finds starving tasks");
    let in_namespace = findings(|facts| facts.pid_namespace = Namespace::Other);
    assert_eq!(in_namespace.last().unwrap(), "stalld would not watch this host: it is in a pid namespace");
}
