//! Five processes and two models under load: one after the other is killed, started again, halted and cut off, while
//! clients stream. What they wait for, next to what the simulator says of the same faults.
//!
//! `n0`, `n1`, `n2` serve the subject together; `n3` and `n4` each serve another model alone. Clients ask `n0` and `n3`,
//! and go on at the other one of the two where a stream breaks off.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use planner::model::gguf::GgufFile;
use serde::{Deserialize, Serialize};
use sim::report::manifest::Manifest;
use sim::report::write_text;
use sim::run;
use sim::scenario::{Scenario, WorldKind};

use super::cells::{self, Load, Net};
use super::client::{self, Answer, Question};
use super::mesh::{Mesh, MeshSpec, Role};
use super::rows::round;
use super::{Common, LiveError, Subject, profiling, speeds};
use crate::table::csv;

/// The network of these measurements.
const NET: Net = Net::Lan { rtt_ms: 2.0, mbit_s: 1_000.0 };
/// Tokens of each answer.
const TOKENS: u32 = 64;
/// Clients of each model.
const CLIENTS: usize = 2;
/// How long a fault lasts.
const LASTS: Duration = Duration::from_secs(6);
/// How long is waited before and after.
const REST: Duration = Duration::from_secs(8);
/// The time before a fault that it is compared with.
const BEFORE: Duration = Duration::from_secs(4);
/// A client that hears nothing for so long has lost its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    /// SIGKILL, and started again after a while.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Halt,
    /// Nothing passes to or from it for a while.
    CutOff,
}

/// What is done to whom, in this order.
const PLAN: [(Fault, usize); 7] = [
    (Fault::Kill, 1),
    (Fault::Halt, 1),
    (Fault::CutOff, 2),
    (Fault::Kill, 4),
    (Fault::Halt, 4),
    (Fault::CutOff, 4),
    // Where clients ask.
    (Fault::Kill, 3),
];

/// One fault, and one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    fault: Fault,
    node: usize,
    model: String,
    /// Whether the node serves that model.
    concerned: bool,
    /// Answers that were being given or asked for meanwhile.
    answers: usize,
    /// Of those, the ones that did not come to their end.
    lost: usize,
    /// Why the first of them did not.
    why: Option<String>,
    /// Of those, the ones that were gone on with at another node.
    moved: usize,
    /// Of those, the ones whose text is another than without the fault.
    other_text: usize,
    /// The longest wait for a token, milliseconds.
    wait_ms: f64,
    /// The longest that ended in the seconds before.
    usual_ms: f64,
    /// What the simulator says of the longest wait; none where it is not asked.
    foretold_ms: Option<f64>,
}

/// One answer, or what is left of it.
struct Given {
    model: usize,
    asked_s: f64,
    ended_s: f64,
    outcome: Result<Answer, String>,
}

/// Measures, writes the table and returns it.
///
/// # Errors
/// [`LiveError`].
pub fn run(common: &Common, subject: &Subject, progress: &mut impl FnMut(&str)) -> Result<String, LiveError> {
    let other = common.file(&common.other)?;
    progress("profile of this machine with the other model");
    profiling::profile(common, &GgufFile::open(&other)?)?;
    let (one, two) = (Role { model: &subject.path, split: true }, Role { model: &other, split: false });
    let scenario = scenario(subject, 5, "")?;
    let roles = [one, one, one, two, two];
    let spec = MeshSpec { roles: &roles, fleet: Some(&scenario.fleet), ..common.mesh(&subject.path, 5) };
    progress("5 nodes, 2 models");
    let mut mesh = Mesh::start(&spec)?;
    let questions = [speeds::question(&subject.path, TOKENS), speeds::question(&other, TOKENS)];
    let entries = [[mesh.api(0), mesh.api(3)], [mesh.api(3), mesh.api(0)]];
    let mut truth = Vec::new();
    for (question, nodes) in questions.iter().zip(&entries) {
        truth.push(client::ask_any(nodes, question, PATIENCE)?.text);
    }
    let (clock, over) = (now(), AtomicBool::new(false));
    let given = Mutex::new(Vec::new());
    let began = std::thread::scope(|scope| {
        for (model, question) in questions.iter().enumerate() {
            for _ in 0..CLIENTS {
                let (nodes, over, given) = (&entries[model], &over, &given);
                scope.spawn(move || ask(model, nodes, question, clock, over, given));
            }
        }
        let began = strike(&mut mesh, &spec, clock, progress);
        over.store(true, Ordering::SeqCst);
        began
    })?;
    let given = given.into_inner().unwrap_or_default();
    let mut rows = Vec::new();
    for ((fault, node), at_s) in PLAN.into_iter().zip(began) {
        for (model, question) in questions.iter().enumerate() {
            let concerned = (node < 3) == (model == 0);
            let foretold_ms =
                if model == 0 && concerned { Some(foretell(subject, fault, node)?) } else { None };
            let of_model: Vec<&Given> = given.iter().filter(|given| given.model == model).collect();
            let name = question.model.clone();
            rows.push(row(fault, node, name, concerned, &of_model, &truth[model], at_s, foretold_ms));
        }
    }
    save(common, subject, &other, &rows)
}

