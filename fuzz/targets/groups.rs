//! The path of a control group.

use super::is_one_line;
use stalld::stat::cgroups::Cgroup;

pub fn run(path: &[u8]) {
    let group = Cgroup::new(path);
    assert_eq!(group.path(), path);
    assert!(path.is_empty() || is_one_line(&group.to_string()), "{group}");
    let owner = group.owner();
    if let Some(id) = &owner.container {
        assert!(id.len() == 64 && is_hex(id), "{id}");
        assert!(path.windows(64).any(|part| part == id.as_bytes()), "{group} has no {id}");
    }
    if let Some(uid) = &owner.pod {
        assert!([32, 36].contains(&uid.len()) && is_hex(&uid.replace('-', "")), "{uid}");
    }
    // A group below the group of a container belongs to the same container.
    let below = Cgroup::new(&[path, b"/below"].concat());
    assert_eq!(below.owner(), owner, "{below}");
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
