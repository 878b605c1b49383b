//! The log and the traces that programs read: the log as JSON, the traces in the Chrome format.

#![cfg(feature = "bpf")]

use rig::boosts::start;
use rig::json::Json;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{Rig, Stalld, hogged_cpu, live};
use stalld::sys::clock;
use stalld::task::Nanos;
use std::fs;
use std::path::Path;

#[test]
#[ignore = "starves tasks, as root"]
fn each_line_of_the_json_log_is_an_object_with_all_fields() {
    let _live = live();
    let mut stalld = start(&["-t", "1", "-d", "1"]);
    // The name has a quote, a newline, a backslash, a terminal sequence, and a byte that is not
    // UTF-8.
    let mut rig = Rig::start(&["--for", "20", "--victim", "spin:1:a\"%0A\\%1B[m%FF"]);
    let hog = rig.event("hog").tid();
    let victim = rig.event("victim").tid();
    stalld.event_of("boosted", victim);
    stalld.event_of("restored", victim);
    stalld.signal("TERM");
    let (code, lines) = stalld.finish_with_text();
    assert_eq!(code, Some(0));
    let fields = ["time", "monotonic_ns", "level", "event", "message", "tid", "tgid", "comm", "cpu"];
    let mut records = Vec::new();
    for line in &lines {
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        let record = Json::parse(line);
        assert_eq!(record.keys()[..5], fields[..5]);
        assert!(!record.text("message").starts_with("stalld: "), "{line}");
        records.push(record);
    }
    let first = |event: &str, key: &str, tid: f64| {
        let found = records.iter().find(|it| it.text("event") == event && it.number(key) == Some(tid));
        found.unwrap_or_else(|| panic!("there is no '{event}' of {tid} in {lines:#?}"))
    };
    let (hog, victim) = (f64::from(hog.0), f64::from(victim.0));
    let cpu = Some(f64::from(hogged_cpu().0));

    let starved = first("starved", "tid", victim);
    assert_eq!(starved.keys()[..9], fields);
    assert_eq!(starved.text("level"), "warning");
    assert_eq!(starved.text("comm"), "a\"\n\\\u{1b}[m\u{fffd}");
    assert_eq!((starved.text("policy"), starved.number("rt_priority")), ("SCHED_FIFO", Some(1.0)));
    assert_eq!((starved.number("cpu"), starved.number("tgid")), (cpu, Some(f64::from(rig.pid().0))));
    assert!(starved.number("waited_ns") >= Some(1e9), "{starved:?}");
    let (time, ns) = (starved.text("time"), starved.number("monotonic_ns").unwrap());
    assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert!(ns > 0.0 && ns <= clock::monotonic().0 as f64, "{ns}");

    let held = first("held", "hog_tid", hog);
    assert_eq!((held.number("cpu"), held.text("hog_comm")), (cpu, "hog"));
    assert_eq!((held.text("hog_policy"), held.number("hog_rt_priority")), ("SCHED_FIFO", Some(50.0)));
    let boosted = first("boosted", "tid", victim);
    assert!(["SCHED_DEADLINE", "SCHED_FIFO"].contains(&boosted.text("policy")), "{boosted:?}");
    let restored = first("restored", "tid", victim);
    assert_eq!((restored.text("policy"), restored.number("rt_priority")), ("SCHED_FIFO", Some(1.0)));
    assert!(restored.number("boosted_ns") > Some(0.0), "{restored:?}");
}

#[test]
#[ignore = "needs root"]
fn a_fatal_error_is_json_too() {
    // No other stalld may run meanwhile.
    let _live = live();
    let powerless = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];
    let (code, log) = Stalld::start_by(&powerless, &["-f", "-l", "-b", "task_iter"]).finish();
    assert_eq!((code, log.len()), (Some(1), 1), "{log:?}");
    assert_eq!((log[0].level(), log[0].event()), ("error", "log"));
    assert!(log[0].message().starts_with("task_iter: "), "{log:?}");
}

/// Reads the events of a trace, which may lack its end.
fn events(path: &Path) -> Vec<Json> {
    let text = fs::read_to_string(path).unwrap();
    let end = if text.ends_with("\n]\n") { "" } else { "]" };
    Json::parse(&(text + end)).list().to_vec()
}

