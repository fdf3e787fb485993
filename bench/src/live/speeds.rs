//! One stream over each number of nodes and each network, next to what the simulator says.

use std::path::Path;

use planner::plan::LayerRange;
use sim::report::manifest::Manifest;
use sim::report::stats::middle;
use sim::report::write_text;

use super::cells::{self, Load, Net};
use super::client::{self, Answer, Question};
use super::mesh::{Mesh, MeshSpec};
use super::rows::{self, Measured, Row};
use super::{Common, LiveError, Subject, figure, prediction};

/// Long answers come of it.
pub(super) const PROMPT: &str =
    "Here is a long and detailed history of the city of Venice, from its beginnings to the present day.\n\n";

/// How far the simulator may be off in the middle row, per cent.
pub const MEDIAN_PERCENT: f64 = 10.0;

/// Measures, writes table, figure and manifest, and returns the table.
///
/// Every answer of a cell is preceded by the same answer of a node alone: machines are not equally fast all the time, and
/// the ratio says how fast this one is just then. What the simulator says stands in the table twice: from the profile as
/// it is, and from the profile at the speed of the moment.
///
/// # Errors
/// [`LiveError`].
pub fn run(common: &Common, subject: &Subject, progress: &mut impl FnMut(&str)) -> Result<String, LiveError> {
    let measured = measure(common, subject, progress)?;
    Ok(rows::text(&kept(common, subject, &measured)?))
}

/// [`run`], and how near the simulator came in the rows that were measured now; whether it was within
/// [`MEDIAN_PERCENT`] in the middle.
///
/// # Errors
/// [`LiveError`].
pub fn validate(common: &Common, progress: &mut impl FnMut(&str)) -> Result<(String, bool), LiveError> {
    let subject = Subject::new(common, progress)?;
    let measured = measure(common, &subject, progress)?;
    kept(common, &subject, &measured)?;
    let errors = rows::Errors::of(&measured);
    Ok((rows::text(&measured) + &errors.text(), errors.median_percent <= MEDIAN_PERCENT))
}

/// Puts what was measured into the table of all that was, and writes that.
fn kept(common: &Common, subject: &Subject, measured: &[Row]) -> Result<Vec<Row>, LiveError> {
    let rows = rows::merged(&common.out.join("speeds.csv"), measured)?;
    save(common, subject, &rows)?;
    Ok(rows)
}

