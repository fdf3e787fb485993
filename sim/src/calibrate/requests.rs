//! Who asked for what in a record, and when tokens came.

use std::collections::BTreeMap;

use node::ids::SessionId;
use node::probe::Event;

use super::{Seen, seen};
use crate::recorded::Run;

/// A request.
#[derive(Debug, Clone, Default)]
struct Asked {
    node: String,
    at_us: f64,
    prompt: u32,
    tokens_us: Vec<f64>,
    is_whole: bool,
}

/// All that were answered whole, in the order of asking.
#[derive(Debug, Clone)]
pub(super) struct Requests(Vec<Asked>);

impl Requests {
    pub(super) fn of(run: &Run) -> Self {
        let mut all: BTreeMap<SessionId, Asked> = BTreeMap::new();
        for line in &run.lines {
            let at_us = line.at_ns as f64 / 1e3;
            match &line.event {
                Event::Accepted { session, prompt } => {
                    let asked = Asked { node: line.node.clone(), at_us, prompt: *prompt, ..Asked::default() };
                    all.insert(*session, asked);
                }
                Event::Emitted { session, .. } => {
                    all.entry(*session).and_modify(|asked| asked.tokens_us.push(at_us));
                }
                Event::Completed { session } => {
                    all.entry(*session).and_modify(|asked| asked.is_whole = true);
                }
                _ => {}
            }
        }
        let mut whole: Vec<Asked> =
            all.into_values().filter(|asked| asked.is_whole && !asked.tokens_us.is_empty()).collect();
        whole.sort_by(|a, b| a.at_us.total_cmp(&b.at_us));
        Self(whole)
    }

    /// What they saw.
    pub(super) fn seen(&self) -> Option<Seen> {
        seen(self.0.iter().map(|asked| (asked.at_us, asked.tokens_us.as_slice())))
    }

    /// As a trace: when, prompt, output.
    pub(super) fn trace(&self) -> String {
        let began = self.0.first().map_or(0.0, |asked| asked.at_us);
        let row = |asked: &Asked| {
            let at_ms = (asked.at_us - began) / 1e3;
            format!("{at_ms:.3},{},{}\n", asked.prompt.max(1), asked.tokens_us.len())
        };
        let rows: String = self.0.iter().map(row).collect();
        format!("at_ms,prompt,output\n{rows}")
    }

    /// Where they were asked, each node once, in the order of asking.
    pub(super) fn entries(&self) -> Vec<&str> {
        let mut entries: Vec<&str> = Vec::new();
        for asked in &self.0 {
            if !entries.contains(&asked.node.as_str()) {
                entries.push(&asked.node);
            }
        }
        entries
    }

    /// Tokens of the longest one, prompt included.
    pub(super) fn longest(&self) -> u32 {
        self.0.iter().map(|asked| asked.prompt + asked.tokens_us.len() as u32).max().unwrap_or(0)
    }

    /// The most that were under way at once.
    pub(super) fn together(&self) -> u32 {
        let end = |asked: &Asked| asked.tokens_us.last().copied().unwrap_or(asked.at_us);
        let at = |time: f64| self.0.iter().filter(|asked| asked.at_us <= time && time < end(asked)).count();
        self.0.iter().map(|asked| at(asked.at_us)).max().unwrap_or(1).max(1) as u32
    }
}
