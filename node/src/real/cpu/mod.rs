//! The engine on the processor: a range of layers, the ends of the model where the range has them, and the caches of
//! the sessions that pass it.
//!
//! * [`Model`]: loads, steps, forgets; nothing of it waits for anything but the processor. [`CpuEngine`] puts it behind
//!   the node's [`Engine`](crate::engine::Engine).
//! * [`Residual`]: what the numbers between layers and stages are.
//! * `step`: the operations of a step; `attention`, `kv`: attention and what it reads.

mod attention;
mod engine;
mod kv;
mod past;
mod residual;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

pub use self::engine::{CpuEngine, DirectEngine};
use self::kv::{KvCache, KvShape};
use self::past::Past;
pub use self::residual::Residual;
use self::step::{Cpu, CpuOps, Linear, Rows, Segment, each};
use super::arch::{self, Network, Ops, Shape};
use super::kernels::elementwise::soft_cap;
use super::kernels::{Level, Precision};
use super::pool::Pool;
use super::sampling::sample;
use super::weights::{Embedding, LoadError, Weights, vocab};
use crate::asides::Results;
use crate::engine::{EngineError, Input, Sampled, Sampling, Want, Work, WorkOut};
use crate::ids::{SessionId, Token};
use crate::wire::Payload;

/// Tokens that go through the layers together; more only costs memory for activations.
const ROWS_MAX: usize = 512;

/// Positions whose logits are in memory together.
const LOGIT_ROWS_MAX: usize = 64;

/// The context of a model whose file does not say for how much it was trained.
const CONTEXT_UNSAID: u32 = 1 << 17;

/// How an engine uses the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineOptions {
    /// Threads that compute; 0 for one for each physical core.
    pub threads: usize,
    /// Which instructions the kernels use; what the machine lacks is left out.
    pub level: Level,
    /// Widened weights and f32 everywhere, to hold the fast path against; many times slower.
    pub precision: Precision,
    /// What the numbers between layers are; the same on all nodes of a mesh, which refuse each other's tensors otherwise.
    pub residual: Residual,
    /// Memory that keys and values of all sessions would take in the whole model, bytes; a range of layers has its share.
    /// Too little turns sessions away with `NoRoom`.
    pub kv_bytes_max: u64,
    /// Longest session, tokens; 0 for what the model was trained for.
    pub context_max: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            level: Level::best(),
            precision: Precision::Quantised,
            residual: Residual::default(),
            kv_bytes_max: 2 << 30,
            context_max: 0,
        }
    }
}

/// A range of layers in memory, and its sessions.
pub struct Model {
    shape: Shape,
    range: LayerRange,
    residual: Residual,
    vocab: usize,
    network: Box<dyn Network<CpuOps>>,
    embedding: Option<Embedding>,
    head: Option<Head>,
    ops: CpuOps,
    pasts: BTreeMap<SessionId, Past>,
}

/// The end of the model.
struct Head {
    norm: Vec<f32>,
    linear: Linear,
}

/// A session's part of a step that will be computed.
struct Share<'a> {
    work: &'a Work,
    /// Residual stream before the first layer.
    input: Vec<f32>,
    /// Tokens that went through the layers.
    done: usize,
    /// What has come out: residual stream, or logits.
    values: Vec<f32>,
    sampled: Vec<Sampled>,
}

/// Some rows of a share in a round.
struct Piece {
    share: usize,
    /// Its row in the round.
    row: usize,
    /// First token, counted from the share's.
    from: usize,
    count: usize,
}

impl Model {
    /// Loads the layers of `range`, and the ends of the model that belong to it.
    ///
    /// # Errors
    /// [`LoadError`] names the key or tensor that is missing, of another kind or shape, an unknown architecture, or
    /// layers that the model does not have.
    pub fn load(file: &GgufFile, range: LayerRange, options: &EngineOptions) -> Result<Self, LoadError> {
        let threads = if options.threads == 0 { Pool::default_threads() } else { options.threads };
        let (level, precision) = (options.level.available(), options.precision);
        let cpu = Cpu { pool: Arc::new(Pool::new(threads)), level, precision };
        let shape = arch::shape(file)?;
        if range.is_empty() || range.end > shape.layers {
            return Err(LoadError::Range { layers: shape.layers, first: range.first, end: range.end });
        }
        let weights = Weights::new(file);
        let vocab = vocab(file)?;
        let network = arch::build::<CpuOps>(&weights, &cpu, range)?;
        let embedding = if range.first == 0 { Some(weights.embedding(shape.hidden)?) } else { None };
        let head =
            if range.end == shape.layers { Some(Head::load(&weights, &cpu, &shape, vocab)?) } else { None };
        let kv = KvShape {
            layers: range.len() as usize,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            is_wide: precision == Precision::F32,
        };
        let trained = if shape.context == 0 { CONTEXT_UNSAID } else { shape.context };
        let context = if options.context_max == 0 { trained } else { options.context_max };
        let share = u128::from(range.len()) * u128::from(options.kv_bytes_max) / u128::from(shape.layers);
        let cache = KvCache::new(kv, share as u64, context as usize);
        let ops = CpuOps::new(cpu, cache);
        let residual = options.residual;
        Ok(Self { shape, range, residual, vocab, network, embedding, head, ops, pasts: BTreeMap::new() })
    }

