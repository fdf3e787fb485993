//! Nobody is taken for dead who lives, can be heard, and was not struck by a fault, nor lately: looked at when each was.

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    world.mourned.clone()
}