/// Asserts that each event has the fields that Chrome's trace event format requires for its phase.
fn assert_format(events: &[Json]) {
    let mut named = Vec::new();
    for event in events {
        let track = (event.number("pid"), event.number("tid"));
        assert!(track.0.is_some() && track.1.is_some(), "{event:?}");
        assert!(event.number("ts").is_some_and(|ts| ts > 0.0), "{event:?}");
        assert!(matches!(event.get("name"), Some(Json::Text(_))), "{event:?}");
        assert!(matches!(event.get("args"), Some(Json::Object(_))), "{event:?}");
        let more: &[&str] = match event.text("ph") {
            "M" => {
                assert!(["process_name", "thread_name"].contains(&event.text("name")), "{event:?}");
                assert!(!event.get("args").unwrap().text("name").is_empty(), "{event:?}");
                named.push((track, event.text("name").to_string()));
                continue;
            }
            "X" => &["dur"],
            "b" | "e" => &["id"],
            "i" => &["s"],
            "B" | "E" => &[],
            other => panic!("a phase '{other}'"),
        };
        let mut expected = vec!["ph", "name", "cat", "ts", "pid", "tid", "args"];
        expected.splice(4..4, more.iter().copied().filter(|key| *key == "dur"));
        expected.splice(6..6, more.iter().copied().filter(|key| *key != "dur"));
        assert_eq!(event.keys(), expected, "{event:?}");
        assert!(named.contains(&(track, "thread_name".to_string())), "a track without a name: {event:?}");
        assert!(named.iter().any(|((pid, _), name)| *pid == track.0 && name == "process_name"), "{event:?}");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_trace_shows_when_the_wait_the_boost_and_the_restoration_were() {
    let _live = live();
    let scratch = Scratch::new("trace-live");
    let path = scratch.join("trace.json");
    for mode in ["-O", "-A"] {
        let mut stalld = start(&["-t", "1", "-d", "1", mode, "--trace", path.to_str().unwrap()]);
        let begun = clock::monotonic();
        let mut rig = Rig::start(&["--for", "20"]);
        let victim = rig.event("victim").tid();
        stalld.event_of("boosted", victim);
        let restored_at = stalld.event_of("restored", victim).at;
        let (code, _) = stalld.terminate();
        assert_eq!(code, Some(0));
        drop(rig);

        assert!(fs::read_to_string(&path).unwrap().ends_with("}\n]\n"), "{mode}");
        let events = events(&path);
        assert_format(&events);
        let here = |event: &&Json| {
            event.number("tid") == Some(f64::from(victim.0))
                && event.number("pid") == Some(f64::from(hogged_cpu().0 + 1))
        };
        let of_victim: Vec<&Json> = events.iter().filter(here).collect();
        let time = |phase: &str, names: &[&str]| {
            let found =
                of_victim.iter().find(|it| it.text("ph") == phase && names.contains(&it.text("name")));
            let found = found.unwrap_or_else(|| panic!("{mode}: no {phase} {names:?} in {of_victim:?}"));
            Nanos((found.number("ts").unwrap() * 1000.0) as u64)
        };
        let (waits, runs) = (time("b", &["waits"]), time("e", &["waits"]));
        let boosted = time("B", &["SCHED_DEADLINE", "SCHED_FIFO"]);
        let (ends, restored) = (time("E", &[""]), time("i", &["restored"]));
        assert!(begun < waits && restored <= restored_at, "{mode}: {of_victim:?}");
        // The boost comes when the wait reaches the threshold, and ends the wait.
        assert!(boosted - waits >= Nanos::from_secs(1) && runs == boosted, "{mode}: {of_victim:?}");
        assert!(boosted < ends && ends == restored, "{mode}: {of_victim:?}");
        let is_scan = |event: &&Json| event.text("ph") == "X" && event.text("name") == "scan";
        let scans: Vec<&Json> = events.iter().filter(is_scan).collect();
        assert!(scans.iter().any(|scan| scan.number("ts") > Some(waits.0 as f64 / 1000.0)), "{mode}");
        assert!(scans.iter().all(|scan| scan.number("pid") == Some(1_000_000.0)), "{mode}: {scans:?}");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_trace_of_a_killed_stalld_can_be_read() {
    let _live = live();
    let scratch = Scratch::new("trace-killed");
    let path = scratch.join("trace.json");
    let mut stalld = Stalld::watch(&["-t", "1", "--trace", path.to_str().unwrap()]);
    let mut rig = Rig::start(&["--for", "20"]);
    let victim = rig.event("victim").tid();
    stalld.event_of("starved", victim);
    let waits = |events: &[Json]| {
        events
            .iter()
            .any(|event| event.text("name") == "waits" && event.number("tid") == Some(f64::from(victim.0)))
    };
    eventually("the trace has the wait", || waits(&events(&path)).then_some(()));
    stalld.kill();
    assert_eq!(stalld.finish().0, None);
    let events = events(&path);
    assert_format(&events);
    assert!(waits(&events));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_full_disk_ends_the_trace_with_a_whole_event_and_nothing_else() {
    let _live = live();
    let scratch = Scratch::new("trace-full");
    let directory = scratch.path().display();
    let script = format!("mount -t tmpfs -o size=8k tmpfs {directory} && exec \"$@\"");
    let path = scratch.join("trace.json");
    let args = ["-f", "-l", "-v", "-t", "1", "-g", "10ms", "--trace", path.to_str().unwrap()];
    let mut stalld = Stalld::start_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &args);
    let line = stalld.message("No space left on device");
    assert!(line.message().contains(&format!("trace {}", path.display())), "{line:?}");
    stalld.scan();
    let inside =
        Path::new("/proc").join(format!("{}/root", stalld.pid())).join(path.strip_prefix("/").unwrap());
    let events = events(&inside);
    assert!(events.len() > 5, "{events:?}");
    assert_format(&events);
    let (code, log) = stalld.terminate();
    assert_eq!((code, log.count_text("trace")), (Some(0), 1), "{log:?}");
}
