//! The sched_debug backend reads the text of many kernels, and of this one.

use rig::scratch::Scratch;
use stalld::cpus::CpuSet;
use stalld::observe::sched_debug::{SchedDebug, Scope, Sources, parse};
use stalld::observe::{Backend, Effort, Load, Snapshot, Watch};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const KERNELS: [&str; 12] = [
    "3.10",
    "4.18",
    "5.10-rt",
    "6.1",
    "6.1-rt",
    "6.6",
    "6.12",
    "6.12-rt",
    "6.18",
    "6.18-names",
    "7.2",
    "7.2-rt",
];

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sched_debug").join(file)
}

fn text(kernel: &str) -> Vec<u8> {
    fs::read(fixture(&format!("{kernel}.txt"))).unwrap()
}

fn scan(text: &[u8], cpus: CpuSet, reader: Option<Tid>) -> stalld::error::Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    parse(text, &mut Scope::new(cpus, reader), &mut snapshot)?;
    Ok(snapshot)
}

fn victims_cpu() -> CpuSet {
    [Cpu(1)].into_iter().collect()
}

/// Returns tid, name, switches and priority of each waiter.
fn waiters(snapshot: &Snapshot) -> Vec<(i32, String, u64, i32)> {
    let waiter = |w: &stalld::observe::Waiter| {
        (w.task.tid.0, w.task.comm.to_string(), w.task.progress, w.task.sched.prio)
    };
    snapshot.waiters.iter().map(waiter).collect()
}

#[test]
fn every_kernel_shows_the_waiters_that_it_had_and_no_others() {
    for kernel in KERNELS {
        let expected = fs::read_to_string(fixture(&format!("{kernel}.waiters.tsv"))).unwrap();
        let mut expected: Vec<(i32, String)> = expected
            .lines()
            .map(|line| line.split_once('\t').unwrap())
            .map(|(tid, name)| (tid.parse().unwrap(), name.to_string()))
            .collect();
        expected.sort_unstable();
        let snapshot = scan(&text(kernel), victims_cpu(), None).unwrap();
        let found: Vec<_> = waiters(&snapshot).into_iter().map(|(tid, name, ..)| (tid, name)).collect();
        assert_eq!(found, expected, "{kernel}");
        for waiter in &snapshot.waiters {
            assert_eq!((waiter.task.cpu, waiter.since), (Cpu(1), None), "{kernel}");
        }
    }
}

#[test]
fn every_kernel_shows_the_running_task_and_the_load_of_its_cpu() {
    // The columns are tid and progress of the hog, and the load of its CPU.
    for (kernel, hog, progress, runnable, realtime) in [
        ("3.10", 2300, 7, 13, 11),
        ("4.18", 2300, 7, 13, 11),
        ("5.10-rt", 98, 7, 7, 6),
        ("6.1", 124, 4, 7, 6),
        ("6.1-rt", 114, 5, 9, 8),
        ("6.6", 2300, 7, 13, 11),
        ("6.12", 177, 4, 8, 6),
        ("6.12-rt", 166, 5, 9, 7),
        ("6.18", 538, 19551, 5, 4),
        ("6.18-names", 6861, 2, 12, 11),
        ("7.2", 141, 4, 7, 6),
        ("7.2-rt", 130, 7, 8, 7),
    ] {
        let snapshot = scan(&text(kernel), victims_cpu(), None).unwrap();
        let [running] = &snapshot.running[..] else { panic!("{kernel}: {:?}", snapshot.running) };
        assert_eq!(
            (running.tid, running.progress, running.sched.prio, running.comm.as_bytes()),
            (Tid(hog), progress, 49, &b"hog"[..]),
            "{kernel}"
        );
        assert_eq!(snapshot.load, [Load { cpu: Cpu(1), runnable, realtime }], "{kernel}");
    }
}

