//! `--check`: what this host offers and lacks for a run, and what can be done about it.

mod facts;
mod findings;
mod left_behind;

use super::options::Options;
use facts::Facts;
use findings::{Finding, Level};
use std::fmt::{self, Write};
use std::path::Path;

/// What `--check` has to say.
pub struct Report {
    pub text: String,
    /// Whether such a run would do its work here.
    pub protects: bool,
}

pub fn report(options: &Options) -> Report {
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
    Report { text, protects: findings.iter().all(|finding| finding.level != Level::Failure) }
}

/// A column that the longest level fits in, with a blank behind it.
const LEVEL_WIDTH: usize = 9;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Failure => "failure",
        };
        write!(f, "{level:LEVEL_WIDTH$}{}", self.fact)?;
        match &self.cure {
            Some(cure) => write!(f, "\n{:LEVEL_WIDTH$}-> {cure}", ""),
            None => Ok(()),
        }
    }
}
