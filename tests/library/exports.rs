//! Tests of the names that the library exports, and of its installation.

use rig::c::{ROOT, library, run};
use rig::scratch::Scratch;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The functions that ffi/libstalld.map lists.
fn listed() -> BTreeSet<String> {
    let map = read("ffi/libstalld.map");
    let entries = map.lines().filter_map(|line| line.strip_prefix('\t')?.strip_suffix(';'));
    entries.filter(|&entry| entry != "*").map(str::to_string).collect()
}

/// The names that a file defines for others, without those of the versions themselves.
fn defined(table: &str, file: &str) -> BTreeSet<String> {
    let symbols = run(Command::new("nm").args([table, "--defined-only", "-P"]).arg(library().join(file)));
    let names =
        symbols.lines().filter_map(|line| line.split_once(' ').filter(|(_, rest)| !rest.starts_with('A')));
    names.map(|(name, _)| name.to_string()).collect()
}

#[test]
fn the_shared_library_exports_what_the_map_lists_and_nothing_else() {
    let versioned = |name: &String| format!("{name}@@LIBSTALLD_0.1");
    assert_eq!(defined("-D", "libstalld.so"), listed().iter().map(versioned).collect());
}

#[test]
fn the_static_library_has_no_other_names_for_a_program_to_clash_with() {
    assert_eq!(defined("-g", "libstalld.a"), listed());
}

#[test]
fn the_header_declares_what_the_map_lists() {
    let header = read("include/stalld.h");
    let code = header.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next());
    let functions = names.filter(|name| name.starts_with("stalld_")).map(str::to_string);
    assert_eq!(functions.collect::<BTreeSet<_>>(), listed());
}

#[test]
fn programs_find_the_library_by_its_major_version() {
    let dynamic = run(Command::new("readelf").arg("-dW").arg(library().join("libstalld.so")));
    assert!(dynamic.contains("soname: [libstalld.so.0]"), "{dynamic}");
    for (link, target) in [("libstalld.so", "libstalld.so.0"), ("libstalld.so.0", "libstalld.so.0.1.0")] {
        assert_eq!(fs::read_link(library().join(link)).unwrap(), Path::new(target));
    }
    run(Command::new("sh").args(["tests/hardening.sh", "target/lib/libstalld.so"]).current_dir(ROOT));
}

#[test]
fn all_files_are_installed_in_their_standard_places() {
    library();
    let root = Scratch::new("library-install");
    let destination = format!("DESTDIR={}", root.path().display());
    let places = ["PREFIX=/opt/s", "LIBDIR=/opt/s/lib64"];
    run(Command::new("make").args(["install-lib", &destination]).args(places).current_dir(ROOT));
    for file in
        ["lib64/libstalld.so.0.1.0", "lib64/libstalld.a", "include/stalld.h", "share/man/man3/libstalld.3"]
    {
        assert!(root.join("opt/s").join(file).is_file(), "{file}");
    }
    let pc = fs::read_to_string(root.join("opt/s/lib64/pkgconfig/libstalld.pc")).unwrap();
    for line in ["prefix=/opt/s", "libdir=/opt/s/lib64", "Version: 0.1.0", "Libs: -L${libdir} -lstalld"] {
        assert!(pc.lines().any(|found| found == line), "{line} in\n{pc}");
    }
    assert!(!pc.contains('@'), "{pc}");
    run(Command::new("make").args(["uninstall", &destination]).args(places).current_dir(ROOT));
    assert!(!root.join("opt/s/lib64/libstalld.so").exists() && !root.join("opt/s/include/stalld.h").exists());
}
