//! Apache Parquet files, as far as tables of numbers and names need them.
//!
//! Columns are flat and have a value in each row. Numbers are written as the differences from one
//! row to the next, in as few bits as these take; texts as a dictionary and places in it. That is
//! small without a compressor, and what reads Parquet reads it. Rows are gathered and written as a
//! row group when they are many, so that memory stays bounded.

use super::thrift::Thrift;
use std::collections::HashMap;
use std::io::{self, Write};

/// How many rows a row group has at most, ...
const ROWS: usize = 1 << 15;
/// ... and how many bytes of text, each counted once.
const TEXT: usize = 1 << 20;

/// The numbers of a block of differences, which is in four parts with a width of bits each. The
/// format wants multiples of 128 and 32.
const BLOCK: usize = 128;
const PART: usize = 32;

/// The format's own numbers.
const DATA_PAGE: i32 = 0;
const DICTIONARY_PAGE: i32 = 2;
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const DELTA_BINARY_PACKED: i32 = 5;
const RLE_DICTIONARY: i32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int32,
    Int64,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// A value, of the kind that its column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Int32(i32),
    Int64(i64),
    Text(&'a str),
}

/// Writes a file. Without `finish` nobody can read it: what is where stands at its end.
pub struct Writer<W: Write> {
    out: W,
    /// How many bytes have been written.
    at: i64,
    columns: Vec<Column>,
    gathered: Vec<Gathered>,
    /// Rows gathered.
    rows: usize,
    text: usize,
    groups: Vec<Group>,
}

/// The values of a column that have not been written yet.
#[derive(Default)]
struct Gathered {
    /// Those of texts are places in the dictionary.
    numbers: Vec<i64>,
    dictionary: HashMap<Box<str>, i64>,
    /// The dictionary as it is written: lengths, and the texts.
    texts: Vec<u8>,
}

/// A row group that has been written.
struct Group {
    rows: i64,
    chunks: Vec<Chunk>,
}

struct Chunk {
    begin: i64,
    /// Behind the dictionary.
    data: i64,
    end: i64,
}

impl Kind {
    fn number(self) -> i32 {
        match self {
            Kind::Int32 => 1,
            Kind::Int64 => 2,
            Kind::Text => 6,
        }
    }

    fn encoding(self) -> i32 {
        if self == Kind::Text { RLE_DICTIONARY } else { DELTA_BINARY_PACKED }
    }
}

impl<W: Write> Writer<W> {
    pub fn create(out: W, columns: &[Column]) -> io::Result<Writer<W>> {
        let gathered = columns.iter().map(|_| Gathered::default()).collect();
        let columns = columns.to_vec();
        let mut writer = Writer { out, at: 0, columns, gathered, rows: 0, text: 0, groups: Vec::new() };
        writer.write(b"PAR1")?;
        Ok(writer)
    }

