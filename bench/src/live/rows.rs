//! What was measured, next to what was foretold.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sim::report::stats::{ascending, middle, quantile};

use super::LiveError;
use super::cells::Net;
use super::client::Answer;
use super::prediction::{Foretold, Speed};
use crate::table;

/// One number of nodes over one network, one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// The network: `2ms-100mbit`, `wifi`; `none` of a node alone.
    pub(super) net: String,
    /// Processes, one stage each.
    pub(super) nodes: u32,
    /// Mean round trip, milliseconds.
    pub(super) rtt_ms: f64,
    /// Tokens of the prompt.
    pub(super) prompt: u32,
    /// Tokens of the answer.
    pub(super) output: u32,
    /// Tokens a second after the first, measured.
    pub(super) tok_s: f64,
    /// The least and the most of the answers measured.
    pub(super) tok_s_least: f64,
    /// See `tok_s_least`.
    pub(super) tok_s_most: f64,
    /// A node alone, in turn with these answers: how fast the machine was just then.
    pub(super) alone_tok_s: f64,
    /// What the simulator says, from the profile as it is.
    pub(super) sim_tok_s: f64,
    /// How far that is off, per cent of what was measured.
    pub(super) error_percent: f64,
    /// What the simulator says, from the profile at the machine's speed just then.
    pub(super) sim_now_tok_s: f64,
    /// How far that is off.
    pub(super) error_now_percent: f64,
    /// What the planner's formula says, from the profile as it is.
    pub(super) formula_tok_s: f64,
    /// Tokens a second if there were nothing but computing, at the machine's speed just then, and one trip from stage to
    /// stage.
    pub(super) limit_tok_s: f64,
    /// How much of that was reached.
    pub(super) limit_share: f64,
    /// From asking to the first token, milliseconds, measured.
    pub(super) ttft_ms: f64,
    /// What the simulator says.
    pub(super) sim_ttft_ms: f64,
    /// What llama.cpp's RPC would give over the same links, predicted, not measured; none of a node alone.
    pub(super) llama_rpc_tok_s: Option<f64>,
    /// The emulator's own lateness: 99 % of what it handed over was late by less, microseconds.
    pub(super) emulator_late_us: Option<f64>,
    /// Whether every answer had the text of a node alone.
    pub(super) same_text: bool,
}

/// What a row is made of beside its name.
pub(super) struct Measured<'a> {
    pub(super) answers: &'a [Answer],
    pub(super) alone_tok_s: f64,
    pub(super) foretold: Foretold,
    pub(super) foretold_now: Foretold,
    pub(super) llama_rpc: Option<Speed>,
    pub(super) emulator_late_us: Option<f64>,
    /// The text of a node alone.
    pub(super) text: &'a str,
}

impl Row {
    pub(super) fn new(net: Option<Net>, nodes: u32, measured: &Measured<'_>) -> Self {
        let rates: Vec<f64> = measured.answers.iter().map(Answer::decode_tok_s).collect();
        let firsts: Vec<f64> = measured.answers.iter().map(Answer::ttft_ms).collect();
        let tok_s = middle(rates.iter().copied());
        let (foretold, now) = (&measured.foretold, &measured.foretold_now);
        let last = measured.answers.last().cloned().unwrap_or_default();
        Self {
            net: net.map_or_else(|| "none".into(), |net| net.name()),
            nodes,
            rtt_ms: net.map_or(0.0, |net| net.rtt_ms()),
            prompt: last.prompt_tokens,
            output: last.answer_tokens,
            tok_s: round(tok_s),
            tok_s_least: round(rates.iter().copied().fold(f64::INFINITY, f64::min)),
            tok_s_most: round(rates.iter().copied().fold(0.0, f64::max)),
            alone_tok_s: round(measured.alone_tok_s),
            sim_now_tok_s: round(now.sim.decode_tok_s),
            error_now_percent: round((now.sim.decode_tok_s / tok_s - 1.0) * 100.0),
            sim_tok_s: round(foretold.sim.decode_tok_s),
            error_percent: round((foretold.sim.decode_tok_s / tok_s - 1.0) * 100.0),
            formula_tok_s: round(1e3 / foretold.formula.tpot_ms),
            limit_tok_s: round(now.limit_tok_s),
            limit_share: round(tok_s / now.limit_tok_s),
            ttft_ms: round(middle(firsts)),
            sim_ttft_ms: round(now.sim.ttft_ms),
            llama_rpc_tok_s: measured.llama_rpc.map(|speed| round(speed.decode_tok_s)),
            emulator_late_us: measured.emulator_late_us.map(round),
            same_text: measured.answers.iter().all(|answer| answer.text == measured.text),
        }
    }
}

