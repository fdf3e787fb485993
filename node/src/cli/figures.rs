//! Numbers with units, for people; counts are `planner::units`'.

pub(super) use planner::units::{fmt_count as count, fmt_plural as plural};

/// `134.5 M`: parameters.
pub(super) fn short(number: u64) -> String {
    let scaled = |unit: f64| number as f64 / unit;
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{:.1} k", scaled(1e3)),
        1_000_000..1_000_000_000 => format!("{:.1} M", scaled(1e6)),
        1_000_000_000..1_000_000_000_000 => format!("{:.1} B", scaled(1e9)),
        _ => format!("{:.1} T", scaled(1e12)),
    }
}

/// `120 tok/s`, three digits.
pub(super) fn rate(tokens_per_s: f64) -> String {
    let decimals = match tokens_per_s {
        rate if rate < 9.995 => 2,
        rate if rate < 99.95 => 1,
        _ => 0,
    };
    format!("{tokens_per_s:.decimals$} tok/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([short(512), short(134_515_008), short(70_553_706_496)], ["512", "134.5 M", "70.6 B"]);
        assert_eq!([rate(1.234), rate(12.34), rate(99.96)], ["1.23 tok/s", "12.3 tok/s", "100 tok/s"]);
        assert_eq!([plural(1, "token"), plural(2048, "token")], ["1 token", "2,048 tokens"]);
    }
}
