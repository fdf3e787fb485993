//! Answers, beside the CPU engine's: in f32 the same tokens; quantised as many as the rounding lets be the same, counted.

use node::engine::{Penalties, Rules, Sampling};
use node::real::cpu::EngineOptions;
use node::real::gguf::random::Architecture;
use node::real::kernels::Precision;
use planner::model::ggml::GgmlType;
use tests::chain::{Chain, decode, prompt};
use tests::models::ARCHITECTURES;

use crate::{chain, made, options};

const TOKENS: u32 = 32;

fn exact() -> EngineOptions {
    let residual = node::real::cpu::Residual::F32;
    EngineOptions { precision: Precision::F32, residual, context_max: 1024, ..EngineOptions::default() }
}

fn samplings() -> [Sampling; 3] {
    let penalties = Penalties { window: 64, repeat: 1.3, presence: 0.2, frequency: 0.1 };
    let rules = Rules { top_k: 40, top_p: 0.95, min_p: 0.01, penalties: Some(penalties), ..Rules::default() };
    [Sampling::GREEDY, Sampling::drawn(1.0, 3), Sampling::drawn(0.9, 77).with(rules)]
}

#[test]
fn in_f32_answers_are_the_cpu_engines() {
    for architecture in ARCHITECTURES {
        for kind in [GgmlType::F32, GgmlType::Q4_0, GgmlType::Q6_K] {
            let (_folder, file) = made(architecture, kind);
            let mut theirs = Chain::load(&file, &[], &exact());
            let mut ours = chain(&file, &[1], &options(Precision::F32));
            for (i, sampling) in samplings().iter().enumerate() {
                let (session, prompt) = (i as u64, prompt(i as u64, 20));
                let expected = decode(&mut theirs, session, &prompt, TOKENS, sampling);
                assert_eq!(
                    decode(&mut ours, session, &prompt, TOKENS, sampling),
                    expected,
                    "{architecture:?} {kind}"
                );
            }
        }
    }
}

/// Random models choose among 320 tokens that are almost alike, so a rounding parts answers soon; real ones are in
/// `reference`.
#[test]
fn quantised_answers_part_from_the_cpu_engines_where_the_rounding_decides() {
    let (mut same, mut all) = (0, 0);
    for architecture in ARCHITECTURES {
        for kind in [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q4_K, GgmlType::Q8_0] {
            let (_folder, file) = made(architecture, kind);
            let mut theirs = Chain::load(&file, &[], &exact());
            let mut ours = chain(&file, &[], &options(Precision::Quantised));
            for session in 0..2 {
                let prompt = prompt(session, 30);
                let expected = decode(&mut theirs, session, &prompt, TOKENS, &Sampling::GREEDY);
                let found = decode(&mut ours, session, &prompt, TOKENS, &Sampling::GREEDY);
                same += expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
                all += TOKENS as usize;
            }
        }
    }
    println!("{same} of {all} tokens come before quantised answers part");
    assert!(same * 2 > all, "{same} of {all}");
}

#[test]
fn a_mixed_precision_is_not_taken_for_the_same() {
    // Were the options not looked at, the tests above would compare a path with itself.
    let (_folder, file) = made(Architecture::Llama, GgmlType::Q4_0);
    let tokens = prompt(1, 20);
    let [exact, rounded] = [Precision::F32, Precision::Quantised]
        .map(|precision| chain(&file, &[], &options(precision)).logits(1, 0, &tokens));
    assert_ne!(exact, rounded);
}
