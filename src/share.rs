//! Shares of a CPU, such as `0.1%`.

use crate::task::Nanos;
use std::fmt;

/// A share of a CPU, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    pub millionths: u32,
}

impl Share {
    pub const LEAST: Share = Share { millionths: 10 };
    pub const MOST: Share = Share { millionths: 100_000 };

    /// Reads a percentage with at most four digits after the point. The error is the reason why it
    /// was rejected.
    pub fn parse(text: &str) -> Result<Share, String> {
        let unreadable = || "not a share of a CPU: give a percentage, such as 0.1%".to_string();
        let number = text.trim().strip_suffix('%').ok_or_else(unreadable)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return Err(unreadable());
        }
        if fraction.len() > 4 {
            return Err("finer than a millionth of a CPU".to_string());
        }
        // Both consist of digits, so they fail to parse only if they are too large.
        let whole: u32 = whole.parse().unwrap_or(u32::MAX);
        let fraction: u32 = format!("{fraction:0<4}").parse().unwrap_or(0);
        let share = Share { millionths: whole.saturating_mul(10_000).saturating_add(fraction) };
        match (Share::LEAST..=Share::MOST).contains(&share) {
            true => Ok(share),
            false => Err(format!("out of range: give {} to {}", Share::LEAST, Share::MOST)),
        }
    }

    /// Returns the smallest share that allows `time` in any second.
    pub fn of_a_second(time: Nanos) -> Share {
        Share { millionths: time.0.div_ceil(1000).try_into().unwrap_or(u32::MAX) }
    }

    pub fn per_second(self) -> Nanos {
        Nanos::from_micros(self.millionths.into())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (whole, fraction) = (self.millionths / 10_000, self.millionths % 10_000);
        let digits = format!("{whole}.{fraction:04}");
        write!(f, "{}%", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        for (text, millionths, shown) in [
            ("0.1%", 1000, "0.1%"),
            (" 2% ", 20_000, "2%"),
            ("0.0055%", 55, "0.0055%"),
            ("10%", 100_000, "10%"),
            ("00.0010%", 10, "0.001%"),
            ("1.50%", 15_000, "1.5%"),
        ] {
            let share = Share::parse(text).unwrap();
            assert_eq!((share.millionths, share.to_string().as_str()), (millionths, shown), "{text}");
        }
        assert_eq!(Share { millionths: 1000 }.per_second(), Nanos::from_millis(1));
        assert_eq!(Share::of_a_second(Nanos(55_001)).to_string(), "0.0056%");
    }

    #[test]
    fn what_is_no_share_is_rejected_with_a_reason() {
        for text in ["", "%", "1", "0.1", ".1%", "1.%", "-1%", "+1%", "1e0%", "1 %", "1%%", "one%", "1,5%"] {
            assert_eq!(
                Share::parse(text).unwrap_err(),
                "not a share of a CPU: give a percentage, such as 0.1%"
            );
        }
        for text in ["0%", "0.0009%", "10.0001%", "99999999999%", "4294967296%"] {
            assert_eq!(Share::parse(text).unwrap_err(), "out of range: give 0.001% to 10%", "{text}");
        }
        assert_eq!(Share::parse("0.00001%").unwrap_err(), "finer than a millionth of a CPU");
    }
}
