//! Scales with round ticks, and the frame around a chart.

use super::scene::{Anchor, Label, Mark, Paint, Scene};
use super::{GRID, INK, QUIET};

/// A scale from values to points, linear or logarithmic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// Value at `at_low`.
    pub(super) low: f64,
    /// Value at `at_high`.
    pub(super) high: f64,
    /// Points.
    pub(super) at_low: f64,
    /// Points.
    pub(super) at_high: f64,
    /// Whether equal ratios, not equal differences, are equally far apart.
    pub(super) logarithmic: bool,
    /// Whether values are whole numbers, and ticks too.
    pub(super) whole: bool,
}

impl Scale {
    pub(super) fn new((low, high): (f64, f64), (at_low, at_high): (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, at_low, at_high, logarithmic: false, whole: false }
    }

    /// A logarithmic scale that holds `low..=high`, both above zero, between two of its ticks.
    pub(super) fn logarithmic((low, high): (f64, f64), (at_low, at_high): (f64, f64)) -> Self {
        let below = log_steps(low, high).rev().find(|t| *t <= low).unwrap_or(low);
        let above = log_steps(low, high).find(|t| *t >= high).unwrap_or(high);
        Self { logarithmic: true, ..Self::new((below, above), (at_low, at_high)) }
    }

    /// The point of `value`.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.at_low + share * (self.at_high - self.at_low)
    }

    /// Round values inside the scale, about `wanted` of them.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.logarithmic {
            return log_steps(self.low, self.high).filter(|t| (self.low..=self.high).contains(t)).collect();
        }
        let step = round_step((self.high - self.low) / wanted.max(1) as f64);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let ticks = (first..=last).map(|n| n as f64 * step);
        ticks.filter(|t| !self.whole || t.fract() == 0.0).collect()
    }
}

/// 1, 2 and 5 times the powers of ten from the one below `low` to the one above `high`, ascending.
fn log_steps(low: f64, high: f64) -> impl DoubleEndedIterator<Item = f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last).flat_map(|power| {
        [1.0, 2.0, 5.0].map(|m| if power < 0 { m / 10f64.powi(-power) } else { m * 10f64.powi(power) })
    })
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is not much under `step`.
pub(super) fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.max(f64::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= step * 0.8).unwrap_or(step)
}

/// `value` without needless zeros: `0.25`, `40`, `1,500`.
pub(super) fn tick_text(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    let text = format!("{}", if rounded == 0.0 { 0.0 } else { rounded });
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(w, r)| (w, r));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |d| ("-", d));
    let grouped = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|c| String::from_utf8_lossy(c).into_owned())
        .collect::<Vec<_>>()
        .join(",");
    if rest.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{rest}") }
}

/// Vertical grid lines with labels below, and the axis' name.
pub(super) fn bottom_axis(scene: &mut Scene, x: &Scale, top: f64, bottom: f64, name: &str) {
    let wanted = ((x.at_high - x.at_low) / 85.0).floor().max(2.0) as usize;
    for tick in x.ticks(wanted) {
        let at = x.at(tick);
        scene.line(&[(at, top), (at, bottom)], GRID, 0.8);
        scene.text((at, bottom + 11.0), &tick_text(tick), 10.5, Anchor::Middle, QUIET);
    }
    scene.line(&[(x.at_low, bottom), (x.at_high, bottom)], QUIET, 1.0);
    scene.text(((x.at_low + x.at_high) / 2.0, bottom + 29.0), name, 11.5, Anchor::Middle, INK);
}

/// Horizontal grid lines with labels to the left, and the axis' name above its upper end.
pub(super) fn left_axis(scene: &mut Scene, y: &Scale, left: f64, right: f64, name: &str) {
    let wanted = ((y.at_low - y.at_high) / 45.0).floor().max(2.0) as usize;
    for tick in y.ticks(wanted) {
        let at = y.at(tick);
        scene.line(&[(left, at), (right, at)], GRID, 0.8);
        scene.text((left - 8.0, at), &tick_text(tick), 10.5, Anchor::Right, QUIET);
    }
    scene.line(&[(left, y.at_low), (right, y.at_low)], QUIET, 1.0);
    let middle = (y.at_low + y.at_high) / 2.0;
    scene.marks.push(Mark::Text(Label {
        at: (16.0, middle),
        text: name.to_owned(),
        size: 11.5,
        anchor: Anchor::Middle,
        paint: INK,
        bold: false,
        upwards: true,
    }));
}

/// A square of colour and a word, for each entry; returns the width used, points.
pub(super) fn legend(scene: &mut Scene, mut x: f64, y: f64, entries: &[(&str, Paint)]) -> f64 {
    let start = x;
    for (word, paint) in entries {
        scene.rect(x, y - 5.0, x + 10.0, y + 5.0, *paint);
        scene.text((x + 15.0, y), word, 11.0, Anchor::Left, INK);
        x += 15.0 + super::scene::text_width(word, 11.0, false) + 18.0;
    }
    x - start
}

/// Moves `wanted` heights apart until neighbours are at least `gap` away, keeping their order and staying within
/// `low..=high` as far as they fit.
pub(super) fn spread_apart(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut least = low;
    for index in &order {
        placed[*index] = placed[*index].max(least);
        least = placed[*index] + gap;
    }
    let mut most = high;
    for index in order.iter().rev() {
        placed[*index] = placed[*index].min(most);
        most = placed[*index] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high| Scale::new((low, high), (0.0, 100.0)).ticks(5);
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 83.0), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(-1.0, 1.0).len(), 5);
    }

    #[test]
    fn whole_values_have_whole_ticks() {
        let scale = Scale { whole: true, ..Scale::new((0.0, 16.0), (0.0, 600.0)) };
        assert_eq!(scale.ticks(6), [0.0, 5.0, 10.0, 15.0]);
    }

    #[test]
    fn a_logarithmic_scale_sets_equal_ratios_equally_far_apart() {
        let scale = Scale::logarithmic((0.3, 150.0), (300.0, 0.0));
        assert_eq!(scale.ticks(0), [0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        let distance = |a: f64, b: f64| scale.at(a) - scale.at(b);
        assert!((distance(1.0, 10.0) - distance(10.0, 100.0)).abs() < 1e-9);
        assert!((scale.at(0.2) - 300.0).abs() < 1e-9 && scale.at(200.0).abs() < 1e-9);
    }

    #[test]
    fn tick_labels_are_short() {
        let texts: Vec<String> = [0.0, 0.25, 40.0, 1500.0, -1_234_567.0, 0.1 + 0.2].map(tick_text).into();
        assert_eq!(texts, ["0", "0.25", "40", "1,500", "-1,234,567", "0.3"]);
    }

    proptest! {
        #[test]
        fn there_are_a_few_ticks_whatever_the_range(low in -1e6f64..1e6, width in 1e-3f64..1e9) {
            let scale = Scale::new((low, low + width), (0.0, 500.0));
            let ticks = scale.ticks(6);
            prop_assert!((1..=9).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks.iter().all(|t| (-1e-3..=500.001).contains(&scale.at(*t))));
        }

        #[test]
        fn labels_do_not_touch_when_there_is_room(wanted in proptest::collection::vec(0f64..100.0, 1..8)) {
            let placed = spread_apart(&wanted, 12.0, 0.0, 100.0);
            let mut sorted = placed.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert!(sorted.windows(2).all(|w| w[1] - w[0] >= 12.0 - 1e-9), "{placed:?}");
            prop_assert!(placed.iter().all(|p| (-1e-9..=100.0 + 1e-9).contains(p)), "{placed:?}");
        }
    }
}
