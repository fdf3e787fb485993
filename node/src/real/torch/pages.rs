//! Where keys and values lie: one tensor for all sessions, made when the model is loaded, whose blocks they share out.

use std::collections::BTreeSet;

use tch::{Kind, TchError, Tensor};

use super::said;
use crate::engine::EngineError;
use crate::real::model::kv::{BLOCK, KvShape, Store};

/// `[layers][keys, values][blocks][positions][kv_heads][head_dim]`: so that a layer's blocks that follow each other are
/// positions that follow each other.
#[derive(Debug)]
pub struct Pages {
    pool: Tensor,
    shape: KvShape,
    kind: Kind,
    /// Those that came back. The lowest are taken first, so that a session that is alone has blocks that follow each other.
    free: BTreeSet<u32>,
    /// The first that nobody has had, and how many there are.
    untouched: u32,
    blocks: u32,
}

/// Keys, or values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Keys,
    Values,
}

impl Pages {
    /// Memory of a block of such numbers.
    pub(super) fn block_bytes_of(shape: KvShape, kind: Kind) -> u64 {
        (2 * shape.layers * BLOCK * shape.kv_heads * shape.head_dim * kind.elt_size_in_bytes()) as u64
    }

    pub(super) fn new(
        shape: KvShape,
        kind: Kind,
        device: tch::Device,
        blocks: u32,
    ) -> Result<Self, TchError> {
        let size = [shape.layers, 2, blocks as usize, BLOCK, shape.kv_heads, shape.head_dim];
        // Untouched memory is not taken from the system on the processor; a block is cleared when it is handed out.
        let pool = Tensor::f_empty(size.map(|n| n as i64), (kind, device))?;
        Ok(Self { pool, shape, kind, free: BTreeSet::new(), untouched: 0, blocks })
    }

    /// A layer's keys or values, `[blocks * positions][kv_heads][head_dim]`.
    pub(super) fn positions(&self, layer: usize, part: Part) -> Result<Tensor, TchError> {
        let blocks = self.blocks(layer, part)?;
        blocks.f_flatten(0, 1)
    }

    /// The same, `[blocks][positions][kv_heads][head_dim]`.
    pub(super) fn blocks(&self, layer: usize, part: Part) -> Result<Tensor, TchError> {
        self.pool.f_select(0, layer as i64)?.f_select(0, part as i64)
    }

    fn block(&self, index: u32) -> Result<Tensor, TchError> {
        self.pool.f_select(2, i64::from(index))
    }
}

impl Store for Pages {
    type Block = u32;

    fn block_bytes(&self) -> u64 {
        Self::block_bytes_of(self.shape, self.kind)
    }

    fn take(&mut self) -> Result<u32, EngineError> {
        let index = match self.free.pop_first() {
            Some(index) => index,
            None if self.untouched == self.blocks => return Err(EngineError::NoRoom),
            None => {
                self.untouched += 1;
                self.untouched - 1
            }
        };
        // Positions nobody has written are multiplied by a weight of zero, which not-a-number would survive.
        let cleared = self.block(index).and_then(|mut block| block.f_zero_().map(drop));
        cleared.map(|()| index).map_err(|why| {
            self.free.insert(index);
            EngineError::Device(said(&why))
        })
    }

    fn copy(&mut self, from: &u32, to: &mut u32) -> Result<(), EngineError> {
        let copied = self.block(*from).and_then(|from| self.block(*to)?.f_copy_(&from));
        copied.map_err(|why| EngineError::Device(said(&why)))
    }

    fn give(&mut self, block: u32) {
        self.free.insert(block);
    }
}
