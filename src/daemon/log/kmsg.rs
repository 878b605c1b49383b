//! The kernel's log, where a report stands among the kernel's own on stalls and lockups.

use super::{Record, Sink, frame};
use crate::error::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

pub const KMSG: &str = "/dev/kmsg";

/// One write is one record. It can take long: it may have to print what other CPUs logged, to a
/// serial console. Unless printk_devkmsg is `on`, the kernel lets 10 records in 5 seconds pass,
/// drops the rest without an error, and logs itself how many these were.
pub struct Kmsg {
    file: File,
    line: String,
}

impl Kmsg {
    /// Opened once: in a sandbox it may be out of reach later.
    pub fn open(path: &Path) -> Result<Kmsg> {
        let file = OpenOptions::new().write(true).open(path);
        Ok(Kmsg::new(file.context(format_args!("open {} for writing", path.display()))?))
    }

    pub fn new(file: File) -> Kmsg {
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
    fn where_there_is_no_kernel_log_the_error_says_so() {
        let scratch = Scratch::new("kmsg-missing");
        let path = scratch.join("kmsg");
        let error = Kmsg::open(&path).err().map(|e| e.to_string());
        let expected = format!("cannot open {} for writing: No such file or directory", path.display());
        assert_eq!(error, Some(expected));
    }
}
