//! One step on the CPU: [`Ops`] over rows of f32 that belong to many sessions.

use std::sync::Arc;

use super::EngineOptions;
use super::attention::{self, Layer};
use super::kv::{Heap, Layout};
use crate::real::arch::rope::Pairs;
use crate::real::arch::{Activation, Attention, Device, Ops, Rope, Stored};
use crate::real::kernels::{self, Level, Matrix, Precision, elementwise};
use crate::real::model::kv::{KvCache, KvShape, Store as _};
use crate::real::model::{Backend, Limits, Residual, Segment};
use crate::real::pool::Pool;
use crate::real::weights::LoadError;

/// Elements that one thread works through sooner than it could be helped.
const ALONE: usize = 1 << 14;

/// Where weights are packed, and by whom.
#[derive(Clone)]
pub struct Cpu {
    pool: Arc<Pool>,
    level: Level,
    precision: Precision,
}

/// A packed matrix with its bias.
pub struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Outputs.
    fn rows(&self) -> usize {
        self.matrix.rows()
    }
}

impl Device for Cpu {
    type Linear = Linear;
    type Vector = Vec<f32>;

    fn linear(&self, stored: Stored<'_>, bias: Option<Vec<f32>>) -> Result<Linear, LoadError> {
        let Stored { name, kind, rows, cols, bytes } = stored;
        let matrix = Matrix::pack_in(&self.pool, kind, rows, cols, bytes, self.level, self.precision)
            .map_err(|_| LoadError::Type { tensor: name.into(), kind })?;
        Ok(Linear { matrix, bias })
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>, LoadError> {
        Ok(values)
    }
}

/// Activations: `[tokens][width]`.
pub struct Rows {
    values: Vec<f32>,
    width: usize,
}

/// Whose the rows of a step are.
#[derive(Default)]
pub struct RowsOf {
    segments: Vec<Segment>,
    /// Sines and cosines of their positions, for each rotation met.
    turns: Vec<(Rope, Vec<(f32, f32)>)>,
}

/// The operations of a step, and the caches they work on.
pub struct CpuOps {
    cpu: Cpu,
    cache: KvCache<Heap>,
    rows_of: RowsOf,
    /// Buffers that rows are made of.
    spare: Vec<Vec<f32>>,
}

impl CpuOps {
    pub(super) fn threads(&self) -> usize {
        self.cpu.pool.threads()
    }

    fn tokens(&self) -> usize {
        self.rows_of.segments.iter().map(|segment| segment.count).sum()
    }

    /// Rows to write into.
    fn rows(&mut self, tokens: usize, width: usize) -> Rows {
        // One of the same length needs no zeros; layers ask for the same ones again and again.
        let fitting = self.spare.iter().position(|values| values.len() == tokens * width);
        let spare = fitting.or(self.spare.len().checked_sub(1));
        let mut values = spare.map(|index| self.spare.swap_remove(index)).unwrap_or_default();
        values.resize(tokens * width, 0.0);
        Rows { values, width }
    }

    /// How many threads so many elements are worth.
    fn threads_for(&self, elements: usize) -> usize {
        self.cpu.pool.threads().min(elements.div_ceil(ALONE)).max(1)
    }

    /// Lets `work` loose on pieces of whole units of `unit` elements, `out` beside `other`.
    fn by_pieces(
        &self,
        unit: usize,
        out: &mut [f32],
        other: &[f32],
        work: impl Fn(&mut [f32], &[f32]) + Sync,
    ) {
        let pool = &self.cpu.pool;
        let threads = self.threads_for(out.len());
        if threads == 1 {
            return work(out, other);
        }
        let piece = (out.len() / unit).div_ceil(threads).max(1) * unit;
        let pieces = out.chunks_mut(piece).zip(other.chunks(piece)).collect();
        pool.each(pieces, |(out, other)| work(out, other));
    }

    fn add_bias(&self, rows: &mut Rows, bias: &[f32]) {
        for row in rows.values.chunks_exact_mut(bias.len()) {
            elementwise::add(self.cpu.level, row, bias);
        }
    }

