//! Everybody has what each has said, but for the last seconds.

use node::membership::Topic;

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    if world.is_split() {
        return Vec::new();
    }
    let owners: Vec<_> = world.living().map(|(i, owner)| (i, owner.me())).collect();
    let mut found = Vec::new();
    for (i, process) in world.honest() {
        for (number, owner) in &owners {
            for topic in Topic::ALL {
                let Some(said) = world.said.get(&(*number, topic as usize)) else { continue };
                let known = process.known(*owner, topic).map(|known| known.item.version);
                if known.is_none_or(|known| known < *said) {
                    found.push(format!(
                        "member {i} has {known:?} of {owner:?} ({topic:?}), which has said {said:?}"
                    ));
                }
            }
        }
    }
    found
}
