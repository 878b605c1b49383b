//! What programs read of stalld: the log as JSON, and traces.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::start;
use rig::json::Json;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{PATIENCE, Rig, Stalld, hogged_cpu, live};
use stalld::sys::clock;
use stalld::task::Nanos;
use std::fs;
use std::path::Path;

/// The next line of the log that tells of this event, and of this task.
fn told(stalld: &mut Stalld, event: &str, key: &str, tid: f64) -> Json {
    let is_it = |line: &str| {
        let line = Json::parse(line);
        line.text("event") == event && line.number(key) == Some(tid)
    };
    let line = stalld.wait_for(is_it, PATIENCE);
    Json::parse(&line.unwrap_or_else(|| panic!("there is no '{event}' of {tid}")).1)
}

#[test]
fn in_json_each_line_is_an_object_with_all_that_the_text_tells() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-t", "1", "-d", "1", "--log-format", "json"]);
    // A quote, a newline, a backslash, what a terminal obeys, and a byte that is no text.
    let mut rig = Rig::start(&["--for", "4", "--victim", "spin:1:a\"%0A\\%1B[m%FF"]);
    let hog = f64::from(rig.event("hog").tid().0);
    let victim = f64::from(rig.event("victim").tid().0);
    let cpu = Some(f64::from(hogged_cpu().0));

    let starved = told(&mut stalld, "starved", "tid", victim);
    let first = ["time", "monotonic_ns", "level", "event", "message", "tid", "tgid", "comm", "cpu"];
    assert_eq!(starved.keys()[..9], first);
    assert_eq!(starved.text("level"), "warning");
    assert_eq!(starved.text("comm"), "a\"\n\\\u{1b}[m\u{fffd}");
    assert_eq!((starved.text("policy"), starved.number("rt_priority")), ("SCHED_FIFO", Some(1.0)));
    assert_eq!((starved.number("cpu"), starved.number("tgid")), (cpu, Some(f64::from(rig.pid().0))));
    assert!(starved.number("waited_ns") >= Some(1e9), "{starved:?}");
    let (time, ns) = (starved.text("time"), starved.number("monotonic_ns").unwrap());
    assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert!(ns > 0.0 && ns <= clock::monotonic().0 as f64, "{ns}");

    let held = told(&mut stalld, "held", "hog_tid", hog);
    assert_eq!((held.number("cpu"), held.text("hog_comm")), (cpu, "hog"));
    assert_eq!((held.text("hog_policy"), held.number("hog_rt_priority")), ("SCHED_FIFO", Some(50.0)));
    let boosted = told(&mut stalld, "boosted", "tid", victim);
    assert!(["SCHED_DEADLINE", "SCHED_FIFO"].contains(&boosted.text("policy")), "{boosted:?}");
    let restored = told(&mut stalld, "restored", "tid", victim);
    assert_eq!((restored.text("policy"), restored.number("rt_priority")), ("SCHED_FIFO", Some(1.0)));
    assert!(restored.number("boosted_ns") > Some(0.0), "{restored:?}");

    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    for (_, line) in said {
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        let line = Json::parse(&line);
        assert_eq!(line.keys()[..5], first[..5]);
        assert!(!line.text("message").starts_with("stalld: "), "{line:?}");
    }
}

#[test]
fn what_ends_stalld_is_json_too() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("json-fatal");
    let path = scratch.join("missing/trace.json");
    let args = ["-f", "-l", "--log-format=json", "--trace", path.to_str().unwrap()];
    let (code, said) = Stalld::start(&args).finish();
    assert_eq!((code, said.len()), (Some(1), 1), "{said:?}");
    let line = Json::parse(&said[0].1);
    assert_eq!((line.text("level"), line.text("event")), ("error", "log"));
    let expected = format!("cannot open {}: No such file or directory", path.display());
    assert_eq!(line.text("message"), expected);
}

