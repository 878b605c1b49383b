//! The rows of the table, their lines, and statistics of samples.

use stalld::error::Result;
use stalld::task::Nanos;
use std::fmt;

/// The time to spend on a measurement.
pub struct Effort {
    pub quick: bool,
}

impl Effort {
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Measure = dyn Fn(&Effort) -> Result<Vec<Line>>;

/// A measurement, which gives one line of the table or several.
pub struct Row {
    pub name: String,
    pub measure: Box<Measure>,
}

impl Row {
    pub fn new(name: impl Into<String>, measure: impl Fn(&Effort) -> Result<Vec<Line>> + 'static) -> Row {
        Row { name: name.into(), measure: Box::new(measure) }
    }
}

/// A line of the table.
pub struct Line {
    pub measure: String,
    pub measured: String,
    pub bound: String,
    /// `None` if the figure has no bound.
    pub met: Option<bool>,
    /// The figures for the plot.
    pub points: Vec<Point>,
}

/// The time of a scan on a machine with this many threads.
#[derive(Clone)]
pub struct Point {
    pub series: String,
    pub threads: usize,
    pub micros: f64,
}

impl Line {
    pub fn new(
        measure: impl Into<String>,
        measured: impl Into<String>,
        bound: impl Into<String>,
        met: bool,
    ) -> Line {
        let (measure, measured, bound) = (measure.into(), measured.into(), bound.into());
        Line { measure, measured, bound, met: Some(met), points: Vec::new() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let verdict = match self.met {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        write!(f, "| {} | {} | {} | {verdict} |", self.measure, self.measured, self.bound)
    }
}

/// Returns the value that this share of the samples, from 0 to 1, does not exceed; NaN if there are
/// none.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

pub fn millis(length: Nanos) -> f64 {
    length.0 as f64 / 1e6
}

/// Formats 20000 as 20,000.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
