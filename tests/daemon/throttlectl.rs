//! throttlectl on a host of its own, where files replace the kernel's settings.

use crate::assert_words;
use rig::scratch::Scratch;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

/// In a mount namespace of its own, replaces /run and the settings by files below $1. Those named
/// in $2 are read-only.
const HOST: &str = r#"
    mount --make-rprivate / && mount --bind "$1/run" /run || exit 90
    for name in runtime period; do
        mount --bind "$1/$name" "/proc/sys/kernel/sched_rt_${name}_us" || exit 90
    done
    for name in $2; do
        mount -o remount,bind,ro "/proc/sys/kernel/sched_rt_${name}_us" || exit 90
    done
    [ -e /sys/kernel/debug/sched ] || mount -t debugfs debugfs /sys/kernel/debug || exit 90
    mount --bind "$1/features" /sys/kernel/debug/sched/features || exit 90
    shift 2
    exec "$@""#;

struct Host(Scratch);

impl Host {
    fn new(name: &str) -> Host {
        let host = Host(Scratch::new(&format!("throttlectl-{name}")));
        fs::create_dir(host.0.join("run")).unwrap();
        host.0.file("runtime", "950000\n");
        host.0.file("period", "1000000\n");
        host.0.file("features", "GENTLE NO_HRTICK NO_HRTICK_DL\n");
        host
    }

    fn run(&self, read_only: &str, by: &[&str], command: &str) -> Output {
        Command::new("unshare")
            .args(["-m", "sh", "-c", HOST, "sh", self.0.path().to_str().unwrap(), read_only])
            .args(by)
            .arg(rig::packaged("throttlectl"))
            .arg(command)
            .output()
            .unwrap()
    }

