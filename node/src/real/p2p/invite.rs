//! The secret of a mesh, and the token that invites to it.
//!
//! A mesh is a key: who has the secret half belongs to it and can invite others, who has the public half can recognise
//! it. A token carries the secret and where members listen: treat it like a password.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use super::identity::{Key, is_signed};
use crate::ids::PeerId;

/// What a token begins with.
pub const SCHEME: &str = "meshwright://";

/// Longest token that is looked at, bytes.
const TOKEN_MAX: usize = 4096;

/// Most addresses in a token.
pub(super) const ADDRESSES_MAX: usize = 16;

/// What a member signs is not taken for anything else it signs.
const PROOF_CONTEXT: &[u8] = b"meshwright member 1\0";

/// The secret of a mesh.
#[derive(Debug, Clone)]
pub struct MeshKey(Key);

impl MeshKey {
    /// The mesh of this key.
    pub fn new(key: Key) -> Self {
        Self(key)
    }

    /// Its public name.
    pub fn id(&self) -> PeerId {
        self.0.peer()
    }

    /// Its key, to be kept.
    pub fn key(&self) -> &Key {
        &self.0
    }

    /// Proves to `other` that `me` has the secret. Of no use to anybody else, nor to `other` towards a third.
    pub(super) fn proof(&self, me: PeerId, other: PeerId) -> Vec<u8> {
        self.0.signature(&challenge(me, other)).to_vec()
    }

    /// Whether `proof` shows to `me` that `other` has the secret.
    pub(super) fn is_proof(&self, other: PeerId, me: PeerId, proof: &[u8]) -> bool {
        is_signed(self.id(), &challenge(other, me), proof)
    }
}

fn challenge(from: PeerId, to: PeerId) -> Vec<u8> {
    [PROOF_CONTEXT, &from.0, &to.0].concat()
}

/// An invitation to a mesh.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The secret.
    pub mesh: MeshKey,
    /// Where members listen; at most 16 are kept.
    pub addresses: Vec<Multiaddr>,
}

/// Why a text is no invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It begins otherwise.
    #[error("an invite token begins with {SCHEME}")]
    Scheme,
    /// It is damaged.
    #[error("the invite token is damaged or cut short; copy all of it, from {SCHEME} to its end")]
    Damaged,
    /// Another version made it.
    #[error("the invite token is of a later version of this program; update it")]
    Version,
}

#[derive(Serialize, Deserialize)]
struct Written {
    secret: [u8; 32],
    addresses: Vec<Vec<u8>>,
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses.iter().take(ADDRESSES_MAX).map(Multiaddr::to_vec).collect();
        let written = Written { secret: self.mesh.key().seed(), addresses };
        let mut bytes = vec![1];
        bytes.extend(postcard::to_allocvec(&written).map_err(|_| fmt::Error)?);
        bytes.extend(checksum(&bytes));
        write!(f, "{SCHEME}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let code = text.trim().strip_prefix(SCHEME).ok_or(InviteError::Scheme)?;
        let damaged = InviteError::Damaged;
        if code.len() > TOKEN_MAX {
            return Err(damaged);
        }
        let bytes = BASE64URL_NOPAD.decode(code.as_bytes()).map_err(|_| damaged)?;
        let (said, sum) = bytes.split_at(bytes.len().saturating_sub(4));
        if sum != checksum(said) {
            return Err(damaged);
        }
        let (1, said) = said.split_first().map(|(version, rest)| (*version, rest)).ok_or(damaged)? else {
            return Err(InviteError::Version);
        };
        let (written, rest): (Written, _) = postcard::take_from_bytes(said).map_err(|_| damaged)?;
        if !rest.is_empty() || written.addresses.len() > ADDRESSES_MAX {
            return Err(damaged);
        }
        let addresses: Result<_, _> = written.addresses.into_iter().map(Multiaddr::try_from).collect();
        let mesh = MeshKey(Key::from_seed(written.secret));
        Ok(Self { mesh, addresses: addresses.map_err(|_| damaged)? })
    }
}

/// Finds typing errors; the secret needs no protection from its owner.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;

    fn invite() -> Invite {
        let addresses = ["/ip4/192.168.1.7/tcp/9338", "/ip6/fe80::1/udp/9338/quic-v1"];
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Invite { mesh: MeshKey(Key::from_seed([7; 32])), addresses }
    }

    #[test]
    fn a_token_says_what_it_was_made_of() {
        let token = invite().to_string();
        let read: Invite = format!(" {token}\n").parse().unwrap();
        assert_eq!((read.mesh.id(), read.addresses), (invite().mesh.id(), invite().addresses));
    }

    #[test]
    fn a_proof_convinces_only_whom_it_was_made_for() {
        let mesh = invite().mesh;
        let [a, b, c] = [1, 2, 3].map(|n| PeerId([n; 32]));
        let proof = mesh.proof(a, b);
        assert!(mesh.is_proof(a, b, &proof));
        assert!(!mesh.is_proof(b, a, &proof) && !mesh.is_proof(a, c, &proof) && !mesh.is_proof(c, b, &proof));
        assert!(!MeshKey(Key::generate()).is_proof(a, b, &proof));
        assert!(!mesh.is_proof(a, b, &[]));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(text in "\\PC{0,80}", code in "[A-Za-z0-9_-]{0,120}") {
            let _ = text.parse::<Invite>();
            let token = format!("{SCHEME}{code}");
            prop_assert!(token.parse::<Invite>().is_err());
        }

        #[test]
        fn a_changed_letter_is_noticed(place in 0usize..100, letter in "[A-Za-z0-9_-]") {
            let token = invite().to_string();
            let at = SCHEME.len() + place % (token.len() - SCHEME.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert!(changed == token || changed.parse::<Invite>().is_err());
        }
    }
}
