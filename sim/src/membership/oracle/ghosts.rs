//! Nobody has a member who is gone. A liar that replays what a member said before it went may show it to others who never
//! knew it, for no longer than [`SHOWN_NS`].

use std::collections::BTreeSet;

use node::PeerId;

use crate::membership::world::World;

/// A member that was found later than this before the end is not judged.
const SHOWN_NS: u64 = 10_000_000_000;

pub(super) fn check(world: &World) -> Vec<String> {
    let living: BTreeSet<u32> = world.living().map(|(i, _)| i).collect();
    let mut found = Vec::new();
    for (i, process) in world.honest() {
        let is_new = |peer: &PeerId| {
            let found = world.members[i as usize].found.get(peer);
            found.is_some_and(|at| at + SHOWN_NS > world.now_ns)
        };
        let ghosts = process.members().filter(|peer| !living.contains(&peer.index()) && !is_new(peer));
        found.extend(ghosts.map(|peer| format!("member {i} still has {peer:?}, which is gone")));
    }
    found
}
