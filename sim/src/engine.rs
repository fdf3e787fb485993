//! The simulated device: durations from the planner's formula times a seeded error the planner does not see, memory
//! from the device's own size, and values that betray every mistake ([`digest`](crate::digest)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use node::asides::{Aside, Asides, Results};
use node::clock::{Clock, Instant};
use node::engine::{Engine, EngineError, Input, Sampled, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::wire::Payload;
use planner::cost::constants::Software;
use planner::cost::memory::{activation_bytes, kv_bytes, load_us, weight_bytes};
use planner::cost::step::{Sequence, StepTime, step_time};
use planner::fleet::{Device, NodeId};
use planner::model::Model;
use planner::plan::LayerRange;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};

use crate::digest::{Context, embed, reference, sample};
use crate::layered::Course;
use crate::record::{Recorder, Spent};
use crate::seed::Seed;

/// The `count` tokens that must follow `prompt`, whatever mesh computes them.
pub fn reference_tokens(model: &Model, sampling: &Sampling, prompt: &[Token], count: u32) -> Vec<Token> {
    reference(model.layer_count(), model.vocab, sampling, prompt, count)
}

/// What the run may do to a device while it works. Shared by all lives of a node.
#[derive(Debug)]
pub struct Condition {
    slow_down: AtomicU64,
    memory_lost: AtomicU64,
}

impl Default for Condition {
    fn default() -> Self {
        Self { slow_down: AtomicU64::new(1f64.to_bits()), memory_lost: AtomicU64::new(0f64.to_bits()) }
    }
}

impl Condition {
    /// Steps that begin from now on take this many times longer; 1 is as new.
    pub fn slow_down(&self, times: f64) {
        self.slow_down.store(times.max(f64::MIN_POSITIVE).to_bits(), Ordering::Relaxed);
    }

    /// This share of the memory for KV belongs to somebody else from now on. What is held stays; growth is refused.
    pub fn lose_memory(&self, share: f64) {
        self.memory_lost.store(share.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
    }

    fn times_slower(&self) -> f64 {
        f64::from_bits(self.slow_down.load(Ordering::Relaxed))
    }

    fn share_left(&self) -> f64 {
        1.0 - f64::from_bits(self.memory_lost.load(Ordering::Relaxed))
    }
}

/// What a simulated device is made of.
#[derive(Debug, Clone)]
pub struct EngineSpec {
    /// Whose device.
    pub node: NodeId,
    /// Its figures.
    pub device: Device,
    /// What lies on its disk, if `has_model`.
    pub model: Arc<Model>,
    /// Whether it does.
    pub has_model: bool,
    /// Software costs around a step.
    pub software: Software,
    /// Relative standard deviation of the device's true speed, and of each step's time around that.
    pub compute_error: (f64, f64),
    /// The node's seed: the device's true speed is a function of it.
    pub seed: Seed,
    /// Which start of the node this is; steps after a restart draw their own errors.
    pub incarnation: u64,
    /// Layers that are in memory from the start.
    pub loaded: Option<LayerRange>,
}

/// A device with its weights and KV.
#[derive(Debug)]
pub struct SimEngine<C: Clock> {
    spec: EngineSpec,
    clock: C,
    recorder: Recorder,
    condition: Arc<Condition>,
    /// How many times slower than the formula this device is.
    device_factor: f64,
    step_error: Option<LogNormal<f64>>,
    rng: ChaCha8Rng,
    layers: Option<LayerRange>,
    /// Weights and activation buffers of these layers.
    fixed_bytes: u64,
    sessions: BTreeMap<SessionId, Context>,
    kv_used_bytes: u64,
}

/// A step that takes its time.
struct Running {
    time: StepTime,
    software_us: f64,
    layers: u32,
    /// Whose, and the position after their tokens.
    shares: Vec<(SessionId, u32)>,
}

impl Running {
    fn total_ns(&self) -> u64 {
        ((self.time.total_us() + self.software_us) * 1e3).round() as u64
    }

