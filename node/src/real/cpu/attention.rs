//! Attention over the KV cache, in spans of positions that begin at fixed places.
//!
//! Each row of queries is worked out span by span: scores, their greatest, exponentials, weighted values; and the spans'
//! results are put together in order. Where a span begins depends on nothing but the position, so a row's result is the
//! same bits however a prompt was chunked, with whom it shared a step and how many threads there were. A long context of
//! one session is spread over the threads by its spans; otherwise rows and heads are enough to go round.

use super::kv::{BLOCK, Heap, View};
use crate::ids::SessionId;
use crate::real::arch::Attention;
use crate::real::kernels::Level;
use crate::real::kernels::attention::multiply;
use crate::real::kernels::elementwise::{exp, soft_cap, softmax};
use crate::real::kernels::lanes::LANES;
use crate::real::model::Segment;
use crate::real::model::kv::KvCache;
use crate::real::pool::Pool;

/// Positions of a span.
const SPAN: usize = 256;

/// Query rows that go through a span together.
const ROWS: usize = 8;

/// What all tasks of a layer share.
pub(super) struct Layer<'a> {
    pub(super) level: Level,
    pub(super) cache: &'a KvCache<Heap>,
    pub(super) spec: &'a Attention,
}

/// Rows of one session and KV head that are worked out together: some tokens, and of each the heads of the group.
struct Task<'a> {
    session: SessionId,
    kv_head: usize,
    /// Position of each row.
    positions: Vec<usize>,
    /// `[rows][head_dim]`, already scaled.
    queries: Vec<f32>,
    /// Where each token's heads of the group go.
    out: Vec<&'a mut [f32]>,
}

/// What a row has gathered over some spans: values weighted by `e^(score - greatest)`, and the weights' sum.
#[derive(Clone)]
struct Partial {
    greatest: f32,
    sum: f32,
    values: Vec<f32>,
}

/// Attends with `q`, `[tokens][heads * head_dim]`, into `out`, which has the same shape.
pub(super) fn attend(pool: &Pool, layer: &Layer<'_>, segments: &[Segment], q: &[f32], out: &mut [f32]) {
    let tasks = tasks(layer.spec, segments, q, out);
    if tasks.len() >= pool.threads() || tasks.is_empty() || pool.threads() == 1 {
        pool.each(tasks, |task| layer.run(task));
    } else {
        layer.run_by_spans(pool, tasks);
    }
}

fn tasks<'a>(spec: &Attention, segments: &[Segment], q: &[f32], out: &'a mut [f32]) -> Vec<Task<'a>> {
    let group = spec.heads / spec.kv_heads;
    let tokens_per_task = (ROWS / group).max(1);
    let (width, group_width) = (spec.heads * spec.head_dim, group * spec.head_dim);
    let mut tasks = Vec::new();
    let mut rest = out;
    for segment in segments {
        let mut done = 0;
        while done < segment.count {
            let count = tokens_per_task.min(segment.count - done);
            let (piece, others) = rest.split_at_mut(count * width);
            rest = others;
            let first_row = segment.row + done;
            let mut outs: Vec<Vec<&mut [f32]>> =
                (0..spec.kv_heads).map(|_| Vec::with_capacity(count)).collect();
            for token in piece.chunks_exact_mut(width) {
                for (head, out) in token.chunks_exact_mut(group_width).enumerate() {
                    outs[head].push(out);
                }
            }
            for (kv_head, out) in outs.into_iter().enumerate() {
                let mut queries = Vec::with_capacity(count * group_width);
                let mut positions = Vec::with_capacity(count * group);
                for token in 0..count {
                    let at = (first_row + token) * width + kv_head * group_width;
                    queries.extend(q[at..at + group_width].iter().map(|q| q * spec.scale));
                    positions.extend(std::iter::repeat_n(segment.start + done + token, group));
                }
                tasks.push(Task { session: segment.session, kv_head, positions, queries, out });
            }
            done += count;
        }
    }
    tasks
}

