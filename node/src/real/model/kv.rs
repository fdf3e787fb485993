//! The KV cache: blocks of positions, each with all layers of the range, which sessions gather as they grow.
//!
//! A block never moves and is never copied for growth. Sessions with a common prefix share its blocks; who writes into a
//! shared one gets a copy first. What a block is, and where blocks lie that nobody holds, is the device's to say
//! ([`Store`]); whose they are is said here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::EngineError;
use crate::ids::SessionId;

/// Positions of a block.
pub(in crate::real) const BLOCK: usize = 64;

/// What a cache is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvShape {
    /// Layers of the range.
    pub layers: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Where a device keeps blocks.
pub trait Store {
    /// Memory of [`BLOCK`] positions of all layers, or a handle to it.
    type Block;

    /// Memory of a block, bytes.
    fn block_bytes(&self) -> u64;

    /// A block that nobody holds, whatever is in it.
    ///
    /// # Errors
    /// The device has no memory for one more, or failed.
    fn take(&mut self) -> Result<Self::Block, EngineError>;

    /// Copies what is in a block.
    ///
    /// # Errors
    /// The device failed.
    fn copy(&mut self, from: &Self::Block, to: &mut Self::Block) -> Result<(), EngineError>;

    /// Takes a block back that nobody holds any more.
    fn give(&mut self, block: Self::Block);

    /// Gives memory of blocks that nobody holds back to the system.
    fn trim(&mut self) {}
}

/// One session's positions.
#[derive(Debug)]
struct Context<B> {
    blocks: Vec<Arc<B>>,
    len: usize,
}

impl<B> Default for Context<B> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

/// Keys and values of all sessions.
#[derive(Debug)]
pub struct KvCache<S: Store> {
    pub(in crate::real) store: S,
    sessions: BTreeMap<SessionId, Context<S::Block>>,
    /// Blocks that sessions hold, shared ones counted once.
    used: usize,
    blocks_max: usize,
    context_max: usize,
}

impl<S: Store> KvCache<S> {
    /// A cache that takes up to `blocks_max` blocks, and sessions of up to `context_max` positions.
    pub(in crate::real) fn new(store: S, blocks_max: usize, context_max: usize) -> Self {
        Self { store, sessions: BTreeMap::new(), used: 0, blocks_max, context_max }
    }

    /// How many blocks of `block_bytes` are in `bytes_max`: at least one.
    pub(in crate::real) fn blocks_in(bytes_max: u64, block_bytes: u64) -> usize {
        (bytes_max / block_bytes.max(1)).max(1) as usize
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    pub(super) fn len(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |context| context.len)
    }

    /// Memory that sessions hold.
    pub(super) fn bytes(&self) -> u64 {
        self.used as u64 * self.store.block_bytes()
    }

    /// Makes room for `count` positions after the session's last, which are its own to write then.
    ///
    /// # Errors
    /// [`EngineError::NoRoom`], or what the device says; the session is as it was then.
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
            self.unshare(session, held / BLOCK)?;
        }
        for _ in have..need {
            match self.take() {
                Ok(block) => self.sessions.entry(session).or_default().blocks.push(Arc::new(block)),
                Err(why) => {
                    self.truncate(session, held);
                    return Err(why);
                }
            }
        }
        self.sessions.entry(session).or_default().len = end;
        Ok(())
    }

    fn take(&mut self) -> Result<S::Block, EngineError> {
        let block = self.store.take()?;
        self.used += 1;
        Ok(block)
    }

    /// Gives the session a copy of its own of a block that it shares.
    fn unshare(&mut self, session: SessionId, index: usize) -> Result<(), EngineError> {
        let mut own = self.take()?;
        let slot = self.sessions.get_mut(&session).and_then(|context| context.blocks.get_mut(index));
        let slot = slot.expect("the caller has seen that the session shares this block");
        let copied = self.store.copy(slot, &mut own);
        if let Err(why) = copied {
            self.used -= 1;
            self.store.give(own);
            return Err(why);
        }
        *slot = Arc::new(own);
        Ok(())
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
        for block in gone.into_iter().filter_map(Arc::into_inner) {
            self.used -= 1;
            self.store.give(block);
        }
    }

    /// Lets `to` begin with the first `len` positions of `from`, sharing its blocks. Gives how many those are.
    pub(super) fn fork(&mut self, from: SessionId, to: SessionId, len: usize) -> usize {
        self.truncate(to, 0);
        let Some(source) = self.sessions.get(&from) else { return 0 };
        let len = len.min(source.len);
        if len > 0 {
            let blocks = source.blocks[..len.div_ceil(BLOCK)].to_vec();
            self.sessions.insert(to, Context { blocks, len });
        }
        len
    }

    /// The session's blocks, in the order of their positions.
    pub(in crate::real) fn blocks(&self, session: SessionId) -> &[Arc<S::Block>] {
        self.sessions.get(&session).map_or(&[], |context| &context.blocks)
    }

    /// The block of a position for which room was made, to write into.
    pub(in crate::real) fn own(&mut self, session: SessionId, position: usize) -> &mut S::Block {
        let context = self.sessions.get_mut(&session).expect("room was made for the session");
        Arc::get_mut(&mut context.blocks[position / BLOCK]).expect("room was made of the session's own")
    }
}
