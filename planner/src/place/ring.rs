//! The best ring over each subset of a few nodes, for a cost that adds up along the ring, under a bound on each stage.
//!
//! Dynamic programming over (nodes used, last node, layers done). With prefix sums a stage's cost splits into a part of
//! its end and a part of its beginning, and what fits into memory (or under the bound) moves forward with the end: so
//! the best beginning for each end is a minimum over a sliding window, and a whole row of ends costs one pass. Where the
//! head sits with the first stage, the way back depends on which node is first, and each is tried.

use std::rc::Rc;

use super::costs::{Compute, Costs, Frames, Reach, Work};
use crate::plan::{LayerRange, NodeId, Stage};

/// The best ring over exactly the nodes of a subset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Best {
    /// Its cost.
    pub(super) total_us: f64,
    first: usize,
    last: usize,
}

/// A few nodes, with the costs of one kind of step on and between them.
pub(super) struct Ring {
    pub(super) nodes: Vec<usize>,
    pub(super) layers: usize,
    pub(super) min_layers: usize,
    /// Whether the head's place is given; else it sits with the first stage.
    pub(super) head_given: bool,
    /// What a step costs on each node.
    pub(super) compute: Vec<Rc<Compute>>,
    /// What each stage adds to a step.
    pub(super) per_stage_us: f64,
    /// What the bound on a stage is for: its steps together.
    pub(super) pace: Vec<Rc<Compute>>,
    /// What each stage adds to that.
    pub(super) pace_stage_us: f64,
    /// Between stages, from row to column.
    pub(super) hop: Vec<Vec<f64>>,
    /// From the head to each as first stage.
    pub(super) entry: Vec<f64>,
    /// From each as last stage to the head where each is first.
    pub(super) back: Vec<Vec<f64>>,
    pub(super) reach: Vec<Rc<Reach>>,
}

/// For one node: which beginnings a stage may have for each end.
struct Window {
    first_end: usize,
    from: Vec<usize>,
    last_from: usize,
    solo: bool,
}

/// Costs by (nodes used, last node, layers done).
struct Table {
    rows: Vec<f64>,
    reached: Vec<bool>,
    nodes: usize,
    width: usize,
}

impl Table {
    fn new(nodes: usize, width: usize) -> Self {
        let states = (1 << nodes) * nodes;
        Self { rows: vec![f64::INFINITY; states * width], reached: vec![false; states], nodes, width }
    }

    fn state(&self, mask: usize, last: usize) -> usize {
        mask * self.nodes + last
    }

    fn row(&self, mask: usize, last: usize) -> Option<&[f64]> {
        let state = self.state(mask, last);
        self.reached[state].then(|| &self.rows[state * self.width..(state + 1) * self.width])
    }

    fn row_mut(&mut self, mask: usize, last: usize) -> &mut [f64] {
        let state = self.state(mask, last);
        self.reached[state] = true;
        &mut self.rows[state * self.width..(state + 1) * self.width]
    }

    fn clear(&mut self) {
        for (state, reached) in self.reached.iter_mut().enumerate().filter(|(_, r)| **r) {
            self.rows[state * self.width..(state + 1) * self.width].fill(f64::INFINITY);
            *reached = false;
        }
    }
}

/// The best ring over each subset, ready to be read.
pub(super) struct Sweep<'r> {
    ring: &'r Ring,
    windows: Vec<Window>,
    table: Table,
    pub(super) best: Vec<Option<Best>>,
}

impl Sweep<'_> {
    /// The stages of the best ring over the subset `mask`.
    pub(super) fn stages(&self, mask: usize) -> Option<Vec<Stage>> {
        let best = self.best[mask]?;
        Some(self.ring.trace(mask, best.last, &self.windows, &self.table))
    }
}

impl Ring {
    /// The ring of `nodes` for steps like `work`; the bound is on such a step.
    pub(super) fn new(costs: &Costs<'_>, nodes: &[usize], work: Work, frames: Frames) -> Self {
        let compute: Vec<_> = nodes.iter().map(|n| costs.compute(*n, work)).collect();
        let row = |a: &usize, bytes| nodes.iter().map(|b| costs.hop_us(*a, *b, bytes)).collect::<Vec<_>>();
        let head = costs.ask.load.head.map(NodeId::index);
        let entry = |n: &usize| head.map_or(0.0, |h| costs.hop_us(h, *n, frames.entry));
        let back = |n: &usize| match head {
            Some(h) => vec![costs.hop_us(*n, h, frames.back); nodes.len()],
            None => row(n, frames.back),
        };
        Self {
            layers: costs.layers,
            min_layers: costs.min_layers(),
            head_given: head.is_some(),
            pace: compute.clone(),
            compute,
            per_stage_us: costs.software.per_step_us,
            pace_stage_us: costs.software.per_step_us,
            hop: nodes.iter().map(|n| row(n, frames.between)).collect(),
            entry: nodes.iter().map(entry).collect(),
            back: nodes.iter().map(back).collect(),
            reach: nodes.iter().map(|n| costs.reach(*n)).collect(),
            nodes: nodes.to_vec(),
        }
    }

