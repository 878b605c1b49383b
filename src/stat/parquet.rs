//! Writes Apache Parquet files, as far as tables of numbers and names need the format.
//!
//! Columns are flat and have a value in each row. Numbers are encoded as DELTA_BINARY_PACKED, texts
//! as RLE_DICTIONARY. That is small without a compressor, and all readers of Parquet support it.
//! Rows are buffered, and written as a row group when there are many, so that memory stays bounded.

use super::thrift::Thrift;
use std::collections::HashMap;
use std::io::{self, Write};

/// The maximum number of rows in a row group.
const MAX_ROWS: usize = 1 << 15;
/// The maximum number of bytes in the dictionaries of a row group.
const MAX_TEXT: usize = 1 << 20;

/// The number of deltas in a block. The format requires a multiple of 128.
const BLOCK: usize = 128;
/// The number of deltas in a miniblock, which has a bit width of its own. The format requires a
/// multiple of 32.
const MINIBLOCK: usize = 32;

/// The numbers of page types and encodings in the format.
const DATA_PAGE: i32 = 0;
const DICTIONARY_PAGE: i32 = 2;
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const DELTA_BINARY_PACKED: i32 = 5;
const RLE_DICTIONARY: i32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Int32,
    Int64,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSchema {
    pub name: String,
    pub kind: ColumnType,
}

/// A value, of the type of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnValue<'a> {
    Int32(i32),
    Int64(i64),
    Text(&'a str),
}

/// Writes a file. Readers need the footer, which `finish` writes.
pub struct ParquetWriter<W: Write> {
    out: W,
    /// The number of bytes written.
    at: i64,
    columns: Vec<ColumnSchema>,
    buffers: Vec<ColumnBuffer>,
    /// The number of rows in the buffers.
    rows: usize,
    /// The number of bytes in the dictionaries.
    text: usize,
    groups: Vec<RowGroup>,
}

/// The values of a column that are not yet in a column chunk.
#[derive(Default)]
struct ColumnBuffer {
    /// The numbers, or the indices of texts in the dictionary.
    numbers: Vec<i64>,
    dictionary: HashMap<Box<str>, i64>,
    /// The dictionary page: lengths and texts.
    texts: Vec<u8>,
}

/// A row group that has been written.
struct RowGroup {
    rows: i64,
    chunks: Vec<ColumnChunk>,
}

struct ColumnChunk {
    begin: i64,
    /// The data page, after the dictionary page.
    data: i64,
    end: i64,
}

impl ColumnType {
    fn number(self) -> i32 {
        match self {
            ColumnType::Int32 => 1,
            ColumnType::Int64 => 2,
            ColumnType::Text => 6,
        }
    }

    fn encoding(self) -> i32 {
        if self == ColumnType::Text { RLE_DICTIONARY } else { DELTA_BINARY_PACKED }
    }
}

impl<W: Write> ParquetWriter<W> {
    pub fn create(out: W, columns: &[ColumnSchema]) -> io::Result<ParquetWriter<W>> {
        let buffers = columns.iter().map(|_| ColumnBuffer::default()).collect();
        let columns = columns.to_vec();
        let mut writer = ParquetWriter { out, at: 0, columns, buffers, rows: 0, text: 0, groups: Vec::new() };
        writer.write(b"PAR1")?;
        Ok(writer)
    }

