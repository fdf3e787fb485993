//! What changes bits here, and what does not. A cut changes none: the same steps through any ranges of layers give the same
//! logits. What shares a step may change last bits, since libtorch's products choose how to add by the number of rows; so
//! batching and chunking are held to a tolerance, and to the same tokens in f32.

use node::engine::{Sampling, Want, WorkOut};
use node::real::gguf::random::Architecture;
use node::real::kernels::Precision;
use node::real::torch::{Residual, TorchOptions};
use planner::model::ggml::GgmlType;
use tests::chain::{Chain, Part, Stage, decode, prompt, values};
use tests::models::ARCHITECTURES;

use crate::{chain, made, options, worst};

/// Prompts of several sessions in chunks, side by side; then a token of each, some times. Logits at every position.
fn side_by_side<S: Stage>(chain: &mut Chain<S>, prompts: &[Vec<u32>], chunk: usize) -> Vec<Vec<f32>> {
    let mut logits = vec![Vec::new(); prompts.len()];
    let mut done = vec![0; prompts.len()];
    let mut turn = 0;
    while done.iter().zip(prompts).any(|(done, prompt)| *done < prompt.len()) {
        let mut parts = Vec::new();
        for (session, prompt) in prompts.iter().enumerate() {
            turn += 1;
            let count = if turn % 3 == 0 { 1 } else { chunk }.min(prompt.len() - done[session]);
            if count > 0 {
                let tokens = prompt[done[session]..done[session] + count].to_vec();
                let start = done[session] as u32;
                parts.push(Part { session: session as u64, start, tokens, want: Want::Logits });
                done[session] += count;
            }
        }
        for (part, out) in parts.iter().zip(chain.step(&parts)) {
            logits[part.session as usize].extend(values(out.unwrap()));
        }
    }
    logits
}

fn prompts() -> Vec<Vec<u32>> {
    [150, 3, 70, 64, 129].iter().enumerate().map(|(i, count)| prompt(i as u64, *count)).collect()
}

#[test]
fn no_cut_changes_a_bit() {
    for architecture in ARCHITECTURES {
        for residual in [Residual::F32, Residual::Bf16, Residual::F16] {
            let (_folder, file) = made(architecture, GgmlType::Q4_0);
            let options = TorchOptions { residual, ..options(Precision::Quantised) };
            let whole = side_by_side(&mut chain(&file, &[], &options), &prompts(), 40);
            for cuts in [&[1][..], &[2], &[1, 2]] {
                let cut = side_by_side(&mut chain(&file, cuts, &options), &prompts(), 40);
                let differing = whole
                    .concat()
                    .iter()
                    .zip(cut.concat())
                    .filter(|(a, b)| a.to_bits() != b.to_bits())
                    .count();
                assert_eq!(differing, 0, "{architecture:?} {residual} cut before {cuts:?}");
            }
        }
    }
}

#[test]
fn batching_and_chunking_change_last_bits_at_most() {
    for architecture in ARCHITECTURES {
        let (_folder, file) = made(architecture, GgmlType::Q4_K);
        for (precision, bound) in [(Precision::F32, 1e-3), (Precision::Quantised, 0.25)] {
            let mut whole = chain(&file, &[], &options(precision));
            let alone: Vec<Vec<f32>> =
                prompts().iter().enumerate().map(|(i, prompt)| whole.logits(i as u64, 0, prompt)).collect();
            for chunk in [1, 17, 64] {
                let together = side_by_side(&mut chain(&file, &[1], &options(precision)), &prompts(), chunk);
                let far = worst(&together.concat(), &alone.concat());
                println!("{architecture:?} {precision:?} chunks of {chunk}: {far}");
                assert!(far < bound, "{architecture:?} {precision:?} chunks of {chunk}: {far}");
            }
        }
    }
}

#[test]
fn the_same_steps_give_the_same_bits() {
    let (_folder, file) = made(Architecture::Gemma3, GgmlType::Q8_0);
    let run = || side_by_side(&mut chain(&file, &[], &options(Precision::Quantised)), &prompts(), 33);
    assert_eq!(run(), run());
}

#[test]
fn a_replay_with_tokens_so_far_goes_on_as_if_nothing_had_happened() {
    let (_folder, file) = made(Architecture::Llama, GgmlType::Q4_0);
    let mut chain = chain(&file, &[1], &options(Precision::F32));
    let (prompt, sampling) = (prompt(5, 20), Sampling::drawn(1.0, 3));
    let whole = decode(&mut chain, 1, &prompt, 40, &sampling);
    chain.truncate(1, 0);
    let so_far: Vec<u32> = prompt.iter().chain(&whole[..15]).copied().collect();
    assert_eq!(decode(&mut chain, 1, &so_far, 25, &sampling), whole[15..]);
}

#[test]
fn verification_samples_what_decoding_one_by_one_samples() {
    let (_folder, file) = made(Architecture::Qwen3, GgmlType::Q8_0);
    let mut chain = chain(&file, &[], &options(Precision::F32));
    let (prompt, sampling) = (prompt(2, 30), Sampling::drawn(1.0, 9));
    let tokens = decode(&mut chain, 1, &prompt, 12, &sampling);
    chain.truncate(1, 0);
    assert_eq!(decode(&mut chain, 1, &prompt, 1, &sampling), tokens[..1]);
    // A draft of which the last three are wrong, and are rolled back.
    let draft: Vec<u32> = tokens[..9].iter().chain(&[1, 2, 3]).copied().collect();
    let part = Part { session: 1, start: 30, tokens: draft, want: Want::Verify(sampling.clone()) };
    let Ok(WorkOut::Tokens(sampled)) = chain.step(&[part]).remove(0) else { panic!("no tokens") };
    let sampled: Vec<u32> = sampled.iter().map(|sampled| sampled.token.0).collect();
    assert_eq!(sampled[..9], tokens[1..10]);
    chain.truncate(1, 39);
    let part = Part { session: 1, start: 39, tokens: vec![tokens[9]], want: Want::Sample(sampling) };
    let Ok(WorkOut::Token(next)) = chain.step(&[part]).remove(0) else { panic!("no token") };
    assert_eq!(next.token.0, tokens[10]);
}

#[test]
fn a_fork_goes_on_as_its_source_would_and_neither_disturbs_the_other() {
    let (_folder, file) = made(Architecture::Gemma3, GgmlType::Q8_0);
    let mut chain = chain(&file, &[1], &options(Precision::Quantised));
    let (common, one, two) = (prompt(1, 100), prompt(2, 30), prompt(3, 30));
    let whole = |chain: &mut Chain<_>, tail: &[u32]| {
        chain.logits(9, 0, &common);
        let logits = chain.logits(9, 100, tail);
        chain.truncate(9, 0);
        logits
    };
    let (expected_one, expected_two) = (whole(&mut chain, &one), whole(&mut chain, &two));
    chain.logits(1, 0, &common);
    assert_eq!(chain.fork(1, 2, 100), 100);
    assert_eq!(chain.logits(2, 100, &two), expected_two);
    assert_eq!(chain.logits(1, 100, &one), expected_one);
    assert_eq!(chain.fork(2, 3, 1000), 130);
    chain.truncate(2, 0);
    chain.truncate(3, 100);
    assert_eq!(chain.logits(3, 100, &one), expected_one);
}