    /// The same nodes and hops with other steps.
    pub(super) fn with_work(&self, costs: &Costs<'_>, work: Work) -> Self {
        let compute: Vec<_> = self.nodes.iter().map(|n| costs.compute(*n, work)).collect();
        Self {
            nodes: self.nodes.clone(),
            hop: self.hop.clone(),
            entry: self.entry.clone(),
            back: self.back.clone(),
            reach: self.reach.clone(),
            pace: compute.clone(),
            compute,
            ..*self
        }
    }

    /// The best ring over each subset (by bit mask) of at most `most_stages` nodes, with no stage's pace above
    /// `longest_us`.
    pub(super) fn best(&self, longest_us: f64, most_stages: usize) -> Vec<Option<Best>> {
        let windows = self.windows(longest_us);
        let mut best = vec![None; 1 << self.nodes.len()];
        let mut table = Table::new(self.nodes.len(), self.layers + 1);
        for start in self.starts() {
            table.clear();
            self.fill(start, &windows, most_stages, &mut table, &mut best);
        }
        best
    }

    /// This ring with the way back as short as it is to any first stage: never dearer, and searched in one go.
    pub(super) fn relaxed(&self) -> Self {
        let shortest = |row: &Vec<f64>| row.iter().copied().fold(f64::INFINITY, f64::min);
        let back = self.back.iter().map(|row| vec![shortest(row); row.len()]).collect();
        Self {
            nodes: self.nodes.clone(),
            hop: self.hop.clone(),
            entry: self.entry.clone(),
            reach: self.reach.clone(),
            compute: self.compute.clone(),
            pace: self.pace.clone(),
            back,
            head_given: true,
            ..*self
        }
    }