#[test]
fn priority_and_progress_are_read_from_the_right_columns() {
    for (kernel, tid, progress, prio) in [
        ("3.10", 1_048_577, 3, 120),
        ("4.18", 4_194_303, 3, 120),
        ("5.10-rt", 23, 69, 98),
        ("5.10-rt", 24, 236, 120),
        ("6.1-rt", 112, 2, 97),
        ("6.6", 2306, 6, 98),
        ("6.12-rt", 165, 9, 120),
        ("6.18", 32721, 914, 120),
        ("6.18-names", 6860, 6, 120),
        ("6.18-names", 6868, 1, 98),
        ("7.2-rt", 133, 2, 69),
    ] {
        let snapshot = scan(&text(kernel), victims_cpu(), None).unwrap();
        let found = waiters(&snapshot).into_iter().find(|&(found, ..)| found == tid);
        let (_, name, found_progress, found_prio) = found.unwrap();
        assert_eq!((found_progress, found_prio), (progress, prio), "{kernel}: {name}");
    }
}

#[test]
fn the_reader_is_neither_load_nor_running() {
    // Task 545 on CPU 0 read this text.
    let snapshot = scan(&text("6.18"), CpuSet::first(1), Some(Tid(545))).unwrap();
    assert!(snapshot.running.is_empty());
    assert_eq!(waiters(&snapshot).iter().map(|w| w.0).collect::<Vec<_>>(), [537, 541]);
    let with_it = scan(&text("6.18"), CpuSet::first(1), None).unwrap();
    assert_eq!(with_it.running[0].tid, Tid(545));
    assert_eq!(snapshot.load[0].runnable + 1, with_it.load[0].runnable);
}

/// Asserts that a garbled text is refused, or read as tasks that can exist.
fn check(text: &[u8]) {
    let cpus = victims_cpu();
    if let Ok(snapshot) = scan(text, cpus.clone(), None) {
        let tasks = snapshot.waiters.iter().map(|w| &w.task).chain(&snapshot.running);
        for task in tasks {
            assert!(task.tid.0 > 0 && cpus.contains(task.cpu), "{task:?}");
        }
    }
}

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn a_garbled_text_is_refused_or_read_as_possible_tasks() {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    for kernel in KERNELS {
        let whole = text(kernel);
        for _ in 0..500 {
            let mut garbled = whole.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(garbled.len());
                garbled[at] = match random.below(4) {
                    0 => b'\n',
                    1 => b' ',
                    2 => b'0' + random.below(10) as u8,
                    _ => random.below(256) as u8,
                };
            }
            check(&garbled);
        }
        for _ in 0..200 {
            let mut lines: Vec<&[u8]> = whole.split_inclusive(|&b| b == b'\n').collect();
            let (from, to) = (random.below(lines.len()), random.below(lines.len()));
            match random.below(3) {
                0 => lines.insert(to, lines[from]),
                1 => lines.swap(from, to),
                _ => drop(lines.remove(from)),
            }
            check(&lines.concat());
        }
    }
}

#[test]
fn a_text_cut_off_anywhere_in_a_section_is_refused() {
    for kernel in KERNELS {
        let whole = text(kernel);
        // A text that ends with a whole section reads as that of a machine whose other CPUs are
        // offline.
        let sections = [whole.windows(6).position(|text| text == b"cpu#1,").unwrap()];
        let accepted: Vec<usize> =
            (0..whole.len()).filter(|&len| scan(&whole[..len], victims_cpu(), None).is_ok()).collect();
        assert_eq!(accepted, sections, "{kernel}");
    }
}

/// A directory with files in place of the kernel's.
struct Machine(Scratch);

impl Machine {
    fn new(name: &str, text: &[u8], loadavg: &str) -> Machine {
        let machine = Machine(Scratch::new(&format!("debug-{name}")));
        fs::write(machine.sources().text, text).unwrap();
        machine.set_loadavg(loadavg);
        machine
    }

    fn set_loadavg(&self, loadavg: &str) {
        fs::write(self.sources().loadavg, loadavg).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources { text: self.0.join("debug"), loadavg: self.0.join("loadavg") }
    }

    fn open(&self, idle_detection: bool) -> stalld::error::Result<SchedDebug> {
        SchedDebug::with(
            &self.sources(),
            &Watch { cpus: CpuSet::first(2), idle_detection, own_threads: false },
        )
    }
}