    /// Adds a row: a value for each column.
    pub fn push(&mut self, row: &[Value]) -> io::Result<()> {
        let kinds = row.iter().map(Value::kind);
        if !kinds.eq(self.columns.iter().map(|column| column.kind)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the row has other columns than the table",
            ));
        }
        for (gathered, value) in self.gathered.iter_mut().zip(row) {
            let number = match *value {
                Value::Int32(number) => i64::from(number),
                Value::Int64(number) => number,
                Value::Text(text) => gathered.place(text, &mut self.text),
            };
            gathered.numbers.push(number);
        }
        self.rows += 1;
        if self.rows >= ROWS || self.text >= TEXT { self.write_group() } else { Ok(()) }
    }

    /// Writes what has been gathered, and the end of the file.
    pub fn finish(mut self) -> io::Result<W> {
        if self.rows > 0 {
            self.write_group()?;
        }
        let mut footer = self.footer();
        let length = size(footer.len())?;
        footer.extend(length.to_le_bytes());
        footer.extend(b"PAR1");
        self.write(&footer)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as i64;
        self.out.write_all(bytes)
    }

    fn write_group(&mut self) -> io::Result<()> {
        let mut chunks = Vec::new();
        for index in 0..self.columns.len() {
            let (kind, column) = (self.columns[index].kind, std::mem::take(&mut self.gathered[index]));
            let begin = self.at;
            if kind == Kind::Text {
                let count = size(column.dictionary.len())?;
                self.write(&page_header(DICTIONARY_PAGE, column.texts.len(), count, PLAIN)?)?;
                self.write(&column.texts)?;
            }
            let data = self.at;
            let page = match kind {
                Kind::Text => places(&column.numbers, column.dictionary.len()),
                Kind::Int32 => differences(&column.numbers, |difference| i64::from(difference as i32)),
                Kind::Int64 => differences(&column.numbers, |difference| difference),
            };
            let count = size(column.numbers.len())?;
            self.write(&page_header(DATA_PAGE, page.len(), count, kind.encoding())?)?;
            self.write(&page)?;
            chunks.push(Chunk { begin, data, end: self.at });
        }
        self.groups.push(Group { rows: self.rows as i64, chunks });
        (self.rows, self.text) = (0, 0);
        Ok(())
    }

    /// FileMetaData
    fn footer(&self) -> Vec<u8> {
        let mut footer = Thrift::default();
        footer.i32(1, 2);
        footer.structs(2, self.columns.len() + 1);
        footer.element();
        footer.text(4, "schema");
        footer.i32(5, self.columns.len() as i32);
        footer.end();
        for column in &self.columns {
            footer.element();
            footer.i32(1, column.kind.number());
            // There is a value in each row.
            footer.i32(3, 0);
            footer.text(4, &column.name);
            if column.kind == Kind::Text {
                // UTF-8, in the old way and in the new one.
                footer.i32(6, 0);
                footer.begin(10);
                footer.begin(1);
                footer.end();
                footer.end();
            }
            footer.end();
        }
        footer.i64(3, self.groups.iter().map(|group| group.rows).sum());
        footer.structs(4, self.groups.len());
        for group in &self.groups {
            self.write_metadata(&mut footer, group);
        }
        footer.text(6, "stallstat");
        footer.end();
        footer.bytes()
    }

    /// RowGroup
    fn write_metadata(&self, footer: &mut Thrift, group: &Group) {
        footer.element();
        footer.structs(1, group.chunks.len());
        for (column, chunk) in self.columns.iter().zip(&group.chunks) {
            footer.element();
            footer.i64(2, chunk.begin);
            footer.begin(3);
            footer.i32(1, column.kind.number());
            match column.kind {
                Kind::Text => footer.i32s(2, &[PLAIN, RLE_DICTIONARY]),
                _ => footer.i32s(2, &[DELTA_BINARY_PACKED]),
            }
            footer.texts(3, &[&column.name]);
            // Not compressed.
            footer.i32(4, 0);
            footer.i64(5, group.rows);
            footer.i64(6, chunk.end - chunk.begin);
            footer.i64(7, chunk.end - chunk.begin);
            footer.i64(9, chunk.data);
            if column.kind == Kind::Text {
                footer.i64(11, chunk.begin);
            }
            footer.end();
            footer.end();
        }
        let bytes = group.chunks.iter().map(|chunk| chunk.end - chunk.begin).sum();
        footer.i64(2, bytes);
        footer.i64(3, group.rows);
        footer.end();
    }
}

impl Value<'_> {
    fn kind(&self) -> Kind {
        match self {
            Value::Int32(_) => Kind::Int32,
            Value::Int64(_) => Kind::Int64,
            Value::Text(_) => Kind::Text,
        }
    }
}

impl Gathered {
    /// Where `text` stands in the dictionary; `bytes` grows by what is new.
    fn place(&mut self, text: &str, bytes: &mut usize) -> i64 {
        if let Some(&place) = self.dictionary.get(text) {
            return place;
        }
        let place = self.dictionary.len() as i64;
        self.dictionary.insert(text.into(), place);
        self.texts.extend((text.len() as u32).to_le_bytes());
        self.texts.extend(text.as_bytes());
        *bytes += text.len() + size_of::<u32>();
        place
    }
}

/// A length as the format has it.
fn size(length: usize) -> io::Result<i32> {
    i32::try_from(length).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a text is too long"))
}

