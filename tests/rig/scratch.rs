//! A directory for the files of one test.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed with all that is in it when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// `name` is the test's own.
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("stalld-{}-{name}", std::process::id()));
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
