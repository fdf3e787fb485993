//! Machines do not take up and give up models over and over. Who crashes has nothing afterwards, and may begin anew.

use std::collections::BTreeMap;

use super::Serving;
use crate::membership::world::World;

/// The most that one process may do in a minute: give up two and take up two.
const MOST: usize = 4;
const MINUTE_NS: u64 = 60_000_000_000;

pub(super) fn check(world: &World, serving: &Serving) -> Vec<String> {
    let mut by_process: BTreeMap<(u32, u64), Vec<u64>> = BTreeMap::new();
    for (at_ns, process) in &serving.book.moves {
        by_process.entry(*process).or_default().push(*at_ns);
    }
    let mut found = Vec::new();
    for ((machine, _), moves) in &by_process {
        let windows = moves
            .iter()
            .enumerate()
            .map(|(i, from)| moves[i..].iter().take_while(|at| **at < from + MINUTE_NS).count());
        let most = windows.max().unwrap_or(0);
        if most > MOST {
            found.push(format!("machine {machine} took up or gave up {most} models within a minute"));
        }
    }
    let minutes = (super::seconds(world) / 60.0).max(1.0);
    let mean = serving.book.moves.len() as f64 / minutes / world.members.len() as f64;
    if mean > serving.spec.promise.moves_per_minute {
        found.push(format!("{mean:.2} models a minute and machine were taken up or given up"));
    }
    found
}