fn measure(
    common: &Common,
    subject: &Subject,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<Row>, LiveError> {
    let nets = nets(&common.only)?;
    progress("1 node");
    let alone = Alone::start(common, subject)?;
    let mut rows = Vec::new();
    if common.nodes.contains(&1) {
        rows.push(alone.row(common, subject)?);
    }
    for net in nets {
        for nodes in common.nodes.iter().copied().filter(|nodes| *nodes > 1) {
            progress(&format!("{nodes} nodes, {}", net.name()));
            rows.push(cell(common, subject, net, nodes, &alone)?);
        }
    }
    Ok(rows)
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

/// A node that holds the whole model, beside the meshes that are measured.
struct Alone {
    mesh: Mesh,
    question: Question,
    /// Its answer, which all must give.
    text: String,
    /// Tokens a second by the profile.
    foretold: prediction::Foretold,
}

impl Alone {
    fn start(common: &Common, subject: &Subject) -> Result<Self, LiveError> {
        // It needs no network; that of any cell does for its process.
        let mesh = start(common, subject, Net::Wifi, &[])?;
        let question = question(&subject.path, common.tokens);
        let answer = client::ask(mesh.api(0), &question, |_| {})?;
        let whole = [LayerRange::new(0, subject.shape.layer_count())];
        let foretold = foretell(subject, Net::Wifi, &whole, &answer, 1.0)?.0;
        Ok(Self { mesh, question, text: answer.text, foretold })
    }

    /// Its answers alone.
    fn row(&self, common: &Common, subject: &Subject) -> Result<Row, LiveError> {
        let ask = |_| client::ask(self.mesh.api(0), &self.question, |_| {});
        let answers = (0..common.repeats).map(ask).collect::<Result<Vec<_>, _>>()?;
        let whole = [LayerRange::new(0, subject.shape.layer_count())];
        let now = self.speed(&answers);
        let answer = answers.first().cloned().unwrap_or_default();
        let (foretold, _) = foretell(subject, Net::Wifi, &whole, &answer, now)?;
        Ok(Row::new(
            None,
            1,
            &Measured {
                answers: &answers,
                alone_tok_s: self.foretold.sim.decode_tok_s * now,
                foretold: self.foretold,
                foretold_now: foretold,
                llama_rpc: None,
                emulator_late_us: None,
                text: &self.text,
            },
        ))
    }

    /// How fast the machine was by these answers of a node alone, over what the profile says.
    fn speed(&self, answers: &[Answer]) -> f64 {
        let rates: Vec<f64> = answers.iter().map(Answer::decode_tok_s).collect();
        middle(rates) / self.foretold.sim.decode_tok_s
    }
}

fn cell(common: &Common, subject: &Subject, net: Net, nodes: u32, alone: &Alone) -> Result<Row, LiveError> {
    let layers = subject.shape.layer_count();
    let cut = cells::even_cut(layers, nodes);
    let mesh = start(common, subject, net, &cut)?;
    // The first one opens the streams between the nodes.
    client::ask(mesh.api(0), &Question { tokens: 4, ..alone.question.clone() }, |_| {})?;
    let started = mesh.punctuality().unwrap_or_default();
    let (mut answers, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..common.repeats {
        beside.push(client::ask(alone.mesh.api(0), &alone.question, |_| {})?);
        answers.push(client::ask(mesh.api(0), &alone.question, |_| {})?);
    }
    let (stages, now) = (cells::stages(layers, &cut), alone.speed(&beside));
    let answer = answers.first().cloned().unwrap_or_default();
    let (foretold, llama_rpc) = foretell(subject, net, &stages, &answer, 1.0)?;
    Ok(Row::new(
        Some(net),
        nodes,
        &Measured {
            answers: &answers,
            alone_tok_s: alone.foretold.sim.decode_tok_s * now,
            foretold,
            foretold_now: foretell(subject, net, &stages, &answer, now)?.0,
            llama_rpc,
            emulator_late_us: mesh.punctuality().map(|punctual| punctual.since(&started).bound_us(0.99)),
            text: &alone.text,
        },
    ))
}

fn start(common: &Common, subject: &Subject, net: Net, cut: &[u32]) -> Result<Mesh, LiveError> {
    let stages = cells::stages(subject.shape.layer_count(), cut);
    let load = Load { prompt: 32, output: common.tokens, streams: 1, requests: 1 };
    let (device, software) = (subject.profile.device(), subject.software);
    let scenario = cells::read(&cells::text(&subject.path, &device, &software, &stages, net, load))?;
    Ok(Mesh::start(&MeshSpec {
        cut: Some(cut),
        fleet: Some(&scenario.fleet),
        ..common.mesh(&subject.path, cut.len() as u32 + 1)
    })?)
}

/// The question of all cells.
pub(super) fn question(model: &Path, tokens: u32) -> Question {
    let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Question { model: name, prompt: PROMPT.into(), tokens }
}

/// What the simulator says of a cell with such an answer, and of llama.cpp's RPC in it, on a machine so many times as fast
/// as its profile.
fn foretell(
    subject: &Subject,
    net: Net,
    stages: &[LayerRange],
    answer: &Answer,
    speed: f64,
) -> Result<(prediction::Foretold, Option<prediction::Speed>), LiveError> {
    let load = Load { prompt: answer.prompt_tokens, output: answer.answer_tokens, streams: 1, requests: 2 };
    let device = cells::faster(&subject.profile.device(), speed);
    let text = cells::text(&subject.path, &device, &subject.software, stages, net, load);
    let scenario = cells::read(&text)?;
    let rpc = (stages.len() > 1).then(|| prediction::llama_rpc(&scenario)).transpose()?;
    Ok((prediction::foretell(&scenario, net)?, rpc))
}

fn save(common: &Common, subject: &Subject, rows: &[Row]) -> Result<(), LiveError> {
    write_text(&common.out.join("speeds.csv"), &crate::table::csv(rows))?;
    write_text(&common.out.join("speeds.txt"), &rows::text(rows))?;
    figure::speeds(rows).save(&common.out, "speeds")?;
    Manifest::of_files("live", std::slice::from_ref(&subject.path)).write(&common.out)?;
    Ok(())
}
