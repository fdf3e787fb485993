//! Nobody is found a liar who is honest, whatever happened to it and whatever liars did: looked at when each was.

use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    world.wronged.clone()
}
