//! For one need one machine comes forward: two may begin to load where they could not hear each other in time, and then
//! one of them stops. Members that have just begun do not know each other yet: of them it is asked only that one stops.

use super::Serving;

/// A claim that was lost is heard of again within this time, seconds.
const HEARD_S: f64 = 3.0;

pub(super) fn check(serving: &Serving) -> Vec<String> {
    let all = serving.book.doubles_s.iter().chain(&serving.book.doubles_of_new_s);
    let long = all.filter(|seconds| **seconds > HEARD_S);
    let mut found: Vec<String> = long.map(|s| format!("too many loaded one model for {s:.1} s")).collect();
    // A lost packet may do it now and then.
    let (doubles, loads) = (serving.book.doubles_s.len() as u64, serving.book.taken_up);
    if doubles > 1 + loads / 50 {
        found.push(format!("{doubles} times of {loads} too many loaded one model"));
    }
    found
}
