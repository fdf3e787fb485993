//! The KV cache: blocks of positions, each with all layers of the range, which sessions gather as they grow.
//!
//! A block never moves and is never copied for growth. Sessions with a common prefix share its blocks; who writes into a
//! shared one gets a copy first. Blocks that nobody holds wait for the next session, zeroed pages and all.
//!
//! Within a block keys lie transposed, in tiles `[head_dim][16 positions]`, and values as `[position][head_dim]`, so
//! that both products of attention read straight ahead (see [`multiply`](crate::real::kernels::attention::multiply)).

use std::collections::BTreeMap;
use std::sync::Arc;

use half::f16;

use crate::engine::EngineError;
use crate::ids::SessionId;
use crate::real::kernels::attention::{Cells, Panel};
use crate::real::kernels::lanes::LANES;

/// Positions of a block.
pub(super) const BLOCK: usize = 64;

/// What a cache is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct KvShape {
    pub(super) layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// f32 instead of f16.
    pub(super) is_wide: bool,
}

impl KvShape {
    /// Elements of a value's row, a whole number of vectors.
    fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn key_elements(&self) -> usize {
        BLOCK * self.head_dim
    }

    fn head_elements(&self) -> usize {
        self.key_elements() + BLOCK * self.value_stride()
    }

    fn block_elements(&self) -> usize {
        self.layers * self.kv_heads * self.head_elements()
    }

    /// Memory of a block.
    pub(super) fn block_bytes(&self) -> u64 {
        (self.block_elements() * if self.is_wide { 4 } else { 2 }) as u64
    }
}

#[derive(Debug, Clone)]
enum Block {
    F16(Box<[u16]>),
    F32(Box<[f32]>),
}