    /// What a share of its layers takes.
    fn part(&self, share: f64) -> Spent {
        Spent { compute_us: self.time.total_us() * share, software_us: self.software_us * share }
    }
}

/// A log-normal factor of mean 1 with this relative standard deviation; `None` for none.
fn factor(relative: f64) -> Option<LogNormal<f64>> {
    let variance = (1.0 + relative * relative).ln();
    LogNormal::new(-variance / 2.0, variance.sqrt()).ok().filter(|_| relative > 0.0)
}

impl<C: Clock> SimEngine<C> {
    /// A device with `spec.loaded` in memory.
    pub fn new(spec: EngineSpec, clock: C, recorder: Recorder, condition: Arc<Condition>) -> Self {
        let seed = spec.seed.fork("device");
        let device_factor =
            factor(spec.compute_error.0).map_or(1.0, |f| f.sample(&mut seed.fork("speed").rng()));
        Self {
            step_error: factor(spec.compute_error.1),
            rng: seed.fork("steps").fork_index(spec.incarnation).rng(),
            device_factor,
            clock,
            recorder,
            condition,
            layers: spec.loaded,
            fixed_bytes: fixed_bytes(&spec.model, spec.loaded),
            sessions: BTreeMap::new(),
            kv_used_bytes: 0,
            spec,
        }
    }

    /// KV bytes there is room for beside weights and activations.
    fn kv_room_bytes(&self) -> u64 {
        let room = self.spec.device.usable_bytes().saturating_sub(self.fixed_bytes);
        (room as f64 * self.condition.share_left()) as u64
    }

    fn check_loadable(&self, model: &str, layers: LayerRange) -> Result<(), EngineError> {
        if !self.spec.has_model || model != self.spec.model.name {
            return Err(EngineError::Device(format!("the weights of {model} are not on this disk")));
        }
        if layers.is_empty() || layers.end > self.spec.model.layer_count() {
            return Err(EngineError::Device(format!(
                "{model} has layers 0 to {}, not {} to {}",
                self.spec.model.layer_count(),
                layers.first,
                layers.end
            )));
        }
        let need = fixed_bytes(&self.spec.model, Some(layers));
        let have = self.spec.device.usable_bytes();
        if need > have {
            return Err(EngineError::Device(format!("the layers need {need} bytes, the device has {have}")));
        }
        Ok(())
    }

    /// Weight bytes of `layers` that are not in memory yet.
    fn missing_bytes(&self, layers: LayerRange) -> u64 {
        let there = self.layers.map_or(0, |held| {
            let common = LayerRange::new(held.first.max(layers.first), held.end.min(layers.end));
            if common.is_empty() { 0 } else { weight_bytes(&self.spec.model, common) }
        });
        weight_bytes(&self.spec.model, layers).saturating_sub(there)
    }

    fn forget_all(&mut self) {
        self.sessions.clear();
        self.kv_used_bytes = 0;
        self.tell_memory();
    }

    /// What the device has in memory goes on record.
    fn tell_memory(&self) {
        let bytes = self.fixed_bytes + self.kv_used_bytes;
        self.recorder.holds(self.spec.node, self.sessions.len(), bytes);
    }

    /// Runs one session's share on its context. On an error nothing of it is kept.
    fn run(&mut self, layers: LayerRange, work: &Work) -> Result<WorkOut, EngineError> {
        let held = self.sessions.get(&work.session).map_or(0, Context::len);
        if work.start != held {
            return Err(EngineError::Gap { have: held, start: work.start });
        }
        let inputs = inputs(layers, work)?;
        let model = Arc::clone(&self.spec.model);
        let grown =
            kv_bytes(&model, layers, held + work.count).saturating_sub(kv_bytes(&model, layers, held));
        if self.kv_used_bytes + grown > self.kv_room_bytes() {
            return Err(EngineError::NoRoom);
        }
        self.kv_used_bytes += grown;
        let context = self.sessions.entry(work.session).or_insert_with(|| Context::new(layers));
        let outputs: Vec<u64> = inputs.into_iter().map(|input| context.push(input)).collect();
        Ok(self.output(work, outputs))
    }

