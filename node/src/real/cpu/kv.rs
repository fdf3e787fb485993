//! The KV cache's blocks in the machine's memory.
//!
//! Within a block keys lie transposed, in tiles `[head_dim][16 positions]`, and values as `[position][head_dim]`, so
//! that both products of attention read straight ahead (see [`multiply`](crate::real::kernels::attention::multiply)).

use std::sync::Arc;

use half::f16;

use crate::engine::EngineError;
use crate::ids::SessionId;
use crate::real::kernels::attention::{Cells, Panel};
use crate::real::kernels::lanes::LANES;
pub(super) use crate::real::model::kv::BLOCK;
use crate::real::model::kv::{KvCache, KvShape, Store};

/// How a block is laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Layout {
    shape: KvShape,
    /// f32 instead of f16.
    is_wide: bool,
}

impl Layout {
    pub(super) fn new(shape: KvShape, is_wide: bool) -> Self {
        Self { shape, is_wide }
    }

    /// Elements of a value's row, a whole number of vectors.
    fn value_stride(&self) -> usize {
        self.shape.head_dim.next_multiple_of(LANES)
    }

    fn key_elements(&self) -> usize {
        BLOCK * self.shape.head_dim
    }

    fn head_elements(&self) -> usize {
        self.key_elements() + BLOCK * self.value_stride()
    }

    fn block_elements(&self) -> usize {
        self.shape.layers * self.shape.kv_heads * self.head_elements()
    }

    fn head_at(&self, layer: usize, head: usize) -> usize {
        (layer * self.shape.kv_heads + head) * self.head_elements()
    }

    fn block_bytes(&self) -> u64 {
        (self.block_elements() * if self.is_wide { 4 } else { 2 }) as u64
    }
}

/// A block's memory.
#[derive(Debug, Clone)]
pub enum Block {
    /// Half precision.
    F16(Box<[u16]>),
    /// As computed.
    F32(Box<[f32]>),
}

impl Block {
    fn new(layout: &Layout) -> Self {
        let elements = layout.block_elements();
        match layout.is_wide {
            false => Block::F16(vec![0; elements].into()),
            true => Block::F32(vec![0.0; elements].into()),
        }
    }

    fn cells(&self, from: usize, count: usize) -> Cells<'_> {
        match self {
            Block::F16(cells) => Cells::F16(&cells[from..from + count]),
            Block::F32(cells) => Cells::F32(&cells[from..from + count]),
        }
    }

    /// Writes `values` to `at`, `at + stride`, ...
    fn write(&mut self, at: usize, stride: usize, values: &[f32]) {
        match self {
            Block::F16(cells) => {
                for (cell, value) in cells[at..].iter_mut().step_by(stride).zip(values) {
                    *cell = f16::from_f32(value.clamp(-65_504.0, 65_504.0)).to_bits();
                }
            }
            Block::F32(cells) => {
                for (cell, value) in cells[at..].iter_mut().step_by(stride).zip(values) {
                    *cell = *value;
                }
            }
        }
    }
}

/// Blocks on the heap; those that nobody holds wait for the next session, zeroed pages and all.
#[derive(Debug)]
pub struct Heap {
    layout: Layout,
    spare: Vec<Block>,
}

impl Heap {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, spare: Vec::new() }
    }
}

impl Store for Heap {
    type Block = Block;

    fn block_bytes(&self) -> u64 {
        self.layout.block_bytes()
    }

    fn take(&mut self) -> Result<Block, EngineError> {
        Ok(self.spare.pop().unwrap_or_else(|| Block::new(&self.layout)))
    }

    fn copy(&mut self, from: &Block, to: &mut Block) -> Result<(), EngineError> {
        match (to, from) {
            (Block::F16(to), Block::F16(from)) => to.copy_from_slice(from),
            (Block::F32(to), Block::F32(from)) => to.copy_from_slice(from),
            _ => unreachable!("a cache's blocks are of one kind"),
        }
        Ok(())
    }

    fn give(&mut self, block: Block) {
        self.spare.push(block);
    }

    fn trim(&mut self) {
        self.spare.clear();
    }
}

impl KvCache<Heap> {
    /// Writes keys and values (`[kv_heads][head_dim]`) of one position, for which room was made.
    pub(super) fn write(
        &mut self,
        session: SessionId,
        position: usize,
        layer: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let layout = self.store.layout;
        let block = self.own(session, position);
        let (head_dim, place) = (layout.shape.head_dim, position % BLOCK);
        for head in 0..layout.shape.kv_heads {
            let elements = head * head_dim..(head + 1) * head_dim;
            let at = layout.head_at(layer, head);
            let tile = at + place / LANES * (LANES * head_dim);
            block.write(tile + place % LANES, LANES, &key[elements.clone()]);
            let row = at + layout.key_elements() + place * layout.value_stride();
            block.write(row, 1, &value[elements]);
        }
    }

    /// The session's blocks of one layer and head.
    pub(super) fn view(&self, session: SessionId, layer: usize, head: usize) -> View<'_> {
        let layout = &self.store.layout;
        View { blocks: self.blocks(session), layout, at: layout.head_at(layer, head) }
    }
}

/// Keys and values of one session, layer and head.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    blocks: &'a [Arc<Block>],
    layout: &'a Layout,
    at: usize,
}

impl<'a> View<'a> {
    /// Keys of the tiles `tiles` of a block, as columns.
    pub(super) fn keys(&self, block: usize, tiles: std::ops::Range<usize>) -> Panel<'a> {
        let head_dim = self.layout.shape.head_dim;
        let tile_stride = LANES * head_dim;
        let at = self.at + tiles.start * tile_stride;
        Panel {
            cells: self.blocks[block].cells(at, tiles.len() * tile_stride),
            depth: head_dim,
            row_stride: LANES,
            tiles: tiles.len(),
            tile_stride,
        }
    }

    /// Values of the positions `places` of a block, as rows.
    pub(super) fn values(&self, block: usize, places: std::ops::Range<usize>) -> Panel<'a> {
        let row_stride = self.layout.value_stride();
        let at = self.at + self.layout.key_elements() + places.start * row_stride;
        Panel {
            cells: self.blocks[block].cells(at, places.len() * row_stride),
            depth: places.len(),
            row_stride,
            tiles: row_stride / LANES,
            tile_stride: LANES,
        }
    }
}
