//! The link model at the pace of the wall clock.

use std::time::Instant;

use super::Cut;
use node::transport::Lane;
use planner::cost::constants::{HANDSHAKE_BYTES, Software};
use planner::fleet::{Fleet, NodeId};
use sim::link::{Net, QUANTUM_BYTES};

/// The software on both ends is real here and takes its own time.
const NO_SOFTWARE: Software = Software { per_hop_us: 0.0, per_step_us: 0.0, activation_bytes: 2.0 };

/// When something that was sent has left, and when it arrives; nanoseconds since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    /// When the resources on its way are done with it.
    pub(super) passed_ns: u64,
    /// When the receiver has it.
    pub(super) due_ns: u64,
}

/// The network and the time.
#[derive(Debug)]
pub(super) struct Links {
    net: Net,
    start: Instant,
}

impl Links {
    #[expect(clippy::disallowed_methods, reason = "it emulates a network in real time")]
    pub(super) fn new(fleet: Fleet, seed: u64) -> Self {
        Self { net: Net::with_software(fleet, seed, NO_SOFTWARE), start: Instant::now() }
    }

    /// Nothing passes between these nodes and the others from now on; among nobody and all others everything does.
    pub(super) fn cut(&mut self, nodes: &Cut) {
        self.net.heal();
        let others: Vec<NodeId> = self.net.fleet().ids().filter(|node| !nodes.contains(node)).collect();
        self.net.cut(&nodes.iter().copied().collect::<Vec<_>>(), &others);
    }

    /// Nanoseconds since the start.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sends `bytes` now. Those of a flow that has nothing else under way go before the bulk of others, as fair queueing
    /// does it: see `sim::link`. `None` where nothing passes.
    pub(super) fn pass(
        &mut self,
        from: NodeId,
        to: NodeId,
        is_sparse: bool,
        bytes: usize,
    ) -> Option<Passage> {
        let is_small = (bytes as u64) < QUANTUM_BYTES;
        let lane = if is_sparse && is_small { Lane::Decode } else { Lane::Prefill };
        let delivery = self.net.send(self.now_ns(), from, to, lane, bytes as u64)?;
        Some(Passage { passed_ns: delivery.passed_ns, due_ns: delivery.at_ns })
    }

    /// Sends one message of a greeting or a farewell.
    pub(super) fn shake(&mut self, from: NodeId, to: NodeId) -> Option<Passage> {
        let delivery = self.net.send(self.now_ns(), from, to, Lane::Control, HANDSHAKE_BYTES)?;
        Some(Passage { passed_ns: delivery.passed_ns, due_ns: delivery.at_ns })
    }
}

/// How late the emulator handed over what was due: its own error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Punctuality {
    /// By lateness: the bucket `i` counts what was late by less than `2^i` microseconds, and not less than half of it.
    buckets: [u64; Self::BUCKETS],
    count: u64,
    total_ns: u64,
    worst_ns: u64,
}

impl Punctuality {
    /// Up to a second.
    const BUCKETS: usize = 21;

    pub(super) fn note(&mut self, late_ns: u64) {
        let bucket = (u64::BITS - (late_ns / 1_000).leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
        self.count += 1;
        self.total_ns += late_ns;
        self.worst_ns = self.worst_ns.max(late_ns);
    }

    /// What came after `earlier`; the worst is that of both.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (bucket, before) in since.buckets.iter_mut().zip(&earlier.buckets) {
            *bucket -= before;
        }
        since.count -= earlier.count;
        since.total_ns -= earlier.total_ns;
        since
    }

    /// Handings over.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean, microseconds.
    pub fn mean_us(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.total_ns as f64 / self.count as f64 / 1e3 }
    }

    /// The worst, microseconds.
    pub fn worst_us(&self) -> f64 {
        self.worst_ns as f64 / 1e3
    }

    /// A bound that the share `of` of all kept, microseconds: a power of two.
    pub fn bound_us(&self, of: f64) -> f64 {
        let wanted = (self.count as f64 * of).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return f64::from(1u32 << i);
            }
        }
        self.worst_us()
    }
}