    /// Adds a row: a value for each column.
    pub fn push(&mut self, row: &[ColumnValue]) -> io::Result<()> {
        let kinds = row.iter().map(ColumnValue::kind);
        if !kinds.eq(self.columns.iter().map(|column| column.kind)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the row has other columns than the table",
            ));
        }
        for (buffer, value) in self.buffers.iter_mut().zip(row) {
            let number = match *value {
                ColumnValue::Int32(number) => i64::from(number),
                ColumnValue::Int64(number) => number,
                ColumnValue::Text(text) => buffer.dictionary_index(text, &mut self.text),
            };
            buffer.numbers.push(number);
        }
        self.rows += 1;
        if self.rows >= MAX_ROWS || self.text >= MAX_TEXT { self.write_row_group() } else { Ok(()) }
    }

    /// Writes the last row group and the footer.
    pub fn finish(mut self) -> io::Result<W> {
        if self.rows > 0 {
            self.write_row_group()?;
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

    fn write_row_group(&mut self) -> io::Result<()> {
        let mut chunks = Vec::new();
        for index in 0..self.columns.len() {
            let (kind, column) = (self.columns[index].kind, std::mem::take(&mut self.buffers[index]));
            let begin = self.at;
            if kind == ColumnType::Text {
                let count = size(column.dictionary.len())?;
                self.write(&page_header(DICTIONARY_PAGE, column.texts.len(), count, PLAIN)?)?;
                self.write(&column.texts)?;
            }
            let data = self.at;
            let page = match kind {
                ColumnType::Text => rle_dictionary(&column.numbers, column.dictionary.len()),
                ColumnType::Int32 => delta_binary_packed(&column.numbers, |delta| i64::from(delta as i32)),
                ColumnType::Int64 => delta_binary_packed(&column.numbers, |delta| delta),
            };
            let count = size(column.numbers.len())?;
            self.write(&page_header(DATA_PAGE, page.len(), count, kind.encoding())?)?;
            self.write(&page)?;
            chunks.push(ColumnChunk { begin, data, end: self.at });
        }
        self.groups.push(RowGroup { rows: self.rows as i64, chunks });
        (self.rows, self.text) = (0, 0);
        Ok(())
    }

    /// Returns FileMetaData.
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
            // REQUIRED: there is a value in each row.
            footer.i32(3, 0);
            footer.text(4, &column.name);
            if column.kind == ColumnType::Text {
                // UTF-8, as converted type and as logical type.
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
            self.write_row_group_metadata(&mut footer, group);
        }
        footer.text(6, "stallstat");
        footer.end();
        footer.bytes()
    }

    /// Writes RowGroup.
    fn write_row_group_metadata(&self, footer: &mut Thrift, group: &RowGroup) {
        footer.element();
        footer.structs(1, group.chunks.len());
        for (column, chunk) in self.columns.iter().zip(&group.chunks) {
            footer.element();
            footer.i64(2, chunk.begin);
            footer.begin(3);
            footer.i32(1, column.kind.number());
            match column.kind {
                ColumnType::Text => footer.i32s(2, &[PLAIN, RLE_DICTIONARY]),
                _ => footer.i32s(2, &[DELTA_BINARY_PACKED]),
            }
            footer.texts(3, &[&column.name]);
            // Not compressed.
            footer.i32(4, 0);
            footer.i64(5, group.rows);
            footer.i64(6, chunk.end - chunk.begin);
            footer.i64(7, chunk.end - chunk.begin);
            footer.i64(9, chunk.data);
            if column.kind == ColumnType::Text {
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

impl ColumnValue<'_> {
    fn kind(&self) -> ColumnType {
        match self {
            ColumnValue::Int32(_) => ColumnType::Int32,
            ColumnValue::Int64(_) => ColumnType::Int64,
            ColumnValue::Text(_) => ColumnType::Text,
        }
    }
}

impl ColumnBuffer {
    /// Returns the index of `text` in the dictionary. `bytes` grows if the text is new.
    fn dictionary_index(&mut self, text: &str, bytes: &mut usize) -> i64 {
        if let Some(&index) = self.dictionary.get(text) {
            return index;
        }
        let index = self.dictionary.len() as i64;
        self.dictionary.insert(text.into(), index);
        self.texts.extend((text.len() as u32).to_le_bytes());
        self.texts.extend(text.as_bytes());
        *bytes += text.len() + size_of::<u32>();
        index
    }
}

/// Returns a length in the type that the format uses.
fn size(length: usize) -> io::Result<i32> {
    i32::try_from(length).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a text is too long"))
}

/// Returns PageHeader.
fn page_header(page: i32, bytes: usize, values: i32, encoding: i32) -> io::Result<Vec<u8>> {
    let mut header = Thrift::default();
    header.i32(1, page);
    header.i32(2, size(bytes)?);
    header.i32(3, size(bytes)?);
    header.begin(if page == DATA_PAGE { 5 } else { 7 });
    header.i32(1, values);
    header.i32(2, encoding);
    if page == DATA_PAGE {
        // The encodings of levels, which flat columns do not have.
        header.i32(3, RLE);
        header.i32(4, RLE);
    }
    header.end();
    header.end();
    Ok(header.bytes())
}

/// Encodes DELTA_BINARY_PACKED. A delta wraps; `narrow` truncates it to the width of the column.
fn delta_binary_packed(numbers: &[i64], narrow: fn(i64) -> i64) -> Vec<u8> {
    let mut page = Thrift::default();
    page.varint(BLOCK as u64);
    page.varint((BLOCK / MINIBLOCK) as u64);
    page.varint(numbers.len() as u64);
    page.zigzag(numbers.first().copied().unwrap_or(0));
    let deltas: Vec<i64> = numbers.windows(2).map(|pair| narrow(pair[1].wrapping_sub(pair[0]))).collect();
    for block in deltas.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        page.zigzag(least);
        let excess = |delta: &i64| delta.wrapping_sub(least) as u64;
        let miniblocks: Vec<Vec<u64>> =
            block.chunks(MINIBLOCK).map(|miniblock| miniblock.iter().map(excess).collect()).collect();
        let widths: Vec<u32> = miniblocks.iter().map(|miniblock| width(miniblock)).collect();
        // A width is written even for a miniblock without numbers.
        (0..BLOCK / MINIBLOCK).for_each(|index| page.byte(widths.get(index).map_or(0, |&width| width as u8)));
        for (mut miniblock, width) in miniblocks.into_iter().zip(widths) {
            miniblock.resize(MINIBLOCK, 0);
            bit_pack(&miniblock, width, &mut page);
        }
    }
    page.bytes()
}

/// Encodes RLE_DICTIONARY: RLE runs of one index, and bit-packed runs of eight indices at a time.
fn rle_dictionary(indices: &[i64], texts: usize) -> Vec<u8> {
    let numbers: Vec<u64> = indices.iter().map(|&index| index as u64).collect();
    // At least one bit, because some readers do not accept a width of 0 for a single text.
    let width = width(&[texts.saturating_sub(1) as u64]).max(1);
    let mut page = Thrift::default();
    page.byte(width as u8);
    let mut literals: Vec<u64> = Vec::new();
    let mut rest = &numbers[..];
    while let Some(&first) = rest.first() {
        let run = rest.iter().take_while(|&&number| number == first).count();
        // The first numbers of the run fill the last eight of the bit-packed run before it.
        let fill = literals.len().next_multiple_of(8) - literals.len();
        if run >= fill + 8 {
            literals.extend(&rest[..fill]);
            write_bit_packed(&mut literals, width, &mut page);
            page.varint(((run - fill) as u64) << 1);
            first.to_le_bytes().iter().take(width.div_ceil(8) as usize).for_each(|&byte| page.byte(byte));
        } else {
            literals.extend(&rest[..run]);
        }
        rest = &rest[run..];
    }
    write_bit_packed(&mut literals, width, &mut page);
    page.bytes()
}

fn write_bit_packed(numbers: &mut Vec<u64>, width: u32, page: &mut Thrift) {
    if !numbers.is_empty() {
        // The number is a multiple of eight, except at the end of a page.
        numbers.resize(numbers.len().next_multiple_of(8), 0);
        page.varint((numbers.len() as u64 / 8) << 1 | 1);
        bit_pack(numbers, width, page);
        numbers.clear();
    }
}

/// Returns the number of bits of the largest number.
fn width(numbers: &[u64]) -> u32 {
    numbers.iter().map(|number| u64::BITS - number.leading_zeros()).max().unwrap_or(0)
}

/// Writes `width` bits of each number, the lowest first. The number of `numbers` is a multiple of
/// eight, so that the bits fill whole bytes.
fn bit_pack(numbers: &[u64], width: u32, page: &mut Thrift) {
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
