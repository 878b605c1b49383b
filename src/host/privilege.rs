//! The rights of this process: its capabilities, and the lockdown mode of the kernel.

#[cfg(any(feature = "bpf", test))]
use super::{Namespace, user_namespace};
use super::{kernel_release, kernel_version};
#[cfg(any(feature = "bpf", test))]
use crate::error::Error;
use std::fmt;
use std::path::Path;

/// A capability that stalld uses, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    IpcLock = 14,
    SysAdmin = 21,
    SysNice = 23,
    SysResource = 24,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    pub(crate) const ALL: [Capability; 6] = [
        Capability::SysNice,
        Capability::Bpf,
        Capability::Perfmon,
        Capability::SysAdmin,
        Capability::SysResource,
        Capability::IpcLock,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Capability::IpcLock => "CAP_IPC_LOCK",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::SysNice => "CAP_SYS_NICE",
            Capability::SysResource => "CAP_SYS_RESOURCE",
            Capability::Perfmon => "CAP_PERFMON",
            Capability::Bpf => "CAP_BPF",
        }
    }
}

/// The effective capabilities of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    pub fn has(self, capability: Capability) -> bool {
        self.0 >> capability as u32 & 1 == 1
    }

    /// Returns the missing capabilities for tracing programs. CAP_SYS_ADMIN replaces all of them.
    pub fn missing_for_bpf(self) -> Vec<Capability> {
        let needed = [Capability::Bpf, Capability::Perfmon];
        let lacks = |capability: &Capability| !self.has(*capability) && !self.has(Capability::SysAdmin);
        needed.into_iter().filter(lacks).collect()
    }

    #[cfg(test)]
    pub(crate) fn all_but(taken: &[Capability]) -> Capabilities {
        Capabilities(taken.iter().fold(u64::MAX, |bits, &capability| bits & !(1 << capability as u32)))
    }
}

pub fn capabilities(root: &Path) -> Option<Capabilities> {
    let status = std::fs::read(root.join("proc/self/status")).ok()?;
    // The name in the first line may be any bytes.
    let bits = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"CapEff:"))?;
    u64::from_str_radix(std::str::from_utf8(bits).ok()?.trim(), 16).ok().map(Capabilities)
}

/// The lockdown mode: how far the kernel protects itself from root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    Off,
    /// Among other things, a file in debugfs can be opened only if it is read-only for all users.
    Integrity,
    /// In addition, BPF programs can't use bpf_probe_read.
    Confidentiality,
    /// The mode is unknown, because securityfs is not mounted.
    Unknown,
}

impl Lockdown {
    pub(crate) fn is_on(self) -> bool {
        matches!(self, Lockdown::Integrity | Lockdown::Confidentiality)
    }
}

impl fmt::Display for Lockdown {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Lockdown::Off => "none",
            Lockdown::Integrity => "integrity",
            Lockdown::Confidentiality => "confidentiality",
            Lockdown::Unknown => "unknown",
        })
    }
}

pub fn lockdown(root: &Path) -> Lockdown {
    match super::line(root, "sys/kernel/security/lockdown") {
        Some(modes) if modes.contains("[none]") => Lockdown::Off,
        Some(modes) if modes.contains("[integrity]") => Lockdown::Integrity,
        Some(modes) if modes.contains("[confidentiality]") => Lockdown::Confidentiality,
        // Every securityfs has the file `lsm`. Without `lockdown` beside it, the kernel has no
        // lockdown.
        None if root.join("sys/kernel/security/lsm").exists() => Lockdown::Off,
        _ => Lockdown::Unknown,
    }
}

/// Adds the most likely reason to an error of bpf(2).
#[cfg(any(feature = "bpf", test))]
pub(crate) fn explain_bpf(refusal: Error) -> Error {
    match refusal.errno() {
        Some(libc::EPERM | libc::EACCES) => refusal.with_cure(bpf_cure(Path::new("/"))),
        // libbpf returns ESRCH if it can't read the BTF.
        Some(libc::ESRCH) => refusal.with_note("the kernel's BTF, /sys/kernel/btf/vmlinux, can't be read"),
        _ => refusal,
    }
}

