//! Control groups: the group of an id, the groups below a group, and the container of a group.
//!
//! The BPF programs identify a group by its id. In the unified hierarchy (cgroup v2) that is the
//! inode number of its directory. A user may be allowed to give groups any name without a slash, so
//! `Cgroup` escapes names for output.

use crate::error::{Context, Result};
use crate::host::mounts;
use crate::task::Escaped;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A group, as its path below the mount: `/` is the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup(Vec<u8>);

/// The container and the pod of a group, if its path shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupOwner {
    /// The container's id: 64 hexadecimal digits.
    pub container: Option<String>,
    /// The uid of the Kubernetes pod, with dashes unless it is a hash.
    pub pod: Option<String>,
}

/// The groups of the unified hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    mount: PathBuf,
    by_id: BTreeMap<u64, Cgroup>,
    /// The ids that `learn` has not found, because their groups are removed. It does not search for
    /// them again.
    gone: BTreeSet<u64>,
}

/// Returns the mount point of the unified hierarchy. It can be any directory, such as
/// `/sys/fs/cgroup/unified` if the controllers are in hierarchies of version 1.
pub(super) fn mount(root: &Path) -> Option<PathBuf> {
    mounts::of(root, "cgroup2").into_iter().next()
}

impl Cgroups {
    /// Reads all groups below `mount`.
    pub(super) fn read(mount: &Path) -> Result<Cgroups> {
        fs::read_dir(mount).context(format_args!("list {}", mount.display()))?;
        Ok(Cgroups { mount: mount.to_path_buf(), by_id: walk(mount), gone: BTreeSet::new() })
    }

    pub(super) fn get(&self, id: u64) -> Option<&Cgroup> {
        self.by_id.get(&key(id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Cgroup)> {
        self.by_id.iter().map(|(&id, group)| (id, group))
    }

    /// Reads all groups again if one of `ids` is unknown. Keeps a removed group only if it is in
    /// `ids`, so that the memory is bounded.
    pub(super) fn learn(&mut self, ids: impl IntoIterator<Item = u64>) {
        let ids: BTreeSet<u64> = ids.into_iter().map(key).collect();
        if ids.iter().all(|id| self.by_id.contains_key(id) || self.gone.contains(id)) {
            return;
        }
        let mut now = walk(&self.mount);
        let before = std::mem::take(&mut self.by_id);
        for (id, group) in before.into_iter().filter(|(id, _)| ids.contains(id)) {
            now.entry(id).or_insert(group);
        }
        self.gone = ids.into_iter().filter(|id| !now.contains_key(id)).collect();
        self.by_id = now;
    }

    /// Returns the ids of the groups whose path is `chosen`, and of all groups below them.
    pub(super) fn within(&self, chosen: impl Fn(&[u8]) -> bool) -> BTreeSet<u64> {
        let within = |group: &Cgroup| group.and_above().any(&chosen);
        self.iter().filter(|(_, group)| within(group)).map(|(id, _)| id).collect()
    }
}

/// Returns the id as an inode number: the lower half on 32 bits.
fn key(id: u64) -> u64 {
    if usize::BITS == 32 { id & u64::from(u32::MAX) } else { id }
}

/// Returns all groups below `mount` by id. Skips what can't be read, because groups may be removed
/// meanwhile.
fn walk(mount: &Path) -> BTreeMap<u64, Cgroup> {
    let mut by_id = BTreeMap::new();
    let mut to_do = vec![(mount.to_path_buf(), Vec::new())];
    while let Some((dir, path)) = to_do.pop() {
        let Ok(of_dir) = fs::symlink_metadata(&dir) else { continue };
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = [&path, &b"/"[..], entry.file_name().as_bytes()].concat();
                to_do.push((entry.path(), path));
            }
        }
        by_id.insert(key(of_dir.ino()), Cgroup(if path.is_empty() { b"/".to_vec() } else { path }));
    }
    by_id
}

impl Cgroup {
    pub fn new(path: &[u8]) -> Cgroup {
        Cgroup(path.to_vec())
    }

    pub fn path(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path of the group, and the paths of all groups above it.
    fn and_above(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::successors(Some(self.path()), |path| match path.iter().rposition(|&b| b == b'/')? {
            0 if path.len() > 1 => Some(b"/"),
            0 => None,
            slash => Some(&path[..slash]),
        })
    }

    /// Returns the container and the pod, according to the names that container engines and the
    /// kubelet use. If containers are nested, returns the innermost.
    pub fn owner(&self) -> CgroupOwner {
        // A containerd that takes systemd's names for paths writes POD.slice:cri-containerd:ID.
        let innermost_first = || self.0.rsplit(|&b| b == b'/' || b == b':');
        CgroupOwner { container: innermost_first().find_map(container), pod: innermost_first().find_map(pod) }
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Cgroup({self})")
    }
}

/// Returns the id in `ID`, `docker-ID.scope`, `cri-containerd-ID.scope` and similar names.
fn container(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".scope").unwrap_or(name);
    let (engine, id) = name.split_at(name.len().checked_sub(64)?);
    // conmon watches a container, but is not part of it.
    let is_engine = engine.is_empty() || engine.ends_with(b"-") && !engine.ends_with(b"conmon-");
    (is_engine && id.iter().all(|&b| is_hex(b))).then(|| id.iter().map(|&b| b as char).collect())
}