impl Layer<'_> {
    fn view(&self, task: &Task<'_>) -> View<'_> {
        self.cache.view(task.session, self.spec.layer, task.kv_head)
    }

    /// Positions that a row at `position` sees.
    fn visible(&self, position: usize) -> std::ops::Range<usize> {
        let end = position + 1;
        self.spec.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// Spans that any row of the task sees.
    fn spans(&self, task: &Task<'_>) -> std::ops::Range<usize> {
        let (first, last) = (task.positions[0], task.positions[task.positions.len() - 1]);
        self.visible(first).start / SPAN..self.visible(last).end.div_ceil(SPAN)
    }

    fn run(&self, mut task: Task<'_>) {
        let mut whole = Vec::new();
        for span in self.spans(&task) {
            join(&mut whole, self.span(&task, span));
        }
        finish(self.spec.head_dim, &mut task, &whole);
    }

    /// Every span of every task is a task of its own.
    fn run_by_spans(&self, pool: &Pool, mut tasks: Vec<Task<'_>>) {
        let pieces: Vec<(usize, usize)> = tasks
            .iter()
            .enumerate()
            .flat_map(|(i, task)| self.spans(task).map(move |span| (i, span)))
            .collect();
        let mut partials: Vec<Vec<Option<Partial>>> = vec![Vec::new(); pieces.len()];
        let work = pieces.iter().zip(&mut partials).collect();
        pool.each(work, |((task, span), slot): (&(usize, usize), &mut Vec<_>)| {
            *slot = self.span(&tasks[*task], *span);
        });
        let mut wholes = vec![Vec::new(); tasks.len()];
        for ((task, _), partial) in pieces.iter().zip(partials) {
            join(&mut wholes[*task], partial);
        }
        for (task, whole) in tasks.iter_mut().zip(&wholes) {
            finish(self.spec.head_dim, task, whole);
        }
    }

    /// What each row of the task gathers in one span; none for a row that sees nothing of it.
    fn span(&self, task: &Task<'_>, span: usize) -> Vec<Option<Partial>> {
        let (rows, head_dim) = (task.positions.len(), self.spec.head_dim);
        let view = self.view(task);
        let begin = span * SPAN;
        // Columns that each row sees, from the span's begin.
        let seen: Vec<std::ops::Range<usize>> = task
            .positions
            .iter()
            .map(|position| {
                let visible = self.visible(*position);
                visible.start.clamp(begin, begin + SPAN) - begin
                    ..visible.end.clamp(begin, begin + SPAN) - begin
            })
            .collect();
        let first = seen.iter().map(|seen| seen.start).min().unwrap_or(0);
        let end = seen.iter().map(|seen| seen.end).max().unwrap_or(0);
        let mut scores = vec![0.0; rows * SPAN];
        for (block, places) in blocks(first, end) {
            let tiles = places.start / LANES..places.end.div_ceil(LANES);
            let keys = view.keys(begin / BLOCK + block, tiles.clone());
            let at = block * BLOCK + tiles.start * LANES;
            multiply(self.level, rows, (&task.queries, head_dim), &keys, (&mut scores[at..], SPAN));
        }
        let mut partials: Vec<Option<Partial>> = Vec::with_capacity(rows);
        for (seen, scores) in seen.iter().zip(scores.chunks_exact_mut(SPAN)) {
            partials.push(self.weigh(seen.clone(), scores));
        }
        let stride = head_dim.next_multiple_of(LANES);
        let mut mixed = vec![0.0; rows * stride];
        for (block, places) in blocks(first, end) {
            let at = block * BLOCK + places.start;
            let values = view.values(begin / BLOCK + block, places);
            multiply(self.level, rows, (&scores[at..], SPAN), &values, (&mut mixed, stride));
        }
        for (partial, mixed) in partials.iter_mut().zip(mixed.chunks_exact(stride)) {
            if let Some(partial) = partial {
                partial.values.extend_from_slice(&mixed[..head_dim]);
            }
        }
        partials
    }

    /// Turns a row's scores into weights; those it does not see become 0.
    fn weigh(&self, seen: std::ops::Range<usize>, scores: &mut [f32]) -> Option<Partial> {
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        if seen.is_empty() {
            return None;
        }
        let scores = &mut scores[seen];
        if let Some(cap) = self.spec.soft_cap {
            soft_cap(self.level, scores, cap);
        }
        let (greatest, sum) = softmax(self.level, scores);
        Some(Partial { greatest, sum, values: Vec::with_capacity(self.spec.head_dim) })
    }
}

/// The blocks between two columns of a span, and of each the places.
fn blocks(first: usize, end: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    (first / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let begin = block * BLOCK;
        (block, first.max(begin) - begin..end.min(begin + BLOCK) - begin)
    })
}

/// Adds a later span's gatherings to those of the spans before.
fn join(whole: &mut Vec<Option<Partial>>, later: Vec<Option<Partial>>) {
    if whole.is_empty() {
        *whole = later;
        return;
    }
    for (whole, later) in whole.iter_mut().zip(later) {
        let Some(later) = later else { continue };
        let Some(before) = whole else {
            *whole = Some(later);
            continue;
        };
        let greatest = before.greatest.max(later.greatest);
        let (old, new) = (exp(before.greatest - greatest), exp(later.greatest - greatest));
        before.greatest = greatest;
        before.sum = before.sum * old + later.sum * new;
        for (value, later) in before.values.iter_mut().zip(&later.values) {
            *value = *value * old + later * new;
        }
    }
}

/// Writes the weighted means to where the task's heads go.
fn finish(head_dim: usize, task: &mut Task<'_>, whole: &[Option<Partial>]) {
    let heads = task.out.iter_mut().flat_map(|token| token.chunks_exact_mut(head_dim));
    for (out, partial) in heads.zip(whole) {
        if let Some(partial) = partial {
            let scale = 1.0 / partial.sum;
            out.iter_mut().zip(&partial.values).for_each(|(out, value)| *out = value * scale);
        }
    }
}
