//! C programs that use the library for long, or under a tool that finds errors of memory.

use rig::c::{Program, api_is_ok, header_compiles_alone, output, run};
use std::process::Command;

/// `STALLD_GUARDIAN` of the header.
const GUARDIAN: &str = "2";

/// `STALLD_BACKEND_SCHED_DEBUG` of the header.
const SCHED_DEBUG: &str = "3";

#[test]
#[ignore = "needs root"]
fn valgrind_finds_no_error_and_no_leak() {
    rig::as_root();
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
#[ignore = "needs root"]
fn the_sanitizers_find_no_error() {
    rig::as_root();
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = Program::build("tests/api.c", &flags);
    let symbols = run(Command::new("nm").arg("-D").arg(program.path()));
    assert!(
        symbols.contains("__asan_init") && symbols.contains("__ubsan_handle"),
        "the program is built without the sanitizers"
    );
    api_is_ok(&program);
    let rounds = Program::build("tests/rounds.c", &flags);
    run(&mut rounds.command(&["20", "0", "0"]));
}

#[test]
#[ignore = "needs root"]
fn nothing_stays_behind_after_ten_thousand_rounds() {
    rig::as_root();
    let rounds = Program::build("tests/rounds.c", &[]);
    run(&mut rounds.command(&["200", GUARDIAN, "0"]));
    // The backend that takes the least time to open, if it works here.
    let quick = output(&mut rounds.command(&["1", "0", SCHED_DEBUG])).status.success();
    let backend = if quick { SCHED_DEBUG } else { "0" };
    run(&mut rounds.command(&["10000", "0", backend]));
}

#[test]
fn the_header_compiles_alone_by_gcc_as_cxx() {
    header_compiles_alone("g++", "c++-header", &["c++17"]);
}
