//! One stream over each number of nodes and each network, next to what the simulator says.

use std::path::Path;

use planner::plan::LayerRange;
use sim::report::manifest::Manifest;
use sim::report::write_text;

use super::cells::{self, Load, Net};
use super::client::{self, Answer, Question};
use super::mesh::{Mesh, MeshSpec};
use super::rows::{self, Measured, Row};
use super::{Common, LiveError, Subject, figure, prediction};

/// Long answers come of it.
pub(super) const PROMPT: &str =
    "Here is a long and detailed history of the city of Venice, from its beginnings to the present day.\n\n";

/// Measures, writes table, figure and manifest, and returns the table.
///
/// # Errors
/// [`LiveError`].
pub fn run(common: &Common, subject: &Subject, progress: &mut impl FnMut(&str)) -> Result<String, LiveError> {
    let nets = nets(&common.only)?;
    let mut rows = Vec::new();
    progress("1 node");
    let (alone, row) = alone(common, subject)?;
    if common.nodes.contains(&1) {
        rows.push(row);
    }
    for net in nets {
        for nodes in common.nodes.iter().copied().filter(|nodes| *nodes > 1) {
            progress(&format!("{nodes} nodes, {}", net.name()));
            rows.push(cell(common, subject, net, nodes, &alone)?);
        }
    }
    let rows = rows::merged(&common.out.join("speeds.csv"), &rows)?;
    save(common, subject, &rows)?;
    Ok(rows::text(&rows))
}

/// The networks whose name begins with `only`.
pub(super) fn nets(only: &str) -> Result<Vec<Net>, LiveError> {
    let mut nets = Net::all();
    let known: Vec<String> = nets.iter().map(Net::name).collect();
    nets.retain(|net| net.name().starts_with(only));
    if nets.is_empty() {
        return Err(LiveError::NoNet { only: only.into(), known: known.join(", ") });
    }
    Ok(nets)
}

/// A node that holds the whole model.
fn alone(common: &Common, subject: &Subject) -> Result<(Answer, Row), LiveError> {
    let whole = [LayerRange::new(0, subject.shape.layer_count())];
    // Its scenario has no network; that of any cell does for the processes.
    let (answers, late) = measure(common, subject, Net::Wifi, &[])?;
    let first = answers.first().cloned().unwrap_or_default();
    let foretold = foretell(subject, Net::Wifi, &whole, &first)?;
    let text = first.text.clone();
    let measured = Measured {
        answers: &answers,
        foretold: foretold.0,
        llama_rpc: None,
        emulator_late_us: late,
        text: &text,
    };
    let row = Row::new(None, 1, &measured);
    Ok((first, row))
}

fn cell(common: &Common, subject: &Subject, net: Net, nodes: u32, alone: &Answer) -> Result<Row, LiveError> {
    let layers = subject.shape.layer_count();
    let cut = cells::even_cut(layers, nodes);
    let (answers, emulator_late_us) = measure(common, subject, net, &cut)?;
    let first = answers.first().cloned().unwrap_or_default();
    let (foretold, llama_rpc) = foretell(subject, net, &cells::stages(layers, &cut), &first)?;
    let text = &alone.text;
    Ok(Row::new(
        Some(net),
        nodes,
        &Measured { answers: &answers, foretold, llama_rpc, emulator_late_us, text },
    ))
}

/// Answers of a mesh, after one that opens the streams between the nodes; and the emulator's lateness.
fn measure(
    common: &Common,
    subject: &Subject,
    net: Net,
    cut: &[u32],
) -> Result<(Vec<Answer>, Option<f64>), LiveError> {
    let stages = cells::stages(subject.shape.layer_count(), cut);
    let load = Load { prompt: 32, output: common.tokens, streams: 1, requests: 1 };
    let device = subject.profile.device();
    let scenario =
        cells::read(&cells::text(&subject.path, &device, &subject.profile.software(), &stages, net, load))?;
    let mesh = Mesh::start(&MeshSpec {
        binary: &common.meshwright,
        model: &subject.path,
        nodes: cut.len() as u32 + 1,
        cut: Some(cut),
        threads: common.threads,
        fleet: &scenario.fleet,
        profiles: &common.out,
        protocol: common.protocol,
        more: &common.more,
    })?;
    let question = question(&subject.path, common.tokens);
    client::ask(mesh.api(0), &Question { tokens: 4, ..question.clone() }, |_| {})?;
    let ask = |_| client::ask(mesh.api(0), &question, |_| {});
    let answers = (0..common.repeats).map(ask).collect::<Result<Vec<_>, _>>()?;
    Ok((answers, mesh.punctuality().map(|punctual| punctual.bound_us(0.99))))
}

/// The question of all cells.
pub(super) fn question(model: &Path, tokens: u32) -> Question {
    let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Question { model: name, prompt: PROMPT.into(), tokens }
}

/// What the simulator says of a cell with such an answer, and of llama.cpp's RPC in it.
fn foretell(
    subject: &Subject,
    net: Net,
    stages: &[LayerRange],
    answer: &Answer,
) -> Result<(prediction::Foretold, Option<prediction::Speed>), LiveError> {
    let load = Load { prompt: answer.prompt_tokens, output: answer.answer_tokens, streams: 1, requests: 2 };
    let device = subject.profile.device();
    let text = cells::text(&subject.path, &device, &subject.profile.software(), stages, net, load);
    let scenario = cells::read(&text)?;
    let rpc = (stages.len() > 1).then(|| prediction::llama_rpc(&scenario)).transpose()?;
    Ok((prediction::foretell(&scenario, net)?, rpc))
}

fn save(common: &Common, subject: &Subject, rows: &[Row]) -> Result<(), LiveError> {
    write_text(&common.out.join("speeds.csv"), &rows::csv(rows))?;
    write_text(&common.out.join("speeds.txt"), &rows::text(rows))?;
    figure::speeds(rows).save(&common.out, "speeds")?;
    Manifest::of_files("live", std::slice::from_ref(&subject.path)).write(&common.out)?;
    Ok(())
}
