//! Tests the filters of stallstat, and its output.

use rig::json::Json;
use rig::scratch::{self, Scratch};
use rig::stallstat::{Report, Stallstat, path as stallstat_path};
use rig::worker::Worker;
use rig::{hogged_cpu, live, process};
use stalld::host::mounts;
use stalld::sys::{clock, sched};
use stalld::task::{Comm, Cpu, Nanos, Tid};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NAPS: u64 = 20;

/// Sleeps at least `NAPS` times, by the kernel's own count. A call alone is no proof: where a
/// hypervisor takes the CPU for a moment, the timer of a nap can expire before the task has slept.
fn nap() {
    let sleeps = || process::sleeps(sched::gettid());
    let end = sleeps() + NAPS;
    while sleeps() < end {
        clock::nap(Nanos::from_millis(1));
    }
}

/// Has threads of these names take naps on the last CPU, one after the other.
fn naps_of(names: &[&[u8]]) -> Vec<Tid> {
    let nap = |name: &&[u8]| {
        let worker = Worker::start(name, hogged_cpu(), 0, nap);
        worker.go();
        worker.outcome();
        worker.tid()
    };
    names.iter().map(nap).collect()
}

/// A script that is a process of its own, under the name of its file.
struct Script(PathBuf);

impl Script {
    fn new(scratch: &Scratch, name: &str, text: &str) -> Script {
        scratch::script(&scratch.join(name), text);
        Script(scratch.join(name))
    }

    fn run(&self) {
        assert!(Command::new(&self.0).status().unwrap().success());
    }
}

/// A script that sleeps and is woken at the end of each of ten children.
const CHILDREN: &str = "for i in 0 1 2 3 4 5 6 7 8 9; do sleep 0.001; done";

#[test]
#[ignore = "starves tasks, as root"]
fn a_name_selects_tasks_that_have_it_take_it_or_are_born_with_it() {
    let _live = live();
    let scratch = Scratch::new("stallstat-names");
    let rename = |name: &'static [u8]| {
        move || {
            nap();
            sched::set_name(&Comm::new(name)).unwrap();
            nap();
        }
    };
    let before = Worker::start(b"wanted-before", hogged_cpu(), 0, nap);
    let turns = Worker::start(b"other-turns", hogged_cpu(), 0, rename(b"wanted-turned"));
    let leaves = Worker::start(b"wanted-leaves", hogged_cpu(), 0, rename(b"other-left"));
    let mut stallstat = Stallstat::start(&["-d", "-c", "^wanted,^nobody$"]);
    let mut seen = Vec::new();
    for worker in [&before, &turns, &leaves] {
        worker.go();
        // A report must not disturb the matching of names.
        seen.push(stallstat.report());
        worker.outcome();
    }
    naps_of(&[b"wanted-born", b"other-born"]);
    Script::new(&scratch, "wanted-script", CHILDREN).run();
    let report = stallstat.report();
    assert!(report.of("latency", "wanted-born").count("count") >= NAPS);
    assert!(report.of("latency", "wanted-script").count("count") >= 10);
    seen.push(report);
    let names: Vec<&str> = seen.iter().flat_map(|report| report.names("latency")).collect();
    assert_eq!(names.iter().find(|name| !name.starts_with("wanted")), None, "{names:?}");
    assert!(names.contains(&"wanted-before") && names.contains(&"wanted-turned"), "{names:?}");

    // After one report, all names have a verdict.
    naps_of(&[b"wanted-again", b"other-again"]);
    let report = stallstat.report();
    assert_eq!(report.names("latency"), ["wanted-again"]);
    assert_eq!(report.rows("still_waiting"), []);
}

