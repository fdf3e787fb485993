//! What the rest of a ring costs at least: the [`Ring`] search run backwards.

use super::ring::Ring;

/// The least cost of finishing, by nodes still free, next node and layers done.
pub(super) struct Tail {
    /// Per (free nodes with the next one, next node): by first layer, what is left to pay once it is arrived.
    rows: Vec<f64>,
    /// Hops between stages.
    hop: Vec<Vec<f64>>,
    nodes: usize,
    width: usize,
}

impl Tail {
    /// For a ring whose way back does not depend on its first stage.
    pub(super) fn new(ring: &Ring) -> Self {
        let (nodes, width) = (ring.nodes.len(), ring.layers + 1);
        let rows = vec![f64::INFINITY; (1 << nodes) * nodes * width];
        let mut tail = Self { rows, hop: ring.hop.clone(), nodes, width };
        let mut onward_us = vec![f64::INFINITY; width];
        for free in 1..1usize << nodes {
            for j in (0..nodes).filter(|j| free & (1 << j) != 0) {
                tail.onward(free & !(1 << j), j, &mut onward_us);
                tail.fill(ring, free, j, &onward_us);
            }
        }
        tail
    }

    fn start(&self, free: usize, j: usize) -> usize {
        (free * self.nodes + j) * self.width
    }

    /// The least cost from the end of a stage on `j`, by layers done, with the nodes `free` left.
    pub(super) fn onward(&self, free: usize, j: usize, onward_us: &mut [f64]) {
        onward_us.fill(f64::INFINITY);
        for next in (0..self.nodes).filter(|n| free & (1 << n) != 0) {
            let start = self.start(free, next);
            let hop_us = self.hop[j][next];
            for (least, us) in onward_us.iter_mut().zip(&self.rows[start..start + self.width]) {
                *least = least.min(us + hop_us);
            }
        }
    }

    fn fill(&mut self, ring: &Ring, free: usize, j: usize, onward_us: &[f64]) {
        let (layers, compute, reach) = (ring.layers, &ring.compute[j], &ring.reach[j]);
        let start = self.start(free, j);
        // Ends beyond the reach of a beginning are beyond that of every earlier one, so the window of ends only shrinks.
        let mut queue: Vec<(usize, f64)> = Vec::with_capacity(layers);
        let (mut head, mut pushed) = (0, layers);
        for l in (1..layers).rev() {
            let mut least_us = f64::INFINITY;
            if l >= reach.last_from && l + ring.min_layers <= layers {
                least_us = compute.range_us(l, layers) + ring.back[j][j];
            }
            while pushed > l + ring.min_layers && pushed > 1 {
                pushed -= 1;
                let us = compute.upto[pushed] + onward_us[pushed];
                while queue.len() > head && queue[queue.len() - 1].1 >= us {
                    queue.pop();
                }
                queue.push((pushed, us));
            }
            while head < queue.len() && reach.from[queue[head].0] > l {
                head += 1;
            }
            if let Some((_, us)) = queue.get(head) {
                least_us = least_us.min(us - compute.upto[l]);
            }
            self.rows[start + l] = least_us + ring.per_stage_us;
        }
    }
}
