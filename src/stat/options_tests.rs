//! Tests of stallstat's command line.

use super::*;
use crate::task::Cpu;

const HOST: HostFacts = HostFacts { configured_cpus: 8, notify_socket: false };

fn parsed(words: &str) -> Result<Command, String> {
    parse(words.split_whitespace().map(OsString::from), &HOST).map_err(|error| error.to_string())
}

fn options(words: &str) -> Options {
    match parsed(words) {
        Ok(Command::Count(options)) => options,
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn without_a_word_latencies_are_reported_once_a_second_until_the_end() {
    let options = options("");
    assert_eq!(options.groups, [MetricGroup::Latency]);
    assert_eq!((options.interval, options.run_time), (Nanos::from_secs(1), None));
    assert_eq!((options.form, options.by), (Form::Text, By::Name));
    assert!(options.collapse && !options.detailed && options.cpus.is_none() && options.numbers.is_empty());
    assert!([options.names, options.global_names, options.control_groups].iter().all(Patterns::is_empty));
    assert_eq!(options.events, ["cycles", "instructions", "cache-misses"]);
    assert_eq!((options.shortest, options.period, options.priority), (Nanos(0), Nanos::from_millis(1), None));
}

#[test]
fn each_group_comes_once_in_the_order_of_the_options() {
    use MetricGroup::{Latency, Migration, Perf, Schedstat, Sleep, Slice, Waking};
    for (list, groups) in [
        ("latency", &[Latency][..]),
        ("perf,slice", &[Perf, Slice]),
        ("sleep,latency,sleep,latency", &[Sleep, Latency]),
        ("most", &[Latency, Slice, Sleep, Migration, Schedstat]),
        ("waking,most", &[Waking, Latency, Slice, Sleep, Migration, Schedstat]),
        ("all", &MetricGroup::ALL),
        ("perf,all", &[Perf, Latency, Slice, Sleep, Waking, Migration, Schedstat]),
    ] {
        assert_eq!(options(&format!("-g {list}")).groups, groups, "{list}");
    }
}

#[test]
fn one_report_is_of_all_the_time_there_is() {
    for (words, interval, run_time) in [
        ("-i 5", 5_000, None),
        ("-i 200ms -r 3", 200, Some(3_000)),
        ("-1", 1_000, Some(1_000)),
        ("-1 -i 2", 2_000, Some(2_000)),
        ("-1 -r 500ms", 500, Some(500)),
        ("-i 2 -r 3 -1", 3_000, Some(3_000)),
    ] {
        let options = options(words);
        let times = (options.interval.as_millis(), options.run_time.map(Nanos::as_millis));
        assert_eq!(times, (interval, run_time), "{words}");
    }
}

#[test]
fn filters_add_up() {
    let options = options("-c ^a,b$ -c c --global-comm g --cgroup ^/x -p 1,2 -p 3 --cpu 0,2-3 -l 50 -C -d");
    assert!([&b"ax"[..], b"xb", b"xcx"].iter().all(|name| options.names.matches(name)));
    assert!(!options.names.matches(b"xax") && options.global_names.matches(b"g"));
    assert!(options.control_groups.matches(b"/x/y") && !options.control_groups.matches(b"/y/x"));
    assert_eq!(options.numbers, [Tid(1), Tid(2), Tid(3)]);
    assert_eq!(options.cpus, Some([0, 2, 3].map(Cpu).into_iter().collect()));
    assert_eq!(options.shortest, Nanos::from_micros(50));
    assert!(!options.collapse && options.detailed);
}

#[test]
fn the_last_of_two_forms_counts() {
    for (words, form) in [("--json", Form::Json), ("--csv", Form::Csv), ("--json --csv", Form::Csv)] {
        assert_eq!(options(words).form, form, "{words}");
    }
}

#[test]
fn a_word_is_a_command() {
    let is = |words: &str, wanted: fn(&Command) -> bool| assert!(wanted(&parsed(words).unwrap()), "{words}");
    is("hogs", |command| matches!(command, Command::Hogs(options) if options.by == By::Name));
    is("hogs --by pod", |command| matches!(command, Command::Hogs(options) if options.by == By::Pod));
    is(
        "--by cgroup hogs",
        |command| matches!(command, Command::Hogs(options) if options.by == By::ControlGroup),
    );
    is("jitter --period 2 --fifo 98", |command| {
        matches!(command, Command::Jitter(Options { period: Nanos(2_000_000), priority: Some(98), .. }))
    });
    is("jitter --period 50us", |command| {
        matches!(command, Command::Jitter(Options { period: Nanos(50_000), .. }))
    });
    is("record a.csv", |command| matches!(command, Command::Record(_, file) if file.as_os_str() == "a.csv"));
    is("-d trace hogs", |command| matches!(command, Command::Trace(_, file) if file.as_os_str() == "hogs"));
    // These win over all other options.
    is("-V nonsense", |command| matches!(command, Command::Version));
    is("hogs -h -g nonsense", |command| matches!(command, Command::Help));
}

#[test]
fn an_invalid_option_is_refused_with_the_valid_ones() {
    for (words, reason) in [
        ("-g", "-g needs a value: GROUPS"),
        ("-g latency,waiting", "'waiting' is no group: give latency, slice, sleep, waking, migration"),
        ("-g ,", "'' is no group"),
        ("-i 0", "-i '0'"),
        ("-i 5ms", "-i '5ms'"),
        ("-r 86401", "-r '86401'"),
        ("-r 90000", "-r '90000'"),
        ("-l 2h", "-l '2h'"),
        ("-c a,,b", "an expression is missing"),
        ("-c (", "cannot compile '('"),
        ("--cgroup [", "cannot compile '['"),
        ("-p 0", "'0' is not the number of a process"),
        ("-p 1,+2", "'+2' is not the number of a process"),
        ("-p -3", "'-3' is not the number of a process"),
        ("-p 1,x", "'x' is not the number of a process"),
        ("-p 2147483648", "'2147483648' is not the number of a process"),
        ("--cpu 8", "--cpu '8'"),
        ("--cpu ,", "--cpu ','"),
        ("-e 1,2,3,4,5,6,7,8,9", "these are 9 events: 8 at most can be counted"),
        ("--by cpu", "give name, task, cgroup, container, pod"),
        ("--period 0", "--period '0'"),
        ("--period 49us", "--period '49us'"),
        ("--fifo 0", "give a whole number from 1 to 98"),
        ("--fifo 99", "give a whole number from 1 to 98"),
        ("--fifo +1", "give a whole number from 1 to 98"),
        ("--json=yes", "this option takes no value"),
        ("--colour", "--colour"),
        ("-x", "-x"),
        ("hog", "unknown command 'hog': give hogs, jitter, record FILE, trace FILE, or none to count"),
        ("hogs jitter", "unexpected argument 'jitter'"),
        ("record", "record needs a file to write to"),
        ("trace a b", "unexpected argument 'b'"),
    ] {
        let error = parsed(words).map(|command| format!("{command:?}")).unwrap_err();
        assert!(error.contains(reason) && !error.contains('\n'), "{words}: {error}");
    }
}

#[test]
fn the_help_has_all_options_groups_and_commands() {
    let help = help();
    for opt in TABLE {
        assert!(help.contains(&format!("--{}", opt.long)), "{}", opt.long);
    }
    for word in MetricGroup::ALL.map(MetricGroup::name).into_iter().chain(By::ALL.map(|(_, name)| name)) {
        assert!(help.contains(word), "{word}");
    }
    assert!(["hogs", "jitter", "record FILE", "trace FILE"].iter().all(|command| help.contains(command)));
    assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
}
