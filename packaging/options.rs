//! Writes the options of stalld and stallstat into their completions and manual pages: `make
//! regen`.
//!
//! The source is the table that the parser and `--help` use. In a completion, the options are
//! between two marks. In a manual page, only the lines with the names of options are written, so
//! that the text below them can be longer than in `--help`.

use stalld::command_line::{Opt, Takes};
use stalld::{daemon, stat};
use std::process::ExitCode;
use std::{fs, mem};

const BEGIN: &str = "# Options, written by `make regen`; do not edit.";
const END: &str = "# End of the options.";

/// Arguments of options that add up when they are given more than once.
const ADDING_UP: [&str; 2] = ["REGEXES", "PIDS"];

fn main() -> ExitCode {
    let stalld = write("stalld", daemon::options::TABLE);
    match stalld.and_then(|()| write("stallstat", stat::options::TABLE)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("stalld: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn write<D>(program: &str, table: &[Opt<D>]) -> Result<(), String> {
    let completion = |file: &str, lines: Vec<String>| {
        rewrite(&format!("packaging/completions/{file}"), |text| between_marks(text, &lines))
    };
    completion(&format!("{program}.bash"), bash(table))?;
    completion(&format!("_{program}"), table.iter().map(|opt| zsh(opt, table)).collect())?;
    completion(&format!("{program}.fish"), table.iter().map(|opt| fish(program, opt)).collect())?;
    rewrite(&format!("man/{program}.8"), |page| with_names(page, table))
}

/// Replaces the content of a file, given from the root of the tree.
fn rewrite(file: &str, change: impl Fn(&str) -> Result<String, String>) -> Result<(), String> {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {file}: {e}"))?;
    let changed = change(&text).map_err(|reason| format!("{file}: {reason}"))?;
    if changed == text {
        return Ok(());
    }
    fs::write(&path, changed).map_err(|e| format!("cannot write {file}: {e}"))
}

/// Replaces the text between the marks by `lines`, indented as the first mark is.
fn between_marks(text: &str, lines: &[String]) -> Result<String, String> {
    let split = || {
        let (before, rest) = text.split_once(BEGIN)?;
        Some((before, rest.split_once(END)?.1))
    };
    let (before, after) = split().ok_or_else(|| format!("put back the lines '{BEGIN}' and '{END}'"))?;
    let indent = before.rsplit('\n').next().unwrap_or_default();
    let lines: String = lines.iter().map(|line| format!("{indent}{line}\n")).collect();
    Ok(format!("{before}{BEGIN}\n{lines}{indent}{END}{after}"))
}

/// Returns shell code that sets `options` to all options, `takes` to the kind of argument that
/// `$option` takes (text, name, names, path, or nothing), and `words` to the names.
fn bash<D>(table: &[Opt<D>]) -> Vec<String> {
    let mut lines = vec!["local takes=\"\" words=\"\" options=\"".to_string()];
    lines.extend(table.iter().map(|opt| format!("    {}", spelt(opt).join(" "))));
    lines.extend(["\"".to_string(), "case $option in".to_string()]);
    for opt in table {
        let takes = match &opt.takes {
            Takes::Nothing(_) => continue,
            Takes::Text(..) => "text".to_string(),
            Takes::Path(..) => "path".to_string(),
            Takes::Name(word, names, _) => {
                let kind = if is_list(word) { "names" } else { "name" };
                format!("{kind} words=\"{}\"", names().join(" "))
            }
        };
        lines.push(format!("{}) takes={takes} ;;", spelt(opt).join(" | ")));
    }
    lines.push("esac".to_string());
    lines
}

/// Returns the option as an argument of zsh's `_arguments`.
fn zsh<D>(opt: &Opt<D>, table: &[Opt<D>]) -> String {
    let message = opt.word().map(str::to_lowercase).unwrap_or_default();
    let action = match &opt.takes {
        Takes::Nothing(_) => String::new(),
        Takes::Path(..) => format!(":{message}:_files"),
        Takes::Name(word, names, _) if is_list(word) => {
            format!(":{message}:_values -s , {message} {}", names().join(" "))
        }
        Takes::Name(_, names, _) => format!(":{message}:({})", names().join(" ")),
        Takes::Text("PID" | "PIDS", _) => format!(":{message}:_pids"),
        Takes::Text(..) => format!(":{message}: "),
    };
    let escaped = summary(opt).replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]");
    let text = format!("[{}]{action}", escaped.replace('\'', "'\\''"));
    let equals = if opt.word().is_some() { "=" } else { "" };
    let long = format!("--{}{equals}", opt.long);
    let adds_up = opt.word().is_some_and(|word| ADDING_UP.contains(&word));
    match opt.short {
        None if adds_up => format!("'*{long}{text}'"),
        None => format!("'{long}{text}'"),
        Some(letter) => {
            let excluded = if adds_up { "*".to_string() } else { format!("({})", excluded(opt, table)) };
            format!("'{excluded}'{{-{letter},{long}}}'{text}'")
        }
    }
}

/// Returns the options that can't be combined with this one, including itself.
fn excluded<D>(opt: &Opt<D>, table: &[Opt<D>]) -> String {
    let is_mode = |opt: &Opt<D>| opt.long.ends_with("_mode");
    match opt.long {
        "help" | "version" => "- *".to_string(),
        _ if is_mode(opt) => {
            table.iter().filter(|opt| is_mode(opt)).flat_map(spelt).collect::<Vec<_>>().join(" ")
        }
        _ => spelt(opt).join(" "),
    }
}

/// Returns a command of fish that adds the option.
fn fish<D>(program: &str, opt: &Opt<D>) -> String {
    let short = opt.short.map(|letter| format!(" -s {letter}")).unwrap_or_default();
    let argument = match &opt.takes {
        Takes::Nothing(_) => String::new(),
        Takes::Path(..) => " -rF".to_string(),
        Takes::Name(word, names, _) if is_list(word) => {
            format!(" -xa '(__fish_append , {})'", names().join(" "))
        }
        Takes::Name(_, names, _) => format!(" -xa '{}'", names().join(" ")),
        Takes::Text("PID" | "PIDS", _) => " -xa '(__fish_complete_pids)'".to_string(),
        Takes::Text(..) => " -x".to_string(),
    };
    let text = summary(opt).replace('\\', "\\\\").replace('\'', "\\'");
    format!("complete -c {program}{short} -l {}{argument} -d '{text}'", opt.long)
}

/// Writes the names of each option into the manual page, and checks that each option is described
/// once. The page decides which list an option is in. Each list has the order of `--help`.
fn with_names<D>(page: &str, table: &[Opt<D>]) -> Result<String, String> {
    let mut text = String::new();
    let mut described = Vec::new();
    // The last option of each open list.
    let mut lists = Vec::new();
    for line in page.lines() {
        match (line.get(..3), line.strip_prefix(".It Fl ")) {
            (Some(".Bl"), _) => lists.push(None),
            (Some(".El"), _) => {
                lists.pop();
            }
            (_, Some(names)) => {
                let name = names.rsplit("Fl ").next().and_then(|last| last.split(' ').next());
                let name = name.unwrap_or_default().trim_start_matches('-');
                let position = table.iter().position(|opt| opt.long == name);
                let opt = position.and_then(|position| table.get(position));
                let opt = opt.ok_or_else(|| format!("there is no option --{name}"))?;
                let list = lists.last_mut().ok_or_else(|| format!("--{name} is in no list"))?;
                if mem::replace(list, position) > position {
                    return Err(format!("move --{name} up in its list, to have the order of --help"));
                }
                described.push(name);
                text += &format!("{}\n", names_in_page(opt));
                continue;
            }
            _ => {}
        }
        text += &format!("{line}\n");
    }
    for Opt { long, .. } in table {
        match described.iter().filter(|name| *name == long).count() {
            1 => {}
            0 => return Err(format!("describe --{long} in a list, below a line '.It Fl -{long}'")),
            _ => return Err(format!("describe --{long} once only")),
        }
    }
    Ok(text)
}

/// Returns a line such as `.It Fl c Ar cpus , Fl -cpu Ns = Ns Ar cpus`.
fn names_in_page<D>(opt: &Opt<D>) -> String {
    let word = opt.word().map(str::to_lowercase);
    let argument = |before: &str| word.as_ref().map(|word| format!("{before} Ar {word}")).unwrap_or_default();
    let short = opt.short.map(|letter| format!("{letter}{} , Fl ", argument(""))).unwrap_or_default();
    format!(".It Fl {short}-{}{}", opt.long, argument(" Ns = Ns"))
}

fn spelt<D>(opt: &Opt<D>) -> Vec<String> {
    opt.short.map(|letter| format!("-{letter}")).into_iter().chain([format!("--{}", opt.long)]).collect()
}

/// Returns the first line of the help, because a list of completions has no room for more.
fn summary<D>(opt: &Opt<D>) -> &'static str {
    opt.help.lines().next().unwrap_or_default().trim_end_matches([';', ','])
}

fn is_list(word: &str) -> bool {
    word.ends_with('S')
}
