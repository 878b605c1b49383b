//! Finds the kernel's files. The errors include advice.

use crate::error::{Error, Result};
use crate::host::debugfs;
use crate::host::privilege::lockdown;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The files that the backend sched_debug reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The debug file of the scheduler: the run queues of every CPU, as text.
    pub text: PathBuf,
    /// The file with the number of runnable tasks.
    pub loadavg: PathBuf,
}

impl Sources {
    /// Finds the files under `root`, which is `/` except in tests: `sched/debug` in each mounted
    /// debugfs, then /proc/sched_debug, its place before 5.13. (Before 5.13, `sched_debug` in
    /// debugfs is a switch, not the text.)
    pub fn find(root: &Path) -> Result<Sources> {
        let mut candidates: Vec<PathBuf> =
            debugfs::mounts(root).into_iter().map(|at| at.join("sched/debug")).collect();
        let debugfs = candidates.first().cloned();
        candidates.push(root.join("proc/sched_debug"));

        let mut refused = None;
        for text in candidates {
            match File::open(&text) {
                Ok(_) => return Ok(Sources { text, loadavg: root.join("proc/loadavg") }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => refused = refused.or(Some((text, e))),
            }
        }
        Err(match (refused, debugfs) {
            (Some((text, reason)), _) => refusal(root, &text, &reason),
            (None, Some(text)) => Error::new(format!(
                "cannot find {}, nor /proc/sched_debug: the kernel is built without CONFIG_SCHED_DEBUG; use -b task_iter",
                text.display()
            )),
            (None, None) => Error::new(
                "cannot find the scheduler's debug file: debugfs is not mounted, and there is no /proc/sched_debug; \
                 mount it (mount -t debugfs debugfs /sys/kernel/debug) or use -b task_iter",
            ),
        })
    }
}

/// Returns the error for a file that exists and can't be read, with advice.
pub(super) fn refusal(root: &Path, path: &Path, reason: &io::Error) -> Error {
    let error = Error::io(format_args!("read {}", path.display()), reason);
    match (reason.raw_os_error(), lockdown(root)) {
        (Some(libc::EPERM), mode) if mode.is_on() => {
            error.with_cure(format_args!("kernel lockdown is '{mode}', use -b task_iter"))
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            error.with_cure("run stalld as root, or with CAP_DAC_READ_SEARCH")
        }
        _ => error.with_cure("use -b task_iter"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A root directory of its own, removed at the end.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let root = std::env::temp_dir().join(format!("stalld-source-{}-{name}", std::process::id()));
            for (path, content) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Root(root)
        }

        fn found(&self) -> String {
            let text = Sources::find(&self.0).unwrap().text;
            text.strip_prefix(&self.0).unwrap().display().to_string()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_text_is_found_wherever_debugfs_is_mounted() {
        let root = Root::new(
            "elsewhere",
            &[
                ("proc/mounts", "proc /proc proc rw 0 0\nnone /my\\040debug debugfs rw 0 0\n"),
                ("my debug/sched/debug", ""),
                ("proc/sched_debug", ""),
            ],
        );
        assert_eq!(root.found(), "my debug/sched/debug");
    }

    #[test]
    fn the_switch_of_old_kernels_is_not_taken_for_the_text() {
        let root = Root::new(
            "switch",
            &[
                ("proc/mounts", "debugfs /sys/kernel/debug debugfs rw 0 0\n"),
                ("sys/kernel/debug/sched_debug", "N\n"),
                ("proc/sched_debug", ""),
            ],
        );
        assert_eq!(root.found(), "proc/sched_debug");
    }

    #[test]
    fn an_error_names_the_cure() {
        let reason = |root: &Root| Sources::find(&root.0).unwrap_err().to_string();
        let unmounted = Root::new("unmounted", &[("proc/mounts", "proc /proc proc rw 0 0\n")]);
        assert!(reason(&unmounted).contains("; mount it (mount -t debugfs "), "{}", reason(&unmounted));
        let unbuilt = Root::new("unbuilt", &[("proc/mounts", "debugfs /dbg debugfs rw 0 0\n")]);
        assert!(
            reason(&unbuilt).contains("/dbg/sched/debug, nor /proc/sched_debug: the kernel is built without")
        );
    }

    #[test]
    fn a_refusal_names_the_lockdown_only_where_one_is_in_force() {
        let modes = |modes| Root::new("locked", &[("sys/kernel/security/lockdown", modes)]);
        let refused = |root: &Root, errno| {
            refusal(&root.0, Path::new("/f"), &io::Error::from_raw_os_error(errno)).to_string()
        };
        let locked = modes("none integrity [confidentiality]\n");
        assert_eq!(
            refused(&locked, libc::EPERM),
            "cannot read /f: Operation not permitted; kernel lockdown is 'confidentiality', use -b task_iter"
        );
        let as_root = "cannot read /f: Permission denied; run stalld as root, or with CAP_DAC_READ_SEARCH";
        assert_eq!(refused(&locked, libc::EACCES), as_root);
        let open = modes("[none] integrity confidentiality\n");
        assert!(refused(&open, libc::EPERM).ends_with("run stalld as root, or with CAP_DAC_READ_SEARCH"));
    }
}
