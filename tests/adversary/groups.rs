//! Control groups that a user owns, and paths of them as long as the kernel allows.

use crate::scene::{Act, BOTH, Scene};
use rig::attack::USER;
use stalld::sys::clock;
use stalld::task::Nanos;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

const VERSION_1: &str = "/sys/fs/cgroup/cpu";

/// The mount points of the hierarchy of version 2: beside version 1, and alone.
const VERSION_2: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Groups that belong to the user of the attacks. Removed when dropped, the innermost first.
#[derive(Default)]
struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes a group and gives it to the user.
    fn make(&mut self, directory: PathBuf) -> PathBuf {
        fs::create_dir(&directory).unwrap_or_else(|e| panic!("cannot make a control group: {e}"));
        let files = ["tasks", "cgroup.procs", "cgroup.threads"].map(|name| directory.join(name));
        for path in files.iter().filter(|path| path.exists()).chain([&directory]) {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        self.0.push(directory.clone());
        directory
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let until = clock::monotonic() + Nanos::from_secs(20);
        for directory in self.0.iter().rev() {
            // The last process in it may not have ended yet.
            while fs::remove_dir(directory).is_err() && clock::monotonic() < until {
                clock::nap(Nanos::from_millis(2));
            }
        }
    }
}

/// The longest name of a group, and the longest path, in bytes.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

fn groups() -> Scene {
    rig::as_root();
    let mut groups = Groups::default();
    let name = format!("stalld-adversary-{}", std::process::id());
    let mut acts = Vec::new();
    let act = |name, file: &Path| Act::new(name, &["--group", file.to_str().unwrap(), "group"]);
    if Path::new(VERSION_1).join("tasks").exists() {
        let group = groups.make(Path::new(VERSION_1).join(&name));
        acts.push(act("version 1", &group.join("tasks")));
    }
    let root = VERSION_2.map(Path::new).into_iter().find(|root| root.join("cgroup.controllers").exists());
    let root = root.unwrap_or_else(|| panic!("no control groups of version 2 are mounted"));
    let outer = groups.make(root.join(&name));
    let inner = groups.make(outer.join("inner"));
    acts.push(act("version 2", &inner.join("cgroup.procs")).placed(outer.join("cgroup.procs")));
    let mut deep = outer;
    while deep.as_os_str().len() + NAME_MAX + "/cgroup.procs".len() < PATH_MAX {
        deep = groups.make(deep.join("x".repeat(NAME_MAX)));
    }
    acts.push(Act::new("long path", &["spin"]).placed(deep.join("cgroup.procs")));
    Scene::new("groups", BOTH, acts).with(groups)
}

scene!("groups", groups, others_are_served_while_victims_change_their_control_groups,
    a_victim_that_goes_to_a_group_of_version_1_gains_no_rank => "version 1",
    a_victim_that_goes_to_a_group_of_version_2_gains_no_rank => "version 2",
    a_victim_in_a_group_with_a_path_of_4_kb_is_not_hidden => "long path",
);
