//! Nobody ever believed a forged item, or an older one than before: looked at when each was believed.

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    world.broken.clone()
}
