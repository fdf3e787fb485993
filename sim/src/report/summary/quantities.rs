//! Quantities as a person reads them: three figures and a unit. Times, bytes and counts are `planner::units`'.

use planner::units::fmt_plural;
pub(super) use planner::units::{fmt_bytes as bytes, fmt_count as count, fmt_ms as ms};

/// Milliseconds, or a dash where there is no value.
pub(super) fn ms_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), ms)
}

/// Tokens per second: `12.4 tok/s`.
pub(super) fn rate(value: f64) -> String {
    format!("{} tok/s", figures(value))
}

/// A share as whole per cent: `26 %`; below one, `0.4 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.95 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

/// A signed change in per cent: `+12 %`, `-3.1 %`.
pub(super) fn change(percent: f64) -> String {
    if percent.abs() < 9.95 { format!("{percent:+.1} %") } else { format!("{percent:+.0} %") }
}

/// How many times: `5.4 x`, `0.58 x`.
pub(super) fn times(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.0005 { "< 0.001 x".to_owned() } else { format!("{} x", figures(ratio)) }
}

/// A number with three figures, and no more than that behind the point.
pub(super) fn figures(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v > 0.0 && v < 0.0995 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

/// A count with its noun: `1 machine`, `3 machines`.
pub(super) fn plural(value: usize, noun: &str) -> String {
    fmt_plural(value as u64, noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_carry_three_figures_and_a_unit() {
        assert_eq!([ms_or_dash(Some(80.06)), ms_or_dash(None)], ["80.1 ms", "-"]);
        assert_eq!([rate(12.44), rate(9.999), times(0.578)], ["12.4 tok/s", "10.0 tok/s", "0.58 x"]);
        assert_eq!([percent(0.257), percent(0.004), percent(0.0)], ["26 %", "0.4 %", "0 %"]);
        assert_eq!([change(12.3), change(-3.12)], ["+12 %", "-3.1 %"]);
        assert_eq!([count(7), count(1_204), count(1_000_000)], ["7", "1,204", "1,000,000"]);
        assert_eq!([plural(1, "machine"), plural(1000, "machine")], ["1 machine", "1,000 machines"]);
    }
}