/// Asks again and again until it is over.
fn ask(
    model: usize,
    nodes: &[SocketAddr],
    question: &Question,
    clock: Instant,
    over: &AtomicBool,
    given: &Mutex<Vec<Given>>,
) {
    while !over.load(Ordering::SeqCst) {
        let asked_s = clock.elapsed().as_secs_f64();
        let outcome = client::ask_any(nodes, question, PATIENCE).map_err(|why| why.to_string());
        let ended_s = clock.elapsed().as_secs_f64();
        if let Ok(mut given) = given.lock() {
            given.push(Given { model, asked_s, ended_s, outcome });
        }
    }
}

/// Does what is planned; gives when each fault began, seconds.
fn strike(
    mesh: &mut Mesh,
    spec: &MeshSpec<'_>,
    clock: Instant,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<f64>, LiveError> {
    let mut began = Vec::new();
    for (fault, node) in PLAN {
        std::thread::sleep(REST);
        progress(&format!("{fault:?} n{node}"));
        began.push(clock.elapsed().as_secs_f64());
        match fault {
            Fault::Kill => mesh.kill(node).map_err(LiveError::Kill)?,
            Fault::Halt => mesh.signal(node, "STOP").map_err(LiveError::Kill)?,
            Fault::CutOff => mesh.cut_off(&[node]),
        }
        std::thread::sleep(LASTS);
        match fault {
            Fault::Kill => mesh.restart(spec, node)?,
            Fault::Halt => mesh.signal(node, "CONT").map_err(LiveError::Kill)?,
            Fault::CutOff => mesh.cut_off(&[]),
        }
    }
    std::thread::sleep(REST);
    Ok(began)
}

#[expect(clippy::too_many_arguments, reason = "a row of the table, and what it is made of")]
fn row(
    fault: Fault,
    node: usize,
    model: String,
    concerned: bool,
    given: &[&Given],
    truth: &str,
    at_s: f64,
    foretold_ms: Option<f64>,
) -> Row {
    let during = (at_s, at_s + LASTS.as_secs_f64() + REST.as_secs_f64() / 2.0);
    let meets = |given: &&&Given, (from, to): (f64, f64)| given.asked_s < to && given.ended_s > from;
    let met: Vec<&&Given> = given.iter().filter(|given| meets(given, during)).collect();
    let whole = met.iter().filter_map(|given| given.outcome.as_ref().ok());
    Row {
        fault,
        node,
        model,
        concerned,
        answers: met.len(),
        lost: met.iter().filter(|given| given.outcome.is_err()).count(),
        why: met.iter().find_map(|given| given.outcome.as_ref().err().cloned()),
        moved: whole.clone().filter(|answer| answer.moves > 0).count(),
        other_text: whole.filter(|answer| answer.text != truth).count(),
        wait_ms: round(longest_wait_ms(given, |last, next| last < during.1 && next > during.0)),
        usual_ms: round(longest_wait_ms(given, |last, next| {
            next < at_s && last > at_s - BEFORE.as_secs_f64()
        })),
        foretold_ms: foretold_ms.map(round),
    }
}

/// The longest wait for a token, from asking on, among those of which `counts` holds: from when to when, seconds.
fn longest_wait_ms(given: &[&Given], counts: impl Fn(f64, f64) -> bool) -> f64 {
    let mut longest: f64 = 0.0;
    for Given { asked_s, ended_s, outcome, .. } in given {
        let came = outcome.as_ref().map_or(&[][..], |answer| &answer.came_s);
        let times = came.iter().map(|s| asked_s + s).chain([*ended_s]);
        longest = longest.max(longest_gap(*asked_s, times, &counts));
    }
    longest * 1e3
}

/// The longest time between two of these that follow each other, the first after `start`, among those of which `counts`
/// holds.
fn longest_gap(start: f64, times: impl Iterator<Item = f64>, counts: impl Fn(f64, f64) -> bool) -> f64 {
    let (mut longest, mut last): (f64, f64) = (0.0, start);
    for next in times {
        if counts(last, next) {
            longest = longest.max(next - last);
        }
        last = next;
    }
    longest
}

/// So many nodes with the subject as a scenario, with `faults`.
fn scenario(subject: &Subject, nodes: u32, faults: &str) -> Result<Scenario, LiveError> {
    let layers = subject.shape.layer_count();
    let stages = cells::stages(layers, &cells::even_cut(layers, nodes));
    let requests = 12 * CLIENTS as u32;
    let load = Load { prompt: 32, output: TOKENS, streams: CLIENTS as u32, requests };
    let (device, software) = (subject.profile.device(), subject.software);
    let text = cells::text(&subject.path, &device, &software, &stages, NET, load);
    Ok(cells::read(&(text + faults))?)
}

/// The longest wait that the simulator's nodes make their clients have for that fault.
fn foretell(subject: &Subject, fault: Fault, node: usize) -> Result<f64, LiveError> {
    let (at, lasts) = ("5 s", LASTS.as_secs());
    let words = match fault {
        Fault::Kill => format!("crash = [\"n{node}\"]"),
        // A process that stands still is silent and its streams stay open: from outside it is cut off.
        Fault::Halt | Fault::CutOff => {
            let others = (0..3).filter(|other| *other != node).map(|other| format!("\"n{other}\""));
            format!("partition = [[\"n{node}\"], [{}]]", others.collect::<Vec<_>>().join(", "))
        }
    };
    let fault = format!("\n[[fault]]\nat = \"{at}\"\nfor = \"{lasts} s\"\n{words}\n");
    let scenario = scenario(subject, 3, &fault)?;
    let outcome = run::run(&scenario, scenario.seed, WorldKind::Memory, false)
        .map_err(super::prediction::PredictionError::from)?;
    let requests = outcome.requests.iter();
    let longest = requests.map(|r| longest_gap(r.asked_us, r.tokens_us.iter().copied(), |_, _| true));
    Ok(longest.fold(0.0, f64::max) / 1e3)
}

fn save(common: &Common, subject: &Subject, other: &Path, rows: &[Row]) -> Result<String, LiveError> {
    let (out, text) = (common.out.join("faults"), text(rows));
    write_text(&out.join("faults.csv"), &csv(rows))?;
    write_text(&out.join("faults.txt"), &text)?;
    let models: [PathBuf; 2] = [subject.path.clone(), other.to_owned()];
    Manifest::of_files("live", &models).write(&out)?;
    Ok(text)
}

fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "fault    node  model                          answers  moved  lost  other text  longest wait ms  before  foretold\n",
    );
    for row in rows {
        let Row {
            fault, node, model, answers, lost, moved, other_text, wait_ms, usual_ms, foretold_ms, ..
        } = row;
        let fault = match fault {
            Fault::Kill => "kill",
            Fault::Halt => "halt",
            Fault::CutOff => "cut off",
        };
        let mark = if row.concerned { '*' } else { ' ' };
        let foretold = foretold_ms.map_or("-".into(), |ms| format!("{ms:.0}"));
        writeln!(
            text,
            "{fault:<8} n{node}  {mark} {model:<30} {answers:>7} {moved:>6} {lost:>5} {other_text:>11} {wait_ms:>16.0} {usual_ms:>7.0} \
             {foretold:>9}"
        )
        .expect("writing to text never fails");
        if let Some(why) = &row.why {
            writeln!(text, "         lost: {}", why.lines().next().unwrap_or_default())
                .expect("writing to text never fails");
        }
    }
    let lasts = LASTS.as_secs();
    writeln!(
        text,
        "*: the node serves that model. Each fault lasts {lasts} s; a killed process is started again after that. Clients ask n0 and n3, \
         {CLIENTS} for each model.\nforetold: the simulator's longest wait for the same fault, from the profile of this machine alone."
    )
    .expect("writing to text never fails");
    text
}

#[expect(clippy::disallowed_methods, reason = "it times real processes")]
fn now() -> Instant {
    Instant::now()
}
