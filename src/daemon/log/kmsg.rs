//! Writes to the kernel's log, next to the kernel's own reports of stalls and lockups.

use super::{Record, Sink, frame};
use crate::error::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

pub(in crate::daemon) const KMSG: &str = "/dev/kmsg";

/// An open /dev/kmsg. One write is one record. A write can block for long, because it may print
/// records of other CPUs to a serial console. Unless printk_devkmsg is `on`, the kernel accepts 10
/// records in 5 seconds. It drops the others without an error, and logs their number.
pub(in crate::daemon) struct Kmsg {
    file: File,
    line: String,
}

impl Kmsg {
    /// Opens the file once, because a sandbox may hide it later.
    pub(crate) fn open(path: &Path) -> Result<Kmsg> {
        let file = OpenOptions::new().write(true).open(path);
        Ok(Kmsg::new(file.context(format_args!("open {} for writing", path.display()))?))
    }

    pub(super) fn new(file: File) -> Kmsg {
        Kmsg { file, line: String::new() }
    }
}

impl Sink for Kmsg {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        frame(&mut self.line, record);
        self.line.push('\n');
        self.file.write_all(self.line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::log::{Level, Line, line};
    use rig::scratch::Scratch;
    use std::fs;

    #[test]
    fn a_record_is_one_line_that_the_kernel_takes() {
        let scratch = Scratch::new("kmsg");
        let path = scratch.join("kmsg");
        fs::write(&path, "").unwrap();
        let mut kmsg = Kmsg::open(&path).unwrap();
        let longest = Line::of(format_args!("{}", "x".repeat(2 * line::MAX)));
        kmsg.write(&Record::now(Level::Warning, longest.as_str())).unwrap();
        let record = fs::read_to_string(&path).unwrap();
        assert_eq!(record, format!("<28>stalld[{}]: {}\n", std::process::id(), longest.as_str()));
        assert!(record.len() <= 900);
    }

    #[test]
    fn without_a_kernel_log_the_error_names_the_reason() {
        let scratch = Scratch::new("kmsg-missing");
        let path = scratch.join("kmsg");
        let error = Kmsg::open(&path).err().map(|e| e.to_string());
        let expected = format!("cannot open {} for writing: No such file or directory", path.display());
        assert_eq!(error, Some(expected));
    }
}