    /// Angles of this step's positions.
    fn turn(&mut self, rope: &Rope) -> usize {
        if let Some(known) = self.rows_of.turns.iter().position(|(known, _)| known == rope) {
            return known;
        }
        let mut turns = Vec::with_capacity(self.tokens() * rope.frequencies.len());
        for segment in &self.rows_of.segments {
            for position in segment.start..segment.start + segment.count {
                turns.extend(rope.frequencies.iter().map(|frequency| {
                    let (sin, cos) = (position as f64 * f64::from(*frequency)).sin_cos();
                    ((sin as f32) * rope.magnitude, (cos as f32) * rope.magnitude)
                }));
            }
        }
        self.rows_of.turns.push((rope.clone(), turns));
        self.rows_of.turns.len() - 1
    }

    fn append(&mut self, layer: usize, k: &Rows, v: &Rows) {
        let width = k.width;
        for segment in &self.rows_of.segments {
            for token in 0..segment.count {
                let at = (segment.row + token) * width;
                let (key, value) = (&k.values[at..at + width], &v.values[at..at + width]);
                self.cache.write(segment.session, segment.start + token, layer, key, value);
            }
        }
    }
}

impl Ops for CpuOps {
    type Device = Cpu;
    type Rows = Rows;

    fn norm(&mut self, x: &Rows, norm: &Vec<f32>, eps: f32) -> Rows {
        let mut out = self.rows(x.values.len() / x.width, x.width);
        let level = self.cpu.level;
        self.by_pieces(x.width, &mut out.values, &x.values, |out, x| {
            elementwise::norm(level, x, norm, eps, out);
        });
        out
    }

    fn linear<const N: usize>(&mut self, x: Rows, weights: [&Linear; N]) -> [Rows; N] {
        let tokens = x.values.len() / x.width;
        let mut outs = weights.map(|weight| self.rows(tokens, weight.rows()));
        {
            let mut pairs: Vec<(&Matrix, &mut [f32])> = weights
                .iter()
                .zip(&mut outs)
                .map(|(weight, out)| (&weight.matrix, out.values.as_mut_slice()))
                .collect();
            kernels::linear(&self.cpu.pool, &x.values, tokens, &mut pairs);
        }
        for (weight, out) in weights.iter().zip(&mut outs) {
            if let Some(bias) = &weight.bias {
                self.add_bias(out, bias);
            }
        }
        self.done(x);
        outs
    }

    fn rope(&mut self, mut x: Rows, head_dim: usize, rope: &Rope) -> Rows {
        let index = self.turn(rope);
        let (_, turns) = &self.rows_of.turns[index];
        let (pairs, width) = (rope.frequencies.len(), x.width);
        let tokens = x.values.len() / width;
        let piece = tokens.div_ceil(self.threads_for(x.values.len())).max(1);
        let pieces = x.values.chunks_mut(piece * width).zip(turns.chunks(piece * pairs)).collect();
        self.cpu.pool.each(pieces, |(rows, turns): (&mut [f32], &[(f32, f32)])| {
            for (row, turns) in rows.chunks_exact_mut(width).zip(turns.chunks_exact(pairs)) {
                for head in row.chunks_exact_mut(head_dim) {
                    rotate(&mut head[..2 * pairs], turns, rope.pairs);
                }
            }
        });
        x
    }

    fn attend(&mut self, spec: &Attention, q: Rows, k: Rows, v: Rows) -> Rows {
        self.append(spec.layer, &k, &v);
        let mut out = self.rows(q.values.len() / q.width, q.width);
        let layer = Layer { level: self.cpu.level, cache: &self.cache, spec };
        attention::attend(&self.cpu.pool, &layer, &self.rows_of.segments, &q.values, &mut out.values);
        for rows in [q, k, v] {
            self.done(rows);
        }
        out
    }

    fn gated(&mut self, activation: Activation, mut gate: Rows, up: Rows) -> Rows {
        let level = self.cpu.level;
        self.by_pieces(1, &mut gate.values, &up.values, |gate, up| match activation {
            Activation::Silu => elementwise::silu(level, gate, up),
            Activation::Gelu => elementwise::gelu(level, gate, up),
        });
        self.done(up);
        gate
    }