    /// The best rings over all subsets of at most `most_stages` nodes at once, where the way back does not depend on the
    /// first stage.
    pub(super) fn sweep(&self, longest_us: f64, most_stages: usize) -> Sweep<'_> {
        debug_assert!(self.head_given, "else the best ring depends on its first stage");
        let windows = self.windows(longest_us);
        let mut best = vec![None; 1 << self.nodes.len()];
        let mut table = Table::new(self.nodes.len(), self.layers + 1);
        self.fill(None, &windows, most_stages, &mut table, &mut best);
        Sweep { ring: self, windows, table, best }
    }

    /// The stages of the best ring over the subset `mask`, which [`Ring::best`] found under the same bound.
    pub(super) fn stages(&self, mask: usize, best: &Best, longest_us: f64) -> Vec<Stage> {
        let windows = self.windows(longest_us);
        let mut table = Table::new(self.nodes.len(), self.layers + 1);
        let start = (!self.head_given).then_some(best.first);
        let mut again = vec![None; 1 << self.nodes.len()];
        let most_stages = mask.count_ones() as usize;
        self.fill(start, &windows, most_stages, &mut table, &mut again);
        self.trace(mask, best.last, &windows, &table)
    }

    /// The pace of a stage on a node of this ring.
    pub(super) fn pace_us(&self, stage: &Stage) -> f64 {
        let j = self.nodes.iter().position(|n| *n == stage.node.index()).expect("the stage is of this ring");
        self.pace[j].range_us(stage.layers.first as usize, stage.layers.end as usize) + self.pace_stage_us
    }

    /// The first stages to try one at a time: any at once where the way back is the same for all.
    fn starts(&self) -> Vec<Option<usize>> {
        if self.head_given { vec![None] } else { (0..self.nodes.len()).map(Some).collect() }
    }

    fn windows(&self, longest_us: f64) -> Vec<Window> {
        (0..self.nodes.len()).map(|j| self.window(j, longest_us)).collect()
    }

    fn window(&self, j: usize, longest_us: f64) -> Window {
        let (reach, pace, layers) = (&self.reach[j], &self.pace[j], self.layers);
        let quick = |l: usize, e: usize| pace.range_us(l, e) + self.pace_stage_us <= longest_us;
        let first_end = (1..=reach.first_end).rev().find(|e| quick(0, *e)).unwrap_or(0);
        let mut l = 1;
        let advance = |(e, fits_from): (usize, &usize)| {
            l = l.max(*fits_from);
            while l < e && !quick(l, e) {
                l += 1;
            }
            l
        };
        let from = reach.from.iter().enumerate().map(advance).collect();
        let last_from = (reach.last_from..layers).find(|l| quick(*l, layers)).unwrap_or(layers);
        Window { first_end, from, last_from, solo: reach.solo && quick(0, layers) }
    }

    fn fill(
        &self,
        start: Option<usize>,
        windows: &[Window],
        most_stages: usize,
        table: &mut Table,
        best: &mut [Option<Best>],
    ) {
        for j in (0..self.nodes.len()).filter(|j| start.is_none_or(|s| s == *j)) {
            self.begin(j, &windows[j], table, best);
        }
        let mut reached_us = vec![f64::INFINITY; self.layers + 1];
        for mask in 1..1usize << self.nodes.len() {
            let used = mask.count_ones() as usize;
            if used >= most_stages || start.is_some_and(|s| mask & (1 << s) == 0) {
                continue;
            }
            for j in (0..self.nodes.len()).filter(|j| mask & (1 << j) == 0) {
                if self.arrive(mask, j, table, &mut reached_us) {
                    self.extend(start, mask, j, &windows[j], &reached_us, table, best);
                }
            }
        }
    }

    /// Stage zero on node `j`.
    fn begin(&self, j: usize, window: &Window, table: &mut Table, best: &mut [Option<Best>]) {
        if !self.entry[j].is_finite() {
            return;
        }
        let compute = &self.compute[j];
        let begun_us = self.entry[j] + self.per_stage_us;
        if window.solo && self.layers >= self.min_layers {
            let total_us = begun_us + compute.range_us(0, self.layers) + self.back[j][j];
            improve(&mut best[1 << j], Best { total_us, first: j, last: j });
        }
        if window.first_end >= self.min_layers {
            let row = table.row_mut(1 << j, j);
            let ends = self.min_layers..=window.first_end;
            for (us, upto_us) in row[ends.clone()].iter_mut().zip(&compute.upto[ends]) {
                *us = begun_us + upto_us;
            }
        }
    }

    /// The least cost of having done so many layers with `mask` and being on node `j`, for each number of layers.
    fn arrive(&self, mask: usize, j: usize, table: &Table, reached_us: &mut [f64]) -> bool {
        reached_us.fill(f64::INFINITY);
        let mut any = false;
        for last in (0..self.nodes.len()).filter(|last| mask & (1 << last) != 0) {
            let hop_us = self.hop[last][j];
            let Some(row) = table.row(mask, last).filter(|_| hop_us.is_finite()) else { continue };
            any = true;
            for (least, us) in reached_us.iter_mut().zip(row) {
                *least = least.min(us + hop_us);
            }
        }
        any
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the inner loop of the search: borrowed parts of it, no object"
    )]
    fn extend(
        &self,
        start: Option<usize>,
        mask: usize,
        j: usize,
        window: &Window,
        reached_us: &[f64],
        table: &mut Table,
        best: &mut [Option<Best>],
    ) {
        let compute = &self.compute[j];
        let joined = mask | 1 << j;
        let before = |l: usize| reached_us[l] - compute.upto[l];
        if let Some(least) = (window.last_from..=self.layers.saturating_sub(self.min_layers))
            .map(before)
            .reduce(f64::min)
            .filter(|us| us.is_finite())
        {
            let first = start.unwrap_or(j);
            let done_us = least + compute.upto[self.layers] + compute.head_us + self.per_stage_us;
            let total_us = done_us + self.back[j][first];
            improve(&mut best[joined], Best { total_us, first, last: j });
        }
        self.advance(j, window, reached_us, table.row_mut(joined, j));
    }

    /// The least cost of each end of a stage on `j` that is not the last, from the cost of reaching each beginning.
    fn advance(&self, j: usize, window: &Window, reached_us: &[f64], row: &mut [f64]) {
        let compute = &self.compute[j];
        let mut queue: Vec<(usize, f64)> = Vec::with_capacity(self.layers);
        let mut head = 0;
        let ends = row.iter_mut().enumerate().take(self.layers).skip(1 + self.min_layers);
        for (e, end_us) in ends {
            let l = e - self.min_layers;
            let us = reached_us[l] - compute.upto[l];
            if us.is_finite() {
                while queue.len() > head && queue[queue.len() - 1].1 >= us {
                    queue.pop();
                }
                queue.push((l, us));
            }
            while head < queue.len() && queue[head].0 < window.from[e] {
                head += 1;
            }
            if let Some((_, us)) = queue.get(head) {
                *end_us = us + compute.upto[e] + self.per_stage_us;
            }
        }
    }

    /// The best cut of a ring over `order` (places in [`Ring::nodes`]), every one of them with a stage, with no stage's
    /// pace above `longest_us`.
    pub(super) fn cut(&self, order: &[usize], longest_us: f64) -> Option<(f64, Vec<Stage>)> {
        let (first, last) = (*order.first()?, *order.last()?);
        let way_us = self.entry[first] + self.back[last][first];
        if !way_us.is_finite() {
            return None;
        }
        let windows: Vec<Window> = order.iter().map(|j| self.window(*j, longest_us)).collect();
        if order.len() == 1 {
            let whole = windows[0].solo && self.layers >= self.min_layers;
            let us = way_us + self.per_stage_us + self.compute[first].range_us(0, self.layers);
            return whole.then(|| (us, vec![self.stage(first, 0, self.layers)]));
        }
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(order.len());
        let mut row = vec![f64::INFINITY; self.layers + 1];
        let begun_us = self.entry[first] + self.per_stage_us;
        let upto_us = self.compute[first].upto.iter().take(windows[0].first_end + 1);
        for (us, upto_us) in row.iter_mut().zip(upto_us).skip(self.min_layers) {
            *us = begun_us + upto_us;
        }
        for (i, j) in order.iter().enumerate().skip(1) {
            let hop_us = self.hop[order[i - 1]][*j];
            let reached: Vec<f64> = row.iter().map(|us| us + hop_us).collect();
            row.fill(f64::INFINITY);
            self.advance(*j, &windows[i], &reached, &mut row);
            rows.push(reached);
        }
        self.trace_cut(order, &windows, &rows)
    }

    /// `rows[i]`: the cost of reaching each beginning of stage `i + 1`.
    fn trace_cut(&self, order: &[usize], windows: &[Window], rows: &[Vec<f64>]) -> Option<(f64, Vec<Stage>)> {
        let mut end = self.layers;
        let mut stages = Vec::with_capacity(order.len());
        let mut total_us = 0.0;
        for i in (1..order.len()).rev() {
            let (j, window) = (order[i], &windows[i]);
            let from = if end == self.layers { window.last_from } else { window.from[end] };
            let us = |l: usize| rows[i - 1][l] + self.compute[j].range_us(l, end);
            let l = (from..=end.saturating_sub(self.min_layers)).min_by(|a, b| us(*a).total_cmp(&us(*b)))?;
            if end == self.layers {
                total_us = us(l) + self.per_stage_us + self.back[j][order[0]];
            }
            stages.push(self.stage(j, l, end));
            end = l;
        }
        stages.push(self.stage(order[0], 0, end));
        stages.reverse();
        total_us.is_finite().then_some((total_us, stages))
    }

    fn trace(&self, mask: usize, last: usize, windows: &[Window], table: &Table) -> Vec<Stage> {
        let (mut mask, mut last, mut end) = (mask, last, self.layers);
        let mut stages = Vec::new();
        while mask.count_ones() > 1 {
            let rest = mask & !(1 << last);
            let from = if end == self.layers { windows[last].last_from } else { windows[last].from[end] };
            let (mut found, mut least) = ((last, 0), f64::INFINITY);
            for before in (0..self.nodes.len()).filter(|b| rest & (1 << b) != 0) {
                let Some(row) = table.row(rest, before) else { continue };
                let begins =
                    row.iter().enumerate().take((end + 1).saturating_sub(self.min_layers)).skip(from);
                for (l, reached_us) in begins {
                    let us = reached_us + self.hop[before][last] - self.compute[last].upto[l];
                    if us < least {
                        (found, least) = ((before, l), us);
                    }
                }
            }
            stages.push(self.stage(last, found.1, end));
            (mask, last, end) = (rest, found.0, found.1);
        }
        stages.push(self.stage(last, 0, end));
        stages.reverse();
        stages
    }

    fn stage(&self, j: usize, l: usize, e: usize) -> Stage {
        Stage { node: NodeId(self.nodes[j] as u32), layers: LayerRange::new(l as u32, e as u32) }
    }
}

/// The one with the lower cost, the earlier one of equals. What cannot get back to the head costs infinitely much.
fn improve(slot: &mut Option<Best>, found: Best) {
    if found.total_us.is_finite() && slot.is_none_or(|old| found.total_us < old.total_us) {
        *slot = Some(found);
    }
}
