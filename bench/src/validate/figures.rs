//! Two figures: predicted against published, and the error of each family.

use sim::report::plots::scene::{Anchor, Mark, Paint, Scene};

use super::prediction::{Note, Prediction};
use super::{Group, Validation};

const INK: Paint = Paint::solid(0x22, 0x26, 0x2b);
const QUIET: Paint = Paint::solid(0x6b, 0x72, 0x7c);
const GRID: Paint = Paint::solid(0xe3, 0xe6, 0xea);
const GRADE_A: Paint = Paint::solid(0x1f, 0x6f, 0xb2);
const GRADE_B: Paint = Paint::solid(0xe0, 0x8a, 0x1e);
const GRADE_C: Paint = Paint::solid(0x8a, 0x92, 0x9c);
const ANOMALY: Paint = Paint::solid(0xc4, 0x3a, 0x31);

fn paint(prediction: &Prediction) -> Paint {
    match (prediction.note, prediction.grade) {
        (Some(Note::Anomaly), _) => ANOMALY,
        (Some(Note::Apart), _) => GRADE_C,
        (None, 'A') => GRADE_A,
        (None, 'B') => GRADE_B,
        (None, _) => GRADE_C,
    }
}

/// A logarithmic scale over whole decades.
struct Decades {
    low: f64,
    decades: f64,
    from: f64,
    to: f64,
}

impl Decades {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| *v > 0.0) {
            least = least.min(value.log10());
            most = most.max(value.log10());
        }
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        let low = least.floor();
        Self { low, decades: (most.ceil() - low).max(1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.max(1e-9).log10() - self.low) / self.decades * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        (0..=self.decades as i32).map(|d| 10f64.powf(self.low + f64::from(d))).collect()
    }
}

fn label(tick: f64) -> String {
    if tick >= 1.0 { format!("{tick:.0}") } else { format!("{tick}") }
}

/// Predicted against published, both logarithmic, with the lines of a perfect and of a 25 % wrong prediction.
pub(super) fn scatter(validation: &Validation) -> Scene {
    let (left, top, right, bottom) = (64.0, 78.0, 520.0, 534.0);
    let mut scene = Scene::new(680.0, 580.0);
    let middle = |p: &Prediction| (p.published_tok_s.0 + p.published_tok_s.1) / 2.0;
    let values = || validation.predictions.iter().flat_map(|p| [middle(p), p.predicted_tok_s]);
    let (x, y) = (Decades::over(values(), left, right), Decades::over(values(), bottom, top));
    scene.title((left, 20.0), "Predicted against published decode, tokens per second", 15.0, INK);
    let constants = validation.constants_fitted;
    let subtitle = format!("{} rows, {constants} constants fitted", validation.predictions.len());
    scene.text((left, 39.0), &subtitle, 11.5, Anchor::Left, QUIET);
    for tick in x.ticks() {
        scene.line(&[(x.at(tick), top), (x.at(tick), bottom)], GRID, 0.8);
        scene.line(&[(left, y.at(tick)), (right, y.at(tick))], GRID, 0.8);
        scene.text((x.at(tick), bottom + 12.0), &label(tick), 10.5, Anchor::Middle, QUIET);
        scene.text((left - 8.0, y.at(tick)), &label(tick), 10.5, Anchor::Right, QUIET);
    }
    scene.text(((left + right) / 2.0, bottom + 30.0), "published", 11.5, Anchor::Middle, INK);
    scene.text((left - 34.0, top - 15.0), "predicted", 11.5, Anchor::Left, INK);
    let ends = x.ticks();
    if let (Some(low), Some(high)) = (ends.first(), ends.last()) {
        scene.line(&[(x.at(*low), y.at(*low)), (x.at(*high), y.at(*high))], QUIET, 1.0);
        for factor in [0.8, 1.25] {
            let start = (x.at(low.max(low / factor)), y.at((low * factor).max(*low)));
            let end = (x.at(high.min(high / factor)), y.at((high * factor).min(*high)));
            scene.dashed(start, end, QUIET.faded(0.6), 0.8);
        }
    }
    for p in &validation.predictions {
        scene.marks.push(Mark::Dot((x.at(middle(p)), y.at(p.predicted_tok_s)), 3.4, paint(p).faded(0.75)));
    }
    let legend = [("grade A", GRADE_A), ("grade B", GRADE_B), ("C, or apart", GRADE_C), ("flagged", ANOMALY)];
    for (i, (name, colour)) in legend.into_iter().enumerate() {
        let at = top + 12.0 + 19.0 * i as f64;
        scene.marks.push(Mark::Dot((right + 22.0, at), 4.0, colour));
        scene.text((right + 32.0, at), name, 11.5, Anchor::Left, INK);
    }
    scene
}

/// Median absolute error of each family and grade as a bar, its P90 as a thin line.
pub(super) fn errors_by_family(validation: &Validation) -> Scene {
    let groups: Vec<&Group> = validation.by_family.iter().filter(|g| g.accuracy.rows > 0).collect();
    let (left, top, right, row) = (190.0, 62.0, 640.0, 22.0);
    let mut scene = Scene::new(740.0, top + row * groups.len() as f64 + 48.0);
    let bottom = top + row * groups.len() as f64;
    let most = groups.iter().map(|g| g.accuracy.p90_percent).fold(10.0, f64::max);
    let step = if most > 200.0 {
        100.0
    } else if most > 60.0 {
        20.0
    } else {
        10.0
    };
    let end = (most / step).ceil() * step;
    let at = |percent: f64| left + percent / end * (right - left);
    scene.title((16.0, 20.0), "Absolute error of predicted decode by family and grade", 15.0, INK);
    let constants = validation.constants_fitted;
    let subtitle = format!("bar: median, line: P90; {constants} constants fitted; flagged rows left out");
    scene.text((16.0, 40.0), &subtitle, 11.5, Anchor::Left, QUIET);
    for n in 0..=(end / step) as u32 {
        let percent = f64::from(n) * step;
        scene.line(&[(at(percent), top), (at(percent), bottom)], GRID, 0.8);
        scene.text((at(percent), bottom + 12.0), &format!("{percent:.0} %"), 10.5, Anchor::Middle, QUIET);
    }
    for (i, group) in groups.iter().enumerate() {
        let middle = top + row * (i as f64 + 0.5);
        let colour = match group.grade {
            'A' => GRADE_A,
            'B' => GRADE_B,
            _ => GRADE_C,
        };
        let name = format!("{} {}", group.family.as_deref().unwrap_or_default(), group.grade);
        scene.text((left - 8.0, middle), &name, 11.5, Anchor::Right, INK);
        let accuracy = &group.accuracy;
        scene.rect(left, middle - 6.0, at(accuracy.median_percent), middle + 6.0, colour);
        scene.line(&[(left, middle), (at(accuracy.p90_percent), middle)], colour, 1.6);
        let count = format!("{:.0} % of {}", accuracy.median_percent, accuracy.rows);
        scene.text((at(accuracy.p90_percent) + 6.0, middle), &count, 10.5, Anchor::Left, QUIET);
    }
    scene
}
