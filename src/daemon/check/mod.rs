//! Implements `--check`: what this host offers and lacks for a run, and how to fix it.

mod facts;
mod findings;
mod left_behind;

use super::options::Options;
use facts::Facts;
use findings::{Finding, Severity};
use std::fmt::{self, Write};
use std::path::Path;

/// The output of `--check`.
pub(super) struct Report {
    pub text: String,
    /// A run with these options would protect this host.
    pub protects: bool,
}

pub(super) fn report(options: &Options) -> Report {
    let facts = Facts::gather(Path::new("/"), options);
    let findings = findings::of(&facts, options);
    let mut text = String::new();
    if options.verbose {
        text.push_str(&facts.to_string());
        text.push('\n');
    }
    // Writing to a String can't fail.
    for finding in &findings {
        let _ = writeln!(text, "{finding}");
    }
    let _ = writeln!(text, "{}", findings::verdict(&facts, options, &findings));
    Report { text, protects: findings.iter().all(|finding| finding.level != Severity::Failure) }
}

/// The width of the first column: the longest level and two blanks.
const LEVEL_WIDTH: usize = 9;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let level = match self.level {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Failure => "failure",
        };
        write!(f, "{level:LEVEL_WIDTH$}{}", self.fact)?;
        match &self.cure {
            Some(cure) => write!(f, "\n{:LEVEL_WIDTH$}-> {cure}", ""),
            None => Ok(()),
        }
    }
}
