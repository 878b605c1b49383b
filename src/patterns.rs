//! Lists of regular expressions that match names of tasks or of control groups.

use crate::task::Escaped;
use regex_lite::{Regex, RegexBuilder};

/// A list of regular expressions. A name is on the list if an expression matches any part of it.
/// Upper and lower case differ.
///
/// A name may be any bytes. If it is not UTF-8, the expressions are matched with its escaped form,
/// which is also its form in the log.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    regexes: Vec<Regex>,
    sources: Vec<String>,
}

impl Patterns {
    /// Adds a list of expressions such as `^ktimers/,rcu`. A comma always separates two
    /// expressions, so no expression can contain one. Blanks around an expression are dropped. If
    /// an expression is invalid, returns the reason and adds nothing.
    pub fn add(&mut self, list: &str) -> Result<(), String> {
        let regexes = list.split(',').map(|item| compile(item.trim())).collect::<Result<Vec<_>, _>>()?;
        self.regexes.extend(regexes);
        self.sources.push(list.to_string());
        Ok(())
    }

    /// Returns the added lists, as the user wrote them.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    pub fn is_empty(&self) -> bool {
        self.regexes.is_empty()
    }

    pub fn matches(&self, name: &[u8]) -> bool {
        let any = |name: &str| self.regexes.iter().any(|regex| regex.is_match(name));
        match std::str::from_utf8(name) {
            Ok(name) => any(name),
            Err(_) => !self.is_empty() && any(&Escaped(name).to_string()),
        }
    }
}

fn compile(item: &str) -> Result<Regex, String> {
    if item.is_empty() {
        return Err("an expression is missing".to_string());
    }
    // A task may put a newline into its name, and regcomp(3) lets `.` match it.
    let regex = RegexBuilder::new(item).dot_matches_new_line(true).build();
    regex.map_err(|reason| format!("cannot compile '{item}': {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &str) -> Patterns {
        let mut patterns = Patterns::default();
        patterns.add(list).unwrap();
        patterns
    }

    #[test]
    fn an_expression_matches_anywhere_in_the_name_unless_anchored() {
        for (list, name, expected) in [
            ("rcu", "rcuc/1", true),
            ("rcu", "my_rcu", true),
            ("^rcu", "my_rcu", false),
            ("rcu$", "my_rcu", true),
            ("RCU", "rcuc/1", false),
            ("a,rcu", "rcuc/1", true),
            (" a , rcu ", "rcuc/1", true),
            ("kworker/[0-9]+:", "kworker/12:3", true),
            ("^(a|b)$", "ab", false),
            ("a.c", "a\nc", true),
            ("größe", "größe", true),
            ("^$", "", true),
        ] {
            assert_eq!(patterns(list).matches(name.as_bytes()), expected, "{list:?} {name:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_matches_by_its_escaped_form() {
        let name = b"w\xc3\\1";
        assert!(patterns(r"^w\\xc3\\\\1$").matches(name));
        assert!(patterns("^w").matches(name));
        assert!(!patterns("^x").matches(name));
        assert!(!Patterns::default().matches(name));
    }

    #[test]
    fn lists_add_up_and_are_kept_as_written() {
        let mut patterns = patterns("a, b");
        patterns.add("c").unwrap();
        assert!([b"a", b"b", b"c"].iter().all(|name| patterns.matches(*name)));
        assert_eq!(patterns.sources(), ["a, b", "c"]);
    }

    #[test]
    fn a_refused_list_leaves_nothing_behind() {
        let mut patterns = Patterns::default();
        let missing = "an expression is missing";
        for (list, reason) in [
            ("", missing),
            (" ", missing),
            ("a,", missing),
            (",a", missing),
            ("a,,b", missing),
            ("a,(b", "cannot compile '(b': found open group without closing ')'"),
            (r"(a)\1", r"cannot compile '(a)\1': backreferences are not supported"),
            // The comma ends the expression.
            ("a{1,2}", "cannot compile 'a{1': found incomplete and unclosed counted repetition operator"),
            ("a{9999}{9999}", "cannot compile 'a{9999}{9999}': compiled regex exceeded size limit"),
        ] {
            assert_eq!(patterns.add(list).unwrap_err(), reason, "{list:?}");
            assert!(patterns.is_empty() && patterns.sources().is_empty());
        }
    }

    /// The man page names these differences from POSIX; regex-lite must not change them unnoticed.
    #[test]
    fn the_syntax_is_that_of_the_man_page() {
        for refused in ["{", "a{x}", "*a", "+", r"(a)\1", "[[.a.]]", "[[=a=]]", "[[]", "[a&&b]", ")", r"\y"] {
            assert!(compile(refused).is_err(), "{refused}");
        }
        for (regex, name) in [
            (r"\{", "{"),
            (r"[\[]", "["),
            (r"[\d]", "7"),
            ("[[:alpha:]]", "a"),
            ("[]a]", "]"),
            (r"^a\x2cb$", "a,b"),
            (r"\<b", "a b"),
            (r"a\>", "a b"),
            (r"\bb", "a b"),
            (r"\`", "`"),
            ("a|", "x"),
            ("(?i)RCU", "rcu"),
        ] {
            assert!(compile(regex).unwrap().is_match(name), "{regex}");
        }
        assert!(!compile(r"^[\.]").unwrap().is_match(r"\"));
    }
}
