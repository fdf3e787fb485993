//! What the rows of a step look at: worked out once a step for each width of window, used by all layers that have it.
//!
//! Sessions that bring one row each (that decode) go through attention together, those of about the same length at a
//! time; a chunk of a prompt goes alone.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use super::pages::{Pages, Part};
use crate::real::model::Segment;
use crate::real::model::kv::{BLOCK, KvCache};

/// Rows that go through attention together.
pub(super) struct Reach {
    pub(super) rows: Rows,
    /// Where their keys and values lie.
    pub(super) cells: Cells,
    /// What is added to scores: zero, or minus infinity for what a row does not see. `[sessions][1][1][positions]`, or
    /// `[1][1][rows][positions]`; none where all is seen, or what comes later is not.
    pub(super) mask: Option<Tensor>,
}

/// Which rows.
pub(super) enum Rows {
    /// One of each of several sessions; none for all rows of the step in their order.
    Together { count: usize, picked: Option<Tensor> },
    /// Some of one session that follow each other.
    Alone { row: usize, count: usize },
}

/// Positions of some sessions, `[sessions][positions]`.
pub(super) enum Cells {
    /// Those that this step brings: nothing came before.
    Fresh,
    /// Those of one session in a row.
    Following { first: i64, count: i64 },
    /// Blocks by their numbers, all sessions' one after the other, each as many; of each session the first `count`
    /// positions.
    Gathered { blocks: Tensor, sessions: i64, count: i64 },
}

impl Cells {
    /// `[sessions][positions][kv_heads][head_dim]`; none for those that this step brings.
    pub(super) fn fetch(&self, pages: &Pages, layer: usize, part: Part) -> Result<Option<Tensor>, TchError> {
        Ok(match self {
            Cells::Fresh => None,
            Cells::Following { first, count } => {
                Some(pages.positions(layer, part)?.f_narrow(0, *first, *count)?.f_unsqueeze(0)?)
            }
            Cells::Gathered { blocks, sessions, count } => {
                let gathered = pages.blocks(layer, part)?.f_index_select(0, blocks)?;
                let by_session = gathered.f_flatten(0, 1)?.f_unflatten(0, [*sessions, -1])?;
                Some(by_session.f_narrow(1, 0, *count)?)
            }
        })
    }
}

/// Some rows of a session, and the blocks they can see.
struct Seen<'a> {
    segment: &'a Segment,
    blocks: Vec<u32>,
    /// Position of the first block's first place.
    base: usize,
}

/// What a step's rows look at through `window`.
pub(super) fn reaches(
    cache: &KvCache<Pages>,
    segments: &[Segment],
    window: Option<usize>,
    kind: Kind,
    device: tch::Device,
) -> Result<Vec<Reach>, TchError> {
    let mut out = Vec::new();
    // By the power of two above the blocks that are seen.
    let mut decoding: BTreeMap<usize, Vec<Seen<'_>>> = BTreeMap::new();
    for segment in segments {
        let seen = Seen::of(cache, segment, window);
        if segment.count == 1 {
            decoding.entry(seen.blocks.len().next_power_of_two()).or_default().push(seen);
        } else {
            out.push(alone(&seen, window, kind, device)?);
        }
    }
    for seen in decoding.into_values() {
        let is_whole = seen.len() == segments.len();
        out.push(together(&seen, is_whole, window, kind, device)?);
    }
    Ok(out)
}

impl<'a> Seen<'a> {
    fn of(cache: &KvCache<Pages>, segment: &'a Segment, window: Option<usize>) -> Self {
        let first = window.map_or(0, |window| (segment.start + 1).saturating_sub(window)) / BLOCK;
        let end = (segment.start + segment.count).div_ceil(BLOCK);
        let blocks = cache.blocks(segment.session)[first..end].iter().map(|block| **block).collect();
        Self { segment, blocks, base: first * BLOCK }
    }

