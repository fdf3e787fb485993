//! From logits to a token.
//!
//! A draw uses one number that is a hash of seed and position, so it is the same on whatever machine the last stage runs
//! and however often a step is replayed. Candidates stand in the order of their logits, equal ones by their ids.

use std::cmp::Ordering;

use super::kernels::Level;
use super::kernels::elementwise::{self, exp};
use crate::engine::{Chances, Penalties, Rules, Sampled, Sampling};
use crate::ids::Token;

/// Candidates that are sorted at once while nucleus sampling looks for its share.
const NUCLEUS_FIRST: usize = 256;

/// Chooses the token at `position` from its logits, which are changed on the way. `past` holds the tokens before it, as
/// far back as [`Sampling::window`] asks. Logits that are not numbers count as the least.
pub fn sample(logits: &mut [f32], sampling: &Sampling, position: u32, past: &[Token]) -> Sampled {
    elementwise::tame(Level::best(), logits);
    let Some(rules) = sampling.rules.as_deref() else {
        return choose(logits, sampling, &Rules::default(), position).into();
    };
    let told = rules.chances.map(|count| (log_sum(logits), top(logits, usize::from(count))));
    let before = told.is_some().then(|| logits.to_vec());
    shape(logits, rules, past);
    let token = choose(logits, sampling, rules, position);
    let chances = told.zip(before).map(|((log_sum, top), before)| {
        let of = |token: Token| before[token.0 as usize] - log_sum;
        Box::new(Chances {
            chosen: of(token),
            top: top.into_iter().map(|token| (token, of(token))).collect(),
        })
    });
    Sampled { token, chances }
}

/// The logarithm of the sum of the logits' exponentials.
fn log_sum(logits: &[f32]) -> f32 {
    let greatest = greatest(logits);
    let sum: f64 = logits.iter().map(|logit| f64::from(exp(logit - greatest))).sum();
    greatest + sum.ln() as f32
}

fn greatest(logits: &[f32]) -> f32 {
    elementwise::greatest(Level::best(), logits)
}

/// The likeliest first, of equals the lower id.
fn by_logit(logits: &[f32]) -> impl Fn(&u32, &u32) -> Ordering + '_ {
    |a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
}

/// The `count` likeliest, in order.
fn top(logits: &[f32], count: usize) -> Vec<Token> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    keep_likeliest(&mut ids, count, logits);
    ids.into_iter().map(Token).collect()
}

/// Cuts `ids` down to its `count` likeliest, in order.
fn keep_likeliest(ids: &mut Vec<u32>, count: usize, logits: &[f32]) {
    if count == 0 {
        return ids.clear();
    }
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, by_logit(logits));
        ids.truncate(count);
    }
    ids.sort_unstable_by(by_logit(logits));
}

/// Biases and penalties.
fn shape(logits: &mut [f32], rules: &Rules, past: &[Token]) {
    for (token, bias) in &rules.biases {
        if let Some(logit) = logits.get_mut(token.0 as usize) {
            *logit += bias;
        }
    }
    if let Some(penalties) = &rules.penalties {
        penalise(logits, penalties, past);
    }
}

/// As `llama_sampler_penalties_apply` in llama.cpp's `src/llama-sampling.cpp`.
fn penalise(logits: &mut [f32], penalties: &Penalties, past: &[Token]) {
    let window = past.len().min(penalties.window as usize);
    let mut seen: Vec<u32> = past[past.len() - window..].iter().map(|token| token.0).collect();
    seen.sort_unstable();
    for same in seen.chunk_by(|a, b| a == b) {
        let Some(logit) = logits.get_mut(same[0] as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / penalties.repeat } else { *logit * penalties.repeat };
        *logit -= same.len() as f32 * penalties.frequency + penalties.presence;
    }
}

fn choose(logits: &[f32], sampling: &Sampling, rules: &Rules, position: u32) -> Token {
    if sampling.temperature == 0.0 {
        return likeliest(logits);
    }
    let greatest = greatest(logits);
    if greatest == f32::NEG_INFINITY {
        return Token(0);
    }
    let ids = candidates(logits, greatest, rules);
    // The likeliest weighs 1, whatever the temperature.
    let weight = |id: &u32| f64::from(exp((logits[*id as usize] - greatest) / sampling.temperature));
    let whole: f64 = ids.iter().map(weight).sum();
    let mut left = uniform(sampling.seed, position) * whole;
    for id in &ids {
        left -= weight(id);
        if left < 0.0 {
            return Token(*id);
        }
    }
    ids.last().map_or(Token(0), |id| Token(*id))
}

fn likeliest(logits: &[f32]) -> Token {
    let greatest = greatest(logits);
    Token(logits.iter().position(|logit| *logit == greatest).unwrap_or(0) as u32)
}

