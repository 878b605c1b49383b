//! include/stalld.h is good C and good C++ by itself.

use crate::c::{ROOT, has, run};
use std::process::Command;

fn compiles_alone(compiler: &str, language: &str, standards: &[&str]) {
    if !has(compiler) {
        return;
    }
    for standard in standards {
        let flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", language];
        run(Command::new(compiler)
            .arg(format!("-std={standard}"))
            .args(flags)
            .arg("include/stalld.h")
            .current_dir(ROOT));
    }
}

#[test]
fn the_header_compiles_alone_as_c() {
    // Of a header by itself, some compilers complain that it is the main file.
    for compiler in ["gcc", "clang"] {
        compiles_alone(compiler, "c-header", &["c99", "c11"]);
    }
}

#[test]
fn the_header_compiles_alone_as_cxx() {
    for compiler in ["g++", "clang++"] {
        compiles_alone(compiler, "c++-header", &["c++17"]);
    }
}
