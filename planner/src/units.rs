//! Quantities as people write and read them. Inside the crates a quantity is a number whose name ends in its unit.
//!
//! Parsing is strict: a bare number, an unknown unit, a negative or endless quantity is an error that lists the units
//! there are. Zero is a quantity; whether it makes sense is for the caller to say.

use thiserror::Error;

/// What was wrong with a quantity. The text names the quantity, the cause and the accepted units.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Nothing, or no digits, before the unit.
    #[error("`{text}` does not start with a number; write {kind} such as `{example}` (units: {units})")]
    NoNumber {
        /// What was written.
        text: String,
        /// What it should be.
        kind: &'static str,
        /// A right one.
        example: &'static str,
        /// What may follow the number.
        units: String,
    },
    /// A bare number.
    #[error("`{text}` has no unit; write {kind} such as `{example}` (units: {units})")]
    NoUnit {
        /// What was written.
        text: String,
        /// What it should be.
        kind: &'static str,
        /// A right one.
        example: &'static str,
        /// What may follow the number.
        units: String,
    },
    /// A unit of something else, or of nothing.
    #[error("`{unit}` in `{text}` is no unit of {kind}; write one such as `{example}` (units: {units})")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// The part after the number.
        unit: String,
        /// What it should be.
        kind: &'static str,
        /// A right one.
        example: &'static str,
        /// What may follow the number.
        units: String,
    },
    /// Negative, not a number, or beyond what can be counted.
    #[error("`{text}` is {problem}; {kind} is zero or more and finite")]
    OutOfRange {
        /// What was written.
        text: String,
        /// What is wrong with the number.
        problem: &'static str,
        /// What it should be.
        kind: &'static str,
    },
}

/// A kind of quantity: its name, an example, and its units with what one of each is in the base unit.
struct Kind {
    name: &'static str,
    example: &'static str,
    units: &'static [(&'static str, f64)],
}

const KIB: f64 = 1024.0;

const BYTES: Kind = Kind {
    name: "an amount of memory",
    example: "17 GB",
    units: &[
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", KIB),
        ("MiB", KIB * KIB),
        ("GiB", KIB * KIB * KIB),
        ("TiB", KIB * KIB * KIB * KIB),
    ],
};

const DURATION: Kind = Kind {
    name: "a duration",
    example: "40 ms",
    units: &[
        ("ns", 1e-3),
        ("us", 1.0),
        ("µs", 1.0),
        ("μs", 1.0),
        ("ms", 1e3),
        ("s", 1e6),
        ("min", 60e6),
        ("h", 3600e6),
    ],
};

const BANDWIDTH: Kind = Kind {
    name: "a bandwidth",
    example: "100 Mbit/s",
    units: &[
        ("bit/s", 0.125),
        ("kbit/s", 125.0),
        ("Mbit/s", 125e3),
        ("Gbit/s", 125e6),
        ("B/s", 1.0),
        ("kB/s", 1e3),
        ("MB/s", 1e6),
        ("GB/s", 1e9),
        ("TB/s", 1e12),
    ],
};

const FLOPS: Kind = Kind {
    name: "a compute rate",
    example: "34 TFLOP/s",
    units: &[("MFLOP/s", 1e6), ("GFLOP/s", 1e9), ("TFLOP/s", 1e12), ("PFLOP/s", 1e15)],
};

impl Kind {
    fn unit_list(&self) -> String {
        // The second spelling of micro looks like the first one; listing it would only confuse.
        let names: Vec<&str> = self.units.iter().map(|(name, _)| *name).filter(|n| *n != "μs").collect();
        names.join(", ")
    }

    fn factor(&self, unit: &str) -> Option<f64> {
        self.units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
    }

    fn parse(&self, text: &str) -> Result<f64, UnitError> {
        let written = text.trim();
        let (number, unit) = split_number(written);
        let (kind, example) = (self.name, self.example);
        let out_of_range = |problem| UnitError::OutOfRange { text: text.into(), problem, kind };
        if let Some(problem) = wordy_number(written) {
            return Err(out_of_range(problem));
        }
        let Ok(value) = number.parse::<f64>() else {
            return Err(UnitError::NoNumber { text: text.into(), kind, example, units: self.unit_list() });
        };
        if unit.is_empty() {
            return Err(UnitError::NoUnit { text: text.into(), kind, example, units: self.unit_list() });
        }
        let Some(factor) = self.factor(unit) else {
            let (text, unit) = (text.into(), unit.into());
            return Err(UnitError::UnknownUnit { text, unit, kind, example, units: self.unit_list() });
        };
        let base = value * factor;
        if value < 0.0 {
            return Err(out_of_range("negative"));
        }
        if !base.is_finite() {
            return Err(out_of_range("too large"));
        }
        Ok(base.abs())
    }
}

