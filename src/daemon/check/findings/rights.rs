//! Findings about namespaces, /proc, limits, lockdown and capabilities.

use super::{Finding, for_bpf};
use crate::daemon::check::facts::Facts;
use crate::daemon::options::Options;
use crate::host::Namespace;
use crate::host::mounts::Hidepid;
use crate::host::privilege::{Capability, Lockdown, list};
use crate::task::Escaped;

pub(super) fn namespaces(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match facts.pid_namespace {
        Namespace::Initial => {}
        Namespace::Other => findings.push(
            Finding::failure(
                "stalld runs in a pid namespace of its own, where the numbers of tasks are not the kernel's",
                "it is in a pid namespace",
            )
            .cure("run it outside, or give its container the pid namespace of the host"),
        ),
        Namespace::Unknown => findings.push(
            Finding::warning(
                "cannot tell which pid namespace stalld runs in: /proc/self/ns/pid can't be read",
            )
            .cure("mount /proc"),
        ),
    }
    if facts.user_namespace == Namespace::Other {
        findings.push(
            Finding::failure(
                "stalld runs in a user namespace, where its capabilities are not good for the machine",
                "it is in a user namespace",
            )
            .cure("run it outside"),
        );
    }
    if facts.time_namespace == Namespace::Other {
        findings.push(
            Finding::failure(
                "stalld runs in a time namespace, where tasks seem to have started at another time, so it can't tell \
                 them apart",
                "it is in a time namespace",
            )
            .cure("run it outside"),
        );
    }
    findings
}

/// Checks whether /proc shows all tasks to this process, and to the service.
pub(super) fn hidepid(facts: &Facts) -> Option<Finding> {
    let options = facts.hidepid.as_ref().map(|hidepid| Escaped(hidepid.options.as_bytes()).to_string());
    let mounted = options.map_or("/proc".to_string(), |options| format!("/proc, mounted with {options},"));
    let cure = match &facts.hidepid {
        Some(hidepid) if !hidepid.is_ptraceable && hidepid.gid != 0 => {
            format!("add SupplementaryGroups={} to its unit, or mount /proc without hidepid", hidepid.gid)
        }
        _ => "mount /proc without hidepid".to_string(),
    };
    if !facts.sees_kernel_threads {
        let fact =
            format!("{mounted} hides tasks from stalld, so it can't tell them apart and boosts none of them");
        return Some(Finding::failure(fact, "/proc hides tasks").cure(cure));
    }
    let Hidepid { gid, is_ptraceable, .. } = facts.hidepid.as_ref()?;
    // The service is in root's group, and lacks CAP_SYS_PTRACE.
    if *gid == 0 && !is_ptraceable {
        return Some(Finding::ok(format!("{mounted} hides nothing from root's group")));
    }
    let fact = format!(
        "{mounted} hides tasks from a stalld without CAP_SYS_PTRACE, as its service is: it can't tell them apart and \
         boosts none of them"
    );
    Some(Finding::warning(fact).cure(cure))
}

/// The number of descriptors that the backends, the log and the files may need.
const FEWEST_DESCRIPTORS: u64 = 128;

pub(super) fn descriptors(facts: &Facts) -> Option<Finding> {
    let limit = facts.descriptors.filter(|&limit| limit < FEWEST_DESCRIPTORS)?;
    let fact = format!(
        "stalld may have {limit} files open (RLIMIT_NOFILE): without a free one it can boost no task"
    );
    Some(Finding::warning(fact).cure("set LimitNOFILE=1024 in its unit, or 'ulimit -n 1024' in its shell"))
}

pub(super) fn lockdown(facts: &Facts) -> Finding {
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

pub(super) fn capabilities(facts: &Facts, options: &Options) -> Vec<Finding> {
    let Some(own) = facts.capabilities else {
        let unknown = "cannot tell which capabilities stalld has: /proc/self/status can't be read";
        return vec![Finding::warning(unknown).cure("mount /proc")];
    };
    let mut findings = Vec::new();
    if !own.has(Capability::SysNice) {
        findings.push(
            Finding::failure("stalld lacks CAP_SYS_NICE, so it can boost no task", "it lacks CAP_SYS_NICE")
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
