//! Where a kind of file system is mounted.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mounts of file systems of the kind `fstype`, first mount first, below `root`.
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
}
