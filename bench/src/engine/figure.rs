//! Ratios as bars, with the line where both are as fast.

use sim::report::plots::scene::{Anchor, Paint, Scene};

use super::rows::Row;

const INK: Paint = Paint::solid(0x22, 0x26, 0x2b);
const QUIET: Paint = Paint::solid(0x6b, 0x72, 0x7c);
const GRID: Paint = Paint::solid(0xe3, 0xe6, 0xea);
const FASTER: Paint = Paint::solid(0x1f, 0x6f, 0xb2);
const SLOWER: Paint = Paint::solid(0xc4, 0x3a, 0x31);

/// Our tokens per second over llama.cpp's, a bar for each row that has both.
pub(super) fn ratios(rows: &[Row]) -> Scene {
    let rows: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.ratio?))).collect();
    let (left, top, right, height) = (330.0, 62.0, 720.0, 18.0);
    let bottom = top + height * rows.len() as f64;
    let mut scene = Scene::new(820.0, bottom + 40.0);
    let most = rows.iter().map(|(_, ratio)| *ratio).fold(2.0, f64::max).ceil();
    let at = |ratio: f64| left + ratio / most * (right - left);
    scene.title((16.0, 20.0), "Tokens per second over llama.cpp's", 15.0, INK);
    scene.text((16.0, 40.0), "the two in turn on the same machine; medians", 11.5, Anchor::Left, QUIET);
    for tick in 0..=most as u32 {
        let x = at(tick.into());
        scene.line(&[(x, top), (x, bottom)], if tick == 1 { QUIET } else { GRID }, 0.8);
        scene.text((x, bottom + 12.0), &tick.to_string(), 10.5, Anchor::Middle, QUIET);
    }
    for (i, (row, ratio)) in rows.into_iter().enumerate() {
        let middle = top + height * (i as f64 + 0.5);
        let threads = if row.threads == 1 { "thread" } else { "threads" };
        let name = format!("{} {}, {} {threads}, {}", row.model, row.test, row.threads, row.level);
        scene.text((left - 8.0, middle), &name, 10.5, Anchor::Right, INK);
        let paint = if ratio < 1.0 { SLOWER } else { FASTER };
        scene.rect(left, middle - 5.0, at(ratio), middle + 5.0, paint);
        scene.text((at(ratio) + 6.0, middle), &format!("{ratio:.2}"), 10.5, Anchor::Left, QUIET);
    }
    scene
}