    fn does(&self, command: &str) -> String {
        let output = self.run("", &[], command);
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the error of a command that fails.
    fn refuses(&self, command: &str) -> String {
        refusal(self.run("", &[], command))
    }

    /// Returns what a command that succeeds prints to stderr.
    fn warns(&self, command: &str) -> String {
        let output = self.run("", &[], command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Leaves a file as the C program's throttlectl does, last changed in this second of the epoch.
    fn leave(&self, suffix: &str, content: &str, second: u64) -> PathBuf {
        let directory = self.0.join("run/stalld");
        if !directory.exists() {
            fs::create_dir(&directory).unwrap();
        }
        self.0.file(&format!("run/stalld/rtthrottle-{suffix}"), content);
        let path = directory.join(format!("rtthrottle-{suffix}"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        path
    }

    fn reads(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap().trim().to_string()
    }
}

fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("throttlectl: ") && line.lines().count() == 1, "{line}");
    line
}

#[test]
#[ignore = "needs root"]
fn on_restores_the_settings_that_off_has_saved() {
    let host = Host::new("both");
    host.0.file("runtime", "700000\n");
    host.0.file("period", "800000\n");
    assert_eq!(host.does("off"), "");
    assert_eq!((host.reads("runtime"), host.reads("period")), ("-1".to_string(), "800000".to_string()));
    assert_eq!(host.reads("features"), "HRTICK_DL");
    let saved = fs::metadata(host.0.join("run/stalld/throttling")).unwrap();
    assert_eq!((saved.uid(), saved.mode() & 0o7777), (0, 0o644));
    let shown = host.does("show");
    assert!(shown.starts_with("RT throttling is off: "), "{shown}");
    assert!(shown.contains(" 700000 us of each 800000 us\n"), "{shown}");

    host.0.file("period", "1000000\n");
    assert_eq!(host.does("on"), "");
    assert_eq!((host.reads("runtime"), host.reads("period")), ("700000".to_string(), "800000".to_string()));
    assert_eq!(host.reads("features"), "NO_HRTICK_DL");
    assert!(host.does("show").starts_with("RT throttling is on: real-time tasks may have 700000 us of each"));
    assert_eq!(fs::read_dir(host.0.join("run/stalld")).unwrap().count(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_second_off_keeps_the_settings_that_the_first_has_saved() {
    let host = Host::new("twice");
    host.does("off");
    host.does("off");
    host.does("on");
    assert_eq!(host.reads("runtime"), "950000");
    assert_eq!(host.reads("features"), "NO_HRTICK_DL");
}

#[test]
#[ignore = "needs root"]
fn a_host_with_throttling_off_keeps_it_off() {
    let host = Host::new("purpose");
    host.0.file("runtime", "-1\n");
    host.does("off");
    host.does("on");
    assert_eq!(host.reads("runtime"), "-1");
}

#[test]
#[ignore = "needs root"]
fn settings_of_another_process_are_kept_and_saved_by_the_next_off() {
    let host = Host::new("meanwhile");
    host.does("off");
    host.0.file("runtime", "500000\n");
    host.does("off");
    host.does("on");
    assert_eq!(host.reads("runtime"), "500000");
    host.does("off");
    host.0.file("runtime", "600000\n");
    assert_words(&host.does("on"), &["meanwhile", "stays as it is"]);
    assert_eq!(host.reads("runtime"), "600000");
    assert_words(&host.does("on"), &["nothing was saved"]);
    assert_eq!(host.reads("runtime"), "600000");
}

#[test]
#[ignore = "needs root"]
fn a_setting_that_can_not_be_written_is_an_error_and_loses_nothing() {
    let host = Host::new("read-only");
    let line = refusal(host.run("runtime", &[], "off"));
    assert_words(&line, &["cannot write -1 ", "/proc/sys/kernel/sched_rt_runtime_us"]);
    host.does("off");
    refusal(host.run("runtime", &[], "on"));
    host.does("on");
    assert_eq!(host.reads("runtime"), "950000");
    host.0.file("runtime", "many\n");
    assert_words(&host.refuses("off"), &["/proc/sys/kernel/sched_rt_runtime_us", "no number"]);
}

#[test]
#[ignore = "needs root"]
fn files_that_another_user_could_have_made_are_not_used() {
    let host = Host::new("hostile");
    let dir = host.0.join("run/stalld");
    let saved = dir.join("throttling");
    host.0.file("victim", "untouched\n");
    let mode = |path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();

    symlink("/nowhere", &dir).unwrap();
    assert_words(&host.refuses("off"), &["cannot use /run/stalld: "]);
    fs::remove_file(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    mode(&dir, 0o777);
    assert_words(&host.refuses("off"), &["cannot use /run/stalld: "]);
    mode(&dir, 0o755);

    // A link in the place of the file, or of the new file, is not written through.
    symlink(host.0.join("victim"), &saved).unwrap();
    for command in ["off", "on"] {
        assert_words(&host.refuses(command), &["cannot use /run/stalld/throttling: ", "remove it"]);
    }
    fs::remove_file(&saved).unwrap();
    symlink(host.0.join("victim"), dir.join("throttling.new")).unwrap();
    host.does("off");
    assert_eq!(host.reads("victim"), "untouched");

    chown(&saved, Some(65534), None).unwrap();
    assert_words(&host.refuses("on"), &["cannot use /run/stalld/throttling: ", "remove it"]);
    chown(&saved, Some(0), None).unwrap();
    for damaged in ["", "950000\n", "$(reboot) 1000000\n", "950000 1000000 TTWU_QUEUE\n", "9-1 1000000\n"] {
        host.0.file("run/stalld/throttling", damaged);
        assert_words(&host.refuses("on"), &["/run/stalld/throttling: ", "damaged", "remove it"]);
    }
    assert_eq!(host.reads("runtime"), "-1");
}

#[test]
#[ignore = "needs root"]
fn settings_that_the_c_program_has_saved_are_imported() {
    // The service is upgraded while throttling is off: `on` of the new unit ends the C program's
    // `off`.
    let host = Host::new("c-on");
    host.0.file("runtime", "-1\n");
    let file = host.leave("a8JxQ2z", "period=800000\nruntime=700000\n", 1_000_000_000);
    assert_words(&host.does("show"), &[" 700000 us of each 800000 us\n"]);
    assert_eq!(host.does("on"), "");
    assert_eq!((host.reads("runtime"), host.reads("period")), ("700000".to_string(), "800000".to_string()));
    assert!(!file.exists());

    // An `off` before that does not save -1 as the original.
    let host = Host::new("c-off");
    host.0.file("runtime", "-1\n");
    let file = host.leave("0000000", "runtime=940000\nperiod=1000000", 1_000_000_000);
    assert_eq!(host.does("off"), "");
    assert!(!file.exists());
    assert_eq!(host.reads("run/stalld/throttling"), "940000 1000000 HRTICK_DL");
    assert_eq!(host.does("on"), "");
    assert_eq!(host.reads("runtime"), "940000");

    // Throttling that was turned on meanwhile stays as it is.
    let host = Host::new("c-meanwhile");
    let file = host.leave("0000000", "period=1000000\nruntime=500000\n", 1_000_000_000);
    host.does("off");
    assert!(!file.exists());
    host.does("on");
    assert_eq!(host.reads("runtime"), "950000");
}

#[test]
#[ignore = "needs root"]
fn the_oldest_setting_of_the_c_program_that_is_not_off_is_imported() {
    for (name, files, expected) in [
        ("c-oldest", &[("b", "600000", 20), ("a", "700000", 10), ("c", "650000", 30)][..], "700000"),
        ("c-first-off", &[("a", "-1", 10), ("b", "600000", 20), ("c", "-1", 30)], "600000"),
        ("c-last-off", &[("a", "700000", 10), ("b", "-1", 20)], "700000"),
        ("c-purpose", &[("a", "-1", 10), ("b", "-1", 20)], "-1"),
    ] {
        let host = Host::new(name);
        host.0.file("runtime", "-1\n");
        for (suffix, runtime, second) in files {
            host.leave(suffix, &format!("period=1000000\nruntime={runtime}\n"), *second);
        }
        assert_eq!(host.does("on"), "", "{name}");
        assert_eq!(host.reads("runtime"), expected, "{name}");
        assert_eq!(fs::read_dir(host.0.join("run/stalld")).unwrap().count(), 0, "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn an_untrusted_file_of_the_c_program_is_ignored_with_one_line() {
    let host = Host::new("c-damaged");
    host.0.file("runtime", "-1\n");
    for damaged in [
        "",
        "runtime=950000\n",
        "period=1000000\n",
        "period=1000000\nruntime=950000x\n",
        "period=1000000\nruntime=-2\n",
        "period=1000000\nruntime=1000001\n",
        "period=0\nruntime=0\n",
        "period=99999999999999999999\nruntime=1\n",
        "period=1000000\nruntime=$(reboot)\n",
    ] {
        let file = host.leave("garbage", damaged, 10);
        let line = host.warns("on");
        let path = "/run/stalld/rtthrottle-garbage";
        assert!(line.lines().count() == 1, "{damaged:?}: {line}");
        assert_words(&line, &["throttlectl: ignored ", path, "damaged", "remove"]);
        assert_eq!(host.reads("runtime"), "-1", "{damaged:?}");
        assert!(file.exists());
    }

    // A valid file beside it counts all the same.
    host.leave("valid", "period=1000000\nruntime=900000\n", 20);
    assert_eq!(host.warns("on").lines().count(), 1);
    assert_eq!(host.reads("runtime"), "900000");

    let host = Host::new("c-foreign");
    host.0.file("runtime", "-1\n");
    let file = host.leave("foreign", "period=1000000\nruntime=900000\n", 10);
    chown(&file, Some(65534), None).unwrap();
    symlink(host.0.join("period"), host.0.join("run/stalld/rtthrottle-link")).unwrap();
    let lines = host.warns("on");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_words(&lines, &["rtthrottle-foreign", "rtthrottle-link", "no file of root"]);
    assert_eq!(host.reads("runtime"), "-1");
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_may_only_show_the_settings() {
    let host = Host::new("nobody");
    // The script may be in a private home directory, so a shell of root opens it.
    let nobody =
        ["sh", "-c", "exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -s \"$2\" <\"$1\"", "sh"];
    for command in ["off", "on"] {
        let line = refusal(host.run("", &nobody, command));
        assert_words(&line, &[&format!("'{command}' needs root")]);
    }
    let shown = host.run("", &nobody, "show");
    assert!(shown.status.success(), "{shown:?}");
    assert_eq!(host.reads("runtime"), "950000");
}
