//! Everybody's demand map is near the truth, and who floods counts for no more than its ceiling. What a member that floods is
//! asked beside may drown in that.

use node::demand::CEILING_PER_S;

use crate::membership::liar::FLOODED;
use crate::membership::truth::name;
use crate::membership::world::World;

pub(super) fn check(world: &World) -> Vec<String> {
    let truth = world.truth.per_s(world.now_ns);
    let all: f64 = truth.values().map(|(_, all)| all).sum();
    let most = world.spec.promise.demand_percent / 100.0 * all;
    let mut found = Vec::new();
    if world.is_split() {
        return found;
    }
    for (i, process) in world.honest() {
        let map = process.demand(world.members[i as usize].clock.local(world.now_ns));
        for (model, (heard, true_per_s)) in &truth {
            let per_s = map.per_s(&name(*model));
            let off = (heard - per_s).max(per_s - true_per_s);
            if off > most {
                let percent = 100.0 * off / all;
                found.push(format!(
                    "member {i} has {per_s:.2} requests per second for model {model}, off by {percent:.0} % of all \
                     ({true_per_s:.2} of {all:.2} in truth)"
                ));
            }
        }
        let flooded = map.per_s(FLOODED);
        if flooded > CEILING_PER_S * f64::from(world.floods) * 1.001 {
            found.push(format!("member {i} has {flooded:.0} requests per second of {} floods", world.floods));
        }
    }
    found
}
