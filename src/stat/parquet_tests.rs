use super::*;

/// Decodes a page.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        first
    }

    fn varint(&mut self) -> u64 {
        let byte = self.byte();
        u64::from(byte & 0x7f) | if byte & 0x80 == 0 { 0 } else { self.varint() << 7 }
    }

    fn zigzag(&mut self) -> i64 {
        let number = self.varint();
        (number >> 1) as i64 ^ -((number & 1) as i64)
    }

    /// `count` numbers of `width` bits.
    fn packed(&mut self, count: usize, width: usize) -> Vec<u64> {
        let (bytes, rest) = self.0.split_at(count * width / 8);
        self.0 = rest;
        let bit = |at: usize| u64::from(bytes[at / 8] >> (at % 8) & 1);
        (0..count).map(|n| (0..width).fold(0, |sum, at| sum | bit(n * width + at) << at)).collect()
    }
}

/// Decodes DELTA_BINARY_PACKED numbers of `wide` bits.
fn decode_deltas(page: &[u8], wide: u32) -> Vec<i64> {
    let mut page = Reader(page);
    assert_eq!((page.varint(), page.varint()), (128, 4));
    let count = page.varint() as usize;
    let narrow = |number: i64| number << (64 - wide) >> (64 - wide);
    let mut numbers = vec![page.zigzag()];
    while numbers.len() < count {
        let least = page.zigzag();
        let widths = [(); 4].map(|()| page.byte());
        for width in widths {
            assert!(u32::from(width) <= wide);
            if numbers.len() >= count {
                assert_eq!(width, 0);
                continue;
            }
            for excess in page.packed(32, width as usize) {
                let last = *numbers.last().unwrap();
                numbers.push(narrow(last.wrapping_add(least).wrapping_add(excess as i64)));
            }
        }
        // The padding of the last miniblock.
        numbers.truncate(count);
    }
    assert!(page.0.is_empty());
    numbers
}

/// Decodes RLE_DICTIONARY.
fn decode_dictionary(page: &[u8], count: usize) -> Vec<i64> {
    let mut page = Reader(page);
    let width = page.byte() as usize;
    let mut numbers = Vec::new();
    while !page.0.is_empty() {
        let run = page.varint();
        if run & 1 == 0 {
            let number = (0..width.div_ceil(8)).fold(0, |sum, at| sum | u64::from(page.byte()) << (8 * at));
            numbers.extend(std::iter::repeat_n(number as i64, run as usize >> 1));
        } else {
            // Only the last run may have padding.
            assert!(numbers.len() < count);
            numbers.extend(page.packed((run as usize >> 1) * 8, width).into_iter().map(|n| n as i64));
        }
    }
    assert!((count..count + 8).contains(&numbers.len()));
    numbers.truncate(count);
    numbers
}

/// Returns pseudo-random numbers, the same in each run.
fn chance(seed: u64) -> impl Iterator<Item = u64> {
    let step =
        |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(step(&seed), step).map(|x| x ^ x >> 31)
}

#[test]
fn numbers_that_grow_evenly_take_no_bits() {
    let page = delta_binary_packed(&[1, 2, 3, 4, 5], |delta| delta);
    assert_eq!(page, [0x80, 1, 4, 5, 2, 2, 0, 0, 0, 0]);
    assert_eq!(delta_binary_packed(&[], |delta| delta), [0x80, 1, 4, 0, 0]);
    assert_eq!(delta_binary_packed(&[-7], |delta| delta), [0x80, 1, 4, 1, 13]);
}

#[test]
fn deltas_bring_back_all_numbers() {
    let extremes = [0, i64::MAX, i64::MIN, -1, i64::MIN, i64::MIN, i64::MAX, 1, 0];
    assert_eq!(decode_deltas(&delta_binary_packed(&extremes, |delta| delta), 64), extremes);
    for count in [1, 2, 31, 32, 33, 128, 129, 130, 161, 257, 1000] {
        for shift in [0, 1, 32, 57, 63] {
            let numbers: Vec<i64> = chance(count).take(count as usize).map(|n| n as i64 >> shift).collect();
            assert_eq!(
                decode_deltas(&delta_binary_packed(&numbers, |delta| delta), 64),
                numbers,
                "{count} {shift}"
            );
        }
    }
}

