//! Seeds, settings and sweeps as they are typed.

use std::str::FromStr;

/// More runs than anyone waits for.
const RUNS_MOST: u64 = 1_000_000;
/// Values of a range that does not say how many.
const SWEEP_VALUES: usize = 9;
/// More values than a curve needs.
const SWEEP_VALUES_MOST: usize = 1_000;

/// `A..B` with both ends, or `A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Seeds {
    /// The seeds in order.
    pub(crate) fn all(self) -> Vec<u64> {
        (self.first..=self.last).collect()
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |part: &str| {
            part.trim()
                .parse::<u64>()
                .map_err(|_| format!("`{part}` is no seed; write 1..100, both ends count"))
        };
        let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
        if last < first {
            return Err("the first seed is above the last; write 1..100".into());
        }
        if last - first >= RUNS_MOST {
            return Err(format!("more than {RUNS_MOST} seeds"));
        }
        Ok(Self { first, last })
    }
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as network.home.rtt='5 ms'")?;
        if key.trim().is_empty() {
            return Err("the key is missing; write KEY=VALUE".into());
        }
        Ok(Self { key: key.trim().into(), value: value.trim().into() })
    }
}

/// `KEY=VALUES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Setting { key, value } = text.parse()?;
        let values = match value.split_once("..") {
            Some((from, rest)) => range(from, rest)?,
            None => list(&value),
        };
        if values.is_empty() || values.iter().any(String::is_empty) {
            return Err("a value is empty; write a,b,c or 5 ms..45 ms".into());
        }
        if values.len() > SWEEP_VALUES_MOST {
            return Err(format!("{} values; at most {SWEEP_VALUES_MOST} fit on a curve", values.len()));
        }
        Ok(Self { key, values })
    }
}

/// Splits at commas that stand outside of brackets and quotes.
fn list(text: &str) -> Vec<String> {
    let (mut values, mut depth, mut quoted) = (vec![String::new()], 0i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 && !quoted {
            values.push(String::new());
        } else if let Some(value) = values.last_mut() {
            value.push(c);
        }
    }
    values.into_iter().map(|v| v.trim().to_owned()).collect()
}

/// A number and the unit behind it.
#[derive(Debug, Clone, PartialEq)]
struct Quantity {
    number: f64,
    unit: String,
    whole: bool,
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let text = text.trim().trim_matches('"');
    let unit_at = text.find(|c: char| c.is_alphabetic() || c == '%').unwrap_or(text.len());
    let (number, unit) = (text[..unit_at].trim(), text[unit_at..].trim());
    let parsed = number.parse::<f64>().ok().filter(|n| n.is_finite());
    let number_value =
        parsed.ok_or_else(|| format!("`{text}` is no number; write 5 ms..45 ms, or a list a,b,c"))?;
    Ok(Quantity {
        number: number_value,
        unit: unit.into(),
        whole: unit.is_empty() && !number.contains(['.', 'e', 'E']),
    })
}

/// `from..to`, `from..to:values` or `from..to:step` (a step has a unit where the ends have one, and a sign else).
fn range(from: &str, rest: &str) -> Result<Vec<String>, String> {
    let (to, how) = rest.split_once(':').map_or((rest, None), |(to, how)| (to, Some(how.trim())));
    let (mut from, to) = (quantity(from)?, quantity(to)?);
    if from.unit.is_empty() {
        from.unit.clone_from(&to.unit);
        from.whole &= to.unit.is_empty();
    }
    if from.unit != to.unit {
        return Err(format!("the ends are in {} and {}; write both in one unit", from.unit, to.unit));
    }
    let span = to.number - from.number;
    let whole = from.whole && to.whole;
    let count = match how {
        None if whole && span.abs() < SWEEP_VALUES as f64 => span.abs() as usize + 1,
        None => SWEEP_VALUES,
        Some(how) => values_of(how, &to.unit, span)?,
    };
    if count > SWEEP_VALUES_MOST {
        return Err(format!("{count} values; at most {SWEEP_VALUES_MOST} fit on a curve"));
    }
    let step = if count > 1 { span / (count - 1) as f64 } else { 0.0 };
    let mut values: Vec<String> =
        (0..count).map(|i| written(from.number + step * i as f64, whole, &to.unit)).collect();
    values.dedup();
    Ok(values)
}

fn values_of(how: &str, unit: &str, span: f64) -> Result<usize, String> {
    const CURE: &str = "write 5 ms..45 ms:5 for five values, or 5 ms..45 ms:10 ms for steps";
    let by = quantity(how.trim_start_matches('+'))?;
    if by.unit.is_empty() && by.whole && !how.starts_with('+') {
        return if by.number >= 2.0 {
            Ok(by.number as usize)
        } else {
            Err(format!("fewer than two values; {CURE}"))
        };
    }
    if by.unit != unit || by.number <= 0.0 {
        return Err(format!("`{how}` is no step; {CURE}"));
    }
    Ok(((span.abs() / by.number + 1e-9) as usize).saturating_add(1))
}

/// The number as people write it, without the noise of binary fractions.
fn written(number: f64, whole: bool, unit: &str) -> String {
    if whole {
        return format!("{number:.0}");
    }
    let digits = format!("{number:.6}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    // A number that looks whole stays a fraction where the ends are fractions: shares and layers are told apart by that.
    match (unit.is_empty(), digits.contains('.')) {
        (true, false) => format!("{digits}.0"),
        (true, true) => digits.to_owned(),
        (false, _) => format!("{digits} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed parse is the failed test")]
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Sweep>().unwrap().values
    }

    #[test]
    fn seeds_count_both_ends() {
        assert_eq!("1..3".parse::<Seeds>().unwrap().all(), [1, 2, 3]);
        assert_eq!("7".parse::<Seeds>().unwrap().all(), [7]);
        assert!("3..1".parse::<Seeds>().is_err());
        assert!("0..99999999999".parse::<Seeds>().is_err());
        assert!("a..b".parse::<Seeds>().is_err());
    }

    #[test]
    fn a_sweep_is_a_list_or_a_range() {
        assert_eq!(values("k=5 ms, 10 ms,20 ms"), ["5 ms", "10 ms", "20 ms"]);
        assert_eq!(values("k=5 ms..45 ms:5"), ["5 ms", "15 ms", "25 ms", "35 ms", "45 ms"]);
        assert_eq!(values("k=5..45 ms:20 ms"), ["5 ms", "25 ms", "45 ms"]);
        assert_eq!(values("k=1..4"), ["1", "2", "3", "4"]);
        assert_eq!(values("k=0..100").len(), SWEEP_VALUES);
        assert_eq!(values("k=0.0..1.0:3"), ["0.0", "0.5", "1.0"]);
        assert_eq!(values("k=1..9:+4"), ["1", "5", "9"]);
        assert_eq!(values("plan.split=[40, 7],[30, 17]"), ["[40, 7]", "[30, 17]"]);
    }

    #[test]
    fn a_sweep_that_is_none_is_explained() {
        for (text, part) in [
            ("k", "KEY=VALUE"),
            ("k=", "empty"),
            ("k=1,,2", "empty"),
            ("k=a..b", "no number"),
            ("k=5 ms..1 s", "one unit"),
            ("k=1..2:0 s", "no step"),
            ("k=0..1:1", "fewer than two"),
            ("k=0 ms..1000000 ms:1 ms", "at most"),
        ] {
            let error = text.parse::<Sweep>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
