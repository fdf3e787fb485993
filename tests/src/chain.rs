//! A model cut into ranges of layers, as a mesh would cut it, without the mesh: activations go from one to the next.

use node::engine::{EngineError, Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::real::model::{self, Backend};
use node::wire::Payload;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

/// A range of layers on any device.
pub trait Stage {
    /// Runs one step.
    fn step(&mut self, batch: &[Work]) -> Vec<Result<WorkOut, EngineError>>;
    /// Forgets positions from `len` on.
    fn truncate(&mut self, session: SessionId, len: u32);
    /// Lets session `to` begin as `from` did.
    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32;
    /// Tokens of the vocabulary.
    fn vocab(&self) -> usize;
}

impl<B: Backend> Stage for model::Model<B> {
    fn step(&mut self, batch: &[Work]) -> Vec<Result<WorkOut, EngineError>> {
        self.step(batch)
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        self.truncate(session, len);
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.fork(from, to, len)
    }

    fn vocab(&self) -> usize {
        self.vocab()
    }
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    fn step(&mut self, batch: &[Work]) -> Vec<Result<WorkOut, EngineError>> {
        (**self).step(batch)
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        (**self).truncate(session, len);
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        (**self).fork(from, to, len)
    }

    fn vocab(&self) -> usize {
        (**self).vocab()
    }
}

/// The stages, first to last.
pub struct Chain<S: Stage = Model> {
    stages: Vec<S>,
}

/// Tokens of one session in a step, and what is wanted after them.
#[derive(Debug, Clone)]
pub struct Part {
    /// Whose.
    pub session: u64,
    /// Position of the first.
    pub start: u32,
    /// Their ids.
    pub tokens: Vec<u32>,
    /// Of the last stage.
    pub want: Want,
}

impl Chain<Model> {
    /// Loads the model cut before each layer of `cuts`.
    ///
    /// # Panics
    /// Where it cannot be loaded, which fails the test.
    pub fn load(file: &GgufFile, cuts: &[u32], options: &EngineOptions) -> Self {
        Self::of(file, cuts, |_, range| Model::load(file, range, options).expect("a sound model"))
    }
}

impl<S: Stage> Chain<S> {
    /// The model cut before each layer of `cuts`, `load` given each stage's number and range.
    ///
    /// # Panics
    /// Where it cannot be loaded, which fails the test.
    pub fn of(file: &GgufFile, cuts: &[u32], mut load: impl FnMut(usize, LayerRange) -> S) -> Self {
        let layers = file.model().expect("a model").layer_count();
        let firsts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(layers));
        let ranges = firsts.zip(ends).map(|(first, end)| LayerRange::new(first, end));
        Self { stages: ranges.enumerate().map(|(index, range)| load(index, range)).collect() }
    }

    /// One step through all stages; the results are in the order of `parts`.
    ///
    /// # Panics
    /// Where stages before the last give no activations.
    pub fn step(&mut self, parts: &[Part]) -> Vec<Result<WorkOut, EngineError>> {
        self.step_seen(parts, |_, _| {})
    }

    /// The same, with a look at what each stage hands on: its number, and the tensor of each part.
    ///
    /// # Panics
    /// As [`Chain::step`].
    pub fn step_seen(
        &mut self,
        parts: &[Part],
        mut see: impl FnMut(usize, &[Payload]),
    ) -> Vec<Result<WorkOut, EngineError>> {
        let last = self.stages.len() - 1;
        let mut inputs: Vec<Input> = parts
            .iter()
            .map(|part| Input::Tokens(part.tokens.iter().copied().map(Token).collect()))
            .collect();
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let works: Vec<Work> =
                parts.iter().zip(inputs).map(|(part, input)| part.work(input, index == last)).collect();
            let outs = stage.step(&works);
            if index == last {
                return outs;
            }
            let tensors: Vec<Payload> = outs.into_iter().map(hidden).collect();
            see(index, &tensors);
            inputs = tensors.into_iter().map(Input::Hidden).collect();
        }
        unreachable!("a chain has a last stage")
    }

    /// Logits after each of `tokens`, `[tokens][vocabulary]`.
    ///
    /// # Panics
    /// Where the model refuses them.
    pub fn logits(&mut self, session: u64, start: u32, tokens: &[u32]) -> Vec<f32> {
        let part = Part { session, start, tokens: tokens.to_vec(), want: Want::Logits };
        values(self.step(&[part]).remove(0).expect("a step that is sound"))
    }

    /// Forgets a session's positions from `len` on.
    pub fn truncate(&mut self, session: u64, len: u32) {
        self.stages.iter_mut().for_each(|stage| stage.truncate(SessionId(session), len));
    }

    /// Lets session `to` begin as `from` did.
    pub fn fork(&mut self, from: u64, to: u64, len: u32) -> u32 {
        let fork = |stage: &mut S| stage.fork(SessionId(from), SessionId(to), len);
        self.stages.iter_mut().map(fork).min().unwrap_or(0)
    }

    /// The stages.
    pub fn stages(&mut self) -> &mut [S] {
        &mut self.stages
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.stages[0].vocab()
    }
}

impl Part {
    fn work(&self, input: Input, is_last: bool) -> Work {
        let want = if is_last { self.want.clone() } else { Want::Hidden };
        let (session, count) = (SessionId(self.session), self.tokens.len() as u32);
        Work { session, start: self.start, count, input, want }
    }
}

fn hidden(out: Result<WorkOut, EngineError>) -> Payload {
    match out {
        Ok(WorkOut::Hidden(payload)) => payload,
        other => panic!("a stage before the last gave {other:?}"),
    }
}

/// The numbers of logits.
///
/// # Panics
/// Where `out` is something else.
pub fn values(out: WorkOut) -> Vec<f32> {
    let WorkOut::Logits(Payload::Real(bytes)) = out else { panic!("no logits: {out:?}") };
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A prompt of the vocabulary of tiny models, another one for each session.
pub fn prompt(session: u64, count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + 11 * session as u32 + i * i % 7) % 250).collect()
}

/// Decodes `count` tokens after the prompt, one by one.
///
/// # Panics
/// Where a step gives no token, which fails the test.
pub fn decode<S: Stage>(
    chain: &mut Chain<S>,
    session: u64,
    prompt: &[u32],
    count: u32,
    sampling: &Sampling,
) -> Vec<u32> {
    let mut out = Vec::new();
    let mut tokens = prompt.to_vec();
    let mut start = 0;
    let past = prompt.iter().copied().map(Token).collect();
    let mut sampling = Sampling { past: Some(past), ..sampling.clone() };
    while (out.len() as u32) < count {
        let part = Part { session, start, tokens: tokens.clone(), want: Want::Sample(sampling.clone()) };
        start += tokens.len() as u32;
        let Ok(WorkOut::Token(sampled)) = chain.step(&[part]).remove(0) else { panic!("no token") };
        out.push(sampled.token.0);
        tokens = vec![sampled.token.0];
        sampling.past = None;
    }
    out
}
