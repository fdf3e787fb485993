//! Tokens a second over the round trip: measured as dots, foretold as lines.

use sim::report::plots::scene::{Anchor, Mark, Paint, Scene};

use super::rows::Row;

const INK: Paint = Paint::solid(0x22, 0x26, 0x2b);
const QUIET: Paint = Paint::solid(0x6b, 0x72, 0x7c);
const GRID: Paint = Paint::solid(0xe3, 0xe6, 0xea);
const BY_NODES: [Paint; 3] = [INK, Paint::solid(0x1f, 0x6f, 0xb2), Paint::solid(0xb4, 0x53, 0x09)];

const PANEL: (f64, f64) = (250.0, 270.0);
const LEFT: f64 = 58.0;
const GAP: f64 = 46.0;
const TOP: f64 = 88.0;

/// One panel a rate of the links, with Wi-Fi in the last; dots with the least and the most measured, the simulator's word
/// as a line, the limit dashed.
pub(super) fn speeds(rows: &[Row]) -> Scene {
    let panels = panels(rows);
    let width = LEFT + panels.len() as f64 * (PANEL.0 + GAP) + 20.0;
    let mut scene = Scene::new(width, TOP + PANEL.1 + 96.0);
    scene.title((16.0, 20.0), "Tokens a second of one stream, measured and foretold", 15.0, INK);
    let note = "dots: real processes behind the emulator; lines: the simulator, from the profile of one machine at its speed just then;";
    scene.text((16.0, 40.0), note, 11.5, Anchor::Left, QUIET);
    let note = "dashed: the ring's limit, computing and one trip from stage to stage";
    scene.text((16.0, 56.0), note, 11.5, Anchor::Left, QUIET);
    let most =
        rows.iter().map(|row| row.tok_s_most.max(row.limit_tok_s).max(row.sim_now_tok_s)).fold(1.0, f64::max);
    let most = (most / 20.0).ceil() * 20.0;
    for (i, (name, of_panel)) in panels.iter().enumerate() {
        let left = LEFT + i as f64 * (PANEL.0 + GAP);
        Panel { left, most, rtts: rtts(of_panel) }.draw(&mut scene, name, of_panel);
    }
    legend(&mut scene);
    scene
}

/// Rows by what follows the round trip in the network's name, in the order of their first; a node alone is in all.
fn panels(rows: &[Row]) -> Vec<(String, Vec<&Row>)> {
    let mut panels: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows.iter().filter(|row| row.nodes > 1) {
        let name = row.net.split_once("ms-").map_or(row.net.as_str(), |(_, rate)| rate).to_owned();
        match panels.iter_mut().find(|(known, _)| *known == name) {
            Some((_, of_panel)) => of_panel.push(row),
            None => panels.push((name, vec![row])),
        }
    }
    for (_, of_panel) in &mut panels {
        of_panel.extend(rows.iter().filter(|row| row.nodes == 1));
    }
    panels
}

fn rtts(rows: &[&Row]) -> Vec<f64> {
    let mut rtts: Vec<f64> = rows.iter().filter(|row| row.nodes > 1).map(|row| row.rtt_ms).collect();
    rtts.sort_by(f64::total_cmp);
    rtts.dedup();
    rtts
}

struct Panel {
    left: f64,
    most: f64,
    /// In even steps, for they grow about fourfold.
    rtts: Vec<f64>,
}

impl Panel {
    fn x(&self, rtt_ms: f64) -> f64 {
        let step = PANEL.0 / (self.rtts.len() as f64);
        let place = self.rtts.iter().position(|rtt| *rtt >= rtt_ms).unwrap_or(0);
        self.left + step * (place as f64 + 0.5)
    }

    fn y(&self, tok_s: f64) -> f64 {
        TOP + PANEL.1 * (1.0 - tok_s / self.most)
    }

    fn draw(&self, scene: &mut Scene, name: &str, rows: &[&Row]) {
        let (right, bottom) = (self.left + PANEL.0, TOP + PANEL.1);
        for tick in 0..=4 {
            let tok_s = self.most * f64::from(tick) / 4.0;
            scene.line(&[(self.left, self.y(tok_s)), (right, self.y(tok_s))], GRID, 0.8);
            scene.text((self.left - 6.0, self.y(tok_s)), &format!("{tok_s:.0}"), 10.5, Anchor::Right, QUIET);
        }
        for rtt in &self.rtts {
            scene.text((self.x(*rtt), bottom + 13.0), &format!("{rtt} ms"), 10.5, Anchor::Middle, QUIET);
        }
        let title = name.replace("mbit", " Mbit/s").replace("wifi", "Wi-Fi, 240 Mbit/s shared");
        scene.text(((self.left + right) / 2.0, bottom + 31.0), &title, 11.5, Anchor::Middle, INK);
        for (nodes, paint) in (1u32..).zip(BY_NODES) {
            let mut of_nodes: Vec<&&Row> = rows.iter().filter(|row| row.nodes == nodes).collect();
            of_nodes.sort_by(|a, b| a.rtt_ms.total_cmp(&b.rtt_ms));
            self.draw_nodes(scene, &of_nodes, paint);
        }
    }

    fn draw_nodes(&self, scene: &mut Scene, rows: &[&&Row], paint: Paint) {
        for (a, b) in rows.iter().zip(rows.iter().skip(1)) {
            let (from, to) = (self.x(a.rtt_ms), self.x(b.rtt_ms));
            scene.line(&[(from, self.y(a.sim_now_tok_s)), (to, self.y(b.sim_now_tok_s))], paint, 1.4);
            scene.dashed((from, self.y(a.limit_tok_s)), (to, self.y(b.limit_tok_s)), paint.faded(0.6), 1.0);
        }
        for row in rows {
            let x = self.x(row.rtt_ms);
            if rows.len() == 1 {
                let ends =
                    if row.nodes == 1 { (self.left, self.left + PANEL.0) } else { (x - 22.0, x + 22.0) };
                scene.line(
                    &[(ends.0, self.y(row.sim_now_tok_s)), (ends.1, self.y(row.sim_now_tok_s))],
                    paint,
                    1.4,
                );
                let limit = self.y(row.limit_tok_s);
                scene.dashed((ends.0, limit), (ends.1, limit), paint.faded(0.6), 1.0);
            }
            scene.line(&[(x, self.y(row.tok_s_least)), (x, self.y(row.tok_s_most))], paint, 2.0);
            scene.marks.push(Mark::Dot((x, self.y(row.tok_s)), 4.0, paint));
        }
    }
}

fn legend(scene: &mut Scene) {
    let names = ["1 node", "2 nodes", "3 nodes"];
    let y = TOP + PANEL.1 + 62.0;
    scene.text((LEFT, y + 20.0), "round trip; tokens a second upwards", 11.5, Anchor::Left, QUIET);
    for (i, (name, paint)) in names.into_iter().zip(BY_NODES).enumerate() {
        let x = LEFT + 10.0 + 90.0 * i as f64;
        scene.marks.push(Mark::Dot((x, y), 4.0, paint));
        scene.text((x + 10.0, y), name, 11.5, Anchor::Left, INK);
    }
}
