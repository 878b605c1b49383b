//! A directory for the files of one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed with its content when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates the directory.
    pub fn new(name: &str) -> Scratch {
        // Tests of one process run at the same time, and several may use the same name.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("stalld-{process}-{name}-{number}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, the directories that lead to it included.
    pub fn file(&self, name: &str, content: &str) {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies a program, executable for all users.
///
/// Another process copies it. If this process had the copy open for writing, a process that another
/// test starts at that moment would share the descriptor, and the kernel executes no file that is
/// open for writing.
pub fn install(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot copy {}", from.display());
}

/// Writes a shell script that all users can execute.
pub fn script(path: &Path, body: &str) {
    let text = path.with_extension("text");
    fs::write(&text, format!("#!/bin/sh\n{body}\n")).unwrap();
    install(&text, path);
    fs::remove_file(text).unwrap();
}
