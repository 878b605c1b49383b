//! A command line. The first byte chooses a host; NULs separate the arguments.

use super::{choice, is_one_line};
use stalld::daemon::options::{Command, HostFacts, Mode, Options, help, parse};
use stalld::observe::Kind;
use stalld::timing::{DURATION, GRANULARITY, PERIOD, RUNTIME, THRESHOLD};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

pub fn run(input: &[u8]) {
    let (kind, line) = choice(input);
    let host = HostFacts { configured_cpus: 1 + u32::from(kind >> 1), notify_socket: kind & 1 == 1 };
    let args = line.split(|&b| b == 0).map(|arg| OsStr::from_bytes(arg).to_os_string());
    match parse(args, &host) {
        Ok(Command::Run(options)) => check(options, &host, None),
        Ok(Command::Check(options)) => check(options, &host, Some("--check")),
        Ok(Command::Help) => assert!(help().lines().count() > 20),
        Ok(Command::Recover | Command::Version) => {}
        Ok(Command::WritePidfile { path, pid }) => {
            assert!(pid.0 > 0 && path.is_none_or(|path| !path.as_os_str().is_empty()), "{pid:?}");
        }
        Err(error) => assert!(is_one_line(&error.to_string()), "{error:?}"),
    }
}

fn check(mut options: Options, host: &HostFacts, check: Option<&str>) {
    let boost = options.boost;
    assert!(THRESHOLD.contains(&options.threshold) && GRANULARITY.contains(&options.granularity));
    assert!(DURATION.contains(&boost.duration) && PERIOD.contains(&boost.period), "{boost:?}");
    assert!(RUNTIME.contains(&boost.runtime) && boost.misfit(options.threshold).is_none(), "{boost:?}");
    for cpus in options.cpus.iter().chain(&options.affinity) {
        assert!(!cpus.is_empty() && cpus.iter().all(|cpu| cpu.0 < host.configured_cpus), "{cpus:?}");
    }
    assert!(options.reservation.is_none_or(|percent| (10..=90).contains(&percent)));
    assert!(options.reservation.is_none() || options.mode == Mode::Power);
    assert!(options.foreground || !options.verbose && !host.notify_socket);
    assert!(options.foreground || options.log_syslog);
    assert!(options.pidfile.as_ref().is_none_or(|path| !path.as_os_str().is_empty()));

    let written = write(&options).into_iter().chain(check.map(OsString::from));
    let again = match parse(written, host) {
        Ok(Command::Run(options)) if check.is_none() => options,
        Ok(Command::Check(options)) if check.is_some() => options,
        other => panic!("{options:?} became {other:?}"),
    };
    // `write` gives each length a unit.
    options.threshold_has_unit = true;
    assert_eq!(format!("{options:?}"), format!("{again:?}"));
}

/// Returns a command line that asks for the same options.
fn write(options: &Options) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut push =
        |option: &str, value: &dyn AsRef<OsStr>| args.extend([option.into(), value.as_ref().into()]);
    let boost = &options.boost;
    for (option, length) in [
        ("-t", options.threshold),
        ("-g", options.granularity),
        ("-d", boost.duration),
        ("-p", boost.period),
        ("-r", boost.runtime),
    ] {
        push(option, &format!("{}ns", length.0));
    }
    for (option, cpus) in [("-c", &options.cpus), ("-a", &options.affinity)] {
        cpus.iter().for_each(|cpus| push(option, &cpus.to_string()));
    }
    options.ignore_threads.sources().iter().for_each(|list| push("-i", list));
    options.ignore_processes.sources().iter().for_each(|list| push("-I", list));
    options.reservation.iter().for_each(|percent| push("-R", &percent.to_string()));
    options.pidfile.iter().for_each(|path| push("--pidfile", path));
    push("--boost", &options.boost_method.name());
    push("--backend", &options.backend.map_or("auto", Kind::name));
    for (option, wanted) in [
        ("-M", options.mode == Mode::Adaptive),
        ("-A", options.mode == Mode::Aggressive),
        ("-N", !options.idle_detection),
        ("-S", options.systemd),
        ("-l", options.log_only),
        ("-v", options.verbose),
        ("-k", options.log_kmsg),
        ("-s", options.log_syslog),
        ("-f", options.foreground),
    ] {
        args.extend(wanted.then(|| option.into()));
    }
    args
}