    /// Positions from the first block's on.
    fn len(&self) -> usize {
        self.segment.start + self.segment.count - self.base
    }

    /// Where one session's positions lie.
    fn cells(&self, device: tch::Device) -> Result<Cells, TchError> {
        let count = self.len() as i64;
        if self.blocks.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            return Ok(Cells::Following { first: i64::from(self.blocks[0]) * BLOCK as i64, count });
        }
        let blocks: Vec<i64> = self.blocks.iter().copied().map(i64::from).collect();
        Ok(Cells::Gathered {
            blocks: Tensor::f_from_slice(&blocks)?.f_to_device(device)?,
            sessions: 1,
            count,
        })
    }
}

fn alone(seen: &Seen<'_>, window: Option<usize>, kind: Kind, device: tch::Device) -> Result<Reach, TchError> {
    let Segment { start, count, row, .. } = *seen.segment;
    let rows = Rows::Alone { row, count };
    if start == 0 && window.is_none_or(|window| window >= count) {
        return Ok(Reach { rows, cells: Cells::Fresh, mask: None });
    }
    let places: Vec<i64> = (start..start + count).map(|position| (position - seen.base) as i64).collect();
    let mask = mask(&places, seen.len(), window, kind, device)?;
    let mask = mask.f_unsqueeze(0)?.f_unsqueeze(0)?;
    Ok(Reach { rows, cells: seen.cells(device)?, mask: Some(mask) })
}

fn together(
    seen: &[Seen<'_>],
    is_whole: bool,
    window: Option<usize>,
    kind: Kind,
    device: tch::Device,
) -> Result<Reach, TchError> {
    let picked = if is_whole {
        None
    } else {
        let rows: Vec<i64> = seen.iter().map(|seen| seen.segment.row as i64).collect();
        Some(Tensor::f_from_slice(&rows)?.f_to_device(device)?)
    };
    let rows = Rows::Together { count: seen.len(), picked };
    if let [one] = seen
        && window.is_none_or(|window| window >= one.len())
    {
        return Ok(Reach { rows, cells: one.cells(device)?, mask: None });
    }
    let longest = seen.iter().map(|seen| seen.blocks.len()).max().unwrap_or(0);
    let mut blocks: Vec<i64> = Vec::with_capacity(seen.len() * longest);
    for seen in seen {
        let last = seen.blocks.last().copied().unwrap_or(0);
        let repeated = std::iter::repeat_n(&last, longest - seen.blocks.len());
        blocks.extend(seen.blocks.iter().chain(repeated).copied().map(i64::from));
    }
    let (sessions, count) = (seen.len() as i64, (longest * BLOCK) as i64);
    let blocks = Tensor::f_from_slice(&blocks)?.f_to_device(device)?;
    let places: Vec<i64> = seen.iter().map(|seen| seen.len() as i64 - 1).collect();
    let mask = mask(&places, longest * BLOCK, window, kind, device)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
    Ok(Reach { rows, cells: Cells::Gathered { blocks, sessions, count }, mask: Some(mask) })
}

/// `[rows][positions]`: zero where a row at a place sees a position, minus infinity elsewhere.
fn mask(
    places: &[i64],
    positions: usize,
    window: Option<usize>,
    kind: Kind,
    device: tch::Device,
) -> Result<Tensor, TchError> {
    let places = Tensor::f_from_slice(places)?.f_to_device(device)?.f_unsqueeze(1)?;
    let columns = Tensor::f_arange(positions as i64, (Kind::Int64, device))?.f_unsqueeze(0)?;
    let mut hidden = columns.f_gt_tensor(&places)?;
    if let Some(window) = window {
        let first = places.f_sub_scalar(window as i64 - 1)?;
        hidden = hidden.f_logical_or(&columns.f_lt_tensor(&first)?)?;
    }
    Tensor::f_zeros(hidden.size(), (kind, device))?.f_masked_fill(&hidden, f64::NEG_INFINITY)
}
