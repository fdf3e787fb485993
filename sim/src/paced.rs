//! A device whose values come from a real engine and whose durations come from the planner's formula: what a real model
//! says in simulated time.

use std::sync::Arc;

use node::asides::{Aside, Asides, Results};
use node::clock::{Clock, Instant};
use node::engine::{Engine, EngineError, Work};
use node::ids::SessionId;
use planner::cost::memory::{load_us, weight_bytes};
use planner::cost::step::step_time;
use planner::fleet::Device;
use planner::model::Model;
use planner::plan::LayerRange;

use crate::engine::sequence;
use crate::layered::Course;

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

impl<E: Engine, C: Clock> Paced<E, C> {
    /// What the engine makes of a step, and how long the device would take, microseconds.
    async fn compute(&mut self, batch: Vec<Work>) -> (Results, f64) {
        let Some(layers) = self.layers else {
            return (batch.iter().map(|_| Err(EngineError::NotLoaded)).collect(), 0.0);
        };
        let sequences: Vec<_> = batch.iter().map(sequence).collect();
        let results = self.engine.step(batch).await;
        let done: Vec<_> = sequences
            .into_iter()
            .zip(&results)
            .filter_map(|(one, result)| result.is_ok().then_some(one))
            .collect();
        let time = step_time(&self.model, &self.device, layers, &done);
        (results, time.total_us())
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

    async fn step(&mut self, batch: Vec<Work>) -> Results {
        let began = self.clock.now();
        let (results, took_us) = self.compute(batch).await;
        self.clock.sleep_until(later(began, took_us)).await;
        results
    }

    fn takes_asides(&self) -> bool {
        true
    }

    async fn step_between(&mut self, batch: Vec<Work>, asides: Asides) -> Results {
        let (results, took_us) = self.compute(batch).await;
        let layers = self.layers.map_or(1, LayerRange::len);
        let mut course = Course::new((took_us * 1e3).round() as u64, layers);
        while !course.is_over() {
            if let Some(Aside { forget, batch }) = asides.next() {
                forget.into_iter().for_each(|session| self.engine.release(session));
                asides.answer(self.step(batch).await);
            } else {
                course.run(&self.clock, &asides).await;
            }
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
