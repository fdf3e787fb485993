//! Tables for other programs: one file a table, a header line, decimal points, units in the column names.
//!
//! The same scenario and seed gives the same bytes. An empty cell is a value that does not exist.

use std::path::{Path, PathBuf};

use super::json::{Report, SeedsFacts, engine_name, round3};
use super::{ReportError, write_text};
use crate::outcome::{Answer, Outcome, RequestRecord, Status};

/// Writes `requests.csv`, `tokens.csv`, `breakdown.csv`, `nodes.csv`, `baselines.csv` and `incidents.csv` into
/// `directory`, and `seeds.csv` and `sweep.csv` where the report has them. Returns the paths written, in that order.
///
/// # Errors
/// [`ReportError::Write`] names the first file that could not be written.
pub fn write(directory: &Path, answer: &Answer, report: &Report) -> Result<Vec<PathBuf>, ReportError> {
    let mut tables = vec![
        ("requests.csv", requests(&answer.main)),
        ("tokens.csv", tokens(&answer.main)),
        ("breakdown.csv", breakdown(report)),
        ("nodes.csv", nodes(report)),
        ("baselines.csv", baselines(report)),
        ("incidents.csv", incidents(report)),
    ];
    if let Some(seeds) = &report.seeds {
        tables.push(("seeds.csv", seeds_table(seeds)));
    }
    if let Some(sweep) = &report.sweep {
        tables.push(("sweep.csv", sweep_table(sweep)));
    }
    let mut written = Vec::with_capacity(tables.len());
    for (name, table) in tables {
        let path = directory.join(name);
        write_text(&path, &table.text())?;
        written.push(path);
    }
    Ok(written)
}

/// A table under construction.
pub(crate) struct Table {
    writer: csv::Writer<Vec<u8>>,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Self { writer: csv::Writer::from_writer(Vec::new()) };
        table.row(header.iter().map(|h| (*h).to_owned()));
        table
    }

    /// Adds a row; it has as many cells as the header.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.writer
            .write_record(cells)
            .expect("rows are as long as the header, and memory does not fail to write");
    }

    /// The whole table.
    pub(crate) fn text(self) -> String {
        let bytes = self.writer.into_inner().unwrap_or_default();
        String::from_utf8(bytes).expect("cells are strings")
    }
}

/// A number with at most three decimals.
fn number(value: f64) -> String {
    round3(value).to_string()
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, number)
}

fn requests(outcome: &Outcome) -> Table {
    let mut table = Table::new(&[
        "engine",
        "session",
        "entry",
        "prompt_tokens",
        "output_tokens_asked",
        "output_tokens",
        "asked_ms",
        "ttft_ms",
        "tpot_mean_ms",
        "ended_ms",
        "status",
        "reason",
        "resumptions",
    ]);
    for r in &outcome.requests {
        let (status, reason) = status(&r.status);
        table.row([
            engine_name(outcome.engine),
            r.session.0.to_string(),
            r.entry.clone(),
            r.prompt.to_string(),
            r.output.to_string(),
            r.tokens_us.len().to_string(),
            number(r.asked_us / 1e3),
            optional(r.tokens_us.first().map(|t| (t - r.asked_us) / 1e3)),
            optional(mean_gap_ms(r)),
            optional(r.ended_us.map(|us| us / 1e3)),
            status.to_owned(),
            reason.to_owned(),
            r.resumptions.to_string(),
        ]);
    }
    table
}

fn status(status: &Status) -> (&'static str, &str) {
    match status {
        Status::Completed => ("completed", ""),
        Status::Refused(why) => ("refused", why),
        Status::Failed(why) => ("failed", why),
        Status::Unfinished => ("unfinished", ""),
    }
}

fn mean_gap_ms(request: &RequestRecord) -> Option<f64> {
    let (first, last) = (request.tokens_us.first()?, request.tokens_us.last()?);
    let gaps = request.tokens_us.len() - 1;
    (gaps > 0).then(|| (last - first) / 1e3 / gaps as f64)
}

fn tokens(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["session", "token", "at_ms", "after_previous_ms"]);
    for r in &outcome.requests {
        let mut previous = None;
        for (n, at_us) in r.tokens_us.iter().enumerate() {
            let gap = previous.map(|p: f64| (at_us - p) / 1e3);
            table.row([r.session.0.to_string(), n.to_string(), number(at_us / 1e3), optional(gap)]);
            previous = Some(*at_us);
        }
    }
    table
}

fn breakdown(report: &Report) -> Table {
    let mut table = Table::new(&["run", "part", "ms_per_token", "share"]);
    for (run, figures) in report.runs() {
        let total = figures.breakdown_ms.total();
        for (part, ms) in figures.breakdown_ms.parts() {
            let share = if total > 0.0 { ms / total } else { 0.0 };
            table.row([run.clone(), part.to_owned(), number(ms), number(share)]);
        }
    }
    table
}

fn nodes(report: &Report) -> Table {
    let mut table = Table::new(&["node", "busy_share", "memory_bytes", "steps", "sent_bytes", "kv_left"]);
    for n in &report.nodes {
        table.row([
            n.node.clone(),
            number(n.busy),
            n.memory_bytes.to_string(),
            n.steps.to_string(),
            n.sent_bytes.to_string(),
            n.kv_left.to_string(),
        ]);
    }
    table
}