    /// The layers it holds.
    pub fn range(&self) -> LayerRange {
        self.range
    }

    /// What the file says of the model.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What the residual stream between its layers is.
    pub fn residual(&self) -> Residual {
        self.residual
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.ops.cpu.pool.threads()
    }

    /// Memory that keys and values of the sessions take, bytes.
    pub fn kv_bytes(&self) -> u64 {
        self.ops.cache.bytes()
    }

    /// Tokens of the session that are held.
    pub fn len(&self, session: SessionId) -> u32 {
        self.ops.cache.len(session) as u32
    }

    /// Whether nobody has tokens here.
    pub fn is_empty(&self) -> bool {
        self.ops.cache.sessions().is_empty()
    }

    /// Runs one step; results are in the order of `batch`. Logits and tokens are the same bits whatever shares a step,
    /// however a prompt is cut into steps, and on any number of threads.
    pub fn step(&mut self, batch: &[Work]) -> Results {
        self.step_between(batch, &mut |_| {})
    }

    /// The same; before each layer `between` may run steps of sessions that have no part in this one, and forget such
    /// sessions.
    pub fn step_between(&mut self, batch: &[Work], between: &mut dyn FnMut(&mut Self)) -> Results {
        let (mut shares, mut places) = (Vec::new(), Vec::with_capacity(batch.len()));
        for work in batch {
            places.push(self.admit(work).map(|input| {
                shares.push(Share { work, input, done: 0, values: Vec::new(), sampled: Vec::new() });
                shares.len() - 1
            }));
        }
        while let Some(pieces) = next_round(&shares) {
            self.round(&mut shares, &pieces, between);
        }
        let mut outs: Vec<Option<WorkOut>> =
            shares.into_iter().map(|share| Some(share.out(self.residual, self.shape.hidden))).collect();
        let mut out = |place: usize| outs[place].take().expect("each share has one place");
        places.into_iter().map(|place| place.map(&mut out)).collect()
    }

    /// Checks a session's part, reads its input and makes room for its keys and values. Nothing is kept on an error, and
    /// nothing fails afterwards.
    fn admit(&mut self, work: &Work) -> Result<Vec<f32>, EngineError> {
        let have = self.len(work.session);
        if have != work.start {
            return Err(EngineError::Gap { have, start: work.start });
        }
        self.check_want(work)?;
        let input = self.input(work)?;
        self.ops.cache.grow(work.session, work.count as usize)?;
        if let Want::Sample(sampling) | Want::Verify(sampling) = &work.want {
            self.remember(work, sampling);
        }
        Ok(input)
    }

    fn check_want(&self, work: &Work) -> Result<(), EngineError> {
        let unsound = |why: &str| Err(EngineError::Unsound(why.into()));
        let sampling = match &work.want {
            Want::Hidden | Want::Nothing => return Ok(()),
            _ if self.head.is_none() => return unsound("only the last stage has logits"),
            Want::Logits => return Ok(()),
            Want::Sample(sampling) | Want::Verify(sampling) => sampling,
        };
        sampling.check().map_err(|why| EngineError::Unsound(why.to_string()))?;
        let knows = |past: &Past| past.reaches(first_sampled(work));
        if sampling.window() > 0
            && sampling.past.is_none()
            && !self.pasts.get(&work.session).is_some_and(knows)
        {
            return unsound("penalties without the tokens before");
        }
        Ok(())
    }

    fn remember(&mut self, work: &Work, sampling: &Sampling) {
        if sampling.window() == 0 {
            self.pasts.remove(&work.session);
        } else if let Some(past) = &sampling.past {
            self.pasts.insert(work.session, Past::before(first_sampled(work), past));
        }
    }

