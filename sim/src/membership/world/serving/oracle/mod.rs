//! What must hold of every mesh that serves, one invariant a file.
//!
//! * `served`: what is asked for and can be served is, soon.
//! * `single`: one machine comes forward for one need.
//! * `answered`: every request has its answer.
//! * `calm`: machines do not take up and give up models over and over.
//! * `queues`: nobody takes more than it may.
//! * `clients`: passive clients cost little.

mod answered;
mod calm;
mod clients;
mod queues;
mod served;
mod single;

use super::Serving;
use crate::membership::world::World;

/// What all of them find wrong.
pub(in crate::membership) fn violations(world: &World) -> Vec<String> {
    let Some(serving) = &world.serving else { return Vec::new() };
    let found = [
        ("served", served::check(world, serving)),
        ("single", single::check(serving)),
        ("answered", answered::check(world, serving)),
        ("calm", calm::check(world, serving)),
        ("queues", queues::check(serving)),
        ("clients", clients::check(world, serving)),
    ];
    let named = |(name, found): (&str, Vec<String>)| {
        found.into_iter().take(TOLD_MAX).map(|what| format!("{name}: {what}")).collect::<Vec<_>>()
    };
    found.into_iter().flat_map(named).collect()
}

/// Violations of one kind that are told.
const TOLD_MAX: usize = 5;

fn seconds(world: &World) -> f64 {
    world.spec.seconds
}

fn served(serving: &Serving, world: &World) -> crate::membership::serving::Served {
    serving.outcome(seconds(world))
}