#[cfg(any(feature = "bpf", test))]
fn bpf_cure(root: &Path) -> String {
    let capabilities = capabilities(root);
    let missing = capabilities.map(Capabilities::missing_for_bpf).unwrap_or_default();
    if !missing.is_empty() {
        return format!(
            "it needs CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), and lacks {}",
            list(&missing)
        );
    }
    if user_namespace(root) == Namespace::Other {
        return "it runs in a user namespace, whose capabilities are not the machine's: run it outside"
            .into();
    }
    if needs_memlock(root) && capabilities.is_some_and(|own| !own.has(Capability::SysResource)) {
        return "before 5.11 it needs CAP_SYS_RESOURCE, or LimitMEMLOCK=infinity".into();
    }
    match lockdown(root) {
        Lockdown::Confidentiality => "kernel lockdown is 'confidentiality', use -b sched_debug".into(),
        _ => "a seccomp filter (SystemCallFilter=) or a security module may forbid bpf(2)".into(),
    }
}

/// Returns whether BPF maps count against the limit on locked memory, as they did before 5.11.
pub(crate) fn needs_memlock(root: &Path) -> bool {
    kernel_release(root).and_then(|release| kernel_version(&release)).is_some_and(|version| version < (5, 11))
}

/// Formats a list such as `CAP_BPF, CAP_PERFMON`.
pub(crate) fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    const ALL: &str = "Name:\tsta\nlld\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";

    #[test]
    fn the_effective_capabilities_count() {
        let root = Scratch::new("privilege-caps");
        assert_eq!(capabilities(root.path()), None);
        root.file("proc/self/status", "CapInh:\tffffffffffffffff\nCapEff:\t0000000000800000\n");
        let own = capabilities(root.path()).unwrap();
        let has: Vec<_> = Capability::ALL.into_iter().filter(|&c| own.has(c)).collect();
        assert_eq!(has, [Capability::SysNice]);
        assert_eq!(own.missing_for_bpf(), [Capability::Bpf, Capability::Perfmon]);
        root.file("proc/self/status", ALL);
        let own = capabilities(root.path()).unwrap();
        assert!(Capability::ALL.into_iter().all(|capability| own.has(capability)));
    }

    #[test]
    fn to_be_admin_is_enough_for_bpf() {
        let missing = |taken: &[Capability]| Capabilities::all_but(taken).missing_for_bpf();
        assert_eq!(missing(&[Capability::Bpf, Capability::Perfmon]), []);
        assert_eq!(missing(&[Capability::SysAdmin]), []);
        assert_eq!(missing(&[Capability::SysAdmin, Capability::Perfmon]), [Capability::Perfmon]);
    }

    #[test]
    fn lockdown_is_the_bracketed_word() {
        let root = Scratch::new("privilege-lockdown");
        assert_eq!(lockdown(root.path()), Lockdown::Unknown);
        root.file("sys/kernel/security/lsm", "capability\n");
        assert_eq!(lockdown(root.path()), Lockdown::Off);
        for (modes, expected) in [
            ("[none] integrity confidentiality\n", Lockdown::Off),
            ("none [integrity] confidentiality\n", Lockdown::Integrity),
            ("none integrity [confidentiality]\n", Lockdown::Confidentiality),
            ("none\n", Lockdown::Unknown),
        ] {
            root.file("sys/kernel/security/lockdown", modes);
            assert_eq!(lockdown(root.path()), expected, "{modes}");
        }
    }

    #[test]
    fn a_refused_bpf_names_what_is_missing() {
        let root = Scratch::new("privilege-cure");
        let cure = || bpf_cure(root.path());
        root.file("proc/self/status", "CapEff:\t0000008000000000\n");
        assert_eq!(
            cure(),
            "it needs CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), and lacks CAP_PERFMON"
        );
        root.file("proc/self/status", ALL);
        assert!(cure().contains("seccomp"), "{}", cure());
        root.file("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
        assert!(cure().starts_with("kernel lockdown is 'confidentiality'"), "{}", cure());
        root.file("proc/sys/kernel/osrelease", "5.10.0\n");
        root.file("proc/self/status", "CapEff:\t0000000000200000\n");
        assert!(cure().contains("CAP_SYS_RESOURCE"), "{}", cure());
        std::fs::create_dir_all(root.join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink("user:[1]", root.join("proc/self/ns/user")).unwrap();
        assert!(cure().contains("user namespace"), "{}", cure());
    }

    #[test]
    fn a_refusal_is_explained_if_its_errno_is_specific() {
        let refusal = |errno| {
            explain_bpf(Error::io("load the BPF programs", &std::io::Error::from_raw_os_error(errno)))
                .to_string()
        };
        assert_eq!(refusal(libc::EINVAL), "cannot load the BPF programs: Invalid argument");
        assert!(refusal(libc::ESRCH).ends_with("(the kernel's BTF, /sys/kernel/btf/vmlinux, can't be read)"));
        assert!(refusal(libc::EPERM).starts_with("cannot load the BPF programs: Operation not permitted; "));
    }
}
