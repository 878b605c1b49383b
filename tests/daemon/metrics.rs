//! The metrics: the file counts all that happens, and Prometheus accepts the file.

#![cfg(feature = "bpf")]

use rig::boosts::start;
use rig::json::Json;
use rig::process::eventually;
use rig::scratch::Scratch;
use rig::{Program, Rig, Stalld, hogged_cpu, live};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Returns the value of the sample with this name and these labels.
fn sample(path: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Runs promtool, which reads `input` and accepts or refuses it.
fn promtool(args: &[&str], input: File) {
    let output = Command::new("promtool").args(args).stdin(input).output();
    let output =
        output.unwrap_or_else(|e| panic!("promtool: {e}; 'make setup PARTS=monitoring' installs it"));
    assert!(output.status.success(), "{output:?}");
}

/// Asserts that each family has help and type before its samples, and that these are numbers.
fn assert_exposition(text: &str) {
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').unwrap().0;
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').unwrap();
            assert!(name == family && ["counter", "gauge", "summary"].contains(&kind), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split_once('{').map_or(name, |(name, labels)| {
                assert!(labels.ends_with("\"}"), "{line}");
                name
            });
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            assert!(["", "_sum", "_count"].contains(&suffix) && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_file_counts_boosts_and_restores_until_the_end_removes_it() {
    let _live = live();
    let scratch = Scratch::new("metrics-live");
    let path = scratch.join("stalld.prom");
    for mode in ["-O", "-A"] {
        let stalld = start(&["-t", "1", "-d", "1", mode, "--metrics", path.to_str().unwrap()]);
        // A thread of its own writes the file after the first scan.
        eventually("all boosts are counted from 0", || {
            (sample(&path, "stalld_boosts_total{policy=\"SCHED_DEADLINE\"}")? == 0.0).then_some(())
        });
        let mut rig = Rig::start(&["--for", "3"]);
        rig.event("victim");
        eventually("the boost is counted", || {
            let by_policy = ["SCHED_DEADLINE", "SCHED_FIFO"].map(|policy| {
                sample(&path, &format!("stalld_boosts_total{{policy=\"{policy}\"}}")).unwrap_or(0.0)
            });
            let here = sample(&path, &format!("stalld_cpu_boosts_total{{cpu=\"{}\"}}", hogged_cpu()));
            (by_policy.iter().sum::<f64>() >= 1.0 && here >= Some(1.0)).then_some(())
        });
        eventually("the end of the boost is counted", || {
            let restored = sample(&path, "stalld_restores_total")?;
            (restored >= 1.0 && sample(&path, "stalld_boosted_tasks") == Some(0.0)).then_some(())
        });
        assert!(sample(&path, "stalld_starvations_total") >= Some(1.0), "{mode}");
        assert!(sample(&path, "stalld_scans_total") >= Some(1.0), "{mode}");
        assert_exposition(&fs::read_to_string(&path).unwrap());
        assert_eq!(stalld.terminate().0, Some(0));
        assert!(!path.exists());
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn promtool_accepts_the_file() {
    let _live = live();
    let scratch = Scratch::new("metrics-promtool");
    let path = scratch.join("stalld.prom");
    for mode in ["-O", "-A"] {
        let stalld = start(&["-t", "1", "-d", "1", mode, "--metrics", path.to_str().unwrap()]);
        let mut rig = Rig::start(&["--for", "3"]);
        rig.event("victim");
        eventually("the restore is counted", || {
            (sample(&path, "stalld_restores_total")? >= 1.0).then_some(())
        });
        promtool(&["check", "metrics"], File::open(&path).unwrap());
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
fn promtool_accepts_the_alerts() {
    let alerts = rig::packaged("monitoring/alerts.yml");
    promtool(&["check", "rules", alerts.to_str().unwrap()], File::open("/dev/null").unwrap());
}

/// Returns a port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Returns the body of a successful answer of a server on this host.
fn get(port: u16, path: &str) -> Option<String> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(server, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_string())
}

/// Returns the labels and the value of each series of this name in Prometheus.
fn query(port: u16, series: &str) -> Vec<(Json, f64)> {
    let answer = get(port, &format!("/api/v1/query?query={series}")).map(|body| Json::parse(&body));
    let found = answer.as_ref().and_then(|answer| answer.get("data")?.get("result"));
    let series = found.map_or(&[][..], Json::list).iter().filter_map(|series| {
        let [_, Json::Text(value)] = series.get("value")?.list() else { return None };
        Some((series.get("metric")?.clone(), value.parse().ok()?))
    });
    series.collect()
}

#[test]
#[ignore = "needs root"]
fn a_real_prometheus_scrapes_the_file_through_node_exporter() {
    for program in ["prometheus", "prometheus-node-exporter"] {
        if let Err(e) = Command::new(program).arg("--version").output() {
            panic!("{program}: {e}; 'make setup PARTS=monitoring' installs it");
        }
    }
    let _live = live();
    let scratch = Scratch::new("metrics-scraped");
    let directory = scratch.path().display();
    let alerts = rig::packaged("monitoring/alerts.yml");
    let (exporter_port, port) = (free_port(), free_port());
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [\"{}\"]\n\
         scrape_configs: [{{job_name: node, static_configs: [{{targets: [\"127.0.0.1:{exporter_port}\"]}}]}}]\n",
        alerts.display()
    );
    scratch.file("prometheus.yml", &config);
    let path = scratch.join("stalld.prom");
    let stalld = Stalld::watch(&["-g", "1", "--metrics", path.to_str().unwrap()]);
    let mut command = Command::new("prometheus-node-exporter");
    command.args(["--collector.disable-defaults", "--collector.textfile"]);
    command.arg(format!("--collector.textfile.directory={directory}"));
    command.arg(format!("--web.listen-address=127.0.0.1:{exporter_port}"));
    let _exporter = Program::start("prometheus-node-exporter", command);
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={directory}/prometheus.yml"));
    command.arg(format!("--storage.tsdb.path={directory}/data"));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Program::start("prometheus", command);

    let (labels, value) =
        eventually("Prometheus has scraped the metrics", || query(port, "stalld_info").into_iter().next());
    assert_eq!((labels.text("version"), value), (env!("CARGO_PKG_VERSION"), 1.0));
    assert_eq!(labels.text("backend"), "task_iter");
    eventually("Prometheus has seen two scans", || {
        query(port, "stalld_scans_total").iter().any(|&(_, scans)| scans >= 2.0).then_some(())
    });
    let mut policies: Vec<String> =
        query(port, "stalld_boosts_total").iter().map(|(labels, _)| labels.text("policy").into()).collect();
    policies.sort();
    assert_eq!(policies, ["SCHED_DEADLINE", "SCHED_FIFO"]);
    let rules = Json::parse(&get(port, "/api/v1/rules").unwrap());
    let groups = rules.get("data").unwrap().get("groups").unwrap().list();
    assert!(groups.iter().any(|group| group.get("rules").is_some_and(|rules| !rules.list().is_empty())));
    assert_eq!(stalld.terminate().0, Some(0));
}
