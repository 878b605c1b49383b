//! Runs of several attacks at once, behind one hog and against one stalld. Each attack is a test of
//! its own, and the tests of a scene share its runs.

use crate::observer::{Budget, Finding, Kind, Observer, Watched};
use crate::thief::Thief;
use rig::attack::Attack;
use rig::json::Json;
use rig::{Event, Record, Rig, Stalld, TIMEOUT, hogged_cpu, live, process};
use stalld::task::{Nanos, Tid};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

/// The threshold of these tests. It is below a second because the kernel's DL server gives fair
/// tasks 50 ms of each second, and they shall starve in between.
const THRESHOLD: Nanos = Nanos::from_millis(500);

/// The duration of boosts.
const DURATION: Nanos = Nanos::from_millis(500);

/// The longest time from the threshold to a boost.
const MAX_LATE: Nanos = Nanos::from_millis(100);

/// The time for which the kernel's DL server may run fair tasks, above the rank of any boost.
const DL_SERVER: Nanos = Nanos::from_millis(50);

/// The time between the starts of two boosts of one CPU, which bounds their cost to the hog.
const SPACING: Nanos = Nanos::from_millis(20);

/// The time for which no task of the user may keep the CPU from the hog without a break.
const MAX_GAP: Nanos = Nanos::from_millis(200);

/// The growth that the memory of stalld may have, besides one KiB for each task of a present crowd.
pub const MAX_GROWTH_KIB: u64 = 1024;

/// The time by which an attack outlives the hog, so that its ranks can be read when stalld has
/// ended.
const AFTERMATH: Nanos = Nanos::from_secs(4);

/// The time that the start of one attack may take on a busy host.
const START: Nanos = Nanos::from_secs(1);

/// A task of root that starves beside the attacks. It outranks the attackers that began as
/// SCHED_FIFO 1.
const WITNESS: &str = "spin:2:witness";

/// How stalld boosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SCHED_DEADLINE where the kernel allows it: option --boost deadline.
    Deadline,
    /// SCHED_FIFO, in pulses: option -F.
    Pulses,
}

