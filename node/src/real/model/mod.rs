//! A model on a device: a range of layers, the ends of the model where the range has them, and the sessions that pass it.
//!
//! * [`Model`]: loads, steps, forgets, over whatever [`Backend`] computes. [`seam`] puts it behind the node's
//!   [`Engine`](crate::engine::Engine).
//! * [`backend`]: what a device must do; [`kv`]: whose the blocks of the cache are.
//! * [`Residual`]: what the numbers between layers and stages are.

pub mod backend;
pub mod kv;
mod past;
mod residual;
pub mod seam;

use std::collections::BTreeMap;

use bytes::Bytes;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

pub use self::backend::{Backend, Segment};
use self::kv::{KvShape, Store as _};
use self::past::Past;
pub use self::residual::Residual;
use super::arch::{self, Device, Network, Shape};
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

/// What holds of an engine on any device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// What the numbers between layers are; the same on all nodes of a mesh, which refuse each other's tensors otherwise.
    pub residual: Residual,
    /// Memory that keys and values of all sessions would take in the whole model, bytes; a range of layers has its share.
    /// Too little turns sessions away with `NoRoom`.
    pub kv_bytes_max: u64,
    /// Longest session, tokens; 0 for what the model was trained for.
    pub context_max: u32,
}

/// A range of layers in memory, and its sessions.
pub struct Model<B: Backend> {
    shape: Shape,
    range: LayerRange,
    residual: Residual,
    vocab: usize,
    network: Box<dyn Network<B>>,
    embedding: Option<Embedding>,
    head: Option<Head<B::Device>>,
    pub(super) ops: B,
    pasts: BTreeMap<SessionId, Past>,
}

/// The end of the model.
struct Head<D: Device> {
    norm: D::Vector,
    linear: D::Linear,
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

impl<B: Backend> Model<B> {
    /// Loads the layers of `range`, and the ends of the model that belong to it.
    ///
    /// # Errors
    /// [`LoadError`] names the key or tensor that is missing, of another kind or shape, an unknown architecture, or
    /// layers that the model does not have.
    pub fn load(file: &GgufFile, range: LayerRange, options: &B::Options) -> Result<Self, LoadError> {
        let Limits { residual, kv_bytes_max, context_max } = B::limits(options);
        let shape = arch::shape(file)?;
        if range.is_empty() || range.end > shape.layers {
            return Err(LoadError::Range { layers: shape.layers, first: range.first, end: range.end });
        }
        let device = B::open(options)?;
        let weights = Weights::new(file);
        let vocab = vocab(file)?;
        let network = arch::build::<B>(&weights, &device, range)?;
        let embedding = if range.first == 0 { Some(weights.embedding(shape.hidden)?) } else { None };
        let is_last = range.end == shape.layers;
        let head = if is_last { Some(Head::load(&weights, &device, &shape, vocab)?) } else { None };
        let kv = KvShape { layers: range.len() as usize, kv_heads: shape.kv_heads, head_dim: shape.head_dim };
        let trained = if shape.context == 0 { CONTEXT_UNSAID } else { shape.context };
        let context = if context_max == 0 { trained } else { context_max };
        let share = u128::from(range.len()) * u128::from(kv_bytes_max) / u128::from(shape.layers);
        let ops = B::new(device, kv, share as u64, context as usize)?;
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

    /// Memory that keys and values of the sessions take, bytes.
    pub fn kv_bytes(&self) -> u64 {
        self.ops.cache().bytes()
    }

    /// Tokens of the session that are held.
    pub fn len(&self, session: SessionId) -> u32 {
        self.ops.cache().len(session) as u32
    }

    /// Whether nobody has tokens here.
    pub fn is_empty(&self) -> bool {
        self.ops.cache().sessions().is_empty()
    }

    /// Runs one step; results are in the order of `batch`. How far they depend on what else is in the step is the
    /// device's to say: on the processor not at all.
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
            if let Err(why) = self.round(&mut shares, &pieces, between) {
                return self.give_up(&shares, places, &why);
            }
        }
        let mut outs: Vec<Option<WorkOut>> =
            shares.into_iter().map(|share| Some(share.out(self.residual, self.shape.hidden))).collect();
        let mut out = |place: usize| outs[place].take().expect("each share has one place");
        places.into_iter().map(|place| place.map(&mut out)).collect()
    }

