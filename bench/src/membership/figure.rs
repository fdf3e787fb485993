//! Two panels over the number of members: what each sends at rest, and how long news take.

use sim::report::plots::scene::{Anchor, Mark, Paint, Scene};

use super::Row;

const INK: Paint = Paint::solid(0x22, 0x26, 0x2b);
const QUIET: Paint = Paint::solid(0x6b, 0x72, 0x7c);
const GRID: Paint = Paint::solid(0xe3, 0xe6, 0xea);
const LINES: [Paint; 7] = [
    Paint::solid(0xb4, 0x53, 0x09),
    Paint::solid(0xd9, 0x8c, 0x3f),
    Paint::solid(0x1f, 0x6f, 0xb2),
    Paint::solid(0x2f, 0x85, 0x5a),
    Paint::solid(0x7c, 0x4d, 0xa3),
    Paint::solid(0x6b, 0x72, 0x7c),
    Paint::solid(0x22, 0x26, 0x2b),
];

const PANEL: (f64, f64) = (360.0, 250.0);
const TOP: f64 = 84.0;
const LEFT: f64 = 64.0;
const GAP: f64 = 270.0;

struct Panel<'a> {
    left: f64,
    nodes: &'a [f64],
    most: f64,
}

impl Panel<'_> {
    /// Sizes are shown by their logarithm.
    fn x(&self, nodes: f64) -> f64 {
        let (first, last) = (self.nodes[0].ln(), self.nodes[self.nodes.len() - 1].ln());
        let share = if last > first { (nodes.ln() - first) / (last - first) } else { 0.5 };
        self.left + 14.0 + (PANEL.0 - 28.0) * share
    }

    fn y(&self, value: f64) -> f64 {
        TOP + PANEL.1 * (1.0 - value / self.most)
    }

    fn frame(&self, scene: &mut Scene, title: &str, digits: usize) {
        let bottom = TOP + PANEL.1;
        scene.text((self.left, TOP - 16.0), title, 12.0, Anchor::Left, INK);
        for tick in 0..=5 {
            let value = self.most * f64::from(tick) / 5.0;
            scene.line(&[(self.left, self.y(value)), (self.left + PANEL.0, self.y(value))], GRID, 0.8);
            scene.text(
                (self.left - 6.0, self.y(value)),
                &format!("{value:.digits$}"),
                10.5,
                Anchor::Right,
                QUIET,
            );
        }
        for nodes in self.nodes {
            scene.text((self.x(*nodes), bottom + 13.0), &format!("{nodes:.0}"), 10.5, Anchor::Middle, QUIET);
        }
        scene.text((self.left + PANEL.0 / 2.0, bottom + 31.0), "members", 11.5, Anchor::Middle, INK);
    }

    fn line(&self, scene: &mut Scene, values: &[Option<f64>], paint: Paint) {
        let known = self.nodes.iter().zip(values).filter_map(|(n, value)| Some((n, (*value)?)));
        let points: Vec<(f64, f64)> = known.map(|(n, value)| (self.x(*n), self.y(value))).collect();
        scene.line(&points, paint, 1.6);
        scene.marks.extend(points.into_iter().map(|point| Mark::Dot(point, 3.2, paint)));
    }
}

/// A rounder number above `value`.
fn above(value: f64, step: f64) -> f64 {
    ((value * 1.1 / step).ceil() * step).max(step)
}

/// The figure; of at least one row.
pub(super) fn scene(rows: &[Row]) -> Scene {
    let mut scene = Scene::new(LEFT + 2.0 * PANEL.0 + GAP + 40.0, TOP + PANEL.1 + 50.0);
    scene.title((16.0, 20.0), "To know each other: cost at rest, and time until all know", 15.0, INK);
    let note =
        "simulated, median of the seeds; 60 ms across the plane, 0.5 % loss; bytes with UDP and IP headers";
    scene.text((16.0, 40.0), note, 11.5, Anchor::Left, QUIET);
    let nodes: Vec<f64> = rows.iter().map(|row| f64::from(row.nodes)).collect();
    if nodes.is_empty() {
        return scene;
    }
    let values = |of: fn(&Row) -> Option<f64>| -> Vec<Option<f64>> { rows.iter().map(of).collect() };
    let rest = values(|row| Some(row.rest_bytes_per_s));
    let panel = Panel {
        left: LEFT,
        nodes: &nodes,
        most: above(rest.iter().flatten().copied().fold(0.0, f64::max), 100.0),
    };
    panel.frame(&mut scene, "bytes per second that a member sends at rest", 0);
    panel.line(&mut scene, &rest, LINES[2]);
    let lines = [
        ("crash, all", values(|row| Some(row.crash_all_s))),
        ("crash, first", values(|row| Some(row.crash_first_s))),
        ("new member, all", values(|row| Some(row.join_all_s))),
        ("leave, all", values(|row| Some(row.leave_all_s))),
        ("changed record, all", values(|row| Some(row.change_all_s))),
        ("a model's hosts die: load begins", values(|row| row.service_begun_s)),
        ("service is back, load included", values(|row| row.service_back_s)),
    ];
    let most = lines.iter().flat_map(|(_, values)| values.iter().flatten()).copied().fold(0.0, f64::max);
    let panel = Panel { left: LEFT + PANEL.0 + 70.0, nodes: &nodes, most: above(most, 1.0) };
    panel.frame(&mut scene, "seconds until it is known, or service is back", 1);
    let right = panel.left + PANEL.0 + 12.0;
    for (i, ((name, values), paint)) in lines.iter().zip(LINES).enumerate() {
        panel.line(&mut scene, values, paint);
        let y = TOP + 14.0 + 18.0 * i as f64;
        scene.marks.push(Mark::Dot((right + 4.0, y), 3.2, paint));
        scene.text((right + 14.0, y), name, 11.0, Anchor::Left, INK);
    }
    scene
}