/// Returns the uid in `podUID` and in `kubepods-burstable-podUID.slice`, where systemd requires
/// underscores instead of dashes.
fn pod(name: &[u8]) -> Option<String> {
    let uid = match name.strip_suffix(b".slice") {
        Some(slice) => {
            let last = slice.rsplit(|&b| b == b'-').next()?;
            last.strip_prefix(b"pod")?
        }
        None => name.strip_prefix(b"pod")?,
    };
    let uid: Vec<u8> = uid.iter().map(|&b| if b == b'_' { b'-' } else { b }).collect();
    is_uid(&uid).then(|| uid.iter().map(|&b| b as char).collect())
}

/// Returns whether this is a pod's uid: 8-4-4-4-12 digits. A static pod, which the kubelet reads
/// from a file, has a hash without dashes.
fn is_uid(uid: &[u8]) -> bool {
    let parts: Vec<&[u8]> = uid.split(|&b| b == b'-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    parts.concat().iter().all(|&b| is_hex(b)) && (lengths == [8, 4, 4, 4, 12] || lengths == [32])
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::ffi::OsStr;

    const ID: &str = "4f0c8a6d1b2e3f405162738495a6b7c8d9eafb0c1d2e3f405162738495a6b7c8";
    const INNER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const UID: &str = "7d5a2c1e-93b4-4f0a-8c6d-1e2f3a4b5c6d";
    const SYSTEMD_UID: &str = "7d5a2c1e_93b4_4f0a_8c6d_1e2f3a4b5c6d";
    const HASH: &str = "b2e8f35a90c14d6e87f20a1b3c5d7e9f";

    /// `{id}` and so on stand for the constants.
    fn owner(path: &str) -> (Option<String>, Option<String>) {
        let owner = Cgroup::new(fill(path).as_bytes()).owner();
        (owner.container, owner.pod)
    }

    fn fill(path: &str) -> String {
        let names =
            [("{id}", ID), ("{inner}", INNER), ("{uid}", UID), ("{u_i_d}", SYSTEMD_UID), ("{hash}", HASH)];
        names.into_iter().fold(path.to_string(), |path, (name, value)| path.replace(name, value))
    }

    #[test]
    fn a_container_is_known_by_the_name_that_its_engine_gives() {
        for path in [
            "/system.slice/docker-{id}.scope",
            "/docker/{id}",
            "/docker/{id}/init.scope",
            "/docker/{id}/system.slice/ssh.service",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope",
            "/machine.slice/libpod-{id}.scope",
            "/machine.slice/libpod-{id}.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
            "/libpod_parent/libpod-{id}",
            "/machine.slice/machine-libpod_pod_{inner}.slice/libpod-{id}.scope",
            "/system.slice/nerdctl-{id}.scope",
            "/default/{id}",
            "/actions_job/{id}",
            "/ecs/0123456789abcdef0123456789abcdef/{id}",
        ] {
            assert_eq!(owner(path), (Some(ID.to_string()), None), "{path}");
        }
    }

    #[test]
    fn a_container_of_kubernetes_is_known_with_its_pod() {
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u_i_d}.slice/cri-containerd-{id}.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{u_i_d}.slice/crio-{id}.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{u_i_d}.slice/crio-{id}.scope/container",
            "/kubepods.slice/kubepods-pod{u_i_d}.slice/docker-{id}.scope",
            "/kubepods/burstable/pod{uid}/{id}",
            "/kubepods/besteffort/pod{uid}/{id}/child",
            "/kubepods/pod{uid}/{id}",
            "/system.slice/containerd.service/kubepods-burstable-pod{u_i_d}.slice:cri-containerd:{id}",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
             kubelet-kubepods-besteffort-pod{u_i_d}.slice/cri-containerd-{id}.scope",
            // A node of the cluster that is itself a container.
            "/docker/{inner}/kubelet/kubepods/burstable/pod{uid}/{id}",
            "/system.slice/docker-{inner}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{u_i_d}.slice/\
             cri-containerd-{id}.scope",
            // A container engine in a pod.
            "/kubepods/burstable/pod{uid}/{inner}/docker/{id}",
        ] {
            assert_eq!(owner(path), (Some(ID.to_string()), Some(UID.to_string())), "{path}");
        }
    }

    #[test]
    fn a_pod_of_a_file_has_a_hash_for_its_uid() {
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/cri-containerd-{id}.scope",
            "/kubepods/burstable/pod{hash}/{id}",
        ] {
            assert_eq!(owner(path), (Some(ID.to_string()), Some(HASH.to_string())), "{path}");
        }
    }

    #[test]
    fn a_pod_without_its_container_is_known_alone() {
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u_i_d}.slice",
            "/kubepods/pod{uid}",
            "/kubepods.slice/kubepods-pod{u_i_d}.slice/crio-conmon-{id}.scope",
        ] {
            assert_eq!(owner(path), (None, Some(UID.to_string())), "{path}");
        }
    }

    #[test]
    fn other_groups_belong_to_no_container_or_pod() {
        for path in [
            "/",
            "",
            "/init.scope",
            "/user.slice/user-1000.slice/session-2.scope",
            "/system.slice/docker.service",
            "/machine.slice/libpod-conmon-{id}.scope",
            "/machine.slice/machine-libpod_pod_{id}.slice",
            "/docker/{id}0",
            "/docker/4F0C8A6D1B2E3F405162738495A6B7C8D9EAFB0C1D2E3F405162738495A6B7C8",
            "/docker/buildkit",
            "/kubepods.slice/kubepods-burstable.slice",
            "/pods/podman",
            "/pod7d5a2c1e-93b4-4f0a-8c6d",
            "/kubepods/burstable/pod{uid}0",
            "/a/podx.slice",
        ] {
            assert_eq!(owner(path), (None, None), "{path}");
        }
        assert_eq!(Cgroup::new(&[0xff; 64]).owner(), CgroupOwner::default());
    }

    fn id(root: &Scratch, path: &str) -> u64 {
        fs::metadata(root.join(path)).unwrap().ino()
    }

    #[test]
    fn a_group_is_known_by_the_inode_number_of_its_directory() {
        let root = Scratch::new("groups-ids");
        root.file("system.slice/ssh.service/cgroup.procs", "");
        root.file("cgroup.procs", "");
        let groups = Cgroups::read(root.path()).unwrap();
        let path = |name| groups.get(id(&root, name)).map(|group| group.to_string());
        assert_eq!(path("").as_deref(), Some("/"));
        assert_eq!(path("system.slice").as_deref(), Some("/system.slice"));
        assert_eq!(path("system.slice/ssh.service").as_deref(), Some("/system.slice/ssh.service"));
        assert_eq!((path("cgroup.procs"), groups.iter().count()), (None, 3));
    }

    #[test]
    fn a_group_that_is_chosen_brings_all_below_it() {
        let root = Scratch::new("groups-within");
        for dir in ["a/b/c", "a-b/b", "d/a"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let groups = Cgroups::read(root.path()).unwrap();
        let within = |chosen: &dyn Fn(&[u8]) -> bool| -> Vec<String> {
            let ids = groups.within(chosen);
            let mut paths: Vec<_> = ids.iter().map(|&id| groups.get(id).unwrap().to_string()).collect();
            paths.sort();
            paths
        };
        assert_eq!(within(&|path| path == b"/a"), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(within(&|path| path.ends_with(b"/b")), ["/a-b/b", "/a/b", "/a/b/c"]);
        assert_eq!(within(&|path| path == b"/").len(), 8);
        assert_eq!(within(&|_| false), [""; 0]);
    }

    #[test]
    fn an_ended_group_is_known_as_long_as_it_is_requested() {
        let root = Scratch::new("groups-learn");
        fs::create_dir_all(root.join("old")).unwrap();
        let mut groups = Cgroups::read(root.path()).unwrap();
        let old = id(&root, "old");
        fs::create_dir_all(root.join("new")).unwrap();
        let new = id(&root, "new");
        // It is moved away, not removed, so that no other directory is given its number.
        let outside = Scratch::new("groups-learn-outside");
        fs::rename(root.join("old"), outside.join("old")).unwrap();

        groups.learn([old]);
        assert_eq!(groups.get(new), None);
        groups.learn([old, new, u64::MAX]);
        assert_eq!(groups.get(old).unwrap().path(), b"/old");
        assert_eq!(groups.get(new).unwrap().path(), b"/new");
        assert_eq!(groups.get(u64::MAX), None);

        // A number that an earlier walk did not find causes no new walk.
        fs::create_dir_all(root.join("later")).unwrap();
        let later = id(&root, "later");
        groups.learn([u64::MAX]);
        assert_eq!(groups.get(later), None);
        groups.learn([later]);
        assert_eq!(groups.get(later).unwrap().path(), b"/later");
        // A walk drops a group that is gone, unless the call names it.
        assert_eq!(groups.get(old), None);
    }

    #[test]
    fn a_name_can_not_break_out_of_its_line() {
        let root = Scratch::new("groups-hostile");
        fs::create_dir(root.path().join(OsStr::from_bytes(b"a\nb\x1b[2J\xff\\"))).unwrap();
        let groups = Cgroups::read(root.path()).unwrap();
        let shown: Vec<_> = groups.iter().map(|(_, group)| group.to_string()).collect();
        assert!(shown.contains(&r"/a\x0ab\x1b[2J\xff\\".to_string()), "{shown:?}");
    }

    #[test]
    fn the_unified_hierarchy_is_found_wherever_it_is() {
        let root = Scratch::new("groups-mount");
        assert_eq!(mount(root.path()), None);
        root.file(
            "proc/mounts",
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nx /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        assert_eq!(mount(root.path()), Some(root.join("sys/fs/cgroup/unified")));
        let error = Cgroups::read(&root.join("gone")).unwrap_err().to_string();
        assert!(error.starts_with("cannot list ") && error.ends_with("No such file or directory"), "{error}");
    }
}
