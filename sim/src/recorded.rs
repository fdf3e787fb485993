//! Runs as files ([`node::record`]): a real mesh's, written by `meshwright observe`, or a simulated one's.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use node::record::{self, Header, Line, Link};
use planner::fleet::{Fleet, NodeId};
use planner::plan::Plan;
use serde::Serialize;

use crate::run::Recording;
use crate::scenario::Scenario;

/// Nodes of a simulated record between which links are written down: of more, those of all pairs would be most of it.
const LINKED_MAX: usize = 32;

/// A record.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Who took part.
    pub header: Header,
    /// What happened, by time.
    pub lines: Vec<Line>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A line of it.
    #[error("{}:{line}: {why}; `meshwright observe` and `sim replay --record` write such files", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl Run {
    /// Reads a file. A last line that breaks off is left out: whoever wrote it was killed.
    ///
    /// # Errors
    /// [`RecordError`] names file and line.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let failed = |cause| RecordError::File { path: path.into(), cause };
        let wrong = |line: usize, why: String| RecordError::Line { path: path.into(), line: line + 1, why };
        let mut texts = BufReader::new(File::open(path).map_err(failed)?).lines().enumerate().peekable();
        let (_, first) = texts.next().ok_or_else(|| wrong(0, "it is empty".into()))?;
        let header: Header = serde_json::from_str(&first.map_err(failed)?)
            .map_err(|why| wrong(0, format!("no header of a record: {why}")))?;
        if header.meshwright_record != record::VERSION {
            let version = header.meshwright_record;
            return Err(wrong(0, format!("a record of version {version}, not {}", record::VERSION)));
        }
        let mut lines: Vec<Line> = Vec::new();
        while let Some((number, text)) = texts.next() {
            match serde_json::from_str(&text.map_err(failed)?) {
                Ok(line) => lines.push(line),
                Err(_) if texts.peek().is_none() => break,
                Err(why) => return Err(wrong(number, format!("no event: {why}"))),
            }
        }
        lines.sort_by_key(|line| line.at_ns);
        Ok(Self { header, lines })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let failed = |cause| RecordError::File { path: path.into(), cause };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        writeln!(file, "{}", json(&self.header)).map_err(failed)?;
        for line in &self.lines {
            writeln!(file, "{}", json(line)).map_err(failed)?;
        }
        file.flush().map_err(failed)
    }

    /// A simulated run; its recording must have been asked for with a timeline, or steps are missing.
    pub fn of(scenario: &Scenario, recording: &Recording, gguf: Option<PathBuf>) -> Self {
        let (fleet, outcome) = (&scenario.fleet, &recording.outcome);
        let node = |id: NodeId| record::Node {
            name: fleet.node(id).name.clone(),
            device: fleet.node(id).device.clone(),
            layers: held(&outcome.plan, id),
        };
        let header = Header {
            meshwright_record: record::VERSION,
            world: outcome.world.as_str().into(),
            model: scenario.model.name.clone(),
            gguf,
            nodes: fleet.ids().map(node).collect(),
            links: links(fleet),
        };
        let line = |told: &crate::record::Recorded| Line {
            at_ns: told.at_ns,
            node: fleet.node(told.node).name.clone(),
            event: told.event.clone(),
        };
        Self { header, lines: recording.events.iter().map(line).collect() }
    }

    /// Everything that happened but engine steps, a line an event.
    pub fn log(&self) -> Vec<String> {
        let told = self.lines.iter().filter(|line| !line.event.is_step());
        told.map(|line| format!("{:12.6} {} {:?}", line.at_ns as f64 / 1e9, line.node, line.event)).collect()
    }
}

fn held(plan: &Plan, node: NodeId) -> Option<planner::plan::LayerRange> {
    plan.stages().find(|stage| stage.node == node).map(|stage| stage.layers)
}

fn links(fleet: &Fleet) -> Vec<Link> {
    let few = fleet.nodes.len() <= LINKED_MAX;
    let pairs = fleet.ids().flat_map(|a| fleet.ids().filter(move |b| a < *b).map(move |b| (a, b)));
    let link = |(a, b): (NodeId, NodeId)| {
        let (there, back) = (fleet.path(a, b)?, fleet.path(b, a)?);
        let slowest = there.segments.iter().map(|segment| segment.bytes_per_s).fold(f64::INFINITY, f64::min);
        Some(Link {
            between: (fleet.node(a).name.clone(), fleet.node(b).name.clone()),
            round_trip_us: there.delay.mean_us() + back.delay.mean_us(),
            bytes_per_s: if slowest.is_finite() { slowest } else { 1e12 },
        })
    };
    pairs.filter(|_| few).filter_map(link).collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("string keys and finite numbers always serialise")
}
