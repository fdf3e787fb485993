//! Nobody takes more requests than it may, and what is known of others is bounded by their number.

use super::Serving;

pub(super) fn check(serving: &Serving) -> Vec<String> {
    let mut found = Vec::new();
    let (longest, most) = (serving.book.longest_queue, serving.spec.queue as usize);
    if longest > most {
        found.push(format!("{longest} requests waited on one machine, {most} may"));
    }
    for (i, host) in serving.hosts.iter().enumerate() {
        let Some(host) = host else { continue };
        let (members, models) = host.assigner.size();
        if members > serving.machines.len() || models > serving.offers.len() + 1 {
            found.push(format!("member {i} knows {members} members and {models} models"));
        }
    }
    found
}
