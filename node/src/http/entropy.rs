//! Names and seeds: drawn from the operating system, or made of what a client says.

use sha2::{Digest as _, Sha256};

use crate::ids::SessionId;

/// A number that nobody can guess.
pub(super) fn number() -> u64 {
    // Without the system's randomness names are still unique on this node: hash keys are drawn anew for each.
    getrandom::u64().unwrap_or_else(|_| {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one("number")
    })
}

/// A number that the same bytes always give, and that says nothing of them.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A name for a session, unique in any mesh: 64 random bits.
pub fn session() -> SessionId {
    SessionId(number())
}
