//! Many streams at once: tokens a second in all, how busy the processes are, and what a short prompt waits while a long one
//! is read.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sim::report::stats::middle;
use sim::report::write_text;

use super::cells::{self, Load, Net};
use super::client::{self, Answer, ClientError, Question};
use super::mesh::{Mesh, MeshSpec};
use super::rows::round;
use super::{Common, LiveError, Subject, prediction, speeds};
use crate::table::csv;

/// Streams at once.
const STREAMS: [u32; 3] = [1, 4, 16];

/// Tokens of the long prompt, about.
const LONG_PROMPT: u32 = 4_000;

/// Some 45 tokens; a long prompt is many of them.
const PARAGRAPH: &str = "The lagoon was a marsh of reeds and salt when the first families came over from the mainland, \
                         carrying what they could, and drove their piles into the mud one after the other. ";

/// The network of these measurements.
const NET: Net = Net::Lan { rtt_ms: 2.0, mbit_s: 1_000.0 };

/// So many streams over so many nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    nodes: u32,
    streams: u32,
    /// Tokens a second of all streams together.
    total_tok_s: f64,
    /// What the simulator says; it gives each process a machine of its own.
    sim_total_tok_s: f64,
    /// Processor time of the busiest process over the time, in threads it may use.
    busiest: Option<f64>,
    /// Processor time of all processes over the time, in cores of this machine.
    machine: Option<f64>,
}

/// A short prompt beside a long one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wait {
    nodes: u32,
    /// Tokens of the long prompt.
    long_prompt: u32,
    /// Time to first token of the short prompt alone, milliseconds.
    alone_ms: f64,
    /// The same while the long one is read.
    beside_ms: f64,
    times: f64,
    /// Time to first token of the long one, milliseconds.
    long_ms: f64,
}

/// Measures and writes the tables, and returns them.
///
/// # Errors
/// [`LiveError`].
pub fn run(common: &Common, subject: &Subject, progress: &mut impl FnMut(&str)) -> Result<String, LiveError> {
    let (mut rows, mut waits) = (Vec::new(), Vec::new());
    for nodes in &common.nodes {
        progress(&format!("{nodes} nodes, {}", NET.name()));
        let mesh = start(common, subject, *nodes)?;
        let question = speeds::question(&subject.path, common.tokens);
        client::ask(mesh.api(0), &Question { tokens: 4, ..question.clone() }, |_| {})?;
        for streams in STREAMS {
            progress(&format!("{nodes} nodes, {streams} streams"));
            rows.push(measure(common, subject, &mesh, *nodes, streams)?);
        }
        progress(&format!("{nodes} nodes, a short prompt beside a long one"));
        waits.push(wait(common, subject, &mesh, *nodes)?);
    }
    write_text(&common.out.join("streams.csv"), &csv(&rows))?;
    write_text(&common.out.join("waits.csv"), &csv(&waits))?;
    let text = text(&rows, &waits);
    write_text(&common.out.join("streams.txt"), &text)?;
    Ok(text)
}

fn start(common: &Common, subject: &Subject, nodes: u32) -> Result<Mesh, LiveError> {
    let cut = cells::even_cut(subject.shape.layer_count(), nodes);
    let load = Load { prompt: 32, output: common.tokens, streams: 1, requests: 1 };
    let scenario = cells::read(&scenario(subject, nodes, load))?;
    Ok(Mesh::start(&MeshSpec {
        cut: Some(&cut),
        fleet: Some(&scenario.fleet),
        ..common.mesh(&subject.path, nodes)
    })?)
}

fn scenario(subject: &Subject, nodes: u32, load: Load) -> String {
    let layers = subject.shape.layer_count();
    let stages = cells::stages(layers, &cells::even_cut(layers, nodes));
    let (device, software) = (subject.profile.device(), subject.software);
    cells::text(&subject.path, &device, &software, &stages, NET, load)
}

