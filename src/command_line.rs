//! Parses command lines by a table of options, from which also come the abbreviations and the help
//! text. All programs of this project use it.

use crate::error::Error;
use crate::task::Escaped;
use lexopt::Arg;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// The facts about the host on which the meaning of a command line depends.
#[derive(Clone, Copy, Debug)]
pub struct HostFacts {
    pub configured_cpus: u32,
    /// Whether a service manager waits for a message of this process, which must not daemonize
    /// then.
    pub notify_socket: bool,
}

/// One option. `D` is the draft: the struct of a program in which its options are collected.
pub struct Opt<D: 'static> {
    pub short: Option<char>,
    pub long: &'static str,
    pub takes: Takes<D>,
    /// The text for `--help`. A second line is aligned with the first.
    pub help: &'static str,
}

/// The argument of an option: its name in the help, and the function that stores it.
///
/// A name in the plural, such as CPUS, means a list that is separated by commas.
pub enum Takes<D: 'static> {
    Nothing(fn(&mut D)),
    Text(&'static str, fn(&mut D, &str, &HostFacts) -> Result<(), String>),
    /// A name, or a list of names. The first function returns all names, for completions and error
    /// messages.
    Name(&'static str, fn() -> Vec<&'static str>, fn(&mut D, &str, &HostFacts) -> Result<(), String>),
    Path(&'static str, fn(&mut D, PathBuf)),
}

/// The command line of a program: its options, and the words that belong to no option.
pub struct Syntax<D: 'static> {
    pub table: &'static [Opt<D>],
    /// Takes a word that belongs to no option.
    pub word: fn(&mut D, &OsStr) -> Result<(), UsageError>,
    /// Returns whether the rest of the command line is left unread, as after `--help`.
    pub is_over: fn(&D) -> bool,
}

/// The reason why a command line was rejected, as one line. It holds the input of the user
/// unchanged, and `Display` escapes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(OsString);

/// Reads a command line, without the name of the program, into a draft.
pub fn read<D>(
    args: impl IntoIterator<Item = OsString>,
    syntax: &Syntax<D>,
    host: &HostFacts,
    draft: &mut D,
) -> Result<(), UsageError> {
    let Syntax { table, word, is_over } = *syntax;
    let mut parser = lexopt::Parser::from_args(args);
    // As in getopt(3): the value of `-c=0` is `=0`.
    parser.set_short_equals(false);
    while let Some(arg) = parser.next().map_err(UsageError::new)? {
        let (opt, name, is_long) = match arg {
            Arg::Short(letter) => (Opt::by_letter(table, letter)?, format!("-{letter}"), false),
            Arg::Long(name) => {
                let opt = Opt::by_name(table, name)?;
                (opt, format!("--{}", opt.long), true)
            }
            Arg::Value(value) => {
                word(draft, &value)?;
                continue;
            }
        };
        let refused = |value: &OsStr, reason: &str| UsageError::about(&name, value, &format!(": {reason}"));
        let missing = |what: &str| UsageError::new(format!("{name} needs a value: {what}"));
        match opt.takes {
            Takes::Nothing(set) => {
                // A letter that directly follows a short option without an argument is the next
                // option.
                let value = if is_long { parser.optional_value() } else { None };
                if let Some(value) = value {
                    return Err(refused(&value, "this option takes no value"));
                }
                set(draft);
            }
            Takes::Text(what, set) | Takes::Name(what, _, set) => {
                let value = parser.value().map_err(|_| missing(what))?;
                let text = value.to_str().ok_or_else(|| refused(&value, "not UTF-8"))?;
                set(draft, text, host).map_err(|reason| refused(&value, &reason))?;
            }
            Takes::Path(what, set) => {
                let value = parser.value().map_err(|_| missing(what))?;
                if value.is_empty() {
                    return Err(refused(&value, "a path is missing"));
                }
                set(draft, value.into());
            }
        }
        if is_over(draft) {
            break;
        }
    }
    Ok(())
}

/// Returns the list of the options for `--help`.
pub fn help<D>(table: &[Opt<D>]) -> String {
    let width = table.iter().map(|opt| opt.synopsis().len()).max().unwrap_or(0);
    let mut text = String::new();
    for opt in table {
        let mut synopsis = opt.synopsis();
        for line in opt.help.lines() {
            text += &format!("  {synopsis:width$}  {line}\n");
            synopsis.clear();
        }
    }
    text
}

/// Prints a text to stdout. Unlike println!, it does not panic if stdout is closed.
pub fn print(program: &str, text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(program, &Error::io("write to stdout", &error).to_string(), ExitCode::FAILURE),
    }
}

/// Prints a message to stderr and returns `code`. It ignores a failed write.
pub fn complain(program: &str, message: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(io::stderr(), "{program}: {message}");
    code
}

/// Stores a value, or returns the reason why it was rejected.
pub fn set<T>(field: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    *field = Some(value?);
    Ok(())
}

impl<D> Opt<D> {
    fn by_letter(table: &'static [Opt<D>], letter: char) -> Result<&'static Opt<D>, UsageError> {
        let unknown = || UsageError::about("unknown option", format!("-{letter}").as_ref(), "");
        table.iter().find(|opt| opt.short == Some(letter)).ok_or_else(unknown)
    }

    /// Finds a long option by its name, or by an unambiguous beginning of its name.
    fn by_name(table: &'static [Opt<D>], name: &str) -> Result<&'static Opt<D>, UsageError> {
        if let Some(opt) = table.iter().find(|opt| opt.long == name) {
            return Ok(opt);
        }
        let fits = |opt: &&Opt<D>| !name.is_empty() && opt.long.starts_with(name);
        let mut candidates: Vec<&Opt<D>> = table.iter().filter(fits).collect();
        // If several options match, one with a letter wins. So `--c` is `--cpu`, as in the C
        // program.
        if candidates.len() > 1 {
            candidates.retain(|opt| opt.short.is_some());
        }
        let typed = format!("--{name}");
        match candidates.as_slice() {
            [opt] => Ok(opt),
            [] => Err(UsageError::about("unknown option", typed.as_ref(), "")),
            several => {
                let names: Vec<String> = several.iter().map(|opt| format!("--{}", opt.long)).collect();
                let reason = format!(": it may stand for {}", names.join(", "));
                Err(UsageError::about("ambiguous option", typed.as_ref(), &reason))
            }
        }
    }

    /// Returns the word for the argument; `None` for an option without one.
    pub fn word(&self) -> Option<&'static str> {
        match self.takes {
            Takes::Nothing(_) => None,
            Takes::Text(word, _) | Takes::Name(word, ..) | Takes::Path(word, _) => Some(word),
        }
    }

    fn synopsis(&self) -> String {
        let short = self.short.map_or("    ".to_string(), |letter| format!("-{letter}, "));
        let word = self.word().map_or(String::new(), |word| format!(" {word}"));
        format!("{short}--{}{word}", self.long)
    }
}

impl UsageError {
    pub fn new(message: impl fmt::Display) -> UsageError {
        UsageError(message.to_string().into())
    }

    /// Makes the error `BEFORE 'VALUE'AFTER`. The value may be any bytes.
    pub fn about(before: &str, value: &OsStr, after: &str) -> UsageError {
        let mut message = OsString::from(before);
        message.push(" '");
        message.push(value);
        message.push("'");
        message.push(after);
        UsageError(message)
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        Escaped(self.0.as_bytes()).fmt(f)
    }
}

impl std::error::Error for UsageError {}
