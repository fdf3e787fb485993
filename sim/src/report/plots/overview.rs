//! Several scenarios side by side: what the plan gives, what the planner recommends, and the fastest baseline.

use super::super::json::{RECOMMENDED, Report};
use super::super::summary::engine_title;
use super::axis::{Scale, bottom_axis, legend};
use super::scene::{Anchor, Paint, Scene};
use super::{BLUE, GREEN, HEAD, INK, QUIET, VERMILLION, WHITE, WIDTH, fitted, titled};

const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = WIDTH - 190.0;
const TOP: f64 = HEAD + 42.0;

/// One bar: value, colour, and what is said behind it.
struct Bar {
    tok_s: f64,
    paint: Paint,
    note: String,
}

pub(super) fn draw(title: &str, reports: &[Report]) -> Scene {
    let groups: Vec<(&Report, Vec<Bar>)> = reports.iter().map(|r| (r, bars(r))).collect();
    let heights: f64 = groups.iter().map(|(_, bars)| height(bars)).sum();
    let bottom = TOP + heights + groups.len() as f64 * GAP;
    let mut scene = Scene::new(WIDTH, bottom + 48.0);
    legend(
        &mut scene,
        LEFT,
        HEAD + 18.0,
        &[("the scenario's plan", BLUE), ("the recommended plan", GREEN), ("fastest baseline", VERMILLION)],
    );
    let most = groups.iter().flat_map(|(_, bars)| bars.iter().map(|b| b.tok_s)).fold(0.0, f64::max);
    let x = Scale::new((0.0, most * 1.02), (LEFT, RIGHT));
    bottom_axis(&mut scene, &x, TOP, bottom, "tokens per second");
    let mut top = TOP + GAP / 2.0;
    for (report, bars) in &groups {
        group(&mut scene, &x, top, report, bars);
        top += height(bars) + GAP;
    }
    titled(scene, title, "Output tokens per second of one stream, simulated; longer is better")
}

/// Room for the bars, and for the two lines beside them.
fn height(bars: &[Bar]) -> f64 {
    (bars.len() as f64 * BAR).max(2.0 * BAR)
}

fn bars(report: &Report) -> Vec<Bar> {
    let runs = report.runs();
    let baseline = runs
        .iter()
        .skip(1)
        .filter(|(name, _)| name != RECOMMENDED)
        .max_by(|a, b| a.1.decode_tok_s.total_cmp(&b.1.decode_tok_s));
    let recommended = runs.iter().find(|(name, _)| name == RECOMMENDED);
    let plan = super::super::summary::plan_words;
    let mut bars = vec![Bar { tok_s: report.decode_tok_s, paint: BLUE, note: plan(&report.plan) }];
    if let (Some((_, figures)), Some(recommended)) = (recommended, &report.recommended) {
        bars.push(Bar { tok_s: figures.decode_tok_s, paint: GREEN, note: plan(&recommended.plan) });
    }
    if let Some((name, figures)) = baseline {
        bars.push(Bar {
            tok_s: figures.decode_tok_s,
            paint: VERMILLION,
            note: engine_title(name).to_owned(),
        });
    }
    bars
}

fn group(scene: &mut Scene, x: &Scale, top: f64, report: &Report, bars: &[Bar]) {
    let middle = top + height(bars) / 2.0;
    let first = middle - bars.len() as f64 * BAR / 2.0;
    let lines = [(report.scenario.as_str(), 12.0, INK, -7.5), (report.model.name.as_str(), 10.5, QUIET, 7.5)];
    for (text, size, paint, below) in lines {
        let text = fitted(text, size, false, LEFT - 34.0);
        scene.text((LEFT - 14.0, middle + below), &text, size, Anchor::Right, paint);
    }
    for (n, bar) in bars.iter().enumerate() {
        let upper = first + n as f64 * BAR;
        let end = x.at(bar.tok_s);
        scene.rect(x.at_low, upper + 1.0, end.max(x.at_low + 1.0), upper + BAR - 1.0, bar.paint);
        let text = format!("{:.1}  {}", bar.tok_s, bar.note);
        let text = fitted(&text, 10.0, false, WIDTH - 12.0 - end);
        let width = super::scene::text_width(&text, 10.0, false);
        scene.rect(end + 3.0, upper + 1.0, end + 7.0 + width, upper + BAR - 1.0, WHITE);
        scene.text((end + 5.0, upper + BAR / 2.0), &text, 10.0, Anchor::Left, INK);
    }
}