    /// The residual stream that comes in.
    fn input(&self, work: &Work) -> Result<Vec<f32>, EngineError> {
        let unsound = |why: String| Err(EngineError::Unsound(why));
        let (count, hidden) = (work.count as usize, self.shape.hidden);
        match (&work.input, &self.embedding) {
            _ if count == 0 => unsound("a step without tokens".into()),
            (Input::Tokens(tokens), Some(embedding)) if tokens.len() == count => {
                embed(embedding, &self.shape, tokens)
            }
            (Input::Hidden(Payload::Real(bytes)), None) => self.residual.decode(bytes, count, hidden),
            (Input::Tokens(_), None) => unsound("token ids came to a stage that does not embed".into()),
            (Input::Hidden(_), Some(_)) => unsound("a tensor came to the stage that embeds".into()),
            (Input::Tokens(tokens), _) => unsound(format!("{} ids for {count} tokens", tokens.len())),
            (Input::Hidden(Payload::Virtual { .. }), None) => {
                unsound("a stand-in of a tensor came to a stage that computes".into())
            }
        }
    }

    /// Takes some rows through the layers.
    fn round(&mut self, shares: &mut [Share<'_>], pieces: &[Piece], between: &mut dyn FnMut(&mut Self)) {
        let hidden = self.shape.hidden;
        let rows = pieces.iter().map(|piece| piece.count).sum();
        let segment = |piece: &Piece| {
            let work = shares[piece.share].work;
            let start = work.start as usize + piece.from;
            Segment { session: work.session, start, count: piece.count, row: piece.row }
        };
        self.ops.begin(pieces.iter().map(segment).collect());
        let mut x = self.ops.rows(rows, hidden);
        for piece in pieces {
            let input = &shares[piece.share].input[piece.from * hidden..][..piece.count * hidden];
            x.values[piece.row * hidden..][..input.len()].copy_from_slice(input);
        }
        for index in 0..self.range.len() as usize {
            let rows_of = self.ops.pause();
            between(self);
            self.ops.resume(rows_of);
            x = self.network.layer(&mut self.ops, index, x);
            // Wherever a cut may be, so that none is seen.
            if self.range.first as usize + index + 1 < self.shape.layers as usize {
                self.ops.round(self.residual, &mut x);
            }
        }
        let wanted = wanted_rows(shares, pieces);
        for piece in pieces {
            let share = &mut shares[piece.share];
            share.done += piece.count;
            if share.work.want == Want::Hidden {
                share.values.extend_from_slice(&x.values[piece.row * hidden..][..piece.count * hidden]);
            }
        }
        for some in wanted.chunks(LOGIT_ROWS_MAX) {
            self.logits(shares, some, &x);
        }
        self.ops.done(x);
    }

    /// Logits of some rows, each with its share and position, and what is wanted of them.
    fn logits(&mut self, shares: &mut [Share<'_>], wanted: &[Wanted], x: &Rows) {
        let Some(head) = &self.head else { return };
        let hidden = self.shape.hidden;
        let mut rows = self.ops.rows(wanted.len(), hidden);
        for (wanted, out) in wanted.iter().zip(rows.values.chunks_exact_mut(hidden)) {
            out.copy_from_slice(&x.values[wanted.row * hidden..][..hidden]);
        }
        let normed = self.ops.norm(&rows, &head.norm, self.shape.eps);
        self.ops.done(rows);
        let [mut logits] = self.ops.linear(normed, [&head.linear]);
        if let Some(cap) = self.shape.logit_cap {
            soft_cap(self.ops.cpu.level, &mut logits.values, cap);
        }
        self.choose(shares, wanted, &mut logits);
        self.ops.done(logits);
    }

    /// Samples, or hands logits out: on one thread for each share, since penalties look at what was sampled before.
    fn choose(&mut self, shares: &mut [Share<'_>], wanted: &[Wanted], logits: &mut Rows) {
        let mut tasks: BTreeMap<usize, Vec<(usize, &mut [f32])>> = BTreeMap::new();
        for (wanted, row) in wanted.iter().zip(logits.values.chunks_exact_mut(self.vocab)) {
            tasks.entry(wanted.share).or_default().push((wanted.position, row));
        }
        let mut work = Vec::with_capacity(tasks.len());
        for (index, share) in shares.iter_mut().enumerate() {
            if let Some(rows) = tasks.remove(&index) {
                let past = self.pasts.remove(&share.work.session).unwrap_or_default();
                work.push((share, rows, past));
            }
        }
        let mut pasts: Vec<Past> = work.iter_mut().map(|(_, _, past)| std::mem::take(past)).collect();
        let sessions: Vec<SessionId> = work.iter().map(|(share, _, _)| share.work.session).collect();
        let items = work.into_iter().zip(&mut pasts).collect();
        each(&self.ops.cpu.pool, items, |((share, rows, _), past)| share.take(rows, past));
        for (session, past) in sessions.into_iter().zip(pasts) {
            if !past.is_empty() {
                self.pasts.insert(session, past);
            }
        }
    }

    /// Forgets positions from `len` on.
    pub fn truncate(&mut self, session: SessionId, len: u32) {
        self.ops.cache.truncate(session, len as usize);
        if len == 0 {
            self.pasts.remove(&session);
        }
    }

    /// Forgets the session.
    pub fn release(&mut self, session: SessionId) {
        self.truncate(session, 0);
    }

    /// Lets `to` begin with the first `len` positions of `from`, sharing their keys and values. Gives how many it has.
    pub fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.pasts.remove(&to);
        self.ops.cache.fork(from, to, len as usize) as u32
    }

    /// Sessions that have tokens here, ascending.
    pub fn held(&self) -> Vec<SessionId> {
        self.ops.cache.sessions()
    }

    /// Gives memory that no session holds back to the system.
    pub fn trim(&mut self) {
        self.ops.cache.trim();
    }
}

/// The position of the first token that a step samples.
fn first_sampled(work: &Work) -> usize {
    let tokens = if matches!(work.want, Want::Verify(_)) { 1 } else { work.count };
    work.start as usize + tokens as usize
}

fn embed(embedding: &Embedding, shape: &Shape, tokens: &[Token]) -> Result<Vec<f32>, EngineError> {
    let mut out = vec![0.0; tokens.len() * shape.hidden];
    let mut scratch = Vec::new();
    for (token, row) in tokens.iter().zip(out.chunks_exact_mut(shape.hidden)) {
        if token.0 as usize >= embedding.vocab() {
            return Err(EngineError::Unsound(format!("token {} of {}", token.0, embedding.vocab())));
        }
        embedding.row(token.0, &mut scratch, row).map_err(|why| EngineError::Device(why.to_string()))?;
        if shape.embedding_scale != 1.0 {
            row.iter_mut().for_each(|value| *value *= shape.embedding_scale);
        }
    }
    Ok(out)
}

impl Head {
    fn load(weights: &Weights<'_>, cpu: &Cpu, shape: &Shape, vocab: usize) -> Result<Self, LoadError> {
        let norm = weights.vector(cpu, "output_norm.weight", shape.hidden)?;
        Ok(Self { norm, linear: weights.head(cpu, shape.hidden, vocab)? })
    }
}

impl Share<'_> {
    fn take(&mut self, rows: Vec<(usize, &mut [f32])>, past: &mut Past) {
        for (position, logits) in rows {
            match &self.work.want {
                Want::Sample(sampling) | Want::Verify(sampling) => {
                    let before = past.at(position, sampling.window());
                    let sampled = sample(logits, sampling, position as u32, before);
                    past.put(position, sampled.token);
                    self.sampled.push(sampled);
                }
                _ => self.values.extend_from_slice(logits),
            }
        }
    }

    fn out(mut self, residual: Residual, hidden: usize) -> WorkOut {
        match &self.work.want {
            Want::Hidden => WorkOut::Hidden(Payload::Real(residual.encode(&self.values, hidden))),
            Want::Logits => WorkOut::Logits(Payload::Real(to_bytes(&self.values))),
            Want::Nothing => WorkOut::Done,
            Want::Sample(_) => self.sampled.pop().map_or(WorkOut::Done, WorkOut::Token),
            Want::Verify(_) => WorkOut::Tokens(self.sampled),
        }
    }
}

fn to_bytes(values: &[f32]) -> Bytes {
    let mut bytes = Vec::with_capacity(4 * values.len());
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.into()
}

/// What goes through the layers next: rows of all shares in order, as many as fit.
fn next_round(shares: &[Share<'_>]) -> Option<Vec<Piece>> {
    let (mut pieces, mut row) = (Vec::new(), 0);
    for (index, share) in shares.iter().enumerate() {
        let left = share.work.count as usize - share.done;
        let count = left.min(ROWS_MAX - row);
        if count > 0 {
            pieces.push(Piece { share: index, row, from: share.done, count });
            row += count;
        }
    }
    (!pieces.is_empty()).then_some(pieces)
}

/// A row whose logits are wanted.
struct Wanted {
    share: usize,
    row: usize,
    /// Of the token that follows.
    position: usize,
}

fn wanted_rows(shares: &[Share<'_>], pieces: &[Piece]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for piece in pieces {
        let work = shares[piece.share].work;
        let first = match work.want {
            Want::Hidden | Want::Nothing => continue,
            Want::Verify(_) | Want::Logits => 0,
            Want::Sample(_) => (work.count as usize - 1).saturating_sub(piece.from),
        };
        for i in first..piece.count {
            let position = work.start as usize + piece.from + i + 1;
            wanted.push(Wanted { share: piece.share, row: piece.row + i, position });
        }
    }
    wanted
}
