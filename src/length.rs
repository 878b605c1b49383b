//! Reads lengths of time: `5` in the unit of the option, or `1.5s`, `500ms`, `20us`.

use crate::task::Nanos;

/// A length of time that a user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Length {
    pub nanos: Nanos,
    pub has_unit: bool,
    /// The text of the user, for messages.
    pub written: String,
}

/// The lengths of time that an option accepts.
pub struct LengthLimits {
    /// The unit of a bare number.
    pub unit: Unit,
    pub least: Nanos,
    /// The least length that has a unit. It may be less than `least`.
    pub least_with_unit: Nanos,
    pub most: Nanos,
}

#[derive(Clone, Copy)]
pub struct Unit {
    symbol: &'static str,
    plural: &'static str,
    nanos: u64,
}

pub(crate) const SECONDS: Unit = Unit { symbol: "s", plural: "seconds", nanos: 1_000_000_000 };
pub(crate) const MILLISECONDS: Unit = Unit { symbol: "ms", plural: "milliseconds", nanos: 1_000_000 };
pub(crate) const MICROSECONDS: Unit = Unit { symbol: "us", plural: "microseconds", nanos: 1_000 };
pub(crate) const NANOSECONDS: Unit = Unit { symbol: "ns", plural: "nanoseconds", nanos: 1 };

/// The units, the largest first.
const UNITS: [Unit; 4] = [SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS];

impl Length {
    /// Reads a length. The error is the reason why it was rejected.
    pub fn parse(text: &str, limits: &LengthLimits) -> Result<Length, String> {
        let written = text.trim();
        let unitless = || {
            format!(
                "not a length of time: give whole {}, or a number with a unit (ns, us, ms, s)",
                limits.unit.plural
            )
        };
        let end = written.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(written.len());
        let (number, symbol) = written.split_at(end);
        let has_unit = !symbol.is_empty();
        let unit = match UNITS.iter().find(|unit| unit.symbol == symbol) {
            Some(unit) => *unit,
            None if has_unit => return Err(unitless()),
            None => limits.unit,
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if has_unit && is_digits(fraction) => (whole, fraction),
            Some(_) => return Err(unitless()),
            None => (number, ""),
        };
        if !is_digits(whole) {
            return Err(unitless());
        }
        let fraction = part(fraction, unit).ok_or("finer than a nanosecond")?;
        // `whole` consists of digits, so it fails to parse only if the number is too large.
        let whole = Nanos(whole.parse().unwrap_or(u64::MAX).saturating_mul(unit.nanos));
        let nanos = whole + fraction;
        let least = if has_unit { limits.least_with_unit } else { limits.least };
        if nanos < least || nanos > limits.most {
            return Err(limits.out_of_range());
        }
        Ok(Length { nanos, has_unit, written: written.to_string() })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Returns the value of the digits after the point; `None` if it is no whole number of nanoseconds.
fn part(digits: &str, unit: Unit) -> Option<Nanos> {
    let mut nanos = 0;
    let mut worth = unit.nanos;
    for digit in digits.trim_end_matches('0').bytes() {
        if worth % 10 != 0 {
            return None;
        }
        worth /= 10;
        nanos += u64::from(digit - b'0') * worth;
    }
    Some(Nanos(nanos))
}

impl LengthLimits {
    fn out_of_range(&self) -> String {
        format!(
            "out of range: give {} to {} ({}), or {} to {}",
            self.least.0 / self.unit.nanos,
            self.most.0 / self.unit.nanos,
            self.unit.plural,
            with_unit(self.least_with_unit),
            with_unit(self.most),
        )
    }
}

/// Formats a length in the largest unit that needs no fraction.
pub(crate) fn with_unit(length: Nanos) -> String {
    let unit = UNITS.iter().find(|unit| length.0 % unit.nanos == 0).unwrap_or(&NANOSECONDS);
    format!("{}{}", length.0 / unit.nanos, unit.symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: LengthLimits = LengthLimits {
        unit: SECONDS,
        least: Nanos(0),
        least_with_unit: Nanos(0),
        most: Nanos::from_secs(3600),
    };

    #[test]
    fn a_length_is_a_whole_number_or_a_number_with_a_unit() {
        for (text, nanos, has_unit) in [
            ("5", 5_000_000_000, false),
            (" 5 ", 5_000_000_000, false),
            ("007", 7_000_000_000, false),
            ("5s", 5_000_000_000, true),
            ("1.5s", 1_500_000_000, true),
            ("0.000000001s", 1, true),
            ("1.50000000000000s", 1_500_000_000, true),
            ("500ms", 500_000_000, true),
            ("20us", 20_000, true),
            ("2.5us", 2_500, true),
            ("9ns", 9, true),
            ("9.0ns", 9, true),
        ] {
            let length = Length::parse(text, &ANY).unwrap();
            assert_eq!((length.nanos, length.has_unit), (Nanos(nanos), has_unit), "{text:?}");
            assert_eq!(length.written, text.trim());
        }
    }

    #[test]
    fn anything_else_is_no_length() {
        let reason = "not a length of time: give whole seconds, or a number with a unit (ns, us, ms, s)";
        for text in [
            "",
            " ",
            "s",
            ".",
            ".s",
            "5x",
            "5 s",
            "5S",
            "5m",
            "5sec",
            "5ss",
            "1.5",
            "1.",
            "1.s",
            ".5s",
            "1.2.3s",
            "-5",
            "+5",
            "0x10",
            "1e3",
            "1_000",
            "5,5s",
            "\u{665}",
            "ten",
            "5\u{3bc}s",
        ] {
            assert_eq!(Length::parse(text, &ANY).unwrap_err(), reason, "{text:?}");
        }
        for text in ["0.5ns", "1.0000000001s", "0.0001us"] {
            assert_eq!(Length::parse(text, &ANY).unwrap_err(), "finer than a nanosecond", "{text:?}");
        }
    }

    #[test]
    fn no_number_is_so_large_that_it_comes_around() {
        for text in ["3601", "18446744074", "18446744073709551616s", "99999999999999999999999999999", "1e9"] {
            assert!(Length::parse(text, &ANY).is_err(), "{text}");
        }
        let most = "18446744073.709551615s";
        let limits = LengthLimits { most: Nanos::MAX, ..ANY };
        assert_eq!(Length::parse(most, &limits).unwrap().nanos, Nanos::MAX);
    }

    #[test]
    fn a_length_is_shown_in_the_largest_unit_that_needs_no_fraction() {
        for (nanos, shown) in [
            (Nanos::from_secs(3600), "3600s"),
            (Nanos::from_millis(1500), "1500ms"),
            (Nanos::from_micros(8), "8us"),
            (Nanos(1_001), "1001ns"),
        ] {
            assert_eq!(with_unit(nanos), shown);
        }
    }
}
