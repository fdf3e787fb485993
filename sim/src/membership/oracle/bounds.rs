//! Packets, rates and tables kept their bounds.

use node::membership::{BODY_MAX, Config};

use crate::membership::world::World;

/// What a packet has beside an item that travels alone.
const OVERHEAD: usize = 512;

pub(super) fn check(world: &World) -> Vec<String> {
    let config = Config::default();
    let members = world.members.len();
    let mut found = Vec::new();
    for (i, member) in world.members.iter().enumerate() {
        let size = member.largest;
        let mut above = |what: &str, value: usize, most: usize| {
            if value > most {
                found.push(format!("member {i} had {value} {what}, at most {most} are allowed"));
            }
        };
        above("bytes in a packet", member.longest_packet, config.packet_bytes.max(BODY_MAX) + OVERHEAD);
        above("bytes in a second", member.peak_bytes_per_s as usize, world.spec.promise.bytes_per_s as usize);
        above("members", size.members, members);
        above("rumours", size.rumours, 3 * members);
        above("timers", size.tasks, 64 + 8 * members);
        above("links", size.links, 256);
    }
    let (rest, promised) = (world.outcome().rest_bytes_per_s, world.spec.promise.rest_bytes_per_s);
    if promised > 0.0 && rest > promised {
        found.push(format!("at rest a member sends {rest:.0} bytes per second, {promised:.0} are promised"));
    }
    found
}
