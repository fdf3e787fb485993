//! Names and seeds drawn from the operating system.

use crate::ids::SessionId;

/// A number that nobody can guess.
pub(super) fn number() -> u64 {
    // Without the system's randomness names are still unique on this node: hash keys are drawn anew for each.
    getrandom::u64().unwrap_or_else(|_| {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one("number")
    })
}

/// A name for a session, unique in any mesh: 64 random bits.
pub fn session() -> SessionId {
    SessionId(number())
}