/// The events of a trace that may be cut off.
fn events(path: &Path) -> Vec<Json> {
    let text = fs::read_to_string(path).unwrap();
    let end = if text.ends_with("\n]\n") { "" } else { "]" };
    Json::parse(&(text + end)).list().to_vec()
}

/// What Chrome's trace event format asks for, phase by phase.
fn are_as_the_format_has_them(events: &[Json]) {
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
fn a_trace_shows_the_wait_the_boost_and_the_restore_when_they_were() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("trace-live");
    let path = scratch.join("trace.json");
    for mode in ["-O", "-A"] {
        let mut stalld = start(&["-t", "1", "-d", "1", mode, "--trace", path.to_str().unwrap()]);
        let begun = clock::monotonic();
        let mut rig = Rig::start(&["--for", "4"]);
        let victim = rig.event("victim").tid();
        stalld.line_with(&format!("boosted pid {victim} "));
        let (restored_at, _) = stalld.line_with(&format!("restored pid {victim} "));
        let (code, _) = stalld.terminate();
        assert_eq!(code, Some(0));
        drop(rig);

        assert!(fs::read_to_string(&path).unwrap().ends_with("}\n]\n"), "{mode}");
        let events = events(&path);
        are_as_the_format_has_them(&events);
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
        // It is boosted once it has waited for the threshold, and that is the end of its wait.
        assert!(boosted - waits >= Nanos::from_secs(1) && runs == boosted, "{mode}: {of_victim:?}");
        assert!(boosted < ends && ends == restored, "{mode}: {of_victim:?}");
        let is_look = |event: &&Json| event.text("ph") == "X" && event.text("name") == "look";
        let looks: Vec<&Json> = events.iter().filter(is_look).collect();
        assert!(looks.iter().any(|look| look.number("ts") > Some(waits.0 as f64 / 1000.0)), "{mode}");
        assert!(looks.iter().all(|look| look.number("pid") == Some(1_000_000.0)), "{mode}: {looks:?}");
    }
}

#[test]
fn a_trace_of_a_stalld_that_was_killed_can_be_read() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("trace-killed");
    let path = scratch.join("trace.json");
    let mut stalld = Stalld::watch(&["-t", "1", "--trace", path.to_str().unwrap()]);
    let mut rig = Rig::start(&["--for", "3"]);
    let victim = rig.event("victim").tid();
    stalld.line_with(&format!("-{victim} starved on CPU "));
    let waits = |events: &[Json]| {
        events
            .iter()
            .any(|event| event.text("name") == "waits" && event.number("tid") == Some(f64::from(victim.0)))
    };
    eventually("the wait is drawn", || waits(&events(&path)).then_some(()));
    stalld.kill();
    assert_eq!(stalld.finish().0, None);
    let events = events(&path);
    are_as_the_format_has_them(&events);
    assert!(waits(&events));
}

#[test]
fn a_full_disk_ends_the_trace_with_a_whole_event_and_nothing_else() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("trace-full");
    let directory = scratch.path().display();
    let script = format!("mount -t tmpfs -o size=8k tmpfs {directory} && exec \"$@\"");
    let path = scratch.join("trace.json");
    let args = ["-f", "-l", "-v", "-t", "1", "-g", "10ms", "--trace", path.to_str().unwrap()];
    let mut stalld = Stalld::start_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &args);
    let line = stalld.line_with("No space left on device").1;
    assert_eq!(
        line,
        format!(
            "stalld: cannot write the trace {}: No space left on device: it ends there, and stalld goes on",
            path.display()
        )
    );
    stalld.look();
    let inside =
        Path::new("/proc").join(format!("{}/root", stalld.pid())).join(path.strip_prefix("/").unwrap());
    let events = events(&inside);
    assert!(events.len() > 5, "{events:?}");
    are_as_the_format_has_them(&events);
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(said.iter().filter(|(_, line)| line.contains("trace")).count(), 1, "{said:?}");
}
