//! Passive clients cost the mesh little, and no member knows of them.

use super::Serving;
use crate::membership::world::World;

pub(super) fn check(world: &World, serving: &Serving) -> Vec<String> {
    let mut found = Vec::new();
    let bytes = super::served(serving, world).client_bytes_per_minute;
    let most = serving.spec.promise.client_bytes_per_minute;
    if serving.spec.clients > 0 && bytes > most {
        found.push(format!("a client costs {bytes:.0} bytes a minute, {most:.0} are promised"));
    }
    let members = world.members.len();
    for (i, process) in world.living() {
        let known = process.size().members;
        if known > members {
            found.push(format!("member {i} knows {known} members of {members}"));
        }
    }
    found
}
