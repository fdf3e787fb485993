//! What is really asked for: the same decaying counts, kept by somebody who sees everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use node::demand::{HALF_LIFE, decay};

/// Requests per member and model.
#[derive(Debug, Default)]
pub(super) struct Truth {
    counts: BTreeMap<(u32, u32), (f64, u64)>,
    /// Who floods, and so drowns what it is asked itself.
    flooding: BTreeSet<u32>,
}

fn left(since_ns: u64, now_ns: u64) -> f64 {
    decay(Duration::from_nanos(now_ns.saturating_sub(since_ns)))
}

impl Truth {
    pub(super) fn asked(&mut self, now_ns: u64, node: u32, model: u32) {
        let count = self.counts.entry((node, model)).or_insert((0.0, now_ns));
        *count = (count.0 * left(count.1, now_ns) + 1.0, now_ns);
    }

    /// Who starts anew has forgotten what it was asked.
    pub(super) fn restarted(&mut self, node: u32) {
        self.counts.retain(|(counted, _), _| *counted != node);
        self.flooding.remove(&node);
    }

    pub(super) fn floods(&mut self, node: u32) {
        self.flooding.insert(node);
    }

    /// Requests per second for each model: those that all must hear of, and all.
    pub(super) fn per_s(&self, now_ns: u64) -> BTreeMap<u32, (f64, f64)> {
        let mut rates = BTreeMap::new();
        for ((node, model), (count, at)) in &self.counts {
            let per_s = count * left(*at, now_ns) * std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64();
            let (heard, all) = rates.entry(*model).or_insert((0.0, 0.0));
            *heard += if self.flooding.contains(node) { 0.0 } else { per_s };
            *all += per_s;
        }
        rates
    }
}

/// What a model is called.
pub(super) fn name(model: u32) -> String {
    format!("model-{model}")
}