/// A run against one backend.
pub type Run = (&'static str, Method);

pub const BOTH: &[Run] = &[("task_iter", Method::Deadline), ("task_iter", Method::Pulses)];

/// The boost of a task depends on the backend only if the backend does not know the start of the
/// task.
pub const BOTH_AND_TEXT: &[Run] =
    &[("task_iter", Method::Deadline), ("task_iter", Method::Pulses), ("sched_debug", Method::Pulses)];

pub const ALL_BACKENDS: &[Run] =
    &[("task_iter", Method::Deadline), ("queue_track", Method::Deadline), ("sched_debug", Method::Deadline)];

/// One attack of a scene.
pub struct Act {
    /// The name by which its test selects the findings.
    pub name: &'static str,
    pub words: Vec<String>,
    /// Whether it begins as SCHED_FIFO 1.
    pub is_fifo: bool,
    /// Whether stalld has to boost a victim of it.
    pub is_boosted: bool,
    /// The file of a control group that its process is written to.
    pub place: Option<PathBuf>,
}

impl Act {
    pub fn new(name: &'static str, words: &[&str]) -> Act {
        let words = words.iter().map(|word| word.to_string()).collect();
        Act { name, words, is_fifo: false, is_boosted: true, place: None }
    }

    /// Returns an act without options.
    pub fn plain(name: &'static str) -> Act {
        Act::new(name, &[name])
    }

    pub fn fifo(self) -> Act {
        Act { is_fifo: true, ..self }
    }

    pub fn placed(self, place: PathBuf) -> Act {
        Act { place: Some(place), ..self }
    }

    /// A crowd has no victim that reports itself.
    pub fn crowd(name: &'static str, words: &[&str]) -> Act {
        Act { is_boosted: false, ..Act::new(name, words) }
    }
}

/// Attacks that do not disturb each other.
pub struct Scene {
    pub name: &'static str,
    pub acts: Vec<Act>,
    pub runs: &'static [Run],
    pub length: Nanos,
    /// Whether stalld watches all processes, not those of the rig and of the attacks only.
    pub watches_all: bool,
    /// The share of a CPU, in hundredths, that stalld may use in any second.
    pub max_share: u64,
    /// Tasks that starve at the same time, each of which may delay another one's boost by the
    /// spacing.
    pub crowd: u64,
    /// Whether CPU 0 is taken from stalld for some milliseconds now and then, as a hypervisor does.
    pub is_stolen: bool,
    /// The growth that the memory of stalld may have.
    pub max_growth_kib: u64,
    /// Settings that the acts need from the administrator. Dropped when the runs are over.
    #[expect(dead_code, reason = "it is only held until the scene is dropped")]
    pub setting: Box<dyn Send>,
}

impl Scene {
    pub fn new(name: &'static str, runs: &'static [Run], acts: Vec<Act>) -> Scene {
        let crowd = acts.len() as u64;
        let length = Nanos::from_secs(4);
        Scene {
            name,
            acts,
            runs,
            length,
            watches_all: false,
            max_share: 50,
            crowd,
            is_stolen: false,
            max_growth_kib: MAX_GROWTH_KIB,
            setting: Box::new(()),
        }
    }

    pub fn with(self, setting: impl Send + 'static) -> Scene {
        Scene { setting: Box::new(setting), ..self }
    }
}

type Findings = Vec<(Run, Finding)>;

/// Returns the findings of all runs of a scene. The first test that calls this runs the scene.
fn findings(name: &'static str, make: fn() -> Scene) -> Arc<Findings> {
    type Runs = HashMap<&'static str, Arc<OnceLock<Arc<Findings>>>>;
    static RUNS: LazyLock<Mutex<Runs>> = LazyLock::new(Mutex::default);
    let once = RUNS.lock().unwrap().entry(name).or_default().clone();
    once.get_or_init(|| {
        let scene = make();
        Arc::new(scene.runs.iter().flat_map(|&run| findings_of(&scene, run)).collect())
    })
    .clone()
}

/// Runs a scene. Repeats it once if a hypervisor may have caused all findings.
fn findings_of(scene: &Scene, run: Run) -> Findings {
    println!("{}, {run:?}:", scene.name);
    let mut found = findings_of_once(scene, run);
    if !found.is_empty() && found.iter().all(|finding| finding.kind == Kind::ByTime) {
        println!("{}, {run:?}, once more:", scene.name);
        found = findings_of_once(scene, run);
    }
    found.into_iter().map(|finding| (run, finding)).collect()
}

fn findings_of_once(scene: &Scene, run: Run) -> Vec<Finding> {
    catch_unwind(AssertUnwindSafe(|| play(scene, run))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        // A run that failed has no findings for its acts.
        let text = format!("the run broke off: {}", text.unwrap_or_default());
        let acts = scene.acts.iter().map(|act| Some(act.name)).chain([None]);
        acts.map(|act| Finding { kind: Kind::Certain, act, tid: None, text: text.clone() }).collect()
    })
}

/// Asserts that an act gained nothing for its own tasks.
pub fn act_fails(scene: &'static str, make: fn() -> Scene, act: &str) {
    report(scene, act, &findings(scene, make), |finding| finding.act == Some(act));
}

/// Asserts that all acts of a scene together did not disturb any other task.
pub fn others_are_served(scene: &'static str, make: fn() -> Scene) {
    report(scene, "all acts", &findings(scene, make), |finding| finding.act.is_none());
}

fn report(scene: &str, act: &str, findings: &Findings, is_meant: impl Fn(&Finding) -> bool) {
    let meant = findings.iter().filter(|(_, finding)| is_meant(finding));
    let lines: Vec<String> = meant.map(|(run, finding)| format!("{run:?}: {}", finding.text)).collect();
    assert!(lines.is_empty(), "the attack succeeded: {scene}, {act}:\n{}", lines.join("\n"));
}

