//! Everybody has what each said last.

use node::membership::Topic;

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    if world.is_split() {
        return Vec::new();
    }
    let owners: Vec<_> = world.living().collect();
    let mut found = Vec::new();
    for (i, process) in world.living() {
        for (_, owner) in &owners {
            for topic in Topic::ALL {
                let said = owner.known(owner.me(), topic).map(|known| known.item.version);
                let known = process.known(owner.me(), topic).map(|known| known.item.version);
                if said.is_some() && said != known {
                    let owner = owner.me();
                    found.push(format!("member {i} has {known:?} of {owner:?} ({topic:?}), which has said {said:?}"));
                }
            }
        }
    }
    found
}