/// A control group, removed when dropped.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new(path: PathBuf) -> ControlGroup {
        fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        ControlGroup(path)
    }

    fn run(&self, script: &Script) {
        let enter = "echo $$ >\"$1/cgroup.procs\" && exec \"$2\"";
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).args([&self.0, &script.0]);
        assert!(command.status().unwrap().success());
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A process that ran in it may not have ended completely.
        process::eventually("a control group is empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_control_group_selects_its_tasks_and_those_of_later_subgroups() {
    let _live = live();
    let own = format!("stallstat-{}", std::process::id());
    let mount = mounts::of(Path::new("/"), "cgroup2").into_iter().next();
    let group = ControlGroup::new(mount.expect("no cgroup2 is mounted").join(&own));
    let scratch = Scratch::new("stallstat-groups");
    let [direct, below, outside, global] =
        ["in-group", "in-child", "outside", "global"].map(|name| Script::new(&scratch, name, CHILDREN));
    let pattern = format!("^/{own}$");
    let mut stallstat = Stallstat::start(&["-d", "--cgroup", &pattern, "--global-comm", "^global$"]);
    let child = ControlGroup::new(group.0.join("child"));
    group.run(&direct);
    child.run(&below);
    outside.run();
    global.run();
    let report = stallstat.report();
    let mut names = report.names("latency");
    // A process has the name of the shell until it executes the script, and a script has children.
    names.retain(|name| !["sh", "sleep"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["global", "in-child", "in-group"]);

    let only = "^(in-.*|outside)$";
    let mut stallstat = Stallstat::start(&["-d", "--cgroup", &pattern, "-c", only]);
    child.run(&below);
    child.run(&global);
    outside.run();
    let report = stallstat.report();
    assert_eq!(report.names("latency"), ["in-child"]);
}

#[test]
#[ignore = "starves tasks, as root"]
fn filters_by_tid_cpu_and_length_show_no_other_task() {
    let _live = live();
    let (here, there) = (hogged_cpu(), Cpu(0));
    let [one, other] = [here, there].map(|cpu| Worker::start(b"numbered", cpu, 0, nap));
    let (thread, process) = (one.tid().to_string(), std::process::id().to_string());
    let mut by_thread = Stallstat::start(&["-d", "-C", "-p", &thread]);
    let mut by_process = Stallstat::start(&["-d", "-C", "-p", &process]);
    let mut by_cpu = Stallstat::start(&["-d", "-C", "--cpu", &there.to_string()]);
    let mut by_length = Stallstat::start(&["-d", "-C", "-l", "30s", "-g", "latency,sleep"]);
    for worker in [&one, &other] {
        worker.go();
        worker.outcome();
    }
    let tids = |report: &Report| -> Vec<Tid> {
        let rows = report.rows("latency").iter();
        rows.map(|row| Tid(row.number("tid").unwrap() as i32)).collect()
    };
    assert_eq!(tids(&by_thread.report()), [one.tid()]);
    let of_process = tids(&by_process.report());
    assert!([&one, &other].iter().all(|worker| of_process.contains(&worker.tid())), "{of_process:?}");
    // Threads that have ended have no Tgid any more.
    let is_own = |&tid: &Tid| process::status(tid, "Tgid").is_none_or(|tgid| tgid == process);
    assert!(of_process.iter().all(is_own), "{of_process:?}");
    let report = by_cpu.report();
    let on_cpu = tids(&report);
    assert!(on_cpu.contains(&other.tid()) && !on_cpu.contains(&one.tid()), "{on_cpu:?}");
    let cpus = report.rows("latency_by_cpu").iter().map(|row| row.number("cpu").unwrap() as u32);
    assert_eq!(cpus.collect::<Vec<_>>(), [there.0]);
    let report = by_length.report();
    assert_eq!(report.rows("latency"), []);
    assert!(report.of_task("sleep", one.tid()).count("count") >= NAPS);
}

/// Returns a script that starts `count` processes, one after the other.
fn burst_of(count: u64, scratch: &Scratch) -> Script {
    Script::new(scratch, "burst", &format!("i=0; while [ $i -lt {count} ]; do (:); i=$((i + 1)); done"))
}

/// There is room for some 8,000 tasks more than there were at the start.
#[test]
#[ignore = "starves tasks, as root"]
fn ended_tasks_make_room_for_others() {
    let _live = live();
    let scratch = Scratch::new("stallstat-room");
    let burst = burst_of(1000, &scratch);
    let mut stallstat = Stallstat::start(&["-d", "-g", "slice"]);
    for _ in 0..12 {
        burst.run();
        let report = stallstat.report();
        assert_eq!((report.of("slice", "burst").count("tasks"), report.not_counted()), (1001, 0));
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn processes_that_come_and_go_between_two_reports_are_all_counted() {
    let _live = live();
    let scratch = Scratch::new("stallstat-burst");
    let burst = burst_of(500, &scratch);
    let mut stallstat = Stallstat::start(&["-d", "-g", "latency,slice"]);
    burst.run();
    let report = stallstat.report();
    let row = report.of("slice", "burst");
    // The script itself, and a process for each pair of parentheses.
    assert_eq!((row.count("tasks"), report.not_counted()), (501, 0), "{row:?}");
    assert_eq!(report.of("latency", "burst").count("tasks"), 501);
    // These processes have ended, and their entries are gone.
    let report = stallstat.report();
    assert!(!report.names("slice").contains(&"burst"));
}

/// Names that would break out of a line, a table or a string.
const HOSTILE: [&[u8]; 6] = [
    b"hq\"\\\"}],",
    b"hn\nCPU 0,1",
    b"hc\x1b[2J\x07\x7f",
    b"hx\xff\xfe\xc3",
    b"hu\xc2\x85\xe2\x80\xae",
    b"h;'$(x)\t",
];

#[test]
#[ignore = "starves tasks, as root"]
fn no_name_breaks_out_of_a_report() {
    let _live = live();
    let mut json = Stallstat::start(&["-d", "-c", "^h"]);
    let [csv, text] = [&["--csv"][..], &[]].map(|form| {
        let mut stallstat = Stallstat::start_as(&[form, &["-d", "-C", "-c", "^h"]].concat());
        process::signal(stallstat.pid(), "USR1");
        // It counts once it has written a line.
        stallstat.line_with("");
        stallstat
    });
    let tids = naps_of(&HOSTILE);
    let report = json.report();
    for name in HOSTILE {
        report.of("latency", &String::from_utf8_lossy(name));
    }

    let (_, text) = text.end_by("TERM");
    let (_, csv) = csv.end_by("TERM");
    for line in text.iter().chain(&csv) {
        assert!(!line.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER), "{line:?}");
    }
    let csv: Vec<Vec<String>> = csv.iter().map(|line| fields(line)).collect();
    assert_eq!(csv[0].join(","), "time,table,comm,tid,cpu,measure,value");
    for (name, tid) in HOSTILE.iter().zip(&tids) {
        let (name, tid) = (Comm::new(name).to_string(), tid.to_string());
        assert!(text.iter().any(|line| line.starts_with(&format!("{name}-{tid} "))), "{name}: {text:#?}");
        let key = ["latency", &name, &tid, "", "count"];
        let line = csv.iter().find(|line| line[1..6] == key).unwrap_or_else(|| panic!("{name}: {csv:#?}"));
        assert!(line[6].parse::<u64>().unwrap() >= NAPS, "{line:?}");
    }
}

/// The fields of a line of CSV, of which there are seven.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                fields.last_mut().unwrap().push(characters.next().unwrap());
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().unwrap().push(c),
        }
    }
    assert_eq!((fields.len(), quoted), (7, false), "{line}");
    fields
}