    /// Computes everything at once. Gives what is left to be waited for, unless nothing was to be done.
    fn begin(&mut self, batch: &[Work]) -> (Results, Option<Running>) {
        let Some(layers) = self.layers else {
            return (batch.iter().map(|_| Err(EngineError::NotLoaded)).collect(), None);
        };
        let (mut results, mut shares, mut sequences) =
            (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
        for work in batch {
            let result = self.run(layers, work);
            if result.is_ok() {
                shares.push((work.session, work.start + work.count));
                sequences.push(sequence(work));
            }
            results.push(result);
        }
        if shares.is_empty() {
            return (results, None);
        }
        let time = self.duration(layers, &sequences);
        self.tell_memory();
        let software_us = self.spec.software.per_step_us;
        (results, Some(Running { time, software_us, layers: layers.len(), shares }))
    }

    /// Runs a step between the layers of another one, after its sessions have waited so long for the end of a layer.
    async fn aside(&mut self, aside: Aside, waited_ns: u64) -> Results {
        for session in aside.forget {
            self.release(session);
        }
        let shares: Vec<_> = aside.batch.iter().map(|work| (work.session, work.start + work.count)).collect();
        self.recorder.held_up(&shares, waited_ns);
        self.step(aside.batch).await
    }

    fn output(&self, work: &Work, digests: Vec<u64>) -> WorkOut {
        match &work.want {
            Want::Nothing => WorkOut::Done,
            Want::Hidden => {
                let row = f64::from(self.spec.model.hidden) * self.spec.software.activation_bytes;
                WorkOut::Hidden(Payload::Virtual { len: (row * f64::from(work.count)) as u64, digests })
            }
            Want::Sample(sampling) => {
                let last = digests.last().copied().unwrap_or_default();
                WorkOut::Token(self.sampled(last, sampling, work.start + work.count))
            }
            Want::Verify(sampling) => {
                let after = digests.into_iter().zip(work.start + 1..);
                WorkOut::Tokens(after.map(|(word, at)| self.sampled(word, sampling, at)).collect())
            }
            Want::Logits => {
                let len = 4 * u64::from(self.spec.model.vocab) * u64::from(work.count);
                WorkOut::Logits(Payload::Virtual { len, digests })
            }
        }
    }

    fn sampled(&self, word: u64, sampling: &Sampling, position: u32) -> Sampled {
        sample(word, sampling, position, self.spec.model.vocab).into()
    }

    /// How long the step takes on this device today.
    fn duration(&mut self, layers: LayerRange, batch: &[Sequence]) -> StepTime {
        let planned = step_time(&self.spec.model, &self.spec.device, layers, batch);
        let error = self.step_error.map_or(1.0, |error| error.sample(&mut self.rng));
        let times = self.device_factor * error * self.condition.times_slower();
        StepTime {
            weights_us: planned.weights_us * times,
            attention_us: planned.attention_us * times,
            dispatch_us: planned.dispatch_us * times,
        }
    }
}

/// Weights and activation buffers of `layers`.
fn fixed_bytes(model: &Model, layers: Option<LayerRange>) -> u64 {
    layers.map_or(0, |layers| weight_bytes(model, layers) + activation_bytes(model))
}

/// What comes into the range, one word per token.
fn inputs(layers: LayerRange, work: &Work) -> Result<Vec<u64>, EngineError> {
    let words: Vec<u64> = match &work.input {
        Input::Tokens(tokens) if layers.first == 0 => {
            tokens.iter().zip(work.start..).map(|(token, position)| embed(*token, position)).collect()
        }
        Input::Hidden(Payload::Virtual { digests, .. }) if layers.first > 0 => digests.clone(),
        Input::Tokens(_) => {
            return Err(EngineError::Device("token ids came to a stage that does not embed".into()));
        }
        Input::Hidden(_) => {
            return Err(EngineError::Device("a tensor came that this stage cannot take".into()));
        }
    };
    if words.is_empty() || words.len() as u64 != u64::from(work.count) {
        return Err(EngineError::Device(format!(
            "a step over {} tokens carries {}",
            work.count,
            words.len()
        )));
    }
    Ok(words)
}

/// What a session's share costs: logits where a token is sampled.
pub(crate) fn sequence(work: &Work) -> Sequence {
    let logits = match work.want {
        Want::Sample(_) => 1,
        Want::Verify(_) | Want::Logits => work.count,
        Want::Hidden | Want::Nothing => 0,
    };
    Sequence { new_tokens: work.count, context: work.start, logits }
}

impl<C: Clock> Engine for SimEngine<C> {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        if layers == self.layers {
            return Ok(());
        }
        if let Some(layers) = layers {
            self.check_loadable(model, layers)?;
        }
        self.fixed_bytes = fixed_bytes(&self.spec.model, layers);
        self.forget_all();
        let Some(layers) = layers else {
            self.layers = None;
            return Ok(());
        };
        let began = self.clock.now();
        let took_us = load_us(&self.spec.device, self.missing_bytes(layers));
        let ended_ns = began.0 + (took_us * 1e3).round() as u64;
        // Until it has all of the new range it can compute neither.
        self.layers = None;
        self.clock.sleep_until(Instant(ended_ns)).await;
        self.layers = Some(layers);
        self.recorder.loaded(
            self.spec.node,
            began.0,
            ended_ns,
            format!("layers {}..{}", layers.first, layers.end),
        );
        Ok(())
    }

