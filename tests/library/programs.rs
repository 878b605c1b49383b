//! C programs that use and misuse the library, linked in each way.

use rig::c::{Program, ROOT, api_is_ok, library, output, run};
use std::process::Command;

/// `STALLD_GUARDIAN` of the header.
const GUARDIAN: &str = "2";

#[test]
#[ignore = "needs root"]
fn the_interface_is_what_the_header_says() {
    rig::as_root();
    api_is_ok(&Program::build("tests/api.c", &[]));
}

#[test]
#[ignore = "needs root"]
fn it_can_be_linked_statically() {
    rig::as_root();
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
#[ignore = "needs root"]
fn it_can_be_linked_into_a_program_that_has_a_libbpf_of_its_own() {
    rig::as_root();
    let libbpf = libbpf();
    let flags = ["-DOWN_LIBBPF", libbpf.to_str().unwrap(), "-lelf", "-lz"];
    api_is_ok(&Program::build("tests/api.c", &flags));
    api_is_ok(&Program::build_static("tests/api.c", &flags));
}

#[test]
#[ignore = "needs root"]
fn nothing_stays_behind_after_some_rounds() {
    rig::as_root();
    run(&mut Program::build("tests/rounds.c", &[]).command(&["20", GUARDIAN, "0"]));
}

#[test]
#[ignore = "needs root"]
fn one_snapshot_is_a_table_of_all_waiters() {
    rig::as_root();
    let table = run(&mut Program::build("examples/waiters.c", &[]).command(&[]));
    let mut lines = table.lines();
    assert_eq!(lines.next().unwrap().split_whitespace().next(), Some("TID"), "{table}");
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert!(fields[0].parse::<i32>().unwrap() > 0 && fields[3].parse::<f64>().unwrap() >= 0.0, "{line}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_task_that_does_not_exist_is_refused_in_one_line() {
    rig::as_root();
    let boost = Program::build("examples/boost.c", &[]);
    let refused = output(&mut boost.command(&["999999999"]));
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "boost: there is no task 999999999\n");
}

#[test]
#[ignore = "needs root"]
fn python_can_use_it() {
    rig::as_root();
    let said = run(Command::new("python3")
        .args(["examples/watch.py", "1000", "0.1"])
        .env("LD_LIBRARY_PATH", library())
        .current_dir(ROOT));
    assert!(said.starts_with("libstalld 0.1.0\nbackend "), "{said}");
}