fn measure(
    common: &Common,
    subject: &Subject,
    mesh: &Mesh,
    nodes: u32,
    streams: u32,
) -> Result<Row, LiveError> {
    let before = mesh.processor_seconds();
    let clock = now();
    let answers = ask_all(mesh.api(0), &questions(common, subject, streams))?;
    let wall_s = clock.elapsed().as_secs_f64();
    let used = before.zip(mesh.processor_seconds()).map(|(before, after)| {
        after.iter().zip(&before).map(|(after, before)| (after - before) / wall_s).collect::<Vec<f64>>()
    });
    let tokens: u32 = answers.iter().map(|answer| answer.answer_tokens).sum();
    let prompt = answers.iter().map(|answer| answer.prompt_tokens).max().unwrap_or(1);
    let output = (tokens / streams.max(1)).max(2);
    let load = Load { prompt, output, streams, requests: streams };
    let foretold = prediction::foretell(&cells::read(&scenario(subject, nodes, load))?, NET)?;
    Ok(Row {
        nodes,
        streams,
        total_tok_s: round(f64::from(tokens) / wall_s),
        sim_total_tok_s: round(foretold.sim.total_tok_s),
        busiest: used
            .as_ref()
            .map(|used| round(used.iter().copied().fold(0.0, f64::max) / common.threads.max(1) as f64)),
        machine: used.map(|used| round(used.iter().sum())),
    })
}

/// One question a stream, each another text.
fn questions(common: &Common, subject: &Subject, streams: u32) -> Vec<Question> {
    let base = speeds::question(&subject.path, common.tokens);
    let named = |stream| Question { prompt: format!("Chapter {stream}. {}", base.prompt), ..base.clone() };
    (1..=streams).map(named).collect()
}

/// Asks all at once.
fn ask_all(at: SocketAddr, questions: &[Question]) -> Result<Vec<Answer>, ClientError> {
    thread::scope(|scope| {
        let asked: Vec<_> =
            questions.iter().map(|question| scope.spawn(move || client::ask(at, question, |_| {}))).collect();
        asked.into_iter().map(|answer| answer.join().expect("a client does not panic")).collect()
    })
}

fn wait(common: &Common, subject: &Subject, mesh: &Mesh, nodes: u32) -> Result<Wait, LiveError> {
    let short = Question { tokens: 4, ..speeds::question(&subject.path, 4) };
    let at = mesh.api(0);
    let alone: Vec<f64> = (0..common.repeats.max(3))
        .map(|_| client::ask(at, &short, |_| {}).map(|answer| answer.ttft_ms()))
        .collect::<Result<_, _>>()?;
    let paragraphs = LONG_PROMPT as usize / 40;
    let long = Question { prompt: PARAGRAPH.repeat(paragraphs), tokens: 2, ..short.clone() };
    let (long, beside) = thread::scope(|scope| {
        let long = scope.spawn(|| client::ask(at, &long, |_| {}));
        // Its first chunks are under way then.
        thread::sleep(Duration::from_millis(300));
        let beside = client::ask(at, &short, |_| {});
        (long.join().expect("a client does not panic"), beside)
    });
    let (long, beside, alone_ms) = (long?, beside?, middle(alone));
    Ok(Wait {
        nodes,
        long_prompt: long.prompt_tokens,
        alone_ms: round(alone_ms),
        beside_ms: round(beside.ttft_ms()),
        times: round(beside.ttft_ms() / alone_ms),
        long_ms: round(long.ttft_ms()),
    })
}

fn text(rows: &[Row], waits: &[Wait]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("nodes  streams   tok/s in all      sim   busiest process   cores in use\n");
    let share = |share: Option<f64>| share.map_or_else(|| "-".into(), |share| format!("{share:.2}"));
    for row in rows {
        let Row { nodes, streams, total_tok_s, sim_total_tok_s, busiest, machine } = row;
        let (busiest, machine) = (share(*busiest), share(*machine));
        writeln!(
            text,
            "{nodes:>5} {streams:>8} {total_tok_s:>14.1} {sim_total_tok_s:>8.1} {busiest:>17} {machine:>14}"
        )
        .expect("writing to text never fails");
    }
    text += "\nnodes   long prompt   TTFT ms of a short one   beside the long one   times   TTFT ms of the long one\n";
    for wait in waits {
        let Wait { nodes, long_prompt, alone_ms, beside_ms, times, long_ms } = wait;
        writeln!(
            text,
            "{nodes:>5} {long_prompt:>13} {alone_ms:>24.1} {beside_ms:>21.1} {times:>7.2} {long_ms:>25.1}"
        )
        .expect("writing to text never fails");
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "it times real processes")]
fn now() -> Instant {
    Instant::now()
}
