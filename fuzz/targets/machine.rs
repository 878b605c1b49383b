//! The contents of the kernel's files about the machine, separated by NULs. They are read below a
//! root of their own.

use super::{is_one_line, item};
use stalld::host::privilege::{self, Lockdown};
use stalld::host::{self, debugfs};
use std::fs;
use std::path::Path;

const FILES: [&str; 10] = [
    "proc/mounts",
    "sys/kernel/debug/sched/features",
    "sys/kernel/debug/sched/fair_server/cpu0/runtime",
    "sys/kernel/debug/sched/fair_server/cpu0/period",
    "sys/kernel/security/lockdown",
    "sys/devices/system/cpu/online",
    "proc/self/status",
    "proc/self/schedstat",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/hung_task_timeout_secs",
];

pub fn run(mut input: &[u8]) {
    let root = format!("/dev/shm/stalld-fuzz-root-{}", std::process::id());
    let root = Path::new(&root);
    let mut texts = [&[][..]; FILES.len()];
    for (file, text) in FILES.iter().zip(&mut texts) {
        *text = item(&mut input);
        let path = root.join(file);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text)).expect("room in /dev/shm");
    }
    check(root, &texts);
    fs::remove_dir_all(root).expect("it is there");
}

fn check(root: &Path, texts: &[&[u8]]) {
    let mounts = debugfs::mounts(root);
    assert!(mounts.len() <= texts[0].split(|&b| b == b'\n').count());
    assert!(mounts.iter().all(|at| at.starts_with(root)), "{mounts:?}");
    if let Some(hrtick) = debugfs::hrtick(root) {
        assert_eq!(hrtick.feature.is_some(), hrtick.is_on.is_ok(), "{hrtick:?}");
        assert!(!mounts.is_empty());
    }
    match debugfs::dl_server(root) {
        Some(Ok(served)) => {
            let [shown] = &served[..] else { panic!("{served:?}") };
            let text = |at: usize| {
                String::from_utf8_lossy(texts[at]).trim().trim_start_matches(['+', '0']).to_string()
            };
            assert!([text(2), String::new()].contains(&shown.runtime.0.to_string()) || shown.runtime.0 == 0);
            assert!([text(3), String::new()].contains(&shown.period.0.to_string()) || shown.period.0 == 0);
        }
        Some(Err(error)) => assert!(is_one_line(&error.to_string()), "{error:?}"),
        None => {}
    }
    let modes = String::from_utf8_lossy(texts[4]);
    match privilege::lockdown(root) {
        Lockdown::Unknown => {}
        known => assert!(modes.contains(&format!("[{known}]")), "{known:?} of {modes:?}"),
    }
    if let Some(online) = host::online_cpus(root) {
        assert!(!online.is_empty());
    }
    if let Some(capabilities) = privilege::capabilities(root) {
        assert!(capabilities.missing_for_bpf().len() <= 2);
    }
    if host::stamps_queued_tasks(root) {
        assert!(texts[7].iter().any(|b| (b'1'..=b'9').contains(b)));
    }
    if let Some((major, minor)) = host::kernel_release(root).as_deref().and_then(host::kernel_version) {
        let text = String::from_utf8_lossy(texts[8]);
        assert!(text.contains(&major.to_string()) && text.contains(&minor.to_string()), "{text:?}");
    }
    assert!(host::hung_task_timeout(root).is_none_or(|timeout| timeout.0 > 0));
}
