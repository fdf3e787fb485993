//! A model cut into ranges of layers, as a mesh would cut it, without the mesh: activations go from one to the next.

use node::engine::{EngineError, Input, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::wire::Payload;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

/// The stages, first to last.
pub struct Chain {
    stages: Vec<Model>,
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

impl Chain {
    /// Loads the model cut before each layer of `cuts`.
    ///
    /// # Panics
    /// Where it cannot be loaded, which fails the test.
    pub fn load(file: &GgufFile, cuts: &[u32], options: &EngineOptions) -> Self {
        let layers = file.model().expect("a model").layer_count();
        let firsts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(layers));
        let load =
            |(first, end)| Model::load(file, LayerRange::new(first, end), options).expect("a sound model");
        Self { stages: firsts.zip(ends).map(load).collect() }
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
        let fork = |stage: &mut Model| stage.fork(SessionId(from), SessionId(to), len);
        self.stages.iter_mut().map(fork).min().unwrap_or(0)
    }

    /// The stages.
    pub fn stages(&mut self) -> &mut [Model] {
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
