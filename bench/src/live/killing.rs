//! A stage's process is killed while it answers: the client's stream goes on with the same text.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sim::report::write_text;

use super::cells::{self, Load, Net};
use super::client;
use super::mesh::{Mesh, MeshSpec};
use super::rows::round;
use super::{Common, LiveError, Subject, speeds};
use crate::table::csv;

/// The process is killed when so many pieces of text have come.
const AFTER: usize = 40;

/// The network of these measurements.
const NET: Net = Net::Lan { rtt_ms: 2.0, mbit_s: 1_000.0 };

/// One killing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    nodes: u32,
    /// Which was killed, counted from 0, where the client asks.
    killed: u32,
    /// The longest wait between two pieces of text, milliseconds.
    pause_ms: f64,
    /// The longest without a killing.
    usual_ms: f64,
    tokens: u32,
    /// Whether the answer is that of a node alone.
    same_text: bool,
}

/// Kills each process but the first of each mesh of three or more in turn, writes the table and returns it.
///
/// # Errors
/// [`LiveError`]: an answer that was cut short is one.
pub fn run(common: &Common, subject: &Subject, progress: &mut impl FnMut(&str)) -> Result<String, LiveError> {
    let question = speeds::question(&subject.path, common.tokens);
    progress("1 node");
    let alone = client::ask(start(common, subject, 1)?.api(0), &question, |_| {})?;
    let mut rows = Vec::new();
    // Of two that must split, one is left with nobody to split with.
    for nodes in common.nodes.iter().copied().filter(|nodes| *nodes > 2) {
        for killed in 1..nodes {
            progress(&format!("{nodes} nodes, killing n{killed}"));
            let mut mesh = start(common, subject, nodes)?;
            let usual = client::ask(mesh.api(0), &question, |_| {})?;
            let (at, mut outcome) = (mesh.api(0), Ok(()));
            let answer = client::ask(at, &question, |piece| {
                if piece == AFTER {
                    outcome = mesh.kill(killed as usize);
                }
            })?;
            outcome.map_err(LiveError::Kill)?;
            rows.push(Row {
                nodes,
                killed,
                pause_ms: round(answer.longest_pause_ms()),
                usual_ms: round(usual.longest_pause_ms()),
                tokens: answer.answer_tokens,
                same_text: answer.text == alone.text,
            });
        }
    }
    write_text(&common.out.join("kill.csv"), &csv(&rows))?;
    let text = text(&rows);
    write_text(&common.out.join("kill.txt"), &text)?;
    Ok(text)
}

/// A mesh whose planner cuts the model, so that it may cut it anew.
fn start(common: &Common, subject: &Subject, nodes: u32) -> Result<Mesh, LiveError> {
    let layers = subject.shape.layer_count();
    let stages = cells::stages(layers, &cells::even_cut(layers, nodes));
    let load = Load { prompt: 32, output: common.tokens, streams: 1, requests: 1 };
    let (device, software) = (subject.profile.device(), subject.software);
    let scenario = cells::read(&cells::text(&subject.path, &device, &software, &stages, NET, load))?;
    Ok(Mesh::start(&MeshSpec { fleet: Some(&scenario.fleet), ..common.mesh(&subject.path, nodes) })?)
}

fn text(rows: &[Row]) -> String {
    let mut text = String::from("nodes  killed  longest pause ms   without a killing   tokens   text\n");
    for row in rows {
        let Row { nodes, killed, pause_ms, usual_ms, tokens, same_text } = row;
        let same = if *same_text { "same" } else { "OTHER" };
        writeln!(text, "{nodes:>5} {killed:>7} {pause_ms:>17.1} {usual_ms:>19.1} {tokens:>8}   {same}")
            .expect("writing to text never fails");
    }
    text
}
