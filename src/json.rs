//! Writes JSON: objects whose members are strings, numbers, flags or objects.

use crate::fault::{self, Fault};
use crate::task::is_visible;
use std::fmt::{self, Write};

/// The value of a member of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Number(i64),
    /// With three decimals.
    Ratio(f64),
    Flag(bool),
    Text(&'a str),
    /// Bytes from outside, such as the name of a task. Invalid UTF-8 in them becomes U+FFFD.
    Bytes(&'a [u8]),
    /// A length of time or a moment in nanoseconds, shown as microseconds with three decimals.
    Micros(u64),
}

impl<'a> Value<'a> {
    /// Returns the bytes of a string; `None` for other values.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Shows a number or a flag. It shows nothing for a string, which would need escapes.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::Ratio(ratio) => write!(f, "{ratio:.3}"),
            Value::Flag(flag) => flag.fmt(f),
            Value::Micros(ns) => write!(f, "{}.{:03}", ns / 1000, ns % 1000),
            Value::Text(_) | Value::Bytes(_) => Ok(()),
        }
    }
}

/// An object that is being written. `open` writes its `{`, and dropping it writes its `}`.
pub struct Object<'a> {
    text: &'a mut String,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub fn open(text: &'a mut String) -> Object<'a> {
        text.push('{');
        Object { text, is_empty: true }
    }

    pub fn put(&mut self, key: &str, value: Value) {
        self.key(key);
        match value.as_bytes() {
            Some(bytes) => string(self.text, bytes),
            // Writing to a String does not fail.
            None => drop(write!(self.text, "{value}")),
        }
    }

    /// Adds a member that is an object, and returns that object.
    pub fn object(&mut self, key: &str) -> Object<'_> {
        self.key(key);
        Object::open(self.text)
    }

    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        string(self.text, key.as_bytes());
        self.text.push(':');
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.text.push('}');
    }
}

/// Writes a string. Escapes the characters that are special in JSON or to a terminal.
fn string(text: &mut String, bytes: &[u8]) {
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if fault::is(Fault::NamesUnescaped) => text.push(c),
                '"' | '\\' => text.extend(['\\', c]),
                c if is_visible(c) => text.push(c),
                // A character above U+FFFF takes two units. Writing to a String can't fail.
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(text, "\\u{unit:04x}")),
            }
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_its_members_in_order_and_closes_by_itself() {
        let mut text = String::new();
        {
            let mut object = Object::open(&mut text);
            object.put("tid", Value::Number(-7));
            object.put("again", Value::Flag(true));
            object.put("ts", Value::Micros(1_234_056));
            object.object("args").put("comm", Value::Bytes(b"victim"));
            object.object("none");
            object.put("message", Value::Text("done"));
        }
        assert_eq!(
            text,
            r#"{"tid":-7,"again":true,"ts":1234.056,"args":{"comm":"victim"},"none":{},"message":"done"}"#
        );
    }

    #[test]
    fn no_name_can_leave_its_string() {
        let quoted = |bytes: &[u8]| {
            let mut text = String::new();
            string(&mut text, bytes);
            text
        };
        assert_eq!(quoted(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted(b"a\nb\0\x1b[2J\x7f"), r#""a\u000ab\u0000\u001b[2J\u007f""#);
        assert_eq!(quoted("\u{9b}31m \u{202e}x\u{feff}".as_bytes()), r#""\u009b31m \u202ex\ufeff""#);
        assert_eq!(quoted("tag\u{e0041}.".as_bytes()), r#""tag\udb40\udc41.""#);
        assert_eq!(quoted("größe 🦀".as_bytes()), "\"größe 🦀\"");
        assert_eq!(quoted(b"cut \xc3\xff."), "\"cut \u{fffd}\u{fffd}.\"");
        assert_eq!(quoted(b""), "\"\"");
    }
}
