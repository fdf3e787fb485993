//! What a long prompt costs those who are served beside it.

use std::sync::Arc;

use node::engine::Sampling;
use node::ids::Token;
use planner::cost::predict::Load;
use planner::fleet::Fleet;
use sim::engine::reference_tokens;

use crate::asking::{ASKED, Asking};
use crate::fixture;
use crate::ring::{LAYERS, Ring, emitted, prompt};

/// Asks for 40 tokens after each of prompts of these lengths, all at once. Gives, for the last one, when its tokens
/// came, nanoseconds since it was asked for.
fn last_of(world: &str, fleet: &Fleet, lengths: &[usize]) -> Vec<u64> {
    let model = Arc::new(fixture::model(LAYERS));
    let prompts: Vec<Vec<Token>> =
        lengths.iter().enumerate().map(|(index, length)| prompt(index as u64, *length)).collect();
    let requests = prompts.iter().map(|prompt| (prompt.clone(), Sampling::GREEDY)).collect();
    let load = Load { prompt: 100, context: 200, concurrency: 1, head: None };
    let asking = Asking::new(fleet, Arc::clone(&model), load, requests, 40, &[]);
    let (recorder, answers) = asking.run(world, &Ring(asking.clone()), (0.0, 0.0));
    for (prompt, answer) in prompts.iter().zip(answers) {
        let answer: Vec<Token> = answer.into_iter().map(|(token, _)| token).collect();
        assert_eq!(answer, reference_tokens(&model, &Sampling::GREEDY, prompt, 40), "{world}");
    }
    let ledger = recorder.ledger();
    emitted(&ledger, prompts.len() as u64 - 1).into_iter().map(|at| at - ASKED.0).collect()
}

/// The longest pause between two tokens.
fn longest_pause(at: &[u64]) -> u64 {
    at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

#[test]
fn a_short_prompt_beside_a_long_one_has_its_first_token_in_twice_its_own_time() {
    for fleet in [fixture::lan(1), fixture::lan(2), fixture::lan(4)] {
        for world in ["memory", "turmoil"] {
            let alone = last_of(world, &fleet, &[30]);
            let beside = last_of(world, &fleet, &[900, 30]);
            let name = format!("{world}, {} nodes", fleet.nodes.len());
            println!(
                "{name}: first token after {} us alone, {} us beside",
                alone[0] / 1000,
                beside[0] / 1000
            );
            assert!(beside[0] <= 2 * alone[0], "{name}: {} us and {} us", alone[0] / 1000, beside[0] / 1000);
            let (chunk, beside) = (last_of(world, &fleet, &[512])[0], longest_pause(&beside));
            println!("{name}: longest pause {} us, a chunk takes {} us", beside / 1000, chunk / 1000);
            assert!(beside <= chunk / 3, "{name}: {} us of {} us", beside / 1000, chunk / 1000);
        }
    }
}
