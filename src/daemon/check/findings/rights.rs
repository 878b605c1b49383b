//! What stalld may do here at all.

use super::{Finding, for_bpf};
use crate::daemon::check::facts::Facts;
use crate::daemon::options::Options;
use crate::host::privilege::{Capability, Lockdown, list};

pub fn namespaces(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match facts.initial_pid_namespace {
        Some(true) => {}
        Some(false) => findings.push(
            Finding::failure(
                "stalld runs in a pid namespace of its own, where the numbers of tasks are not the kernel's",
                "it is in a pid namespace",
            )
            .cure("run it outside, or give its container the pid namespace of the host"),
        ),
        None => findings.push(
            Finding::warning(
                "cannot tell which pid namespace stalld runs in: /proc/self/ns/pid can't be read",
            )
            .cure("mount /proc"),
        ),
    }
    if facts.initial_user_namespace == Some(false) {
        findings.push(
            Finding::failure(
                "stalld runs in a user namespace, where its capabilities are not good for the machine",
                "it is in a user namespace",
            )
            .cure("run it outside"),
        );
    }
    findings
}

pub fn lockdown(facts: &Facts) -> Finding {
    match facts.lockdown {
        Lockdown::Off => Finding::ok("the kernel is not locked down"),
        Lockdown::Integrity => {
            Finding::note("kernel lockdown is 'integrity': nothing can be set through debugfs")
        }
        Lockdown::Confidentiality => Finding::note(
            "kernel lockdown is 'confidentiality': nothing can be set through debugfs, and BPF programs are \
             restricted in what they read",
        ),
        Lockdown::Unknown => Finding::note("cannot tell whether the kernel is locked down")
            .cure("mount securityfs: mount -t securityfs securityfs /sys/kernel/security"),
    }
}

pub fn capabilities(facts: &Facts, options: &Options) -> Vec<Finding> {
    let Some(own) = facts.capabilities else {
        let unknown = "cannot tell which capabilities stalld has: /proc/self/status can't be read";
        return vec![Finding::warning(unknown).cure("mount /proc")];
    };
    let mut findings = Vec::new();
    if !own.has(Capability::SysNice) {
        findings.push(
            Finding::failure("stalld lacks CAP_SYS_NICE, so it can boost nobody", "it lacks CAP_SYS_NICE")
                .cure("run it as root, or with AmbientCapabilities=CAP_SYS_NICE in its unit"),
        );
    }
    let for_programs = own.missing_for_bpf();
    if !for_programs.is_empty() {
        let fact = format!("stalld lacks {}, so it can load no BPF programs", list(&for_programs));
        findings.push(
            for_bpf(options, &fact)
                .cure("give it CAP_BPF and CAP_PERFMON (before 5.8: CAP_SYS_ADMIN), or run it as root"),
        );
    }
    if facts.needs_memlock && !own.has(Capability::SysResource) {
        findings.push(
            Finding::note(
                "stalld lacks CAP_SYS_RESOURCE: before 5.11 BPF maps need it, or a high memlock limit",
            )
            .cure("set LimitMEMLOCK=infinity in its unit"),
        );
    }
    if !own.has(Capability::IpcLock) {
        findings.push(
            Finding::note("stalld lacks CAP_IPC_LOCK: it may have to wait for its own memory")
                .cure("give it CAP_IPC_LOCK, or LimitMEMLOCK=infinity in its unit"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("stalld has the capabilities it needs"));
    }
    findings
}