    /// The device failed: what was computed of the step is forgotten.
    fn give_up(
        &mut self,
        shares: &[Share<'_>],
        places: Vec<Result<usize, EngineError>>,
        why: &EngineError,
    ) -> Results {
        for share in shares {
            self.ops.cache_mut().truncate(share.work.session, share.work.start as usize);
            self.pasts.remove(&share.work.session);
        }
        places.into_iter().map(|place| place.and_then(|_| Err(why.clone()))).collect()
    }

    /// Checks a session's part, reads its input and makes room for its keys and values. Nothing is kept on an error, and
    /// nothing but the device fails afterwards.
    fn admit(&mut self, work: &Work) -> Result<Vec<f32>, EngineError> {
        let have = self.len(work.session);
        if have != work.start {
            return Err(EngineError::Gap { have, start: work.start });
        }
        self.check_want(work)?;
        let input = self.input(work)?;
        self.ops.cache_mut().grow(work.session, work.count as usize)?;
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
    fn round(
        &mut self,
        shares: &mut [Share<'_>],
        pieces: &[Piece],
        between: &mut dyn FnMut(&mut Self),
    ) -> Result<(), EngineError> {
        let hidden = self.shape.hidden;
        let rows = pieces.iter().map(|piece| piece.count).sum();
        let segment = |piece: &Piece| {
            let work = shares[piece.share].work;
            let start = work.start as usize + piece.from;
            Segment { session: work.session, start, count: piece.count, row: piece.row }
        };
        self.ops.begin(pieces.iter().map(segment).collect());
        let mut x = self.ops.rows_of(rows, hidden, |values| {
            for piece in pieces {
                let input = &shares[piece.share].input[piece.from * hidden..][..piece.count * hidden];
                values[piece.row * hidden..][..input.len()].copy_from_slice(input);
            }
        });
        for index in 0..self.range.len() as usize {
            let paused = self.ops.pause();
            between(self);
            self.ops.resume(paused);
            x = self.network.layer(&mut self.ops, index, x);
            // Wherever a cut may be, so that none is seen.
            if self.range.first as usize + index + 1 < self.shape.layers as usize {
                x = self.ops.round(self.residual, x);
            }
        }
        pieces.iter().for_each(|piece| shares[piece.share].done += piece.count);
        for some in wanted_rows(shares, pieces).chunks(LOGIT_ROWS_MAX) {
            self.logits(shares, some, &x)?;
        }
        self.hand_on(shares, pieces, x)
    }

    /// Whether the device has done what it was asked for.
    fn sound(&mut self) -> Result<(), EngineError> {
        self.ops.failure().map_or(Ok(()), |why| Err(EngineError::Device(why)))
    }

    /// What goes to the next stage.
    fn hand_on(&mut self, shares: &mut [Share<'_>], pieces: &[Piece], x: B::Rows) -> Result<(), EngineError> {
        let is_handed_on =
            |piece: &Piece, shares: &[Share<'_>]| shares[piece.share].work.want == Want::Hidden;
        if !pieces.iter().any(|piece| is_handed_on(piece, shares)) {
            self.ops.wait(x);
            return self.sound();
        }
        let (hidden, values) = (self.shape.hidden, self.ops.values(x));
        self.sound()?;
        for piece in pieces {
            if is_handed_on(piece, shares) {
                let rows = &values[piece.row * hidden..][..piece.count * hidden];
                shares[piece.share].values.extend_from_slice(rows);
            }
        }
        self.ops.reuse(values);
        Ok(())
    }

    /// Logits of some rows, each with its share and position, and what is wanted of them.
    fn logits(
        &mut self,
        shares: &mut [Share<'_>],
        wanted: &[Wanted],
        x: &B::Rows,
    ) -> Result<(), EngineError> {
        let Some(head) = &self.head else { return Ok(()) };
        let rows: Vec<usize> = wanted.iter().map(|wanted| wanted.row).collect();
        let rows = self.ops.pick(x, &rows);
        let normed = self.ops.norm(&rows, &head.norm, self.shape.eps);
        self.ops.done(rows);
        let [mut logits] = self.ops.linear(normed, [&head.linear]);
        if let Some(cap) = self.shape.logit_cap {
            logits = self.ops.soft_cap(logits, cap);
        }
        if wanted.iter().all(|wanted| is_plainly_greedy(&shares[wanted.share].work.want))
            && let Some(tokens) = self.ops.likeliest(&logits)
        {
            self.ops.done(logits);
            self.sound()?;
            for (wanted, token) in wanted.iter().zip(tokens) {
                shares[wanted.share].sampled.push(Token(token).into());
            }
            return Ok(());
        }
        let mut values = self.ops.values(logits);
        self.sound()?;
        self.choose(shares, wanted, &mut values);
        self.ops.reuse(values);
        Ok(())
    }

    /// Samples, or hands logits out: on one thread for each share, since penalties look at what was sampled before.
    fn choose(&mut self, shares: &mut [Share<'_>], wanted: &[Wanted], logits: &mut [f32]) {
        let mut tasks: BTreeMap<usize, Vec<(usize, &mut [f32])>> = BTreeMap::new();
        for (wanted, row) in wanted.iter().zip(logits.chunks_exact_mut(self.vocab)) {
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
        self.ops.each(items, |((share, rows, _), past): (_, &mut Past)| share.take(rows, past));
        for (session, past) in sessions.into_iter().zip(pasts) {
            if !past.is_empty() {
                self.pasts.insert(session, past);
            }
        }
    }

    /// Forgets positions from `len` on.
    pub fn truncate(&mut self, session: SessionId, len: u32) {
        self.ops.cache_mut().truncate(session, len as usize);
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
        self.ops.cache_mut().fork(from, to, len as usize) as u32
    }

    /// Sessions that have tokens here, ascending.
    pub fn held(&self) -> Vec<SessionId> {
        self.ops.cache().sessions()
    }

    /// Gives memory that no session holds back to the system.
    pub fn trim(&mut self) {
        self.ops.cache_mut().store.trim();
    }
}

/// Whether the likeliest token is all that is asked for.
fn is_plainly_greedy(want: &Want) -> bool {
    let is_greedy = |sampling: &Sampling| sampling.temperature == 0.0 && sampling.rules.is_none();
    matches!(want, Want::Sample(sampling) | Want::Verify(sampling) if is_greedy(sampling))
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

impl<D: Device> Head<D> {
    fn load(weights: &Weights<'_>, device: &D, shape: &Shape, vocab: usize) -> Result<Self, LoadError> {
        let norm = weights.vector(device, "output_norm.weight", shape.hidden)?;
        Ok(Self { norm, linear: weights.head(device, shape.hidden, vocab)? })
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
