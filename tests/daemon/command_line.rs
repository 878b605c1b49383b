//! The command lines: output, exit codes, manual pages and completions.

use crate::assert_words;
use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Output, Stdio};

fn stalld(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stalld")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    printed(env!("CARGO_BIN_EXE_stalld"), args)
}

fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_version_is_printed_alone() {
    for option in ["-V", "--version"] {
        assert_eq!(stdout(&[option]), format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn the_help_fits_a_terminal() {
    let help = stdout(&["-h"]);
    assert_eq!(help, stdout(&["--help"]));
    assert!(help.starts_with("Usage: stalld "));
    for line in help.lines() {
        assert!(line.len() <= 100 && line == line.trim_end(), "{line}");
    }
}

#[test]
fn a_usage_error_is_one_line_and_a_hint_and_exit_code_22() {
    for (args, words) in [
        (&["-t", "0"][..], &["-t '0'", "1 to 3600", "10ms to 3600s"][..]),
        (&["--bogus"], &["unknown option '--bogus'"]),
        (&["-b", "bpf"], &["-b 'bpf'", "auto, task_iter, queue_track, sched_debug"]),
        (&["-d", "5", "-t", "3"], &["-d 5 (boost duration)", "longer than -t 3 (threshold)"]),
        (&["-t", "500ms", "-d", "1s"], &["-d 1s (boost duration)", "longer than -t 500ms (threshold)"]),
        (&["-p", "1500ms", "-d", "1"], &["-p 1500ms (boost period)", "longer than -d 1 (boost duration)"]),
        (
            &["-p", "4000000000", "-t", "60"],
            &["-p 4000000000 (boost period)", "longer than -d 3s (boost duration, by default)"],
        ),
        (&["-c", "999999"], &["-c '999999'", "CPU 999999 does not exist", "the last one is "]),
        (&["-v", "now"], &["unexpected argument 'now'"]),
        (&["-t"], &["-t needs a value", "TIME"]),
        (&["-i", "a\nb("], &["-i 'a\\x0ab('", "group", "')'"]),
    ] {
        let output = stalld(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(22), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let (first, second) = stderr.split_once('\n').unwrap();
        assert_eq!(second, "Try 'stalld --help'.\n");
        assert!(first.starts_with("stalld: "), "{first}");
        assert_words(first, words);
    }
}

#[test]
fn help_that_can_not_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stalld")).arg("-h").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_words(&stderr, &["stalld: ", "stdout", "No space left on device"]);
}

/// An option: its letter, its name, its value.
type Listed = (Option<String>, String, Option<String>);

/// The same, with whether it has a value.
type InFish = (Option<String>, String, bool);

/// Each program with long options: its name, help, manual page, and completions for zsh and fish.
fn programs() -> Vec<(&'static str, String, &'static str, &'static str, &'static str)> {
    vec![
        (
            "stalld",
            stdout(&["-h"]),
            include_str!("../../man/stalld.8"),
            include_str!("../../packaging/completions/_stalld"),
            include_str!("../../packaging/completions/stalld.fish"),
        ),
        #[cfg(feature = "bpf")]
        (
            "stallstat",
            printed(env!("CARGO_BIN_EXE_stallstat"), &["-h"]),
            include_str!("../../man/stallstat.8"),
            include_str!("../../packaging/completions/_stallstat"),
            include_str!("../../packaging/completions/stallstat.fish"),
        ),
    ]
}

#[test]
fn the_help_and_the_man_page_list_the_same_options() {
    for (program, help, page, ..) in programs() {
        let in_help: BTreeSet<Listed> = help.lines().filter_map(listed_in_help).collect();
        let in_page: BTreeSet<Listed> = page.lines().filter_map(listed_in_page).collect();
        assert!(in_help.len() > 15, "{program}");
        assert_eq!(in_help, in_page, "{program}");
    }
}

#[test]
fn the_completions_offer_the_options_of_the_help() {
    let mut helps: Vec<(&str, String)> =
        programs().into_iter().map(|(program, help, ..)| (program, help)).collect();
    helps.push(("throttlectl", throttlectl(&["-h"])));
    for (program, help) in helps {
        let listed = help.lines().filter_map(listed_in_help);
        let spelt = listed.flat_map(|(short, long, _)| {
            short.map(|letter| format!("-{letter}")).into_iter().chain([format!("--{long}")])
        });
        let spelt: BTreeSet<String> = spelt.collect();
        let offered = bash(program, "-");
        assert_eq!(spelt, offered.lines().map(str::to_string).collect(), "{program}");
    }
    for (program, help, _, zsh, fish) in programs() {
        let in_zsh: BTreeSet<String> = zsh.lines().flat_map(listed_in_zsh).collect();
        let in_help: BTreeSet<Listed> = help.lines().filter_map(listed_in_help).collect();
        let in_fish: BTreeSet<InFish> =
            fish.lines().filter_map(|line| listed_in_fish(program, line)).collect();
        let flags = in_help.iter().map(|(short, long, value)| (short.clone(), long.clone(), value.is_some()));
        assert_eq!(in_fish, flags.collect(), "{program}");
        let spelt = in_help.into_iter().flat_map(|(short, long, value)| {
            let long = format!("--{long}{}", if value.is_some() { "=" } else { "" });
            short.map(|letter| format!("-{letter}")).into_iter().chain([long])
        });
        assert_eq!(in_zsh, spelt.collect(), "{program}");
    }
}

#[test]
fn the_completions_offer_values_and_commands() {
    assert_eq!(bash("throttlectl", "o"), "off\non\n");
    for name in bash("stalld -b", "").lines() {
        assert!(name == "auto" || stdout(&["-h"]).contains(name), "{name}");
    }
    for (option, value) in [("-b", "name"), ("--log-format", "format")] {
        let in_zsh =
            include_str!("../../packaging/completions/_stalld").split(&format!(":{value}:(")).nth(1).unwrap();
        let values: BTreeSet<&str> = in_zsh.split(')').next().unwrap().split(' ').collect();
        assert_eq!(values, bash(&format!("stalld {option}"), "").lines().collect(), "{option}");
    }
    assert_eq!(bash("stalld --metrics", "Cargo.t"), "Cargo.toml\n");
    assert_eq!(bash("stalld --backend =", "sched"), "sched_debug\n");
    assert_eq!(bash("stalld -t", ""), "");
    assert_eq!(bash("stallstat", ""), "hogs\njitter\nrecord\ntrace\n");
    assert_eq!(bash("stallstat -d", "j"), "jitter\n");
    assert_eq!(bash("stallstat -d hogs", ""), "");
    assert_eq!(bash("stallstat --by =", "con"), "container\n");
    assert_eq!(bash("stallstat -g", "slice,s"), "slice,slice\nslice,sleep\nslice,schedstat\n");
    for (_, help, ..) in programs().into_iter().filter(|(program, ..)| *program == "stallstat") {
        for name in bash("stallstat -g", "").lines().chain(bash("stallstat --by", "").lines()) {
            assert!(help.contains(name), "{name}");
        }
    }
}

#[test]
fn zsh_offers_an_option_again_only_if_it_adds_up() {
    let zsh = include_str!("../../packaging/completions/_stalld");
    for offered in [
        "'*'{-i,",
        "'*'{-I,",
        "'(-t --starving_threshold)'{-t,",
        "'(-O --power_mode -M --adaptive_mode -A --aggressive_mode)'{-M,",
        "'(- *)'{-h,",
    ] {
        assert!(zsh.contains(offered), "{offered}");
    }
}

#[test]
fn throttlectl_and_its_man_page_list_the_same_commands() {
    let help = throttlectl(&["--help"]);
    let words = help.lines().next().unwrap().strip_prefix("Usage: throttlectl ").unwrap();
    let commands: BTreeSet<&str> = words.split('|').collect();
    let listed = |line: &'static str| line.strip_prefix(".It Cm ");
    assert_eq!(commands, include_str!("../../man/throttlectl.8").lines().filter_map(listed).collect());
    for command in &commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    let in_zsh = include_str!("../../packaging/completions/_stalld").split("1:command:(").nth(1).unwrap();
    assert_eq!(commands, in_zsh.split(')').next().unwrap().split(' ').collect());
    let in_fish = include_str!("../../packaging/completions/stalld.fish");
    let in_fish = in_fish.split("complete -c throttlectl -n __fish_is_first_arg -a '").nth(1).unwrap();
    assert_eq!(commands, in_fish.split('\'').next().unwrap().split(' ').collect());
    for args in [&["frob"][..], &[], &["on", "off"]] {
        let output = Command::new(THROTTLECTL).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(22), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{args:?}");
    }
}

const THROTTLECTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/throttlectl");

fn throttlectl(args: &[&str]) -> String {
    printed(THROTTLECTL, args)
}

/// Returns the words that bash offers for `current`, each on a line.
fn bash(before: &str, current: &str) -> String {
    let script = "for it in packaging/completions/*.bash; do source $it; done; COMP_WORDS=($1 \"$2\"); \
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _${COMP_WORDS[0]}; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash", before, current])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_start_matches('\n').to_string()
}

/// Parses `'(-t --threshold)'{-t,--threshold=}'[text]...`, `'--check[text]'`, or
/// `'*--cgroup=[text]...`.
fn listed_in_zsh(line: &str) -> Vec<String> {
    let line = line.trim_start();
    let spelt = match line.split_once('{') {
        Some((_, rest)) if line.starts_with('\'') => rest.split_once('}').map(|(spelt, _)| spelt),
        _ => line
            .trim_start_matches(['\'', '*'])
            .split_once('[')
            .map(|it| it.0)
            .filter(|spelt| spelt.starts_with("--")),
    };
    spelt.into_iter().flat_map(|spelt| spelt.split(',')).map(str::to_string).collect()
}

/// Parses `complete -c stalld -s t -l starving_threshold -x -d 'text'`.
fn listed_in_fish(program: &str, line: &str) -> Option<InFish> {
    let flags = line.strip_prefix(&format!("complete -c {program} "))?.split(" -d ").next()?;
    let words: Vec<&str> = flags.split(' ').collect();
    let after = |flag| words.iter().skip_while(|word| **word != flag).nth(1).map(|word| (*word).to_string());
    Some((after("-s"), after("-l")?, words.iter().any(|word| ["-x", "-xa", "-rF"].contains(word))))
}

/// Parses `  -t, --starving_threshold TIME   text`.
fn listed_in_help(line: &str) -> Option<Listed> {
    if !line.starts_with("  -") && !line.starts_with("      --") {
        return None;
    }
    let synopsis = line.trim_start().split("  ").next()?;
    let (short, rest) = match synopsis.split_once(", ") {
        Some((short, rest)) => (short.strip_prefix('-').map(String::from), rest),
        None => (None, synopsis),
    };
    let mut words = rest.strip_prefix("--")?.split(' ');
    Some((short, words.next()?.to_string(), words.next().map(str::to_lowercase)))
}

/// Parses `.It Fl t Ar time , Fl -starving_threshold Ns = Ns Ar time`.
fn listed_in_page(line: &str) -> Option<Listed> {
    let flags: Vec<Vec<&str>> =
        line.strip_prefix(".It Fl ")?.split(" , Fl ").map(|flag| flag.split(' ').collect()).collect();
    let long = flags.last()?;
    let value = long.iter().skip_while(|word| **word != "Ar").nth(1).map(|value| (*value).to_string());
    let short = flags.first().filter(|_| flags.len() > 1).map(|flag| flag[0].to_string());
    if flags.len() > 1 {
        assert_eq!(flags[0].get(2).map(|value| (*value).to_string()), value, "{line}");
    }
    Some((short, long[0].strip_prefix('-')?.to_string(), value))
}
