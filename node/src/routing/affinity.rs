//! Where sessions and the beginnings of prompts went before: what an entry node itself remembers, and never tells.

use std::collections::BTreeMap;

use crate::ids::PeerId;
use crate::membership::mix;

/// Sessions and beginnings that are remembered; the ones used longest ago are forgotten.
const KEPT_MAX: usize = 8_192;
/// Tokens between two places of a prompt at which its beginning is remembered.
pub const STRIDE: usize = 128;
/// Beginnings of one prompt that are remembered: up to 4,096 tokens.
const BEGINNINGS_MAX: usize = 32;

/// What was where.
#[derive(Debug, Clone, Default)]
pub struct Affinity {
    sessions: Kept,
    beginnings: Kept,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    of: BTreeMap<u64, (PeerId, u64)>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

impl Kept {
    fn note(&mut self, key: u64, peer: PeerId) {
        self.uses += 1;
        if let Some((_, before)) = self.of.insert(key, (peer, self.uses)) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.uses, key);
        while self.of.len() > KEPT_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.of.remove(&oldest);
        }
    }

    fn get(&self, key: u64) -> Option<PeerId> {
        self.of.get(&key).map(|(peer, _)| *peer)
    }
}

impl Affinity {
    /// `peer` answers a request of this session, with this prompt.
    pub fn note(&mut self, session: Option<u64>, prompt: &[u32], peer: PeerId) {
        if let Some(session) = session {
            self.sessions.note(session, peer);
        }
        for (_, key) in beginnings(prompt) {
            self.beginnings.note(key, peer);
        }
    }

    /// Where the session's last request was answered.
    pub fn sticky(&self, session: u64) -> Option<PeerId> {
        self.sessions.get(session)
    }

    /// Hosts that have computed a beginning of this prompt, and how many tokens of it, the longest first.
    pub fn prefixes(&self, prompt: &[u32]) -> Vec<(PeerId, u32)> {
        let mut longest: BTreeMap<PeerId, u32> = BTreeMap::new();
        for (tokens, key) in beginnings(prompt) {
            if let Some(peer) = self.beginnings.get(key) {
                longest.insert(peer, tokens);
            }
        }
        let mut found: Vec<(PeerId, u32)> = longest.into_iter().collect();
        found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        found
    }
}

/// Lengths of a prompt's beginnings, and a number for each.
fn beginnings(prompt: &[u32]) -> impl Iterator<Item = (u32, u64)> {
    let mut hash = 0u64;
    prompt.chunks_exact(STRIDE).take(BEGINNINGS_MAX).enumerate().map(move |(i, chunk)| {
        hash = chunk.iter().fold(hash, |hash, token| mix(hash.rotate_left(5) ^ u64::from(*token)));
        (((i + 1) * STRIDE) as u32, hash)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_is_found_and_another_prompt_is_not() {
        let mut affinity = Affinity::default();
        let prompt: Vec<u32> = (0..1_000).collect();
        affinity.note(Some(7), &prompt, PeerId::from_index(1));
        affinity.note(None, &prompt[..300], PeerId::from_index(2));
        let mut longer = prompt[..600].to_vec();
        longer.extend([9; 400]);
        let found = affinity.prefixes(&longer);
        assert_eq!(found, [(PeerId::from_index(1), 512), (PeerId::from_index(2), 256)]);
        assert_eq!(affinity.sticky(7), Some(PeerId::from_index(1)));
        assert!(affinity.prefixes(&[5; 1_000]).is_empty() && affinity.sticky(8).is_none());
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let mut affinity = Affinity::default();
        for session in 0..2 * KEPT_MAX as u64 {
            affinity.note(Some(session), &[], PeerId::from_index(3));
            affinity.note(Some(0), &[], PeerId::from_index(4));
        }
        assert!(affinity.sessions.of.len() <= KEPT_MAX && affinity.sessions.by_use.len() <= KEPT_MAX);
        assert_eq!((affinity.sticky(0), affinity.sticky(1)), (Some(PeerId::from_index(4)), None));
    }
}