#[test]
fn deltas_of_narrow_numbers_are_as_narrow() {
    let narrow = |delta| i64::from(delta as i32);
    let (least, most) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let extremes = [0, most, least, -1, least, least, most, 1];
    assert_eq!(decode_deltas(&delta_binary_packed(&extremes, narrow), 32), extremes);
    let numbers: Vec<i64> = chance(3).take(300).map(narrow_of).collect();
    assert_eq!(decode_deltas(&delta_binary_packed(&numbers, narrow), 32), numbers);
}

fn narrow_of(number: u64) -> i64 {
    i64::from(number as i32)
}

#[test]
fn indices_are_runs_or_eights() {
    // A run of 20, without padding.
    assert_eq!(rle_dictionary(&[2; 20], 3), [2, 40, 2]);
    // A single text takes one bit, too.
    assert_eq!(rle_dictionary(&[0; 9], 1), [1, 18, 0]);
    // 1 and seven 0, then ten 0.
    let mut numbers = vec![1];
    numbers.resize(18, 0);
    assert_eq!(rle_dictionary(&numbers, 2), [1, 3, 1, 20, 0]);
    assert_eq!(rle_dictionary(&[], 0), [1]);
}

#[test]
fn indices_come_back() {
    for texts in [1, 2, 3, 8, 255, 256, 257, 70_000] {
        for longest in [1, 7, 8, 9, 30] {
            let mut numbers = Vec::new();
            for n in chance(texts ^ longest).take(200) {
                numbers.extend(std::iter::repeat_n(
                    (n % texts) as i64,
                    1 + (n >> 40) as usize % longest as usize,
                ));
            }
            assert_eq!(
                decode_dictionary(&rle_dictionary(&numbers, texts as usize), numbers.len()),
                numbers,
                "{texts} {longest}"
            );
        }
    }
}

fn columns() -> [ColumnSchema; 2] {
    let column = |name: &str, kind| ColumnSchema { name: name.to_string(), kind };
    [column("n", ColumnType::Int64), column("text", ColumnType::Text)]
}

#[test]
fn a_row_has_a_value_of_its_kind_for_each_column() {
    let mut writer = ParquetWriter::create(Vec::new(), &columns()).unwrap();
    for row in [
        &[ColumnValue::Int64(1)][..],
        &[ColumnValue::Int32(1), ColumnValue::Text("a")],
        &[ColumnValue::Int64(1), ColumnValue::Text("a"), ColumnValue::Text("b")],
    ] {
        assert_eq!(writer.push(row).unwrap_err().to_string(), "the row has other columns than the table");
    }
    writer.push(&[ColumnValue::Int64(1), ColumnValue::Text("a")]).unwrap();
    let file = writer.finish().unwrap();
    let length = u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap()) as usize;
    assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1") && length < file.len() - 12);
}

#[test]
fn the_buffers_stay_bounded() {
    let written = |rows: usize, text: &dyn Fn(usize) -> String| {
        let mut writer = ParquetWriter::create(io::sink(), &columns()).unwrap();
        for row in 0..rows {
            writer.push(&[ColumnValue::Int64(0), ColumnValue::Text(&text(row))]).unwrap();
        }
        (writer.groups.len(), writer.rows)
    };
    assert_eq!(written(2 * MAX_ROWS + 5, &|_| "same".to_string()), (2, 5));
    // Each text takes at least a quarter of the limit, so the fourth one reaches it.
    assert_eq!(written(5, &|row| row.to_string().repeat(MAX_TEXT / 4)), (1, 1));
}

#[test]
fn a_full_disk_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = ParquetWriter::create(Full, &columns()).err().unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
}