/// The rows in the table at `path` with `measured` in their places, and new ones after them, in the order of `Net::all`.
pub(super) fn merged(path: &Path, measured: &[Row]) -> Result<Vec<Row>, LiveError> {
    let failed = |cause| LiveError::Earlier { path: path.into(), cause };
    let the_same = |a: &Row, b: &Row| (a.net.as_str(), a.nodes) == (b.net.as_str(), b.nodes);
    let mut all = table::merged(path, measured, the_same).map_err(failed)?;
    let nets: Vec<String> = Net::all().iter().map(Net::name).collect();
    let place = |row: &Row| nets.iter().position(|net| *net == row.net).map_or(0, |place| place + 1);
    all.sort_by_key(|row| (place(row), row.nodes));
    Ok(all)
}

/// How far the simulator was off, from the profile of one machine alone, per cent of what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Errors {
    /// Over how many rows.
    rows: usize,
    /// The middle one.
    pub(super) median_percent: f64,
    /// Nine in ten are nearer.
    p90_percent: f64,
    /// The middle one at the machine's speed just then.
    now_percent: f64,
}

impl Errors {
    pub(super) fn of(rows: &[Row]) -> Self {
        let off = |of: fn(&Row) -> f64| ascending(&rows.iter().map(|row| of(row).abs()).collect::<Vec<_>>());
        let (errors, now) = (off(|row| row.error_percent), off(|row| row.error_now_percent));
        Self {
            rows: rows.len(),
            median_percent: quantile(&errors, 0.5).unwrap_or(f64::INFINITY),
            p90_percent: quantile(&errors, 0.9).unwrap_or(f64::INFINITY),
            now_percent: quantile(&now, 0.5).unwrap_or(f64::INFINITY),
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { rows, median_percent, p90_percent, now_percent } = self;
        format!(
            "\nOver {rows} rows the simulator, from the profile of one machine alone, is off by {median_percent:.1} % in the middle and by \
             {p90_percent:.1} % in nine of ten;\nat the machine's speed of the moment by {now_percent:.1} % in the middle.\n"
        )
    }
}

/// Three decimals.
pub(super) fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The table for people.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "network        nodes    tok/s  foretold  error |  alone  foretold now  error |  limit  of it | TTFT ms  foretold | llama.cpp RPC*  text\n",
    );
    for row in rows {
        let rpc = row.llama_rpc_tok_s.map_or_else(|| "-".into(), |rate| format!("{rate:.1}"));
        writeln!(
            text,
            "{:<14} {:>5} {:>8.1} {:>9.1} {:>+5.1}% | {:>6.1} {:>13.1} {:>+5.1}% | {:>6.1} {:>5.0}% | {:>7.1} {:>9.1} | {:>14}  {}",
            row.net,
            row.nodes,
            row.tok_s,
            row.sim_tok_s,
            row.error_percent,
            row.alone_tok_s,
            row.sim_now_tok_s,
            row.error_now_percent,
            row.limit_tok_s,
            row.limit_share * 100.0,
            row.ttft_ms,
            row.sim_ttft_ms,
            rpc,
            if row.same_text { "same" } else { "OTHER" },
        )
        .expect("writing to text never fails");
    }
    text += "alone: one node with the whole model, in turn with the answers of the row: how fast the machine was just then.\n\
             foretold: by the simulator from the profile; now: from the profile at that speed. * predicted, not measured.\n\
             limit: computing at that speed and one trip from stage to stage, nothing else.\n";
    text
}
