//! A strict parser of JSON, so that a test notices errors that a lenient one would accept.

use std::str::Chars;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    /// The members in the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Panics if the text is no JSON.
    pub fn parse(text: &str) -> Json {
        let mut reader = Reader { rest: text.chars(), text };
        let value = reader.value();
        reader.blanks();
        assert!(reader.rest.next().is_none(), "something follows the JSON in {text}");
        value
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the string of this key, or an empty one.
    pub fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Json::Text(text)) => text,
            _ => "",
        }
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            Some(Json::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn list(&self) -> &[Json] {
        match self {
            Json::List(list) => list,
            _ => &[],
        }
    }

    pub fn keys(&self) -> Vec<&str> {
        match self {
            Json::Object(members) => members.iter().map(|(name, _)| name.as_str()).collect(),
            _ => Vec::new(),
        }
    }
}

struct Reader<'a> {
    rest: Chars<'a>,
    text: &'a str,
}

impl Reader<'_> {
    fn fail(&self, what: &str) -> ! {
        panic!("{what} before '{}' in {}", self.rest.as_str(), self.text)
    }

    fn blanks(&mut self) {
        let rest = self.rest.as_str();
        self.rest = rest.trim_start_matches([' ', '\n', '\r', '\t']).chars();
    }

    fn skip(&mut self, word: &str) -> bool {
        let rest = self.rest.as_str().strip_prefix(word).map(str::chars);
        let found = rest.is_some();
        self.rest = rest.unwrap_or(self.rest.clone());
        found
    }

    fn value(&mut self) -> Json {
        self.blanks();
        match self.rest.clone().next() {
            Some('"') => Json::Text(self.string()),
            Some('{') => Json::Object(self.members("{", "}", |it| {
                it.blanks();
                let name = it.string();
                it.blanks();
                if !it.skip(":") {
                    it.fail("no colon");
                }
                (name, it.value())
            })),
            Some('[') => Json::List(self.members("[", "]", Reader::value)),
            _ if self.skip("true") => Json::Flag(true),
            _ if self.skip("false") => Json::Flag(false),
            _ if self.skip("null") => Json::Null,
            _ => self.number(),
        }
    }

    fn members<T>(&mut self, open: &str, close: &str, mut member: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut all = Vec::new();
        self.skip(open);
        self.blanks();
        if self.skip(close) {
            return all;
        }
        loop {
            all.push(member(self));
            self.blanks();
            if self.skip(close) {
                return all;
            }
            if !self.skip(",") {
                self.fail("no comma");
            }
        }
    }

    fn number(&mut self) -> Json {
        let rest = self.rest.as_str();
        let end = rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        self.rest = after.chars();
        let plain = number.trim_start_matches('-');
        if plain.len() > 1 && plain.starts_with('0') && !plain.starts_with("0.") {
            self.fail("a number that begins with 0");
        }
        number.parse().map_or_else(|_| self.fail("no value"), Json::Number)
    }

    fn string(&mut self) -> String {
        if !self.skip("\"") {
            self.fail("no string");
        }
        let mut text = String::new();
        loop {
            match self.rest.next() {
                Some('"') => return text,
                Some('\\') => text.push(self.escape()),
                Some(c) if c >= ' ' => text.push(c),
                _ => self.fail("a string that a control character ends"),
            }
        }
    }

    fn escape(&mut self) -> char {
        match self.rest.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('u') => {
                let digits: String = self.rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                code.unwrap_or_else(|| self.fail("an unknown character"))
            }
            _ => self.fail("an unknown escape"),
        }
    }
}
