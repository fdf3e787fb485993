//! Names of peers, sessions, tokens and plans.

use std::cmp::Reverse;

use planner::plan::Epoch;
use serde::{Deserialize, Serialize};

/// A node's lasting name: its public key in a real mesh, its index in a simulated one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// The name of the simulator's node number `index`.
    pub fn from_index(index: u32) -> Self {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&index.to_be_bytes());
        Self(bytes)
    }

    /// The number given to [`from_index`](Self::from_index).
    pub fn index(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl std::fmt::Debug for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0[4..].iter().all(|b| *b == 0) {
            return write!(f, "peer-{}", self.index());
        }
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// One request from start to end, unique in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A session's n-th try at running: each replay after a failure counts one up. Frames of lower ones are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Attempt(pub u32);

/// An index into the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u32);

/// Names one plan: what two nodes say of plans with equal names is said of the same plan.
///
/// The maker's life is part of it, because a planning node that restarts may have forgotten which epochs it has given
/// away. Greater names replace lesser ones: higher epochs do, of equal ones the lower maker's, of one maker its later
/// life's. The default is the name of no plan, and less than all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PlanId {
    /// Its number.
    pub epoch: Epoch,
    /// Who made it.
    pub maker: PeerId,
    /// The incarnation of its maker.
    pub life: u64,
}

impl Ord for PlanId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank = |id: &Self| (id.epoch, Reverse(id.maker), id.life);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for PlanId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
