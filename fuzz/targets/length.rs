//! A length of time as the value of an option, which the first byte chooses. A second parser checks
//! the result.

use super::choice;
use stalld::daemon::options::{Command, HostFacts, Options, parse};
use stalld::task::Nanos;
use stalld::timing::{DURATION, GRANULARITY, PERIOD, RUNTIME, THRESHOLD};
use std::ops::RangeInclusive;

/// The option, its range, the unit of a bare number as a power of ten in ns, the least bare number,
/// and where the result is.
type Case = (&'static str, RangeInclusive<Nanos>, u32, Nanos, fn(&Options) -> Nanos);

pub fn run(input: &[u8]) {
    let (which, text) = choice(input);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let second = Nanos::from_secs(1);
    let cases: [Case; 5] = [
        ("-t", THRESHOLD, 9, second, |o| o.threshold),
        ("-g", GRANULARITY, 9, second, |o| o.granularity),
        ("-d", DURATION, 9, second, |o| o.boost.duration),
        ("-p", PERIOD, 0, *PERIOD.start(), |o| o.boost.period),
        ("-r", RUNTIME, 0, *RUNTIME.start(), |o| o.boost.runtime),
    ];
    let (option, range, digits, least, result) = &cases[usize::from(which) % cases.len()];
    // The boost is long enough for the longest period. If an option is given twice, the last value
    // counts.
    let args = ["-d", if *option == "-p" { "60s" } else { "200ms" }, "-p", "200ms", option, text];
    let host = HostFacts { configured_cpus: 1, notify_socket: false };
    let found = match parse(args.map(Into::into), &host) {
        Ok(Command::Run(options)) => Some(result(&options)),
        Ok(other) => panic!("{text:?} became {other:?}"),
        Err(_) => None,
    };
    let expected = read(text.trim(), *digits).and_then(|(nanos, has_unit)| {
        let nanos = Nanos(u64::try_from(nanos).ok()?);
        (range.contains(&nanos) && (has_unit || nanos >= *least)).then_some(nanos)
    });
    assert_eq!(found, expected, "{option} {text:?}");
}

/// Returns nanoseconds, and whether a unit was given; `None` if the text is no length. The unit of
/// a bare number is ten to the power of `digits`.
fn read(text: &str, digits: u32) -> Option<(u128, bool)> {
    let units = [("ns", 0), ("us", 3), ("ms", 6), ("s", 9)];
    let unit = units.iter().find_map(|&(unit, digits)| Some((text.strip_suffix(unit)?, digits as usize)));
    let (number, digits) = unit.unwrap_or((text, digits as usize));
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) if unit.is_some() => (whole, fraction.trim_end_matches('0')),
        Some(_) => return None,
        None => (number, ""),
    };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > digits {
        return None;
    }
    let moved = format!("{whole}{fraction:0<digits$}");
    Some((moved.parse().ok()?, unit.is_some()))
}