/// The longest leading part made of a number's characters, and the unit behind it. An `e` counts only where an exponent's
/// digits follow.
fn split_number(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        let exponent_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        end += match bytes[end] {
            b'0'..=b'9' | b'.' => 1,
            b'+' | b'-' if end == 0 => 1,
            b'e' | b'E' if end > 0 && exponent_digit(end + 1) => 2,
            b'e' | b'E'
                if end > 0 && matches!(bytes.get(end + 1), Some(b'+' | b'-')) && exponent_digit(end + 2) =>
            {
                3
            }
            _ => break,
        };
    }
    (&text[..end], text[end..].trim_start())
}

/// `nan` and `inf` parse as floats elsewhere; here they are named as what they are.
fn wordy_number(text: &str) -> Option<&'static str> {
    let word = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if word.starts_with("nan") {
        Some("not a number")
    } else if word.starts_with("inf") {
        Some("infinite")
    } else {
        None
    }
}

/// Bytes: `17 GB` is 17·10⁹, `16 GiB` is 16·2³⁰. Fractions of a byte are rounded.
///
/// # Errors
/// A [`UnitError`] for a bare number, an unknown unit, a negative, endless or uncountable amount.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    let value = BYTES.parse(text)?.round();
    if value >= u64::MAX as f64 {
        return Err(UnitError::OutOfRange { text: text.into(), problem: "too large", kind: BYTES.name });
    }
    Ok(value as u64)
}

/// Microseconds: `40 ms`, `250 us`, `1.5 s`, `10 min`.
///
/// # Errors
/// A [`UnitError`] for a bare number, an unknown unit, a negative or endless duration.
pub fn duration_us(text: &str) -> Result<f64, UnitError> {
    DURATION.parse(text)
}

/// Bytes per second: `100 Mbit/s` is 12.5·10⁶, `30 MB/s` is 30·10⁶.
///
/// # Errors
/// A [`UnitError`] for a bare number, an unknown unit, a negative or endless bandwidth.
pub fn bandwidth(text: &str) -> Result<f64, UnitError> {
    BANDWIDTH.parse(text)
}

/// Floating-point operations per second: `34 TFLOP/s`.
///
/// # Errors
/// A [`UnitError`] for a bare number, an unknown unit, a negative or endless rate.
pub fn flops(text: &str) -> Result<f64, UnitError> {
    FLOPS.parse(text)
}