/// PageHeader
fn page_header(page: i32, bytes: usize, values: i32, encoding: i32) -> io::Result<Vec<u8>> {
    let mut header = Thrift::default();
    header.i32(1, page);
    header.i32(2, size(bytes)?);
    header.i32(3, size(bytes)?);
    header.begin(if page == DATA_PAGE { 5 } else { 7 });
    header.i32(1, values);
    header.i32(2, encoding);
    if page == DATA_PAGE {
        // Of levels, which flat columns don't have.
        header.i32(3, RLE);
        header.i32(4, RLE);
    }
    header.end();
    header.end();
    Ok(header.bytes())
}

/// DELTA_BINARY_PACKED. A difference wraps: `narrow` makes it as wide as the column's numbers are.
fn differences(numbers: &[i64], narrow: fn(i64) -> i64) -> Vec<u8> {
    let mut page = Thrift::default();
    page.varint(BLOCK as u64);
    page.varint((BLOCK / PART) as u64);
    page.varint(numbers.len() as u64);
    page.zigzag(numbers.first().copied().unwrap_or(0));
    let differences: Vec<i64> =
        numbers.windows(2).map(|pair| narrow(pair[1].wrapping_sub(pair[0]))).collect();
    for block in differences.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        page.zigzag(least);
        let excess = |difference: &i64| difference.wrapping_sub(least) as u64;
        let parts: Vec<Vec<u64>> = block.chunks(PART).map(|part| part.iter().map(excess).collect()).collect();
        let widths: Vec<u32> = parts.iter().map(|part| width(part)).collect();
        // A part that has no numbers has a width nevertheless.
        (0..BLOCK / PART).for_each(|part| page.byte(widths.get(part).map_or(0, |&width| width as u8)));
        for (mut part, width) in parts.into_iter().zip(widths) {
            part.resize(PART, 0);
            pack(&part, width, &mut page);
        }
    }
    page.bytes()
}

/// RLE_DICTIONARY: in turn a number that comes several times, and numbers one by one, eight at a
/// time.
fn places(places: &[i64], texts: usize) -> Vec<u8> {
    let numbers: Vec<u64> = places.iter().map(|&place| place as u64).collect();
    // No bit at all would do for a single text, but not every reader thinks so.
    let width = width(&[texts.saturating_sub(1) as u64]).max(1);
    let mut page = Thrift::default();
    page.byte(width as u8);
    let mut single: Vec<u64> = Vec::new();
    let mut rest = &numbers[..];
    while let Some(&first) = rest.first() {
        let run = rest.iter().take_while(|&&number| number == first).count();
        // What fills up eight is no part of the run.
        let fill = single.len().next_multiple_of(8) - single.len();
        if run >= fill + 8 {
            single.extend(&rest[..fill]);
            write_single(&mut single, width, &mut page);
            page.varint(((run - fill) as u64) << 1);
            first.to_le_bytes().iter().take(width.div_ceil(8) as usize).for_each(|&byte| page.byte(byte));
        } else {
            single.extend(&rest[..run]);
        }
        rest = &rest[run..];
    }
    write_single(&mut single, width, &mut page);
    page.bytes()
}

fn write_single(numbers: &mut Vec<u64>, width: u32, page: &mut Thrift) {
    if !numbers.is_empty() {
        // Only at the end of a page there may be others than eight.
        numbers.resize(numbers.len().next_multiple_of(8), 0);
        page.varint((numbers.len() as u64 / 8) << 1 | 1);
        pack(numbers, width, page);
        numbers.clear();
    }
}

/// How many bits the largest number takes.
fn width(numbers: &[u64]) -> u32 {
    numbers.iter().map(|number| u64::BITS - number.leading_zeros()).max().unwrap_or(0)
}

/// Writes `width` bits of each number, the lowest first. What is written fills bytes: there are
/// eight numbers or more.
fn pack(numbers: &[u64], width: u32, page: &mut Thrift) {
    let (mut bits, mut count) = (0u128, 0);
    for &number in numbers {
        bits |= u128::from(number) << count;
        count += width;
        while count >= 8 {
            page.byte(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