/// Starts the stalld under attack.
pub fn start_stalld((backend, method): Run, watches_all: bool, options: &[&str]) -> (Stalld, Budget) {
    let period = if method == Method::Pulses { 200 } else { 500 };
    let period_word = format!("{period}ms");
    let mut words = vec!["-f", "-v", "-t", "500ms", "-d", "500ms", "-p", &period_word, "-b", backend];
    words.extend(match method {
        Method::Pulses => &["-F"][..],
        Method::Deadline => &["--boost", "deadline"],
    });
    // A wait counts from the first scan that saw it, if the backend has no earlier time.
    if backend == "sched_debug" {
        words.extend(["-g", "100ms"]);
    }
    if !watches_all {
        words.extend(["-I", "^[^sa],^s[^t],^a[^t]"]);
    }
    words.extend(options);
    let mut stalld = Stalld::start(&words);
    stalld.scan();
    (stalld, Budget { runtime: Nanos::from_micros(20), period: Nanos::from_millis(period) })
}

/// Runs the acts of a scene at once.
fn play(scene: &Scene, run: Run) -> Vec<Finding> {
    let _live = live();
    let (stalld, budget) = start_stalld(run, scene.watches_all, &[]);
    let memory = process::anonymous_kib(stalld.pid());
    let length = scene.length + AFTERMATH + Nanos(START.0 * scene.acts.len() as u64);
    let start = |act: &Act| {
        let words: Vec<&str> = act.words.iter().map(String::as_str).collect();
        let mut attack = match act.is_fifo {
            true => Attack::start_fifo(length, &words),
            false => Attack::start(length, &words),
        };
        attack.await_ready();
        if let Some(place) = &act.place {
            fs::write(place, attack.group().to_string()).unwrap();
        }
        attack
    };
    let mut attacks: Vec<Attack> = scene.acts.iter().map(start).collect();
    let watched =
        scene.acts.iter().zip(&attacks).map(|(act, attack)| Watched::new(act.name, attack, act.is_fifo));
    let _thief = scene.is_stolen.then(Thief::start);
    let observer = Observer::start(watched.collect(), budget, stalld.pid(), scene.max_share);
    let length = format!("{}", scene.length.as_secs());
    let mut rig = Rig::start(&["--for", &length, "--victim", WITNESS]);
    let witness = rig.event("victim").tid();
    let hog = rig.event("end hog");
    let served = rig.event("end victim");

    let mut findings = Vec::new();
    let mut find = |kind: Kind, act: Option<&'static str>, text: String| {
        println!("  found: {}: {text}", act.unwrap_or("all"));
        findings.push(Finding { kind, act, tid: None, text });
    };
    for (act, attack) in scene.acts.iter().zip(&attacks) {
        if process::has_ended(attack.group()) {
            find(
                Kind::ByTime,
                Some(act.name),
                "the attack ended before the hog, so it did not take place".to_string(),
            );
        }
    }
    let gap = hog.moment("longest_gap_ns");
    if gap > MAX_GAP {
        find(Kind::ByTime, None, format!("the hog lost its CPU for {} ms at a stretch", gap.as_millis()));
    }
    let wait = served.moment("longest_gap_ns");
    let mut allowed = THRESHOLD + MAX_LATE + DL_SERVER + Nanos(SPACING.0 * scene.crowd);
    if run.0 == "sched_debug" {
        // A wait counts from the first scan after the boost, although the task last ran at the
        // beginning of the boost.
        allowed = allowed + DURATION + MAX_LATE;
    }
    println!("  the witness waited {} ms, the hog {} ms", wait.as_millis(), gap.as_millis());
    if wait > allowed {
        find(
            Kind::ByTime,
            None,
            format!("a task of root waited {} ms, more than {} ms", wait.as_millis(), allowed.as_millis()),
        );
    }
    if process::has_ended(stalld.pid()) {
        find(Kind::Certain, None, "stalld has ended".to_string());
        return [findings, observer.finish()].concat();
    }
    let grown = process::anonymous_kib(stalld.pid()).saturating_sub(memory);
    if grown > scene.max_growth_kib {
        find(Kind::Certain, None, format!("the memory of stalld has grown by {grown} KiB"));
    }
    stalld.signal("TERM");
    let (code, lines) = stalld.finish_with_text();
    if code != Some(0) {
        find(Kind::Certain, None, format!("stalld ended with {code:?}"));
    }
    if gap > MAX_GAP {
        print_last_lines(&lines, "the hog", &[hog.tid()]);
    }
    // The log leaves out some lines of a crowd, so the victims count their boosts too.
    let mut served: Vec<Tid> = Vec::new();
    for act in &mut attacks {
        let ends = act.events("end victim");
        served.extend(ends.iter().filter(|end| end.number("boosts") > 0).map(Event::tid));
    }
    let victims: Vec<(&Act, Vec<Tid>)> =
        scene.acts.iter().zip(&attacks).map(|(act, attack)| (act, attack.victims())).collect();
    let groups: Vec<Tid> = attacks.iter().map(Attack::group).collect();
    let is_of_attack = |tid: Tid| process::group(tid).is_none_or(|group| groups.contains(&group));
    log_findings(&lines, witness, (&victims, &served), is_of_attack, &mut find);
    let seen = observer.finish();
    let is_found = |act: &Act| seen.iter().any(|finding| finding.act == Some(act.name));
    for (act, tids) in victims.iter().filter(|(act, _)| is_found(act)) {
        print_last_lines(&lines, act.name, tids);
    }
    for tid in seen.iter().filter_map(|finding| finding.tid) {
        print_last_lines(&lines, &format!("task {tid}"), &[tid]);
    }
    if !seen.is_empty() {
        println!("  the ranks that stalld lowered:");
        let lowered = lines.iter().filter(|line| line.contains(r#""event":"lowered""#));
        lowered.for_each(|line| println!("    {line}"));
    }
    drop(attacks);
    [findings, seen].concat()
}

/// Prints the last events of an act with findings.
fn print_last_lines(lines: &[String], act: &str, tids: &[Tid]) {
    let is_of = |line: &&String| tids.iter().any(|tid| line.contains(&format!("\"tid\":{tid},")));
    let own: Vec<&String> = lines.iter().filter(is_of).collect();
    println!("  the last lines of the log about {act}:");
    for line in own.iter().skip(own.len().saturating_sub(12)) {
        println!("    {line}");
    }
}

/// Checks the log: each line is a record, the victims and the witness were boosted, and no other
/// task was.
fn log_findings(
    lines: &[String],
    witness: Tid,
    (victims, served): (&[(&Act, Vec<Tid>)], &[Tid]),
    is_of_attack: impl Fn(Tid) -> bool,
    find: &mut impl FnMut(Kind, Option<&'static str>, String),
) {
    let mut boosted = Vec::new();
    for line in lines {
        let is_json =
            catch_unwind(|| Json::parse(line)).is_ok_and(|json| json.keys().first() == Some(&"time"));
        if !is_json {
            find(Kind::Certain, None, format!("a line of the log is no record: {line}"));
            continue;
        }
        let record = Record::read(Nanos::ZERO, line);
        if record.is("boosted") {
            let tid = record.tid("tid").unwrap_or_default();
            // A boost of this task would mean that a name made stalld take it for a task on the
            // hog's CPU.
            if record.number("cpu") != hogged_cpu().0.into() && !is_of_attack(tid) {
                find(
                    Kind::Certain,
                    None,
                    format!("task {tid} was boosted, which is not on the hog's CPU: {line}"),
                );
            }
            boosted.push(tid);
        }
    }
    let distinct = boosted.iter().collect::<HashSet<_>>().len();
    println!("  {} lines, {} boosts of {distinct} tasks", lines.len(), boosted.len());
    if !boosted.contains(&witness) {
        find(Kind::ByTime, None, format!("the witness was never boosted on CPU {}", hogged_cpu()));
    }
    for (act, tids) in victims.iter().filter(|(act, _)| act.is_boosted) {
        if !tids.iter().any(|tid| boosted.contains(tid) || served.contains(tid)) {
            find(
                Kind::ByTime,
                Some(act.name),
                format!("no victim of {tids:?} was boosted, so the attack did not take place"),
            );
        }
    }
}

/// Waits until stalld has boosted a task, and returns whether that happened.
pub fn is_boosted(stalld: &mut Stalld, tid: Tid) -> bool {
    stalld.wait_for(|record| record.is_of("boosted", tid), TIMEOUT).is_some()
}
