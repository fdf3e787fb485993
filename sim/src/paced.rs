//! A device whose values come from a real engine and whose durations come from the planner's formula: what a real model
//! says in simulated time.

use std::sync::Arc;

use node::clock::{Clock, Instant};
use node::engine::{Engine, EngineError, Work, WorkOut};
use node::ids::SessionId;
use planner::cost::memory::{load_us, weight_bytes};
use planner::cost::step::step_time;
use planner::fleet::Device;
use planner::model::Model;
use planner::plan::LayerRange;

use crate::engine::sequence;

/// An engine that takes, by `clock`, as long as `device` would. The engine itself must compute where it is called: a
/// simulated clock does not wait for threads.
#[derive(Debug)]
pub struct Paced<E, C> {
    engine: E,
    clock: C,
    device: Device,
    model: Arc<Model>,
    layers: Option<LayerRange>,
}

impl<E: Engine, C: Clock> Paced<E, C> {
    /// `engine`, which holds nothing yet, at the pace of `device` with layers of `model`.
    pub fn new(engine: E, clock: C, device: Device, model: Arc<Model>) -> Self {
        Self { engine, clock, device, model, layers: None }
    }
}

fn later(began: Instant, took_us: f64) -> Instant {
    Instant(began.0 + (took_us * 1e3).round() as u64)
}

impl<E: Engine, C: Clock> Engine for Paced<E, C> {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        if layers == self.layers {
            return Ok(());
        }
        let began = self.clock.now();
        self.layers = None;
        self.engine.load(model, layers).await?;
        let bytes = layers.map_or(0, |layers| weight_bytes(&self.model, layers));
        self.clock.sleep_until(later(began, load_us(&self.device, bytes))).await;
        self.layers = layers;
        Ok(())
    }

    async fn step(&mut self, batch: Vec<Work>) -> Vec<Result<WorkOut, EngineError>> {
        let Some(layers) = self.layers else {
            return batch.iter().map(|_| Err(EngineError::NotLoaded)).collect();
        };
        let began = self.clock.now();
        let sequences: Vec<_> = batch.iter().map(sequence).collect();
        let results = self.engine.step(batch).await;
        let done: Vec<_> = sequences
            .into_iter()
            .zip(&results)
            .filter_map(|(one, result)| result.is_ok().then_some(one))
            .collect();
        if !done.is_empty() {
            let time = step_time(&self.model, &self.device, layers, &done);
            self.clock.sleep_until(later(began, time.total_us())).await;
        }
        results
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        self.engine.truncate(session, len);
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.engine.fork(from, to, len)
    }

    fn release(&mut self, session: SessionId) {
        self.engine.release(session);
    }

    fn held(&self) -> Vec<SessionId> {
        self.engine.held()
    }
}