/// Who may be drawn: top-k, then top-p, then min-p, each over what the one before has left.
fn candidates(logits: &[f32], greatest: f32, rules: &Rules) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if rules.top_k > 0 {
        keep_likeliest(&mut ids, rules.top_k as usize, logits);
    }
    if rules.top_p < 1.0 {
        keep_nucleus(&mut ids, rules.top_p, greatest, logits);
    }
    if rules.min_p > 0.0 {
        let least = greatest + rules.min_p.ln();
        ids.retain(|id| logits[*id as usize] >= least);
    }
    ids
}

/// The least number of likeliest candidates that have `share` of the probability together.
fn keep_nucleus(ids: &mut Vec<u32>, share: f32, greatest: f32, logits: &[f32]) {
    let weight = |id: &u32| f64::from(exp(logits[*id as usize] - greatest));
    let wanted = ids.iter().map(weight).sum::<f64>() * f64::from(share);
    let mut count = NUCLEUS_FIRST;
    loop {
        let mut some = ids.clone();
        keep_likeliest(&mut some, count, logits);
        let mut sum = 0.0;
        let reached = some.iter().position(|id| {
            sum += weight(id);
            sum >= wanted
        });
        if reached.is_some() || some.len() == ids.len() {
            some.truncate(reached.map_or(some.len(), |at| at + 1));
            *ids = some;
            return;
        }
        count *= 8;
    }
}

/// A number from 0 to 1, 1 excluded, that depends on nothing else. The hash is the finaliser of SplitMix64 (Steele, Lea,
/// Flood 2014), twice.
fn uniform(seed: u64, position: u32) -> f64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let place = (u64::from(position) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = mix(mix(seed.wrapping_add(place)) ^ seed);
    (word >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [0.5, 3.0, -1.0, 2.5, 3.0, f32::NAN];

    fn drawn(rules: Rules, temperature: f32) -> Vec<u32> {
        let sampling = Sampling::drawn(temperature, 11).with(rules);
        (0..4000).map(|position| sample(&mut LOGITS.clone(), &sampling, position, &[]).token.0).collect()
    }

    fn support(rules: Rules) -> Vec<u32> {
        let mut ids = drawn(rules, 1.0);
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_likeliest() {
        assert_eq!(sample(&mut LOGITS.clone(), &Sampling::GREEDY, 3, &[]).token, Token(1));
        assert_eq!(sample(&mut [f32::NAN; 4], &Sampling::GREEDY, 3, &[]).token, Token(0));
        assert_eq!(sample(&mut [f32::NAN; 4], &Sampling::drawn(1.0, 2), 3, &[]).token, Token(0));
    }

    #[test]
    fn rules_leave_the_candidates_they_should() {
        assert_eq!(support(Rules::default()), [0, 1, 2, 3, 4]);
        assert_eq!(support(Rules { top_k: 3, ..Rules::default() }), [1, 3, 4]);
        assert_eq!(support(Rules { top_k: 1, ..Rules::default() }), [1]);
        // The two likeliest have 0.74 of the probability.
        assert_eq!(support(Rules { top_p: 0.7, ..Rules::default() }), [1, 4]);
        assert_eq!(support(Rules { min_p: 0.5, ..Rules::default() }), [1, 3, 4]);
    }

    #[test]
    fn draws_are_as_frequent_as_they_are_likely() {
        let ids = drawn(Rules::default(), 2.0);
        let weights: Vec<f64> = LOGITS[..5].iter().map(|l| (f64::from(*l) / 2.0).exp()).collect();
        let whole: f64 = weights.iter().sum();
        for (id, weight) in weights.iter().enumerate() {
            let share = ids.iter().filter(|drawn| **drawn == id as u32).count() as f64 / ids.len() as f64;
            assert!((share - weight / whole).abs() < 0.03, "{id}: {share} for {}", weight / whole);
        }
    }

    #[test]
    fn penalties_and_biases_move_logits_as_llama_cpp_does() {
        let penalties = Penalties { window: 3, repeat: 2.0, presence: 0.25, frequency: 0.5 };
        let rules = Rules { penalties: Some(penalties), biases: vec![(Token(3), 1.0)], ..Rules::default() };
        let mut logits = LOGITS;
        let past = [0, 1, 2, 1].map(Token);
        shape(&mut logits, &rules, &past);
        assert_eq!(logits[..5], [0.5, 3.0 / 2.0 - 1.25, -2.0 - 0.75, 3.5, 3.0]);
    }

    #[test]
    fn chances_are_the_models_own() {
        let rules = Rules { chances: Some(2), biases: vec![(Token(2), 50.0)], ..Rules::default() };
        let sampled = sample(&mut LOGITS.clone(), &Sampling::GREEDY.with(rules), 0, &[]);
        let chances = sampled.chances.expect("chances were asked for");
        let sum: f64 = LOGITS[..5].iter().map(|l| f64::from(*l).exp()).sum();
        assert_eq!(sampled.token, Token(2));
        assert!((f64::from(chances.chosen) - (-1.0 - sum.ln())).abs() < 1e-5);
        assert_eq!(chances.top.iter().map(|(token, _)| token.0).collect::<Vec<_>>(), [1, 4]);
    }
}
