//! Signatures for a simulation: cheap, deterministic, and impossible to make without the owner's secret, which nobody but
//! its own [`Keys`] uses. Members of one simulation share the items they believe, so that thousands fit into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::PeerId;
use node::membership::{Item, ItemError, Known, Topic, Trust, Version};

use crate::seed::{Seed, mix};

/// Whose item, of what, which.
pub(super) type Name = (PeerId, Topic, Version);

/// What all members of a simulation share.
#[derive(Debug, Default)]
pub(super) struct Vault {
    /// Every item that was opened, once.
    opened: BTreeMap<Name, Vec<Arc<Known>>>,
    /// What owners have really signed: the digest of the message.
    signed: BTreeSet<u64>,
    /// A broken variant: every signature is believed.
    pub(super) is_blind: bool,
}

impl Vault {
    /// Whether its owner has signed this.
    pub(super) fn is_genuine(&self, item: &Item) -> bool {
        self.signed.contains(&digest(&item.message()))
    }

    /// Everything that was ever believed, in order.
    pub(super) fn items(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.opened.values().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.opened.len()
    }
}

/// The vault in many hands.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Vault>>);

impl Shared {
    pub(super) fn new(vault: Vault) -> Self {
        Self(Arc::new(Mutex::new(vault)))
    }

    pub(super) fn look(&self) -> MutexGuard<'_, Vault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of one member.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) me: PeerId,
    pub(super) secrets: Seed,
    pub(super) vault: Shared,
}

impl Keys {
    fn signature(&self, by: PeerId, message: &[u8]) -> [u8; 64] {
        let secret = self.secrets.fork_index(u64::from(by.index())).value();
        let mut word = digest(message) ^ secret;
        let mut signature = [0; 64];
        for place in signature.chunks_exact_mut(8) {
            word = mix(word.wrapping_add(secret));
            place.copy_from_slice(&word.to_be_bytes());
        }
        signature
    }
}

fn digest(message: &[u8]) -> u64 {
    message.chunks(8).fold(message.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash.rotate_left(5) ^ u64::from_be_bytes(word))
    })
}

impl Trust for Keys {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.vault.look().signed.insert(digest(message));
        self.signature(self.me, message)
    }

    fn is_signed(&self, by: PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        self.vault.look().is_blind || self.signature(by, message) == *signature
    }

    fn open(&self, item: Item) -> Result<Arc<Known>, ItemError> {
        let name = (item.owner, item.topic, item.version);
        let shared = self
            .vault
            .look()
            .opened
            .get(&name)
            .and_then(|known| known.iter().find(|k| k.item == item).cloned());
        if let Some(known) = shared {
            return Ok(known);
        }
        if !self.is_signed(item.owner, &item.message(), &item.signature) {
            return Err(ItemError::Signature);
        }
        let content = item.read()?;
        let known = Arc::new(Known { item, content });
        self.vault.look().opened.entry(name).or_default().push(Arc::clone(&known));
        Ok(known)
    }
}