/// Bytes for people, decimal, three digits: `17.0 GB`, `512 B`.
pub fn fmt_bytes(bytes: u64) -> String {
    scaled(bytes as f64, &[("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)])
}

/// Milliseconds for people, in the unit that reads best: `740 us`, `14.7 ms`, `2.50 s`, `4.0 min`.
pub fn fmt_ms(ms: f64) -> String {
    scaled(ms, &[("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("min", 60e3), ("h", 3600e3)])
}

/// Bytes per second for people: links are spoken of in bits up to 1 GB/s, memory and disks in bytes.
pub fn fmt_rate(bytes_per_s: f64) -> String {
    if bytes_per_s >= 1.25e9 {
        scaled(bytes_per_s, &[("GB/s", 1e9), ("TB/s", 1e12)])
    } else {
        scaled(bytes_per_s, &[("bit/s", 0.125), ("kbit/s", 125.0), ("Mbit/s", 125e3), ("Gbit/s", 125e6)])
    }
}

/// A whole number in groups of three: `1,204`.
pub fn fmt_count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 machine`, `3 machines`.
pub fn fmt_plural(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", fmt_count(value), if value == 1 { "" } else { "s" })
}

/// `value` in the largest of `units` (ascending) that leaves at least one, with three significant digits.
fn scaled(value: f64, units: &[(&str, f64)]) -> String {
    // A shade under 1 so that 999.96 of one unit is shown as 1.00 of the next and never as 1000.
    let fits = |factor: f64| value.abs() >= factor * 0.9995;
    let (name, factor) = units.iter().rev().find(|(_, factor)| fits(*factor)).unwrap_or(&units[0]);
    let shown = value / factor;
    let whole = *factor == units[0].1 && shown.fract() == 0.0;
    let digits = match shown.abs() {
        _ if whole => 0,
        a if a >= 99.95 => 0,
        a if a >= 9.995 => 1,
        _ => 2,
    };
    format!("{shown:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is the failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_and_binary_units_differ() {
        assert_eq!(bytes("17 GB").unwrap(), 17_000_000_000);
        assert_eq!(bytes("16GiB").unwrap(), 16 << 30);
        assert_eq!(bytes(" 1.5 kB ").unwrap(), 1500);
        assert_eq!(bytes("0 B").unwrap(), 0);
    }

    #[test]
    fn durations_and_rates_come_in_base_units() {
        assert_eq!(duration_us("40 ms").unwrap(), 40_000.0);
        assert_eq!(duration_us("3 µs").unwrap(), 3.0);
        assert_eq!(duration_us("2 min").unwrap(), 120e6);
        assert_eq!(duration_us("1e3 ns").unwrap(), 1.0);
        assert_eq!(bandwidth("100 Mbit/s").unwrap(), 12.5e6);
        assert_eq!(bandwidth("30 MB/s").unwrap(), 30e6);
        assert_eq!(flops("2e-1 TFLOP/s").unwrap(), 2e11);
    }

    #[test]
    fn a_bare_number_is_told_the_units_there_are() {
        let text = bytes("17").unwrap_err().to_string();
        assert_eq!(
            text,
            "`17` has no unit; write an amount of memory such as `17 GB` (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)"
        );
    }

    #[test]
    fn a_unit_of_something_else_is_named() {
        let text = duration_us("40 MB").unwrap_err().to_string();
        assert!(text.starts_with("`MB` in `40 MB` is no unit of a duration"), "{text}");
        assert!(matches!(bandwidth("3 Mb/s"), Err(UnitError::UnknownUnit { .. })), "Mb/s is ambiguous");
        assert!(matches!(bytes("1 gb"), Err(UnitError::UnknownUnit { .. })), "units are case-sensitive");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        assert!(matches!(duration_us("-1 ms"), Err(UnitError::OutOfRange { problem: "negative", .. })));
        assert!(matches!(duration_us("nan ms"), Err(UnitError::OutOfRange { problem: "not a number", .. })));
        assert!(matches!(bandwidth("inf GB/s"), Err(UnitError::OutOfRange { problem: "infinite", .. })));
        assert!(matches!(bandwidth("1e308 GB/s"), Err(UnitError::OutOfRange { problem: "too large", .. })));
        assert!(matches!(bytes("1e30 TB"), Err(UnitError::OutOfRange { problem: "too large", .. })));
        assert!(matches!(bytes("GB"), Err(UnitError::NoNumber { .. })));
        assert!(matches!(bytes(""), Err(UnitError::NoNumber { .. })));
        assert!(matches!(bytes("1.2.3 GB"), Err(UnitError::NoNumber { .. })));
    }

    #[test]
    fn people_read_three_digits() {
        assert_eq!(fmt_bytes(512), "512 B");
        assert_eq!(fmt_bytes(17_034_000_000), "17.0 GB");
        assert_eq!(fmt_ms(14.66), "14.7 ms");
        assert_eq!(fmt_ms(0.0603), "60.3 us");
        assert_eq!(fmt_ms(240_000.0), "4.00 min");
        assert_eq!(fmt_rate(30e6), "240 Mbit/s");
        assert_eq!(fmt_rate(546e9), "546 GB/s");
        assert_eq!(fmt_ms(999.9), "1.00 s");
        assert_eq!(fmt_ms(0.0), "0 us");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,24}") {
            let _ = (bytes(&text), duration_us(&text), bandwidth(&text), flops(&text));
        }

        #[test]
        fn what_is_printed_reads_back_within_half_a_percent(value in 0u64..1_000_000_000_000_000) {
            let back = bytes(&fmt_bytes(value)).unwrap() as f64;
            prop_assert!((back - value as f64).abs() <= 0.0051 * value as f64 + 0.5);
        }
    }
}