    fn add(&mut self, mut x: Rows, y: Rows) -> Rows {
        let level = self.cpu.level;
        self.by_pieces(1, &mut x.values, &y.values, |x, y| elementwise::add(level, x, y));
        self.done(y);
        x
    }
}

impl Backend for CpuOps {
    type Options = EngineOptions;
    type Store = Heap;
    type Paused = RowsOf;

    fn limits(options: &EngineOptions) -> Limits {
        options.limits()
    }

    fn open(options: &EngineOptions) -> Result<Cpu, LoadError> {
        let threads = if options.threads == 0 { Pool::default_threads() } else { options.threads };
        let (level, precision) = (options.level.available(), options.precision);
        Ok(Cpu { pool: Arc::new(Pool::new(threads)), level, precision })
    }

    fn new(cpu: Cpu, shape: KvShape, kv_bytes_max: u64, context_max: usize) -> Result<Self, LoadError> {
        let heap = Heap::new(Layout::new(shape, cpu.precision == Precision::F32));
        let blocks_max = KvCache::<Heap>::blocks_in(kv_bytes_max, heap.block_bytes());
        let cache = KvCache::new(heap, blocks_max, context_max);
        Ok(Self { cpu, cache, rows_of: RowsOf::default(), spare: Vec::new() })
    }

    fn cache(&self) -> &KvCache<Heap> {
        &self.cache
    }

    fn cache_mut(&mut self) -> &mut KvCache<Heap> {
        &mut self.cache
    }

    fn begin(&mut self, segments: Vec<Segment>) {
        self.rows_of = RowsOf { segments, turns: Vec::new() };
    }

    fn pause(&mut self) -> RowsOf {
        std::mem::take(&mut self.rows_of)
    }

    fn resume(&mut self, paused: RowsOf) {
        self.rows_of = paused;
    }

    fn rows_of(&mut self, rows: usize, width: usize, fill: impl FnOnce(&mut [f32])) -> Rows {
        let mut rows = self.rows(rows, width);
        fill(&mut rows.values);
        rows
    }

    fn round(&mut self, residual: Residual, mut x: Rows) -> Rows {
        if residual.is_exact() {
            return x;
        }
        let (level, width) = (self.cpu.level, x.width);
        let threads = self.threads_for(x.values.len());
        let piece = (x.values.len() / width).div_ceil(threads).max(1) * width;
        let pieces = x.values.chunks_mut(piece).collect();
        self.cpu.pool.each(pieces, |piece| residual.round(level, piece, width));
        x
    }

    fn pick(&mut self, x: &Rows, rows: &[usize]) -> Rows {
        let width = x.width;
        let mut picked = self.rows(rows.len(), width);
        for (row, out) in rows.iter().zip(picked.values.chunks_exact_mut(width)) {
            out.copy_from_slice(&x.values[row * width..][..width]);
        }
        picked
    }

    fn soft_cap(&mut self, mut x: Rows, cap: f32) -> Rows {
        elementwise::soft_cap(self.cpu.level, &mut x.values, cap);
        x
    }

    fn values(&mut self, x: Rows) -> Vec<f32> {
        x.values
    }

    fn reuse(&mut self, values: Vec<f32>) {
        self.spare.push(values);
    }

    fn done(&mut self, x: Rows) {
        self.reuse(x.values);
    }

    fn each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync) {
        self.cpu.pool.each(items, work);
    }
}

fn rotate(head: &mut [f32], turns: &[(f32, f32)], pairs: Pairs) {
    match pairs {
        Pairs::Neighbours => {
            for (pair, (sin, cos)) in head.chunks_exact_mut(2).zip(turns) {
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
            }
        }
        Pairs::Halves => {
            let (low, high) = head.split_at_mut(turns.len());
            for ((low, high), (sin, cos)) in low.iter_mut().zip(high).zip(turns) {
                (*low, *high) = (*low * cos - *high * sin, *low * sin + *high * cos);
            }
        }
    }
}
