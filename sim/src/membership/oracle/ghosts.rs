//! Nobody has a member who is gone.

use std::collections::BTreeSet;

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    let living: BTreeSet<u32> = world.living().map(|(i, _)| i).collect();
    let mut found = Vec::new();
    for (i, process) in world.living() {
        let ghosts = process.members().filter(|peer| !living.contains(&peer.index()));
        found.extend(ghosts.map(|peer| format!("member {i} still has {peer:?}, which is gone")));
    }
    found
}
