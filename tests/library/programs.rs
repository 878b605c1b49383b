//! C programs that use and misuse the library, linked in each way, and watched by what finds errors of memory.

use crate::c::{Program, ROOT, has, library, may_open, output, run};
use std::process::Command;

/// Numbers of the header.
const GUARDIAN: &str = "2";
const SCHED_DEBUG: &str = "3";

fn api_is_ok(program: &Program) {
    assert_eq!(run(&mut program.command(&[])), "ok\n");
}

#[test]
fn the_interface_is_what_the_header_says() {
    if !may_open() {
        return;
    }
    api_is_ok(&Program::build("tests/api.c", &[]));
}

#[test]
fn it_can_be_linked_statically() {
    if !may_open() {
        return;
    }
    api_is_ok(&Program::build_static("tests/api.c", &[]));
}

/// The libbpf that the library itself was built from, by its path.
#[cfg(feature = "bpf")]
fn libbpf() -> std::path::PathBuf {
    library();
    let builds = std::path::Path::new(ROOT).join("target/library/build").read_dir().unwrap().flatten();
    let libbpf = builds.map(|build| build.path().join("out/libbpf.a")).find(|path| path.exists());
    libbpf.unwrap_or_else(|| panic!("no libbpf.a below target/library/build"))
}

#[cfg(feature = "bpf")]
#[test]
fn it_can_be_linked_into_a_program_that_has_a_libbpf_of_its_own() {
    if !may_open() {
        return;
    }
    let libbpf = libbpf();
    let flags = ["-DOWN_LIBBPF", libbpf.to_str().unwrap(), "-lelf", "-lz"];
    api_is_ok(&Program::build("tests/api.c", &flags));
    api_is_ok(&Program::build_static("tests/api.c", &flags));
}

#[test]
fn valgrind_finds_nothing() {
    if !may_open() || !has("valgrind") {
        return;
    }
    for (source, args) in [("tests/api.c", &[][..]), ("tests/rounds.c", &["20", GUARDIAN, "0"])] {
        let program = Program::build(source, &[]);
        run(Command::new("valgrind")
            .args(["-q", "--error-exitcode=9", "--leak-check=full", "--track-fds=no"])
            .args(["--errors-for-leak-kinds=definite,indirect,possible"])
            .arg(program.path())
            .args(args));
    }
}

#[test]
fn the_sanitizers_find_nothing() {
    if !may_open() {
        return;
    }
    let sanitize = "-fsanitize=address,undefined";
    let probe = output(Command::new("sh").args([
        "-c",
        "echo 'int main(void){return 0;}' | cc -x c -o /dev/null $0 -",
        sanitize,
    ]));
    if !probe.status.success() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "the sanitizers must be there in CI");
        eprintln!("skipped: cc has no {sanitize} here");
        return;
    }
    let flags = [sanitize, "-fno-sanitize-recover=all"];
    let program = Program::build("tests/api.c", &flags);
    let symbols = run(Command::new("nm").arg("-D").arg(program.path()));
    assert!(
        symbols.contains("__asan_init") && symbols.contains("__ubsan_handle"),
        "the sanitizers are not there"
    );
    api_is_ok(&program);
    let rounds = Program::build("tests/rounds.c", &flags);
    run(&mut rounds.command(&["20", "0", "0"]));
}

#[test]
fn nothing_stays_behind_after_ten_thousand_rounds() {
    if !may_open() {
        return;
    }
    let rounds = Program::build("tests/rounds.c", &[]);
    run(&mut rounds.command(&["200", GUARDIAN, "0"]));
    // The backend that takes the least time to open, where it can be had.
    let quick = output(&mut rounds.command(&["1", "0", SCHED_DEBUG])).status.success();
    let backend = if quick { SCHED_DEBUG } else { "0" };
    run(&mut rounds.command(&["10000", "0", backend]));
}

#[test]
fn one_snapshot_is_a_table_of_all_who_wait() {
    if !may_open() {
        return;
    }
    let table = run(&mut Program::build("examples/waiters.c", &[]).command(&[]));
    let mut lines = table.lines();
    assert_eq!(lines.next().unwrap().split_whitespace().next(), Some("TID"), "{table}");
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert!(fields[0].parse::<i32>().unwrap() > 0 && fields[3].parse::<f64>().unwrap() >= 0.0, "{line}");
    }
}

#[test]
fn what_can_not_be_had_is_said_in_a_line() {
    if !may_open() {
        return;
    }
    let boost = Program::build("examples/boost.c", &[]);
    let refused = output(&mut boost.command(&["999999999"]));
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "boost: there is no task 999999999\n");
}

#[test]
fn python_can_use_it() {
    if !may_open() || !has("python3") {
        return;
    }
    let said = run(Command::new("python3")
        .args(["examples/watch.py", "1000", "0.1"])
        .env("LD_LIBRARY_PATH", library())
        .current_dir(ROOT));
    assert!(said.starts_with("libstalld 0.1.0\nbackend "), "{said}");
}
