//! A model that is asked for, that nobody serves and somebody could, is being loaded soon, and served when it is loaded.

use super::Serving;
use crate::membership::world::World;

/// The longest that a load takes here; what is above that and the promise is no load.
const LOAD_S: f64 = 120.0;

pub(super) fn check(world: &World, serving: &Serving) -> Vec<String> {
    let promise = &serving.spec.promise;
    let outcome = super::served(serving, world);
    let mut found = Vec::new();
    let begun = outcome.begun_s;
    if begun.p99 > promise.begun_s {
        let (p99, most) = (begun.p99, promise.begun_s);
        found.push(format!("99 in 100 unserved models were loaded within {p99:.1} s, {most} s are promised"));
    }
    if begun.longest > promise.begun_most_s {
        found.push(format!("one was loaded after {:.1} s", begun.longest));
    }
    if outcome.served_s.longest > promise.begun_most_s + LOAD_S {
        found.push(format!("one was served after {:.1} s", outcome.served_s.longest));
    }
    for (model, page) in serving.book.pages.iter().enumerate() {
        let Some(gap) = page.gap else { continue };
        let age_s = world.now_ns.saturating_sub(gap.from_ns) as f64 / 1e9;
        if gap.begun_ns.is_none() && age_s > promise.begun_most_s {
            found.push(format!("nobody has served model {model} for {age_s:.0} s, though somebody could"));
        }
    }
    found
}