#[test]
#[ignore = "starves tasks, as root"]
fn without_privileges_one_line_names_the_missing_capability() {
    let _live = live();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let scratch = Scratch::new("stallstat-nobody");
    // The directories above the one that cargo builds in may be closed to others.
    scratch::install(&stallstat_path(), &scratch.join("stallstat"));
    let output =
        Command::new("setpriv").args(nobody).arg(scratch.join("stallstat")).arg("-1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &[][..]), "{said}");
    assert!(said.contains("CAP_BPF") && said.lines().count() == 1, "{said}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn on_a_terminal_each_report_replaces_the_last_one_and_fits() {
    let _live = live();
    let command = format!("stty rows 10 && exec {} -d -i 200ms -r 1", stallstat_path().display());
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let (before, reports) = text.split_once("\x1b[H\x1b[J").unwrap();
    let reports: Vec<&str> = reports.split("\x1b[H\x1b[J").collect();
    assert!(before.is_empty() && reports.len() >= 4, "{text:?}");
    for report in reports {
        assert!(report.starts_with("LATENCY") && report.lines().count() < 10, "{report}");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn it_ends_quietly_when_its_reader_closes_the_pipe() {
    let _live = live();
    let mut command = Command::new(stallstat_path());
    command.args(["-g", "most", "-d", "-i", "50ms", "-r", "60s", "--csv"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let begin = clock::monotonic();
    let output = child.wait_with_output().unwrap();
    assert!(clock::monotonic() - begin < Nanos::from_secs(50), "it went on");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("Broken pipe"), "{said}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn interrupted_it_writes_a_last_report() {
    let _live = live();
    for signal in ["INT", "TERM"] {
        let stallstat = Stallstat::start(&["-d"]);
        naps_of(&[b"last-words"]);
        let (code, said) = stallstat.end_by(signal);
        let report = Report(Json::parse(said.last().unwrap()));
        assert!(report.of("latency", "last-words").count("count") >= NAPS);
        assert_eq!((code, said.len()), (Some(0), 2), "{said:?}");
    }
}
