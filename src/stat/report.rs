//! The report of one interval, as text, JSON or CSV.

use super::options::{Form, Options};
use super::screen::Screen;
use super::table::Table;
use crate::error::Result;
use crate::json::{Object, Value};
use crate::task::Nanos;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Figures that are not about single tasks or CPUs.
pub(super) struct Extra {
    pub name: &'static str,
    pub text: String,
    pub rows: Vec<(String, u64)>,
}

pub(super) struct IntervalReport {
    pub length: Nanos,
    pub tables: Vec<Table>,
    /// Figures that are in none of the tables.
    pub more: Vec<Extra>,
    /// The number of events, or turns, that could not be counted.
    pub lost: u64,
}

impl IntervalReport {
    /// Writes the report. JSON and CSV are written piece by piece, because the text of ten thousand
    /// tasks takes megabytes.
    pub(super) fn show(&self, options: &Options, screen: &mut Screen) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        match options.form {
            Form::Text => screen.show(&self.text(options.detailed)),
            Form::Json => screen.write(|out| self.json(out, time)),
            Form::Csv => screen.write(|out| self.csv(out, &format!("{time:.3}"))),
        }
    }

    fn text(&self, detailed: bool) -> String {
        let mut text = String::new();
        for table in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            text += &table.text(detailed);
        }
        text.extend(self.more.iter().map(|extra| extra.text.as_str()));
        if text.is_empty() {
            text += "nothing happened\n";
        }
        if self.lost > 0 {
            text += &format!("{} events came that there was no room for, and are not counted\n", self.lost);
        }
        text
    }

    fn json(&self, out: &mut dyn Write, time: f64) -> io::Result<()> {
        let (time, length) = (Value::Ratio(time), self.length.0);
        write!(out, "{{\"time\":{time},\"interval_ns\":{length},\"not_counted\":{}", self.lost)?;
        for table in &self.tables {
            out.write_all(b",")?;
            table.json(out)?;
        }
        for extra in &self.more {
            let mut text = String::new();
            {
                let mut object = Object::open(&mut text);
                for (key, value) in &extra.rows {
                    object.put(key, Value::Number(*value as i64));
                }
            }
            write!(out, ",\"{}\":{text}", extra.name)?;
        }
        out.write_all(b"}\n")
    }

    fn csv(&self, out: &mut dyn Write, time: &str) -> io::Result<()> {
        self.tables.iter().try_for_each(|table| table.csv(out, time))?;
        for extra in &self.more {
            for (key, value) in &extra.rows {
                writeln!(out, "{time},{},,,,{key},{value}", extra.name)?;
            }
        }
        if self.lost > 0 {
            writeln!(out, "{time},all,,,,not_counted,{}", self.lost)?;
        }
        Ok(())
    }
}
