//! Everybody has everybody who is there.

use std::collections::BTreeSet;

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    if world.is_split() {
        return Vec::new();
    }
    let living: BTreeSet<u32> = world.living().map(|(i, _)| i).collect();
    let mut found = Vec::new();
    for (i, process) in world.honest() {
        let has: BTreeSet<u32> = process.members().map(|peer| peer.index()).collect();
        found.extend(
            living.difference(&has).map(|other| format!("member {i} does not have {other}, which is there")),
        );
    }
    found
}