#[test]
fn a_scan_reads_first_whether_any_task_can_be_waiting() {
    let machine = Machine::new("idle", &text("5.10-rt"), "0.31 0.08 0.03 1/90 4907\n");
    let mut snapshot = Snapshot::default();
    let mut backend = machine.open(true).unwrap();

    backend.snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap();
    let idle = [Load { cpu: Cpu(0), ..Load::default() }, Load { cpu: Cpu(1), ..Load::default() }];
    assert!(!snapshot.complete && snapshot.waiters.is_empty());
    assert_eq!(snapshot.load, idle);

    // One other task is runnable. It can't be waiting, but its CPU is unknown.
    machine.set_loadavg("0.31 0.08 0.03 2/90 4907\n");
    backend.snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap();
    assert!(!snapshot.complete && snapshot.waiters.is_empty() && snapshot.load.is_empty());

    // A load that can't be parsed does not count as idle.
    for busy in ["0.31 0.08 0.03 3/90 4907\n", "", "0 0 0 x/90\n"] {
        machine.set_loadavg(busy);
        backend.snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap();
        assert!(snapshot.complete && snapshot.at > Nanos::ZERO, "{busy:?}");
        assert_eq!((snapshot.waiters.len(), snapshot.load.len()), (6, 2), "{busy:?}");
    }
    machine.set_loadavg("0.31 0.08 0.03 1/90 4907\n");
    machine.open(false).unwrap().snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap();
    assert!(snapshot.complete, "without idle detection every scan is complete");
}

#[test]
fn a_scan_of_a_truncated_text_fails_and_leaves_an_empty_snapshot() {
    let whole = text("6.6");
    let machine = Machine::new("garbled", &whole, "0 0 0 9/90 1\n");
    let mut snapshot = Snapshot::default();
    let mut backend = machine.open(true).unwrap();
    fs::write(machine.sources().text, &whole[..whole.len() - 1]).unwrap();
    let error = backend.snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap_err().to_string();
    let path = machine.sources().text.display().to_string();
    assert!(error.contains(&path) && error.contains("CPU 1"), "{error}");
    assert!(!snapshot.complete && snapshot.waiters.is_empty() && snapshot.running.is_empty());
    // This text is longer than those before, so the buffer grows.
    let padding = "x".repeat(200_000);
    fs::write(machine.sources().text, [padding.as_bytes(), b"\n", &whole].concat()).unwrap();
    backend.snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap();
    assert_eq!(snapshot.waiters.len(), 12);
}

#[test]
fn a_file_in_an_unknown_format_is_refused_at_once() {
    let machine = Machine::new("refused", b"N\n", "0 0 0 9/90 1\n");
    let path = machine.sources().text.display().to_string();
    let error = machine.open(true).err().unwrap().to_string();
    assert!(
        [&path, "runnable tasks:", "use -b task_iter"].iter().all(|text| error.contains(*text)),
        "{error}"
    );
    let missing = Sources { text: machine.0.join("missing"), ..machine.sources() };
    let watch = Watch { cpus: CpuSet::first(1), idle_detection: true, own_threads: false };
    let error = SchedDebug::with(&missing, &watch).err().unwrap().to_string();
    assert!(error.contains("missing") && error.contains("No such file"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn the_text_of_this_kernel_is_read() {
    rig::add_kernel_filesystems();
    let watch = Watch { cpus: CpuSet::first(8192), idle_detection: false, own_threads: false };
    let found = Sources::find(Path::new("/")).and_then(|sources| SchedDebug::with(&sources, &watch));
    let mut backend =
        found.unwrap_or_else(|e| panic!("this kernel does not show its run queues as text: {e}"));
    let (reader, asked) = (sched::gettid(), AtomicBool::new(true));
    thread::scope(|scope| {
        // The backend shows this busy thread, but not the thread that reads.
        let busy = scope.spawn(|| {
            let until = clock::monotonic() + Nanos::from_secs(10);
            while asked.load(Ordering::Relaxed) && clock::monotonic() < until {
                std::hint::spin_loop();
            }
        });
        let mut snapshot = Snapshot::default();
        let mut others = 0;
        for _ in 0..20 {
            backend.snapshot(Nanos::ZERO, Effort::Usual, &mut snapshot).unwrap();
            assert!(snapshot.complete && !snapshot.load.is_empty());
            assert!(snapshot.running.iter().all(|task| task.tid != reader));
            others += snapshot.running.len();
        }
        asked.store(false, Ordering::Relaxed);
        busy.join().unwrap();
        assert!(others > 0, "no other task was running");
    });
}
