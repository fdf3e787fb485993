//! The course of one step: where time stands, and where it went so far.

use node::transport::Lane;
use planner::cost::step::Sequence;
use planner::fleet::NodeId;
use planner::model::Model;
use planner::plan::{Breakdown, LayerRange};

use super::PlayError;
use super::machine::Machines;
use crate::link::{Delivery, Net};

/// Time and its parts while a protocol takes one batch through the group. Everything a protocol does is sequential
/// unless it says otherwise: each call moves time on.
#[derive(Debug)]
pub(super) struct Course<'a> {
    model: &'a Model,
    net: &'a mut Net,
    machines: &'a mut Machines,
    lane: Lane,
    now_ns: u64,
    spent: Breakdown,
}

impl<'a> Course<'a> {
    /// A course that begins at `now_ns`; its frames ride `lane`.
    pub(super) fn new(
        model: &'a Model,
        net: &'a mut Net,
        machines: &'a mut Machines,
        lane: Lane,
        now_ns: u64,
    ) -> Self {
        Self { model, net, machines, lane, now_ns, spent: Breakdown::default() }
    }

    /// The model that runs.
    pub(super) fn model(&self) -> &'a Model {
        self.model
    }

    /// When the course ended, and where its time went.
    pub(super) fn end(self) -> (u64, Breakdown) {
        (self.now_ns, self.spent)
    }

    /// Sends a frame and waits until it is there. Between two roles of one node nothing is sent.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, bytes: u64) -> Result<(), PlayError> {
        if from == to {
            return Ok(());
        }
        let delivery = self.delivery(from, to, bytes)?;
        self.wait_for(delivery);
        Ok(())
    }

    /// Sends frames of `bytes` from `from` to each of `to` at once and waits for the last.
    pub(super) fn scatter(&mut self, from: NodeId, to: &[NodeId], bytes: u64) -> Result<(), PlayError> {
        let sent = to.iter().filter(|t| **t != from).map(|t| self.delivery(from, *t, bytes));
        let deliveries: Result<Vec<_>, _> = sent.collect();
        self.wait_for_last(deliveries?);
        Ok(())
    }

    /// Has each of `from` send `bytes` to `to` at once and waits for the last.
    pub(super) fn gather(&mut self, from: &[NodeId], to: NodeId, bytes: u64) -> Result<(), PlayError> {
        let sent = from.iter().filter(|f| **f != to).map(|f| self.delivery(*f, to, bytes));
        let deliveries: Result<Vec<_>, _> = sent.collect();
        self.wait_for_last(deliveries?);
        Ok(())
    }

    /// Runs `layers` of the batch on `node`.
    pub(super) fn compute(&mut self, node: NodeId, layers: LayerRange, batch: &[Sequence]) {
        let took_us = self.machines.step_us(self.model, node, layers, batch);
        self.computed(took_us);
    }

    /// Has each node run what the formula puts at so many microseconds and says how long the slowest took. Time does not
    /// move: a protocol that meets between the parts passes them with [`computed`](Self::computed).
    pub(super) fn slowest_us(&mut self, planned: &[(NodeId, f64)]) -> f64 {
        planned.iter().map(|(node, us)| self.machines.run_us(*node, *us)).fold(0.0, f64::max)
    }

    /// Devices at work.
    pub(super) fn computed(&mut self, us: f64) {
        self.now_ns += nanoseconds(us);
        self.spent.compute_ms += us / 1e3;
    }

    /// What one of `sharers` equal nodes would need for the whole model, microseconds by the formula.
    pub(super) fn shared_step_us(&self, node: NodeId, sharers: u64, batch: &[Sequence]) -> f64 {
        self.machines.shared_step_us(self.model, node, sharers, batch)
    }

    /// Software at work.
    pub(super) fn software(&mut self, us: f64) {
        self.now_ns += nanoseconds(us);
        self.spent.software_ms += us / 1e3;
    }

    /// A delay that somebody put on the way.
    pub(super) fn delay(&mut self, us: f64) {
        self.now_ns += nanoseconds(us);
        self.spent.latency_ms += us / 1e3;
    }

    fn delivery(&mut self, from: NodeId, to: NodeId, bytes: u64) -> Result<Delivery, PlayError> {
        self.net.send(self.now_ns, from, to, self.lane, bytes).ok_or(PlayError::Unreachable { from, to })
    }

    fn wait_for_last(&mut self, deliveries: Vec<Delivery>) {
        if let Some(last) = deliveries.into_iter().max_by_key(|d| d.at_ns) {
            self.wait_for(last);
        }
    }

    fn wait_for(&mut self, delivery: Delivery) {
        self.now_ns = self.now_ns.max(delivery.at_ns);
        self.spent.latency_ms += delivery.latency_us / 1e3;
        self.spent.bandwidth_ms += delivery.bandwidth_us / 1e3;
        self.spent.queueing_ms += delivery.queueing_us / 1e3;
        self.spent.software_ms += delivery.software_us / 1e3;
    }
}

fn nanoseconds(us: f64) -> u64 {
    (us * 1e3).round() as u64
}
