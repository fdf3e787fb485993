//! The profile of a machine with a model: for programs as JSON, for people as a page.

use std::fmt::Write as _;
use std::path::Path;

use planner::model::Model;
use planner::plan::LayerRange;
use planner::units::{fmt_bytes, fmt_ms};
use serde::Serialize;

use crate::cli::figures::{count, plural, rate};

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Profile {
    model: String,
    name: String,
    quantisation: String,
    layers: u32,
    pub(super) ranges: Vec<RangeProfile>,
}

/// One range of layers on so many threads. The first range holds the embedding, the last one the head.
#[derive(Debug, Serialize)]
pub(super) struct RangeProfile {
    first: u32,
    /// One past the last layer.
    end: u32,
    threads: usize,
    load: Load,
    /// Weights that a decoded token reads.
    bytes_per_token: u64,
    /// How fast so many threads read that much memory.
    roofline_bytes_per_s: f64,
    prefill: Vec<Prefill>,
    decode: Vec<Decode>,
}

/// What it takes to have the range in memory.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) seconds: f64,
    /// Its tensors in the file.
    pub(super) file_bytes: u64,
    /// What the process holds more than before; none where the system does not say.
    pub(super) resident_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Prefill {
    tokens: u32,
    ms: f64,
    tok_s: f64,
}

#[derive(Debug, Serialize)]
struct Decode {
    context: u32,
    ms: f64,
    tok_s: f64,
    /// Weights a second over the roofline.
    roofline_share: f64,
}

impl Profile {
    pub(super) fn new(path: &Path, model: &Model) -> Self {
        Self {
            model: path.display().to_string(),
            name: model.name.clone(),
            quantisation: model.quant.clone(),
            layers: model.layer_count(),
            ranges: Vec::new(),
        }
    }

    /// For people.
    pub(super) fn page(&self) -> String {
        let mut page = format!("{}\n", self.name);
        for range in &self.ranges {
            range.write(&mut page, self.layers).expect("writing to text never fails");
        }
        page
    }
}

impl Load {
    fn text(&self) -> String {
        let speed = fmt_bytes((self.file_bytes as f64 / self.seconds) as u64);
        let (bytes, time) = (fmt_bytes(self.file_bytes), fmt_ms(self.seconds * 1e3));
        let mut text = format!("{bytes} of the file loaded in {time}, {speed} a second");
        if let Some(resident) = self.resident_bytes {
            let ratio = resident as f64 / self.file_bytes as f64;
            text += &format!("; they hold {} of memory, {ratio:.2} times as much", fmt_bytes(resident));
        }
        text
    }
}

impl RangeProfile {
    pub(super) fn new(model: &Model, layers: LayerRange, threads: usize, load: Load) -> Self {
        let of_layers: f64 = model.layers[layers.indices()].iter().map(|layer| layer.active_bytes(1)).sum();
        let head = if layers.end == model.layer_count() { model.head_bytes } else { 0 };
        Self {
            first: layers.first,
            end: layers.end,
            threads,
            load,
            bytes_per_token: of_layers as u64 + head,
            roofline_bytes_per_s: 0.0,
            prefill: Vec::new(),
            decode: Vec::new(),
        }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_per_token
    }

    pub(super) fn add_prefill(&mut self, tokens: u32, seconds: f64) {
        self.prefill.push(Prefill { tokens, ms: seconds * 1e3, tok_s: f64::from(tokens) / seconds });
    }

    pub(super) fn add_decode(&mut self, context: u32, seconds: f64) {
        self.decode.push(Decode { context, ms: seconds * 1e3, tok_s: 1.0 / seconds, roofline_share: 0.0 });
    }

    /// Holds the decoded tokens against what memory allows.
    pub(super) fn against(&mut self, bytes_per_s: f64) {
        self.roofline_bytes_per_s = bytes_per_s;
        for decode in &mut self.decode {
            decode.roofline_share = self.bytes_per_token as f64 * decode.tok_s / bytes_per_s;
        }
    }

    fn write(&self, page: &mut String, layers: u32) -> std::fmt::Result {
        let threads = plural(self.threads as u64, "thread");
        let (last, of) = (self.end - 1, layers - 1);
        writeln!(page, "\n  layers {} to {last} of 0 to {of}, {threads}", self.first)?;
        writeln!(page, "    {}", self.load.text())?;
        for prefill in &self.prefill {
            let tokens = format!("prompt of {}", count(prefill.tokens.into()));
            writeln!(page, "    {tokens:<22} {:>12}  {:>9}", rate(prefill.tok_s), fmt_ms(prefill.ms))?;
        }
        for decode in &self.decode {
            let context = format!("answer behind {}", count(decode.context.into()));
            let share = decode.roofline_share * 100.0;
            let (rate, time) = (rate(decode.tok_s), fmt_ms(decode.ms));
            writeln!(page, "    {context:<22} {rate:>12}  {time:>9}  {share:>3.0} % of what memory allows")?;
        }
        let (bytes, speed) = (fmt_bytes(self.bytes_per_token), fmt_bytes(self.roofline_bytes_per_s as u64));
        writeln!(page, "    a token reads {bytes} of weights; {threads} read {speed} of memory a second")
    }
}