impl Block {
    fn new(shape: &KvShape) -> Self {
        let elements = shape.block_elements();
        match shape.is_wide {
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

    fn copy_from(&mut self, other: &Block) {
        match (self, other) {
            (Block::F16(to), Block::F16(from)) => to.copy_from_slice(from),
            (Block::F32(to), Block::F32(from)) => to.copy_from_slice(from),
            _ => unreachable!("a cache's blocks are of one kind"),
        }
    }
}

/// One session's positions.
#[derive(Debug, Default)]
pub(super) struct Context {
    blocks: Vec<Arc<Block>>,
    len: usize,
}

/// Keys and values of all sessions.
#[derive(Debug)]
pub(super) struct KvCache {
    shape: KvShape,
    sessions: BTreeMap<SessionId, Context>,
    spare: Vec<Arc<Block>>,
    /// Blocks that sessions hold, shared ones counted once.
    used: usize,
    blocks_max: usize,
    context_max: usize,
}

impl KvCache {
    /// A cache that takes up to `bytes_max`, at least one block, and sessions of up to `context_max` positions.
    pub(super) fn new(shape: KvShape, bytes_max: u64, context_max: usize) -> Self {
        let blocks_max = (bytes_max / shape.block_bytes().max(1)).max(1) as usize;
        Self { shape, sessions: BTreeMap::new(), spare: Vec::new(), used: 0, blocks_max, context_max }
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    pub(super) fn len(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |context| context.len)
    }

    /// Memory that sessions hold.
    pub(super) fn bytes(&self) -> u64 {
        self.used as u64 * self.shape.block_bytes()
    }

    /// Makes room for `count` positions after the session's last, which are its own to write then.
    ///
    /// # Errors
    /// [`EngineError::NoRoom`]; the session is as it was then.
    pub(super) fn grow(&mut self, session: SessionId, count: usize) -> Result<(), EngineError> {
        let (held, is_shared) = match self.sessions.get_mut(&session) {
            None => (0, false),
            Some(context) => {
                let first = context.len / BLOCK;
                let is_shared =
                    context.blocks.get_mut(first).is_some_and(|block| Arc::get_mut(block).is_none());
                (context.len, is_shared)
            }
        };
        let end =
            held.checked_add(count).filter(|end| *end <= self.context_max).ok_or(EngineError::NoRoom)?;
        let (have, need) = (held.div_ceil(BLOCK), end.div_ceil(BLOCK));
        if self.used + (need - have) + usize::from(is_shared) > self.blocks_max {
            return Err(EngineError::NoRoom);
        }
        if is_shared {
            self.unshare(session, held / BLOCK);
        }
        for _ in have..need {
            let block = self.take();
            self.sessions.entry(session).or_default().blocks.push(block);
        }
        self.sessions.entry(session).or_default().len = end;
        Ok(())
    }

    fn take(&mut self) -> Arc<Block> {
        self.used += 1;
        self.spare.pop().unwrap_or_else(|| Arc::new(Block::new(&self.shape)))
    }

    /// Gives the session a copy of its own of a block that it shares.
    fn unshare(&mut self, session: SessionId, index: usize) {
        let mut own = self.take();
        if let Some(slot) = self.sessions.get_mut(&session).and_then(|context| context.blocks.get_mut(index))
        {
            let copy = Arc::get_mut(&mut own).expect("a block that was just taken is nobody else's");
            copy.copy_from(slot);
            *slot = own;
        }
    }

    /// Forgets positions from `len` on; a session without any is forgotten.
    pub(super) fn truncate(&mut self, session: SessionId, len: usize) {
        let Some(context) = self.sessions.get_mut(&session) else { return };
        context.len = context.len.min(len);
        let kept = context.len.div_ceil(BLOCK);
        let gone = context.blocks.split_off(kept.min(context.blocks.len()));
        if context.len == 0 {
            self.sessions.remove(&session);
        }
        for mut block in gone {
            if Arc::get_mut(&mut block).is_some() {
                self.used -= 1;
                self.spare.push(block);
            }
        }
    }

    pub(super) fn release(&mut self, session: SessionId) {
        self.truncate(session, 0);
    }

    /// Lets `to` begin with the first `len` positions of `from`, sharing its blocks. Gives how many those are.
    pub(super) fn fork(&mut self, from: SessionId, to: SessionId, len: usize) -> usize {
        self.release(to);
        let Some(source) = self.sessions.get(&from) else { return 0 };
        let len = len.min(source.len);
        if len > 0 {
            let blocks = source.blocks[..len.div_ceil(BLOCK)].to_vec();
            self.sessions.insert(to, Context { blocks, len });
        }
        len
    }

    /// Gives blocks that nobody holds back to the system.
    pub(super) fn trim(&mut self) {
        self.spare.clear();
    }

    /// Writes keys and values (`[kv_heads][head_dim]`) of one position, for which room was made.
    pub(super) fn write(
        &mut self,
        session: SessionId,
        position: usize,
        layer: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let shape = self.shape;
        let context = self.sessions.get_mut(&session).expect("room was made for the session");
        let block =
            Arc::get_mut(&mut context.blocks[position / BLOCK]).expect("room was made of the session's own");
        let place = position % BLOCK;
        for head in 0..shape.kv_heads {
            let elements = head * shape.head_dim..(head + 1) * shape.head_dim;
            let at = shape.head_at(layer, head);
            let tile = at + place / LANES * (LANES * shape.head_dim);
            block.write(tile + place % LANES, LANES, &key[elements.clone()]);
            let row = at + shape.key_elements() + place * shape.value_stride();
            block.write(row, 1, &value[elements]);
        }
    }

    /// The session's blocks of one layer and head.
    pub(super) fn view(&self, session: SessionId, layer: usize, head: usize) -> View<'_> {
        let blocks = self.sessions.get(&session).map_or(&[][..], |context| &context.blocks);
        View { blocks, shape: &self.shape, at: self.shape.head_at(layer, head) }
    }
}

impl KvShape {
    fn head_at(&self, layer: usize, head: usize) -> usize {
        (layer * self.kv_heads + head) * self.head_elements()
    }
}

/// Keys and values of one session, layer and head.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    blocks: &'a [Arc<Block>],
    shape: &'a KvShape,
    at: usize,
}

impl<'a> View<'a> {
    /// Keys of the tiles `tiles` of a block, as columns.
    pub(super) fn keys(&self, block: usize, tiles: std::ops::Range<usize>) -> Panel<'a> {
        let tile_stride = LANES * self.shape.head_dim;
        let at = self.at + tiles.start * tile_stride;
        Panel {
            cells: self.blocks[block].cells(at, tiles.len() * tile_stride),
            depth: self.shape.head_dim,
            row_stride: LANES,
            tiles: tiles.len(),
            tile_stride,
        }
    }

    /// Values of the positions `places` of a block, as rows.
    pub(super) fn values(&self, block: usize, places: std::ops::Range<usize>) -> Panel<'a> {
        let row_stride = self.shape.value_stride();
        let at = self.at + self.shape.key_elements() + places.start * row_stride;
        Panel {
            cells: self.blocks[block].cells(at, places.len() * row_stride),
            depth: places.len(),
            row_stride,
            tiles: row_stride / LANES,
            tile_stride: LANES,
        }
    }
}
