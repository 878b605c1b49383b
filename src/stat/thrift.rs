//! Writes the compact protocol of Apache Thrift, in which Parquet's metadata is encoded, and its
//! integers, which Parquet's pages use too.

/// The numbers of the types in the protocol.
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A struct that is being written. Its fields are written in the order of their numbers.
#[derive(Default)]
pub(super) struct Thrift {
    bytes: Vec<u8>,
    /// The number of the last field. The protocol writes the difference to it.
    last: u8,
    /// The numbers of the last fields of the enclosing structs.
    around: Vec<u8>,
}

impl Thrift {
    pub(super) fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Writes a number with seven bits in each byte, the lowest first.
    pub(super) fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    /// Writes a signed number as a varint, in the order 0, -1, 1, -2...
    pub(super) fn zigzag(&mut self, number: i64) {
        self.varint((number << 1 ^ number >> 63) as u64);
    }

    pub(super) fn i32(&mut self, field: u8, number: i32) {
        self.field(field, I32);
        self.zigzag(i64::from(number));
    }

    pub(super) fn i64(&mut self, field: u8, number: i64) {
        self.field(field, I64);
        self.zigzag(number);
    }

    pub(super) fn text(&mut self, field: u8, text: &str) {
        self.field(field, BINARY);
        self.binary(text);
    }

    pub(super) fn i32s(&mut self, field: u8, numbers: &[i32]) {
        self.list(field, I32, numbers.len());
        numbers.iter().for_each(|&number| self.zigzag(i64::from(number)));
    }

    pub(super) fn texts(&mut self, field: u8, texts: &[&str]) {
        self.list(field, BINARY, texts.len());
        texts.iter().for_each(|text| self.binary(text));
    }

    /// Begins a list of structs. Begin each with `element`, and end it with `end`.
    pub(super) fn structs(&mut self, field: u8, count: usize) {
        self.list(field, STRUCT, count);
    }

    pub(super) fn element(&mut self) {
        self.around.push(std::mem::take(&mut self.last));
    }

    /// Begins a struct that is a field.
    pub(super) fn begin(&mut self, field: u8) {
        self.field(field, STRUCT);
        self.element();
    }

    /// Ends the innermost struct.
    pub(super) fn end(&mut self) {
        self.byte(0);
        self.last = self.around.pop().unwrap_or(0);
    }

    fn field(&mut self, field: u8, kind: u8) {
        // Two fields that are written here are never 16 apart.
        self.byte((field - self.last) << 4 | kind);
        self.last = field;
    }

    fn list(&mut self, field: u8, kind: u8, count: usize) {
        self.field(field, LIST);
        if count < 15 {
            self.byte((count as u8) << 4 | kind);
        } else {
            self.byte(0xf0 | kind);
            self.varint(count as u64);
        }
    }

    fn binary(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Thrift)) -> Vec<u8> {
        let mut thrift = Thrift::default();
        write(&mut thrift);
        thrift.bytes()
    }

    #[test]
    fn a_varint_has_seven_bits_in_each_byte() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(written(|thrift| thrift.varint(number)), bytes);
        }
    }

    #[test]
    fn a_small_number_is_short_whatever_its_sign() {
        for (number, zigzag) in
            [(0, 0), (-1, 1), (1, 2), (-2, 3), (i64::MAX, u64::MAX - 1), (i64::MIN, u64::MAX)]
        {
            assert_eq!(written(|thrift| thrift.zigzag(number)), written(|thrift| thrift.varint(zigzag)));
        }
    }

    #[test]
    fn a_field_is_numbered_from_the_one_before_in_its_struct() {
        let bytes = written(|thrift| {
            thrift.i32(1, 1);
            thrift.begin(3);
            thrift.text(2, "ab");
            thrift.end();
            thrift.structs(4, 1);
            thrift.element();
            thrift.i64(1, -1);
            thrift.end();
            thrift.i32s(5, &[2; 15]);
            thrift.texts(6, &["c"]);
            thrift.end();
        });
        let mut expected =
            vec![0x15, 2, 0x2c, 0x28, 2, b'a', b'b', 0, 0x19, 0x1c, 0x16, 1, 0, 0x19, 0xf5, 15];
        expected.extend([4; 15]);
        expected.extend([0x19, 0x18, 1, b'c', 0]);
        assert_eq!(bytes, expected);
    }
}
