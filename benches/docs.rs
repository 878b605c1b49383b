//! Writes the table and the plot to files.

use crate::figures::{Line, Point};
use crate::plot;
use stalld::error::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

const PLOT: &str = "scan-cost.svg";

pub fn write(directory: &Path, machine: &str, lines: &[Line]) -> Result<()> {
    let points: Vec<Point> = lines.iter().flat_map(|line| line.points.clone()).collect();
    let mut text = format!(
        "# Benchmarks\n\n\
         The figures that stalld promises, and their measured values: `make bench WRITE=1` wrote this on {}.\n\n\
         {machine}\n\n{}\n",
        today(),
        crate::TABLE_HEAD
    );
    lines.iter().for_each(|line| text += &format!("{line}\n"));
    if !points.is_empty() {
        text += &format!("\n![The cost of a scan by the number of threads]({PLOT})\n");
        save(&directory.join(PLOT), &plot::svg(&points))?;
    }
    save(&directory.join("BENCHMARKS.md"), &text)
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(format!("write {}", path.display()))
}

/// Calls date(1), because std has no calendar.
fn today() -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    date.unwrap_or_else(|_| "an unknown date".to_string())
}
