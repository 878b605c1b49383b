//! Parquet files, read by other programs.

use stalld::stat::parquet::{ColumnSchema, ColumnType, ColumnValue, ParquetWriter};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// More rows than a row group has.
const ROWS: i64 = 33_000;

const NAMES: [&str; 4] = ["kworker/1:2", "Ärger", "", "a b"];

/// The numbers and texts of a row: even times, extremes of both widths, texts one by one and in
/// runs.
fn row(n: i64) -> (i64, i32, i64, String) {
    let narrow = [0, i32::MAX, i32::MIN, -1, 1][n as usize % 5];
    let wide = [i64::MIN, 0, i64::MAX, -1][n as usize % 4];
    let (narrow, wide) = if n < 150 { (narrow, wide) } else { (7, n / 1000) };
    let name = if n < 1000 { NAMES[n as usize % 4].to_string() } else { format!("run {}", n / 2000) };
    (1_700_000_000_000_000_000 + n * 1_000_000, narrow, wide, name)
}

fn file() -> Vec<u8> {
    let column = |name: &str, kind| ColumnSchema { name: name.to_string(), kind };
    let columns = [
        column("time", ColumnType::Int64),
        column("narrow", ColumnType::Int32),
        column("wide", ColumnType::Int64),
        column("name", ColumnType::Text),
    ];
    let mut writer = ParquetWriter::create(Vec::new(), &columns).unwrap();
    for n in 0..ROWS {
        let (time, narrow, wide, name) = row(n);
        let row = [
            ColumnValue::Int64(time),
            ColumnValue::Int32(narrow),
            ColumnValue::Int64(wide),
            ColumnValue::Text(&name),
        ];
        writer.push(&row).unwrap();
    }
    writer.finish().unwrap()
}

fn written(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, file()).unwrap();
    path
}

/// pyarrow and polars have read tests/fixtures/written.parquet and found in it the rows that are
/// expected below.
#[test]
fn the_file_is_byte_by_byte_the_fixture() {
    let path = written("written.parquet");
    let known = include_bytes!("../fixtures/written.parquet");
    assert!(
        std::fs::read(&path).unwrap() == known,
        "{} differs: it may replace the fixture once pyarrow and polars have read it in the tests below",
        path.display()
    );
}

#[test]
fn pyarrow_reads_all_that_was_written() {
    let read = "import pyarrow.parquet as p; t = p.read_table(f); names = t.column_names
rows = zip(*[column.to_pylist() for column in t.columns])";
    assert_reads_all("pyarrow", read);
}

#[test]
fn polars_reads_all_that_was_written() {
    let read = "import polars as p; t = p.read_parquet(f); names = t.columns; rows = t.rows()";
    assert_reads_all("polars", read);
}

/// `read` sets `names` and `rows` in Python from the file `f`.
fn assert_reads_all(module: &str, read: &str) {
    let path = written(&format!("{module}.parquet"));
    let mut expected = String::from("time\tnarrow\twide\tname\n");
    for n in 0..ROWS {
        let (time, narrow, wide, name) = row(n);
        writeln!(expected, "{time}\t{narrow}\t{wide}\t{name}").unwrap();
    }
    let print = "print(*names, sep='\\t')\nfor row in rows: print(*row, sep='\\t')";
    let script = format!("import sys; f = sys.argv[1]\n{read}\n{print}");
    let run =
        Command::new("python3").args(["-c", &script]).arg(&path).env("PYTHONUTF8", "1").output().unwrap();
    assert!(run.status.success(), "{module}: {}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8_lossy(&run.stdout) == expected, "{module} reads something else");
}
