//! The devices of a played engine: the planner's formula times the seeded errors that the planner does not see.

use planner::cost::memory::load_us;
use planner::cost::step::{Sequence, step_time};
use planner::fleet::{Device, Fleet, NodeId};
use planner::model::Model;
use planner::plan::LayerRange;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};

use crate::seed::Seed;

/// A log-normal factor of mean 1 with this relative standard deviation; `None` for none.
fn error_factor(relative: f64) -> Option<LogNormal<f64>> {
    let variance = (1.0 + relative * relative).ln();
    LogNormal::new(-variance / 2.0, variance.sqrt()).ok().filter(|_| relative > 0.0)
}

/// One device and what it did.
#[derive(Debug)]
struct Machine {
    device: Device,
    /// How many times slower than the formula it is.
    true_factor: f64,
    /// How many times slower a fault has made it.
    slow_down: f64,
    rng: ChaCha8Rng,
    busy_us: f64,
    steps: u64,
}

/// Every device of a fleet.
#[derive(Debug)]
pub(super) struct Machines {
    machines: Vec<Machine>,
    step_error: Option<LogNormal<f64>>,
}

impl Machines {
    /// Devices with the errors `(of a device, of a step)`, drawn from the run's `seed` under the names that
    /// [`SimEngine`](crate::engine::SimEngine) uses: a device is as slow for every engine.
    pub(super) fn new(fleet: &Fleet, error: (f64, f64), seed: Seed) -> Self {
        let device_error = error_factor(error.0);
        let machines = fleet
            .ids()
            .map(|id| {
                let node = fleet.node(id);
                let own = seed.fork("nodes").fork(&node.name).fork("device");
                Machine {
                    device: node.device.clone(),
                    true_factor: device_error.map_or(1.0, |e| e.sample(&mut own.fork("speed").rng())),
                    slow_down: 1.0,
                    rng: own.fork("steps").fork_index(0).rng(),
                    busy_us: 0.0,
                    steps: 0,
                }
            })
            .collect();
        Self { machines, step_error: error_factor(error.1) }
    }

    /// Runs a step on `node` and says how long it took, microseconds.
    pub(super) fn step_us(
        &mut self,
        model: &Model,
        node: NodeId,
        layers: LayerRange,
        batch: &[Sequence],
    ) -> f64 {
        let planned_us = step_time(model, &self.machines[node.index()].device, layers, batch).total_us();
        self.run_us(node, planned_us)
    }

    /// The same for one of `sharers` equal parts of every layer: memory and work are divided alike.
    pub(super) fn shared_step_us(
        &self,
        model: &Model,
        node: NodeId,
        sharers: u64,
        batch: &[Sequence],
    ) -> f64 {
        let alone = &self.machines[node.index()].device;
        let device = Device {
            memory_bytes: alone.memory_bytes.saturating_mul(sharers),
            reserved_bytes: alone.reserved_bytes.saturating_mul(sharers),
            ..alone.clone()
        };
        step_time(model, &device, LayerRange::new(0, model.layer_count()), batch).total_us()
    }

    /// Lets `node` compute what the formula puts at `planned_us`; the answer has the errors in it.
    pub(super) fn run_us(&mut self, node: NodeId, planned_us: f64) -> f64 {
        let machine = &mut self.machines[node.index()];
        let error = self.step_error.map_or(1.0, |e| e.sample(&mut machine.rng));
        let took_us = planned_us * machine.true_factor * error * machine.slow_down;
        machine.busy_us += took_us;
        machine.steps += 1;
        took_us
    }

    /// Steps of `node` take this many times longer from now on.
    pub(super) fn slow_down(&mut self, node: NodeId, times: f64) {
        self.machines[node.index()].slow_down = times;
    }

    /// Time `node` needs to read `bytes` of weights, microseconds.
    pub(super) fn load_us(&self, node: NodeId, bytes: u64) -> f64 {
        load_us(&self.machines[node.index()].device, bytes)
    }

    /// Time `node` computed, microseconds, and the steps it ran.
    pub(super) fn used(&self, node: NodeId) -> (f64, u64) {
        let machine = &self.machines[node.index()];
        (machine.busy_us, machine.steps)
    }
}