fn baselines(report: &Report) -> Table {
    let mut table = Table::new(&[
        "run",
        "decode_tok_s",
        "throughput_tok_s",
        "ratio",
        "tpot_p50_ms",
        "tpot_p90_ms",
        "tpot_p99_ms",
        "ttft_p50_ms",
        "ttft_p90_ms",
        "ttft_p99_ms",
        "completed",
        "failed",
    ]);
    for (run, f) in report.runs() {
        let rates = [f.decode_tok_s, f.throughput_tok_s, f.ratio].map(number);
        let spreads =
            [f.tpot_ms.p50, f.tpot_ms.p90, f.tpot_ms.p99, f.ttft_ms.p50, f.ttft_ms.p90, f.ttft_ms.p99];
        let counts = [f.requests.completed, f.requests.failed].map(|n| n.to_string());
        table.row(std::iter::once(run).chain(rates).chain(spreads.map(optional)).chain(counts));
    }
    table
}

fn incidents(report: &Report) -> Table {
    let mut table = Table::new(&["at_ms", "what", "pause_ms"]);
    for i in &report.incidents {
        table.row([number(i.at_ms), i.what.clone(), optional(i.pause_ms)]);
    }
    table
}

/// One line for each seed and engine.
fn seeds_table(seeds: &SeedsFacts) -> Table {
    let mut table = Table::new(&["seed", "engine", "decode_tok_s"]);
    for (engine, estimate) in &seeds.engines {
        for (seed, tok_s) in seeds.seeds.iter().zip(&estimate.decode_tok_s_by_seed) {
            table.row([seed.to_string(), engine.clone(), number(*tok_s)]);
        }
    }
    table
}

/// One line for each value and engine: means over the seeds and 95 % confidence intervals.
pub fn sweep_text(sweep: &super::json::SweepFacts) -> String {
    sweep_table(sweep).text()
}

fn sweep_table(sweep: &super::json::SweepFacts) -> Table {
    let mut table = Table::new(&[
        "key",
        "value",
        "engine",
        "seeds",
        "decode_tok_s",
        "decode_low",
        "decode_high",
        "throughput_tok_s",
        "throughput_low",
        "throughput_high",
        "ttft_p50_ms",
        "ttft_low_ms",
        "ttft_high_ms",
    ]);
    for point in &sweep.points {
        for (engine, e) in &point.result.engines {
            let start = [
                sweep.key.clone(),
                point.value.clone(),
                engine.clone(),
                point.result.seeds.len().to_string(),
            ];
            let intervals = [e.decode_tok_s, e.throughput_tok_s, e.ttft_p50_ms];
            let figures = intervals.iter().flat_map(|i| [i.mean, i.low, i.high]).map(optional);
            table.row(start.into_iter().chain(figures));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::report::json::SweepFacts;
    use crate::report::sample;

    fn rows(path: &Path) -> Vec<csv::StringRecord> {
        csv::Reader::from_path(path).unwrap().records().map(Result::unwrap).collect()
    }

    fn written() -> (tempfile::TempDir, Report) {
        let directory = tempfile::tempdir().unwrap();
        let mut report = sample::report(true);
        let two = vec![report.clone(), report.clone()];
        report.seeds = Some(SeedsFacts::of(&two));
        report.sweep = Some(SweepFacts::of("links.delay", &[("5 ms".to_owned(), two)]));
        write(directory.path(), &sample::answer(true), &report).unwrap();
        (directory, report)
    }

    #[test]
    fn every_token_and_request_has_its_line() {
        let (directory, _) = written();
        let outcome = sample::answer(true).main;
        let tokens = rows(&directory.path().join("tokens.csv"));
        assert_eq!(tokens.len(), outcome.requests.iter().map(|r| r.tokens_us.len()).sum::<usize>());
        assert_eq!(&tokens[0][3], "", "the first token follows none");
        let gap: f64 = tokens[1][3].parse().unwrap();
        let (first, second): (f64, f64) = (tokens[0][2].parse().unwrap(), tokens[1][2].parse().unwrap());
        assert!((second - first - gap).abs() < 0.002);
        assert_eq!(rows(&directory.path().join("requests.csv")).len(), outcome.requests.len());
    }

    #[test]
    fn shares_of_a_breakdown_add_up_to_one() {
        let (directory, _) = written();
        let rows = rows(&directory.path().join("breakdown.csv"));
        for run in ["ring", "llama-rpc", "tensor-parallel", "recommended"] {
            let shares = rows.iter().filter(|r| &r[0] == run).map(|r| r[3].parse::<f64>().unwrap());
            assert!((shares.sum::<f64>() - 1.0).abs() < 0.003, "{run}");
        }
    }

    #[test]
    fn seeds_and_sweep_are_written_only_when_there_are_any() {
        let (directory, report) = written();
        let engines = report.engines().len();
        assert_eq!(rows(&directory.path().join("seeds.csv")).len(), 2 * engines);
        assert_eq!(rows(&directory.path().join("sweep.csv")).len(), engines);
        let other = tempfile::tempdir().unwrap();
        let paths = write(other.path(), &sample::answer(true), &sample::report(true)).unwrap();
        assert!(paths.iter().all(|p| !p.ends_with("seeds.csv") && !p.ends_with("sweep.csv")));
    }

    #[test]
    fn a_reason_with_commas_and_quotes_survives() {
        let mut answer = sample::answer(false);
        answer.main.requests[0].status = Status::Refused("full: 2 of 2, \"try later\"".to_owned());
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &answer, &sample::report(false)).unwrap();
        let rows = rows(&directory.path().join("requests.csv"));
        assert_eq!((&rows[0][10], &rows[0][11]), ("refused", "full: 2 of 2, \"try later\""));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("taken");
        std::fs::write(&file, "").unwrap();
        let error = write(&file, &sample::answer(false), &sample::report(false)).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
    }
}
