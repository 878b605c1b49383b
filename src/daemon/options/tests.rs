use super::table::TABLE;
use super::*;
use crate::task::Cpu;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

const HOST: HostFacts = HostFacts { configured_cpus: 8, notify_socket: false };

/// A command line, split at blanks.
fn command(line: &str) -> Result<Command, UsageError> {
    parse(line.split_whitespace().map(OsString::from), &HOST)
}

fn options(line: &str) -> Options {
    match command(line) {
        Ok(Command::Run(options)) => options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    match command(line) {
        Err(error) => error.to_string(),
        Ok(command) => panic!("{line}: {command:?}"),
    }
}

fn refusal_of(args: &[&[u8]]) -> String {
    let args = args.iter().map(|arg| OsString::from_vec(arg.to_vec()));
    parse(args, &HOST).unwrap_err().to_string()
}

#[test]
fn without_options_the_defaults_hold() {
    let options = options("");
    assert_eq!(options.cpus, None);
    assert_eq!(options.affinity, None);
    assert_eq!(options.threshold, Nanos::from_secs(60));
    assert!(!options.threshold_has_unit);
    assert_eq!(options.boost.duration, Nanos::from_secs(3));
    assert_eq!(options.boost.period, Nanos::from_secs(1));
    assert_eq!(options.boost.runtime, Nanos::from_micros(20));
    assert_eq!(options.granularity, Nanos::from_secs(5));
    assert_eq!(options.reservation, None);
    assert_eq!(options.boost_method, BoostMethod::Auto);
    assert_eq!(options.mode, Mode::Power);
    assert!(options.idle_detection);
    assert!(!options.log_only);
    assert!(!options.verbose);
    assert!(!options.log_kmsg);
    assert!(options.log_syslog);
    assert!(!options.foreground);
    assert!(options.ignore_threads.is_empty());
    assert!(options.ignore_processes.is_empty());
    assert_eq!(options.backend, None);
    assert_eq!(options.pidfile, None);
    assert!(!options.systemd);
}

#[test]
fn each_option_sets_its_field_by_its_letter_and_by_its_name() {
    type Holds = fn(&Options) -> bool;
    let cases: [(&str, &str, Holds); 28] = [
        ("-c 0,2-4", "--cpu=0,2-4", |o| o.cpus == Some([0, 2, 3, 4].map(Cpu).into_iter().collect())),
        ("-a 7", "--affinity=7", |o| o.affinity == Some([Cpu(7)].into_iter().collect())),
        ("-t 5", "--starving_threshold=5", |o| o.threshold == Nanos::from_secs(5) && !o.threshold_has_unit),
        ("-t 5s", "--starving_threshold 5s", |o| o.threshold == Nanos::from_secs(5) && o.threshold_has_unit),
        ("-g 2", "--granularity=2", |o| o.granularity == Nanos::from_secs(2)),
        ("-b sched_debug", "--backend=S", |o| o.backend == Some(Kind::SchedDebug)),
        ("-b Q", "--backend=queue_track", |o| o.backend == Some(Kind::QueueTrack)),
        ("-b T", "--backend=task_iter", |o| o.backend == Some(Kind::TaskIter)),
        ("-N", "--no_idle_detect", |o| !o.idle_detection),
        ("-i ^rcu,x", "--ignore_threads=^rcu,x", |o| o.ignore_threads.matches(b"rcuc/1")),
        ("-I sshd", "--ignore_processes sshd", |o| o.ignore_processes.matches(b"sshd")),
        ("-d 5", "--boost_duration=5", |o| o.boost.duration == Nanos::from_secs(5)),
        ("-p 300000000", "--boost_period=300ms", |o| o.boost.period == Nanos::from_millis(300)),
        ("-r 8000", "--boost_runtime=8us", |o| o.boost.runtime == Nanos::from_micros(8)),
        ("-F", "--force_fifo", |o| o.boost_method == BoostMethod::Fifo),
        ("--boost deadline", "--boost=deadline", |o| o.boost_method == BoostMethod::Deadline),
        ("-f --boost fifo", "--foreground --boost=fifo", |o| o.boost_method == BoostMethod::Fifo),
        ("--max-loss 0.1%", "-F --max-loss=0.1%", |o| {
            o.max_loss.is_some_and(|share| share.millionths == 1000) && o.boost_method == BoostMethod::Fifo
        }),
        ("-M", "--adaptive_mode", |o| o.mode == Mode::Adaptive),
        ("-A", "--aggressive_mode", |o| o.mode == Mode::Aggressive),
        ("-R 20", "--reservation=20", |o| o.reservation == Some(20)),
        ("-S", "--systemd", |o| o.systemd),
        ("-l", "--log_only", |o| o.log_only),
        ("-k", "--log_kmsg", |o| o.log_kmsg),
        ("-fs", "--foreground --log_syslog", |o| o.log_syslog && o.foreground),
        ("-v", "--verbose", |o| o.verbose && o.foreground && !o.log_syslog),
        ("--metrics /run/x", "--metrics=/run/x", |o| o.metrics.as_deref() == Some(Path::new("/run/x"))),
        ("-P /run/x", "--pidfile=/run/x", |o| o.pidfile.as_deref() == Some(Path::new("/run/x"))),
    ];
    for (short, long, holds) in cases {
        assert!(holds(&options(short)), "{short}");
        assert!(holds(&options(long)), "{long}");
        assert!(!holds(&options("")), "{short}");
    }
}

#[test]
fn an_option_with_a_value_takes_it_as_getopt_does() {
    for line in
        ["-t5", "-t 5", "-ft5", "-ft 5", "--starving_threshold=5", "--starving_threshold 5", "--star 5"]
    {
        assert_eq!(options(line).threshold, Nanos::from_secs(5), "{line}");
    }
    let clustered = options("-flvAt5 -c0,2");
    assert!(clustered.foreground && clustered.log_only && clustered.verbose);
    assert_eq!(clustered.mode, Mode::Aggressive);
    assert_eq!(clustered.cpus.unwrap().to_string(), "0,2");
    // The next argument is the value, even if it looks like an option.
    assert_eq!(options("-P -v").pidfile.unwrap(), Path::new("-v"));
    assert_eq!(refusal("-c=0"), "-c '=0': '=0' is not a CPU number");
}

#[test]
fn a_long_option_may_be_cut_short_as_long_as_it_fits_only_one() {
    assert!(options("--fore").foreground);
    assert!(options("--sys").systemd);
    assert!(options("--log_o").log_only);
    assert_eq!(options("--boost_r 9us").boost.runtime, Nanos::from_micros(9));
    // --check is ours; in the C program --c is --cpu.
    assert_eq!(options("--c 1").cpus.unwrap().to_string(), "1");
    assert!(matches!(command("--che"), Ok(Command::Check(_))));
    // A whole name is not ambiguous, although longer ones begin with it.
    assert_eq!(options("-F --boost auto").boost_method, BoostMethod::Auto);
    assert_eq!(
        refusal("--boos 1"),
        "ambiguous option '--boos': it may stand for --boost_duration, --boost_period, --boost_runtime"
    );
    assert_eq!(refusal("--boost 20"), "--boost '20': no such method: give auto, deadline, fifo");
    assert_eq!(
        refusal("--max-loss 1"),
        "--max-loss '1': not a share of a CPU: give a percentage, such as 0.1%"
    );
    assert_eq!(
        refusal("--log"),
        "ambiguous option '--log': it may stand for --log_only, --log_kmsg, --log_syslog"
    );
    assert_eq!(refusal("--ver"), "ambiguous option '--ver': it may stand for --verbose, --version");
    assert_eq!(refusal("--fo=3"), "ambiguous option '--fo': it may stand for --force_fifo, --foreground");
}

#[test]
fn no_option_has_the_name_of_another() {
    for (i, opt) in TABLE.iter().enumerate() {
        for other in &TABLE[i + 1..] {
            assert!(opt.short.is_none() || opt.short != other.short, "{} and {}", opt.long, other.long);
            assert_ne!(opt.long, other.long);
        }
    }
}

#[test]
fn the_last_of_two_equal_options_counts() {
    let last = options("-t 5 -c 1 -t 7s -c 2 -b S -b Q -t 9");
    assert_eq!(last.threshold, Nanos::from_secs(9));
    assert!(!last.threshold_has_unit);
    assert_eq!(last.cpus.unwrap().to_string(), "2");
    assert_eq!(last.backend, Some(Kind::QueueTrack));
    assert_eq!(options("-b S --backend=auto").backend, None);
    for (line, mode) in [
        ("-A -M", Mode::Adaptive),
        ("-OMA", Mode::Aggressive),
        ("-A -M -O", Mode::Power),
        ("-A --power_mode", Mode::Power),
    ] {
        assert_eq!(options(line).mode, mode, "{line}");
    }
    // A later valid value does not replace an invalid one.
    assert_eq!(command("-t 0 -t 5").unwrap_err(), command("-t 0").unwrap_err());
}

#[test]
fn ignore_lists_add_up() {
    let both = options("-i a,b -i c -I d --ignore_processes e");
    assert_eq!(both.ignore_threads.sources(), ["a,b", "c"]);
    assert_eq!(both.ignore_processes.sources(), ["d", "e"]);
    assert!(both.ignore_threads.matches(b"c") && !both.ignore_threads.matches(b"d"));
}

#[test]
fn it_stays_in_the_foreground_for_a_terminal_and_for_a_service_manager() {
    let supervised = HostFacts { notify_socket: true, ..HOST };
    for (host, args, foreground, syslog) in [
        (HOST, vec![], false, true),
        (HOST, vec!["-s"], false, true),
        (HOST, vec!["-f"], true, false),
        (HOST, vec!["-v"], true, false),
        (HOST, vec!["-v", "-s"], true, true),
        (HOST, vec!["-f", "-k"], true, false),
        (HOST, vec!["-k"], false, true),
        // Under a service manager stalld stays in the foreground, but logs as a daemon.
        (supervised, vec![], true, true),
        (supervised, vec!["-k"], true, true),
        (supervised, vec!["-s"], true, true),
        // The configuration has an empty LOGGING= and FG="-f".
        (supervised, vec!["-f"], true, true),
        (supervised, vec!["-f", "-l", "--log-format=json"], true, true),
        // The options name another log.
        (supervised, vec!["-f", "-k"], true, false),
        (supervised, vec!["-v"], true, false),
        (supervised, vec!["-f", "-v"], true, false),
        (supervised, vec!["-v", "-s"], true, true),
    ] {
        let Ok(Command::Run(options)) = parse(args.iter().map(OsString::from), &host) else {
            panic!("{args:?}")
        };
        assert_eq!((options.foreground, options.log_syslog), (foreground, syslog), "{args:?} {host:?}");
    }
}

#[test]
fn lengths_of_time_end_where_they_should() {
    for (line, least, most) in
        [("-t", "1", "3600"), ("-g", "1", "600"), ("-r", "8000", "1000000"), ("-t", "10ms", "3600s")]
    {
        options(&format!("{line} {least}"));
        options(&format!("{line} {most}"));
    }
    for (line, least, most) in [("-g", "10ms", "600s"), ("-r", "8us", "1ms")] {
        options(&format!("{line} {least}"));
        options(&format!("{line} {most}"));
    }
    assert_eq!(options("-d 60").boost.duration, Nanos::from_secs(60));
    assert_eq!(options("-d 1").boost.duration, Nanos::from_secs(1));
    assert_eq!(options("-d 200ms").boost.duration, Nanos::from_millis(200));
    assert_eq!(options("-p 200000000").boost.period, Nanos::from_millis(200));
    assert_eq!(options("-p 4000000000 -d 4").boost.period, Nanos::from_secs(4));

    let threshold = "out of range: give 1 to 3600 (seconds), or 10ms to 3600s";
    let granularity = "out of range: give 1 to 600 (seconds), or 10ms to 600s";
    let duration = "out of range: give 1 to 60 (seconds), or 200ms to 60s";
    let period = "out of range: give 200000000 to 4000000000 (nanoseconds), or 200ms to 4s";
    let runtime = "out of range: give 8000 to 1000000 (nanoseconds), or 8us to 1ms";
    for (option, value, reason) in [
        ("-t", "0", threshold),
        ("-t", "3601", threshold),
        ("-t", "9.999999ms", threshold),
        ("-t", "3600.000000001s", threshold),
        ("-t", "99999999999999999999", threshold),
        ("--starving_threshold", "0ms", threshold),
        ("-g", "0", granularity),
        ("-g", "601", granularity),
        ("-g", "9ms", granularity),
        ("-d", "0", duration),
        ("-d", "61", duration),
        ("-d", "199ms", duration),
        ("-p", "199999999", period),
        ("-p", "4000000001", period),
        ("-p", "1", period),
        ("-r", "7999", runtime),
        ("-r", "1000001", runtime),
        ("--boost_runtime", "2ms", runtime),
    ] {
        assert_eq!(refusal(&format!("{option} {value}")), format!("{option} '{value}': {reason}"));
    }
}

#[test]
fn an_invalid_length_of_time_is_refused_with_the_valid_units() {
    let rest = "or a number with a unit (ns, us, ms, s)";
    for option in ["-t", "-g", "-d"] {
        for value in ["5x", "1.5", "-5", "five", "5m"] {
            assert_eq!(
                refusal(&format!("{option} {value}")),
                format!("{option} '{value}': not a length of time: give whole seconds, {rest}")
            );
        }
    }
    for option in ["-p", "-r"] {
        assert_eq!(
            refusal(&format!("{option} 20k")),
            format!("{option} '20k': not a length of time: give whole nanoseconds, {rest}")
        );
    }
}

#[test]
fn a_boost_that_was_not_given_fits_into_the_threshold() {
    for (line, duration, period) in [
        ("-t 1", 1000, 1000),
        ("-t 2", 2000, 1000),
        ("-t 500ms", 500, 500),
        ("-t 200ms", 200, 200),
        ("-t 10ms", 200, 200),
        ("-d 500ms", 500, 500),
        ("-d 10", 10_000, 1000),
        ("-p 2s", 3000, 2000),
        ("-p 200ms -t 100ms", 200, 200),
        // Each possible boost is longer than this threshold.
        ("-t 199ms -d 5", 5000, 1000),
        ("-t 3 -d 3 -p 3s", 3000, 3000),
    ] {
        let boost = options(line).boost;
        assert_eq!((boost.duration.as_millis(), boost.period.as_millis()), (duration, period), "{line}");
    }
}

#[test]
fn options_that_contradict_each_other_are_both_named() {
    for (line, reason) in [
        (
            "--max-loss 1% --boost deadline",
            "--max-loss 1% does not go with --boost deadline: only boosts by SCHED_FIFO keep to it",
        ),
        ("-d 5 -t 3", "-d 5 (boost duration) is longer than -t 3 (threshold)"),
        ("-t 3 -d 3.1s", "-d 3.1s (boost duration) is longer than -t 3 (threshold)"),
        ("-t 200ms -d 1", "-d 1 (boost duration) is longer than -t 200ms (threshold)"),
        ("-p 2000000000 -d 1", "-p 2000000000 (boost period) is longer than -d 1 (boost duration)"),
        ("-p 4s", "-p 4s (boost period) is longer than -d 3s (boost duration, by default)"),
        ("-p 1s -t 500ms", "-p 1s (boost period) is longer than -d 500ms (boost duration, by default)"),
        (
            "-A -R 20",
            "-R 20 (reservation) does not go with -A (aggressive mode): it is for one thread, and this mode has \
             several",
        ),
        (
            "-R 20 --adaptive_mode",
            "-R 20 (reservation) does not go with -M (adaptive mode): it is for one thread, and this mode has \
             several",
        ),
    ] {
        assert_eq!(refusal(line), reason, "{line}");
    }
    assert_eq!(options("-A -R 20 -O").reservation, Some(20));
}

#[test]
fn a_bad_value_is_named_with_its_option_and_the_reason() {
    let percent = "not a percentage that can be reserved: give a whole number from 10 to 90";
    for value in ["9", "91", "50%", "x", "+50", "-1", "1000"] {
        assert_eq!(refusal(&format!("-R {value}")), format!("-R '{value}': {percent}"));
    }
    assert_eq!((options("-R 10").reservation, options("-R 90").reservation), (Some(10), Some(90)));
    for (line, message) in [
        ("-c 8", "-c '8': CPU 8 does not exist, the last one is 7"),
        ("--cpu=3-1", "--cpu '3-1': the range 3-1 runs backwards"),
        ("--cpu=", "--cpu '': a CPU number is missing"),
        ("-a 1,", "-a '1,': a CPU number is missing"),
        ("-b bpf", "-b 'bpf': no such backend: give auto, task_iter, queue_track, sched_debug"),
        ("-b sched", "-b 'sched': no such backend: give auto, task_iter, queue_track, sched_debug"),
        ("--backend=", "--backend '': no such backend: give auto, task_iter, queue_track, sched_debug"),
        ("-i a,(", "-i 'a,(': cannot compile '(': found open group without closing ')'"),
        ("-I a,,b", "-I 'a,,b': an expression is missing"),
        ("--pidfile=", "--pidfile '': a path is missing"),
        ("--verbose=3", "--verbose '3': this option takes no value"),
        ("--verb=", "--verbose '': this option takes no value"),
        ("--help=me", "--help 'me': this option takes no value"),
        ("-t", "-t needs a value: TIME"),
        ("-vlc", "-c needs a value: CPUS"),
        ("--pidf", "--pidfile needs a value: PATH"),
        ("-x", "unknown option '-x'"),
        ("-v=3", "unknown option '-='"),
        ("--bogus", "unknown option '--bogus'"),
        ("--CPU=1", "unknown option '--CPU'"),
        ("--=1", "unknown option '--'"),
        ("-v now", "unexpected argument 'now'"),
        ("-", "unexpected argument '-'"),
        ("-- -v", "unexpected argument '-v'"),
    ] {
        assert_eq!(refusal(line), message, "{line}");
    }
    assert!(options("-v --").verbose);
    assert_eq!(refusal_of(&[b""]), "unexpected argument ''");
    assert_eq!(refusal_of(&[b"-c", b"1 2"]), "-c '1 2': '1 2' is not a CPU number");
    assert_eq!(refusal_of(&[b"-c", b" 1 , 9 "]), "-c ' 1 , 9 ': CPU 9 does not exist, the last one is 7");
}

#[test]
fn an_argument_can_not_break_out_of_the_message() {
    for (args, message) in [
        (
            &[b"-t", b"1\n2\x1b[2J" as &[u8]][..],
            "-t '1\\x0a2\\x1b[2J': not a length of time: give whole \
          seconds, or a number with a unit (ns, us, ms, s)",
        ),
        (&[b"-c", b"\xff"], "-c '\\xff': not UTF-8"),
        (&[b"--ignore_threads=a\xc3"], "--ignore_threads 'a\\xc3': not UTF-8"),
        (&[b"-b", b"a\tb"], "-b 'a\\x09b': no such backend: give auto, task_iter, queue_track, sched_debug"),
        (&[b"\xfe\n"], "unexpected argument '\\xfe\\x0a'"),
        (&[b"--a\nb"], "unknown option '--a\\x0ab'"),
        (&[b"-\n"], "unknown option '-\\x0a'"),
    ] {
        assert_eq!(refusal_of(args), message);
    }
    for args in [[b"-\xff" as &[u8]], [b"--\xff"], [b"--\xff=1"]] {
        assert!(refusal_of(&args).starts_with("unknown option '-"), "{args:?}");
    }
}

#[test]
fn a_path_may_be_any_bytes() {
    let args = [b"-P".to_vec(), b"/run/\xff".to_vec()].map(OsString::from_vec);
    let Ok(Command::Run(options)) = parse(args, &HOST) else { panic!() };
    assert_eq!(options.pidfile.unwrap().as_os_str().as_bytes(), b"/run/\xff");
}

#[test]
fn help_and_version_end_the_command_line_where_they_stand() {
    for line in ["-h", "--help", "-vh", "-h --bogus", "-t 5 -h -t 0", "-d 5 -t 3 -h", "-hV"] {
        assert!(matches!(command(line), Ok(Command::Help)), "{line}");
    }
    for line in ["-V", "--version", "--vers", "-V --bogus", "-Vh"] {
        assert!(matches!(command(line), Ok(Command::Version)), "{line}");
    }
    assert_eq!(refusal("--bogus -h"), "unknown option '--bogus'");
    assert_eq!(refusal("-t 0 -V"), refusal("-t 0"));
}

#[test]
fn the_unit_can_move_the_pidfile_out_of_the_sandbox() {
    assert_eq!(options("-P /run/x --no-pidfile -f").pidfile, None);
    assert_eq!(options("--no-pidfile -P /run/x").pidfile.as_deref(), Some(Path::new("/run/x")));
    let x = || Some(PathBuf::from("/run/x"));
    for (line, expected, number) in [
        ("--write-pidfile=77 -t 20 -P /run/x -f", x(), 77),
        ("--write-pidfile 77 -s", None, 77),
        ("--write-pidfile 1 -P /run/y --write-pidfile=2147483647 --pidfile=/run/x", x(), i32::MAX),
    ] {
        let Ok(Command::WritePidfile { path, pid }) = command(line) else { panic!("{line}") };
        assert_eq!((path, pid), (expected, Tid(number)), "{line}");
    }
    for number in ["", "0", "-1", "x", "2147483648"] {
        let line = format!("--write-pidfile={number}");
        assert_eq!(refusal(&line), format!("--write-pidfile '{number}': not the number of a process"));
    }
}

#[test]
fn a_check_takes_the_options_of_the_run_it_is_about() {
    let Ok(Command::Check(options)) = command("-v -t 500ms --check -c 1 -b S -F") else { panic!() };
    assert!(options.verbose && options.boost_method == BoostMethod::Fifo);
    assert_eq!(options.threshold, Nanos::from_millis(500));
    assert_eq!(options.backend, Some(Kind::SchedDebug));
    assert_eq!(options.cpus.unwrap().to_string(), "1");
    assert_eq!(refusal("--check -d 5 -t 3"), refusal("-d 5 -t 3"));
}
