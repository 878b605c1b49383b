//! Finds the mounts of a type of file system, and how /proc is mounted.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Returns the mounts of file systems of the type `fstype` below `root`, the first mount first.
pub fn of(root: &Path, fstype: &str) -> Vec<PathBuf> {
    let mounts = fs::read(root.join("proc/mounts")).unwrap_or_default();
    let of_kind = |line: &[u8]| {
        let mut fields = line.split(|&b| b == b' ').skip(1);
        let at = fields.next()?;
        let path = PathBuf::from(OsString::from_vec(unescape(at)));
        (fields.next()? == fstype.as_bytes()).then(|| root.join(path.strip_prefix("/").unwrap_or(&path)))
    };
    mounts.split(|&b| b == b'\n').filter_map(of_kind).collect()
}

/// How /proc hides the processes of other users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hidepid {
    /// The mount options: `hidepid=invisible,gid=100`.
    pub options: String,
    /// The group whose members see all processes, unless `is_ptraceable`. It is 0 without the
    /// option.
    pub gid: u32,
    /// Whether a process sees only the processes that it may trace, whatever its group.
    pub is_ptraceable: bool,
}

/// Returns how /proc hides processes; `None` if it shows all of them, or if it is unknown.
pub(crate) fn hidepid(root: &Path) -> Option<Hidepid> {
    let mounts = fs::read_to_string(root.join("proc/mounts")).ok()?;
    let on_proc = |line: &&str| {
        let mut fields = line.split(' ').skip(1);
        (fields.next(), fields.next()) == (Some("/proc"), Some("proc"))
    };
    // The last mount covers the earlier ones.
    let options = mounts.lines().rfind(on_proc)?.split(' ').nth(3)?;
    let option =
        |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    // The values are numbers before 5.8.
    let hidepid = option("hidepid").filter(|value| !["0", "off"].contains(value))?;
    let gid = option("gid").and_then(|gid| gid.parse().ok()).unwrap_or(0);
    let group = option("gid").map(|gid| format!(",gid={gid}")).unwrap_or_default();
    let is_ptraceable = ["4", "ptraceable"].contains(&hidepid);
    Some(Hidepid { options: format!("hidepid={hidepid}{group}"), gid, is_ptraceable })
}

/// The kernel writes blanks, tabs, newlines and backslashes in paths as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => bytes.push(first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    #[test]
    fn each_kind_of_file_system_is_where_it_is_mounted() {
        let root = Scratch::new("mounts");
        assert_eq!(of(root.path(), "proc"), [""; 0].map(PathBuf::from));
        root.file(
            "proc/mounts",
            "proc /proc proc rw 0 0\nc /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
             c /sys/fs/cgroup/unified cgroup2 rw 0 0\nc /my\\040groups cgroup2 rw 0 0\nhalf /a\n",
        );
        let expected = ["sys/fs/cgroup/unified", "my groups"].map(|at| root.join(at));
        assert_eq!(of(root.path(), "cgroup2"), expected);
    }

    #[test]
    fn the_last_mount_on_proc_decides_what_is_hidden() {
        let root = Scratch::new("mounts-hidepid");
        let seen = |last: &str| {
            let text = format!("proc /proc proc rw,hidepid=1 0 0\nproc /other proc rw,hidepid=2 0 0\n{last}");
            root.file("proc/mounts", &text);
            hidepid(root.path()).map(|it| (it.options, it.gid, it.is_ptraceable))
        };
        assert_eq!(seen(""), Some(("hidepid=1".into(), 0, false)));
        assert_eq!(seen("proc /proc proc rw,relatime 0 0\n"), None);
        assert_eq!(seen("proc /proc proc rw,hidepid=off 0 0\n"), None);
        let both = seen("proc /proc proc rw,gid=12,hidepid=invisible 0 0\n");
        assert_eq!(both, Some(("hidepid=invisible,gid=12".into(), 12, false)));
        let traceable = seen("proc /proc proc rw,hidepid=ptraceable 0 0\n");
        assert_eq!(traceable, Some(("hidepid=ptraceable".into(), 0, true)));
    }
}