    async fn step(&mut self, batch: Vec<Work>) -> Results {
        let (results, running) = self.begin(&batch);
        if let Some(running) = running {
            let began = self.clock.now();
            self.recorder.stepped(self.spec.node, began.0, &running.part(1.0), &running.shares, true);
            self.clock.sleep_until(Instant(began.0 + running.total_ns())).await;
        }
        results
    }

    fn takes_asides(&self) -> bool {
        true
    }

    async fn step_between(&mut self, batch: Vec<Work>, asides: Asides) -> Results {
        let (results, running) = self.begin(&batch);
        let Some(running) = running else { return results };
        let mut course = Course::new(running.total_ns(), running.layers);
        let (mut ended, mut is_new, mut waited_ns) = (self.clock.now(), true, 0);
        while !course.is_over() {
            if let Some(aside) = asides.next() {
                asides.answer(self.aside(aside, std::mem::take(&mut waited_ns)).await);
                continue;
            }
            let piece = course.run(&self.clock, &asides).await;
            self.recorder.held_up(&running.shares, piece.began.0.saturating_sub(ended.0));
            let part = running.part(piece.share);
            self.recorder.stepped(self.spec.node, piece.began.0, &part, &running.shares, is_new);
            (ended, is_new, waited_ns) = (self.clock.now(), false, piece.waited_ns);
        }
        results
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        let (Some(layers), Some(context)) = (self.layers, self.sessions.get_mut(&session)) else {
            return;
        };
        let before = kv_bytes(&self.spec.model, layers, context.len());
        context.truncate(len);
        self.kv_used_bytes -= before - kv_bytes(&self.spec.model, layers, context.len());
        if len == 0 {
            self.release(session);
        }
    }

    fn release(&mut self, session: SessionId) {
        if let (Some(layers), Some(context)) = (self.layers, self.sessions.remove(&session)) {
            self.kv_used_bytes -= kv_bytes(&self.spec.model, layers, context.len());
            self.tell_memory();
        }
    }

    fn held(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }
}
