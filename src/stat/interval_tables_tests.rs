//! Tests of the tables that are made from counts.

use super::*;
use crate::command_line::HostFacts;
use crate::stat::options;
use crate::stat::perf::find;
use crate::task::Tid;

fn options(words: &str) -> Options {
    let host = HostFacts { configured_cpus: 4, notify_socket: false };
    match options::parse(words.split_whitespace().map(Into::into), &host) {
        Ok(options::Command::Count(options)) => options,
        other => panic!("{other:?}"),
    }
}

fn of(name: &str, tid: i32, counted: &[(Metric, &[u64])]) -> Counts {
    let mut counts = Counts { tid: Tid(tid), comm: Comm::new(name.as_bytes()), ..Counts::default() };
    for (metric, values) in counted {
        let mut histogram = Histogram::default();
        values.iter().for_each(|&value| histogram.add(value));
        counts.histograms[*metric as usize] = histogram;
    }
    counts
}

fn json(tables: &[Table]) -> String {
    let table = |table: &Table| {
        let mut text = Vec::new();
        table.json(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    tables.iter().map(table).collect::<Vec<_>>().join(",")
}

#[test]
fn tasks_of_one_name_are_a_row_unless_each_is_wanted() {
    let tables = |words| {
        let mut tables = IntervalTables::new(&options(words), &[], Nanos::from_secs(1));
        tables.add(&of("a", 1, &[(Metric::Sleep, &[3_000])]));
        tables.add(&of("b", 2, &[(Metric::Sleep, &[9_000])]));
        tables.add(&of("a", 3, &[(Metric::Sleep, &[5_000, 7_000])]));
        // It has no counts, so it gets no row.
        tables.add(&of("c", 4, &[]));
        tables.into_tables()
    };
    let subjects = |table: &Table| -> Vec<Subject> { table.rows.iter().map(|row| row.0.clone()).collect() };
    let [a, b] = [b"a", b"b"].map(|name| Comm::new(name));
    // The worst first.
    assert_eq!(subjects(&tables("-g sleep")[0]), [Subject::Name(b, 1), Subject::Name(a, 2)]);
    assert_eq!(
        subjects(&tables("-g sleep -C")[0]),
        [Subject::Task(b, Tid(2)), Subject::Task(a, Tid(3)), Subject::Task(a, Tid(1))]
    );
    assert_eq!(tables("-g sleep")[0].rows[1].1[0], Cell::Number(3));
}

#[test]
fn a_group_is_the_tables_it_promises_and_no_more() {
    let events = [("instructions", 300), ("cycles", 200)];
    let mut counts = of(
        "a",
        1,
        &[
            (Metric::Latency, &[1_000, 3_000]),
            (Metric::Depth, &[2 << 10, 4 << 10]),
            (Metric::Voluntary, &[5_000]),
            (Metric::Preempted, &[6_000, 6_000, 6_000]),
            (Metric::Migrations, &[6 << 10]),
        ],
    );
    (counts.moves, counts.cross_cache, counts.cross_node) = (6, 2, 1);
    for (counter, (_, count)) in counts.events.iter_mut().zip(events) {
        *counter = count;
    }
    let named = events.map(|(name, _)| Named { name: name.to_string(), event: find(name).unwrap() });
    for (group, shown) in [
        (
            "latency",
            r#""latency":[{"comm":"a","tasks":1,"count":2,"p50_ns":1000,"p90_ns":3000,"p99_ns":3000,"max_ns":3000,"mean_ns":2000,"queued_p50":2,"queued_p99":4,"queued_max":4}],"latency_by_cpu":[{"cpu":3,"count":1,"p50_ns":3000,"p90_ns":3000,"p99_ns":3000,"max_ns":3000,"mean_ns":3000}]"#,
        ),
        (
            "slice",
            r#""slice":[{"comm":"a","tasks":1,"count":4,"preempted":3,"preempted_percent":75.000,"voluntary_p50_ns":5000,"voluntary_p99_ns":5000,"voluntary_max_ns":5000,"preempted_p50_ns":6000,"preempted_p99_ns":6000,"preempted_max_ns":6000,"ran_ns":23000}]"#,
        ),
        ("sleep", r#""sleep":[],"idle_by_cpu":[]"#),
        ("waking", r#""waking":[]"#),
        (
            "migration",
            r#""migration":[{"comm":"a","tasks":1,"count":6,"per_second":3.000,"p50_per_second":6,"p90_per_second":6,"p99_per_second":6,"max_per_second":6,"cross_cache":2,"cross_node":1}]"#,
        ),
        (
            "perf",
            r#""perf":[{"comm":"a","tasks":1,"instructions":300,"cycles":200,"instructions_per_cycle":1.500}]"#,
        ),
        ("schedstat", ""),
    ] {
        let mut tables = IntervalTables::new(&options(&format!("-g {group}")), &named, Nanos::from_secs(2));
        tables.add(&counts);
        tables.add_cpu(Cpu(3), &of("", 0, &[(Metric::Latency, &[3_000])]));
        assert_eq!(json(&tables.into_tables()), shown, "{group}");
    }
}
