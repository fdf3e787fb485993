//! Every request has its answer in time, whoever died meanwhile.

use super::Serving;
use crate::membership::world::World;

pub(super) fn check(world: &World, serving: &Serving) -> Vec<String> {
    let most = serving.spec.promise.answer_s;
    let outcome = super::served(serving, world);
    let mut found = Vec::new();
    for (id, request) in &serving.requests {
        let age_s = world.now_ns.saturating_sub(request.born_ns) as f64 / 1e9;
        if age_s > most || request.is_forgotten {
            let model = request.model;
            found.push(format!("request {id} for model {model} has waited {age_s:.0} s"));
        }
    }
    if outcome.answer_s.longest > most {
        found.push(format!("an answer took {:.0} s", outcome.answer_s.longest));
    }
    if outcome.requests != outcome.answered + serving.requests.len() as u64 + serving.book.unknown {
        found.push(format!("{} requests, {} answers", outcome.requests, outcome.answered));
    }
    if serving.book.unknown > 0 {
        found.push(format!("{} requests were for models that nobody was said to have", serving.book.unknown));
    }
    found
}
