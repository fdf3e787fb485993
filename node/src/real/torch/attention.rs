//! Attention over what a step's rows look at.

use tch::{Kind, TchError, Tensor};

use super::pages::{Pages, Part};
use super::reach::{Reach, Rows};
use crate::real::arch::Attention;

/// A layer's rows, each `[rows][heads][head_dim]`.
pub(super) struct Layer<'a> {
    pub(super) spec: &'a Attention,
    pub(super) q: &'a Tensor,
    pub(super) k: &'a Tensor,
    pub(super) v: &'a Tensor,
}

impl Layer<'_> {
    /// Attends with all rows; `[rows][heads * head_dim]`.
    pub(super) fn attend(&self, pages: &Pages, reaches: &[Reach]) -> Result<Tensor, TchError> {
        if let [one] = reaches
            && !matches!(one.rows, Rows::Together { picked: Some(_), .. })
        {
            return self.part(pages, one);
        }
        let out = self.q.f_flatten(1, 2)?.f_empty_like()?;
        for reach in reaches {
            let part = self.part(pages, reach)?;
            match &reach.rows {
                Rows::Alone { row, count } => {
                    out.f_narrow(0, *row as i64, *count as i64)?.f_copy_(&part)?;
                }
                Rows::Together { picked: Some(picked), .. } => {
                    let _ = out.shallow_clone().f_index_copy_(0, picked, &part)?;
                }
                Rows::Together { picked: None, .. } => return Ok(part),
            }
        }
        Ok(out)
    }

    fn part(&self, pages: &Pages, reach: &Reach) -> Result<Tensor, TchError> {
        match &reach.rows {
            Rows::Together { count, picked } => {
                let q = match picked {
                    Some(picked) => self.q.f_index_select(0, picked)?,
                    None => self.q.shallow_clone(),
                };
                self.together(pages, reach, &q, *count as i64)
            }
            Rows::Alone { row, count } => self.alone(pages, reach, *row as i64, *count as i64),
        }
    }

    /// One row of each session: the heads of a group are the queries of their key and value head.
    fn together(&self, pages: &Pages, reach: &Reach, q: &Tensor, sessions: i64) -> Result<Tensor, TchError> {
        let Attention { layer, heads, kv_heads, head_dim, .. } = *self.spec;
        let group = (heads / kv_heads) as i64;
        let q = q.f_view([sessions, kv_heads as i64, group, head_dim as i64])?;
        let cells = |part, fresh: &Tensor| {
            let cells = reach.cells.fetch(pages, layer, part)?;
            // A first token alone: what it brings is all there is.
            let cells = cells.map_or_else(|| fresh.f_unsqueeze(1), Ok)?;
            cells.f_transpose(1, 2)
        };
        let (k, v) = (cells(Part::Keys, self.k)?, cells(Part::Values, self.v)?);
        let out = self.scored(&q, &k, &v, reach.mask.as_ref(), false)?;
        out.f_reshape([sessions, (heads * head_dim) as i64])
    }

    /// Some rows of one session.
    fn alone(&self, pages: &Pages, reach: &Reach, row: i64, count: i64) -> Result<Tensor, TchError> {
        let Attention { layer, heads, head_dim, .. } = *self.spec;
        let mine = |rows: &Tensor| rows.f_narrow(0, row, count)?.f_unsqueeze(0);
        let q = mine(self.q)?.f_transpose(1, 2)?;
        let cells = |part, fresh: &Tensor| {
            let cells = reach.cells.fetch(pages, layer, part)?;
            let cells = cells.map_or_else(|| mine(fresh), Ok)?;
            self.by_head(&cells.f_transpose(1, 2)?)
        };
        let (k, v) = (cells(Part::Keys, self.k)?, cells(Part::Values, self.v)?);
        let out = self.scored(&q, &k, &v, reach.mask.as_ref(), reach.mask.is_none())?;
        out.f_transpose(1, 2)?.f_reshape([count, (heads * head_dim) as i64])
    }

    /// Each head of a group with a copy of its key or value head: not all fused kernels share them.
    fn by_head(&self, cells: &Tensor) -> Result<Tensor, TchError> {
        let Attention { heads, kv_heads, .. } = *self.spec;
        if heads == kv_heads {
            return Ok(cells.shallow_clone());
        }
        let (count, width) = (cells.size()[2], cells.size()[3]);
        let (heads, kv_heads) = (heads as i64, kv_heads as i64);
        let wide = cells.f_unsqueeze(2)?.f_expand([1, kv_heads, heads / kv_heads, count, width], false)?;
        wide.f_reshape([1, heads, count, width])
    }

    fn scored(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        mask: Option<&Tensor>,
        is_causal: bool,
    ) -> Result<Tensor, TchError> {
        let scale = f64::from(self.spec.scale);
        match self.spec.soft_cap {
            None => Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal, scale, false),
            Some(cap) => capped(q, k, v, mask, is_causal, scale, f64::from(cap)),
        }
    }
}

/// The same with scores that become `cap * tanh(score / cap)`, which no fused kernel knows.
fn capped(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    is_causal: bool,
    scale: f64,
    cap: f64,
) -> Result<Tensor, TchError> {
    let [q_wide, k_wide, v_wide] = [q, k, v].map(|rows| rows.f_to_kind(Kind::Float));
    let scores = q_wide?.f_matmul(&k_wide?.f_transpose(-2, -1)?)?;
    let mut scores = scores.f_mul_scalar(scale / cap)?.f_tanh()?.f_mul_scalar(cap)?;
    if let Some(mask) = mask {
        scores = scores.f_add(mask)?;
    }
    if is_causal {
        let size = [scores.size()[2], scores.size()[3]];
        let later = Tensor::f_ones(size, (Kind::Bool, scores.device()))?.f_triu(1)?;
        scores = scores.f_masked_fill(&later, f64::NEG_INFINITY)?;
    }
    let weights = scores.f_softmax(-1, Kind::Float)?;
    weights.f_matmul(&v_wide?)?.f_to_kind(q.f_kind()?)
}
