//! Builds the library, and C programs against it.

use crate::scratch::Scratch;
use stalld::observe::HAS_BPF;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns the directory of the library. The first call runs `make lib`, unless
/// STALLD_BUILT_LIBRARY is set because the library is up to date.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let directory = Path::new(ROOT).join("target/lib");
        if env::var_os("STALLD_BUILT_LIBRARY").is_some() {
            return directory;
        }
        let bpf = if HAS_BPF { "BPF=1" } else { "BPF=0" };
        let cargo = format!("CARGO={}", env::var("CARGO").unwrap_or("cargo".to_string()));
        run(Command::new("make").args(["--no-print-directory", "lib", bpf, &cargo]).current_dir(ROOT));
        directory
    })
}

/// Runs a program that has to succeed, and returns its output on stdout.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn output(command: &mut Command) -> Output {
    // Variables that cargo sets are for this package.
    command.env_remove("CARGO_MAKEFLAGS").env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    command.output().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"))
}

/// Runs ffi/tests/api.c, which checks the interface from inside and prints `ok`.
pub fn api_is_ok(program: &Program) {
    // The program asserts that the library leaves the settings of the host as they were.
    let _live = crate::live();
    assert_eq!(run(&mut program.command(&[])), "ok\n");
}

/// Compiles include/stalld.h alone, as the given language and by each of the given standards.
pub fn header_compiles_alone(compiler: &str, language: &str, standards: &[&str]) {
    for standard in standards {
        let flags = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", language];
        run(Command::new(compiler)
            .arg(format!("-std={standard}"))
            .args(flags)
            .arg("include/stalld.h")
            .current_dir(ROOT));
    }
}

/// A C program, removed when dropped.
pub struct Program {
    dir: Scratch,
}

impl Program {
    /// Compiles a source below ffi/ and links it as an installed library would be.
    pub fn build(source: &str, flags: &[&str]) -> Program {
        let linked = ["-lstalld"];
        Program::build_by("cc", source, &[flags, &linked[..]].concat())
    }

    /// The same with the static library and its dependencies.
    pub fn build_static(source: &str, flags: &[&str]) -> Program {
        let pc = std::fs::read_to_string(library().join("libstalld.pc")).unwrap();
        let private = pc.lines().find_map(|line| line.strip_prefix("Libs.private: ")).unwrap();
        let private: Vec<&str> = private.split_whitespace().collect();
        Program::build_by("cc", source, &[&["-l:libstalld.a"], flags, private.as_slice()].concat())
    }

    fn build_by(compiler: &str, source: &str, flags: &[&str]) -> Program {
        let lib = library().to_str().unwrap();
        // The number keeps tests that run at the same time apart.
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = Scratch::new(&format!("library-{number}"));
        run(Command::new(compiler)
            .args(["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-g", "-O1", "-Iinclude"])
            .arg("-o")
            .arg(dir.join("program"))
            .arg(format!("ffi/{source}"))
            .args([&format!("-L{lib}"), &format!("-Wl,-rpath,{lib}")])
            .args(flags)
            .current_dir(ROOT));
        Program { dir }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("program")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path());
        command.args(args);
        command
    }
}
