//! Every format, beside the CPU engine's f32 path: nothing is wrong but the last bits of bf16.

use node::real::cpu::EngineOptions;
use node::real::formats::KNOWN;
use node::real::gguf::random::Architecture;
use node::real::kernels::Precision;
use tests::chain::{Chain, prompt};
use tests::models::ARCHITECTURES;

use crate::{chain, made, options, worst};

/// The CPU engine in f32.
fn exact() -> EngineOptions {
    let residual = node::real::cpu::Residual::F32;
    EngineOptions { precision: Precision::F32, residual, context_max: 1024, ..EngineOptions::default() }
}

fn spread(logits: &[f32]) -> f32 {
    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
    (logits.iter().map(|logit| (logit - mean).powi(2)).sum::<f32>() / logits.len() as f32).sqrt()
}

fn mean(ours: &[f32], theirs: &[f32]) -> f32 {
    ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).sum::<f32>() / ours.len() as f32
}

/// Logits over a prompt and some tokens more, one by one.
fn gone_through<S: tests::chain::Stage>(chain: &mut Chain<S>) -> Vec<f32> {
    let tokens = prompt(3, 80);
    let mut logits = chain.logits(1, 0, &tokens[..72]);
    for (i, token) in tokens[72..].iter().enumerate() {
        logits.extend(chain.logits(1, 72 + i as u32, &[*token]));
    }
    chain.truncate(1, 0);
    logits
}

#[test]
fn every_format_of_every_architecture_is_near_the_cpu_engine_in_f32() {
    for architecture in ARCHITECTURES {
        for kind in KNOWN {
            // Formats are the same code in every architecture.
            if architecture != Architecture::Llama && !(kind as u32).is_multiple_of(3) {
                continue;
            }
            let (_folder, file) = made(architecture, kind);
            let theirs = gone_through(&mut Chain::load(&file, &[], &exact()));
            let ours = gone_through(&mut chain(&file, &[], &options(Precision::F32)));
            let far = worst(&ours, &theirs) / spread(&theirs);
            assert!(far < 1e-3, "{architecture:?} {kind} in f32: {far}");
            let rounded = gone_through(&mut chain(&file, &[], &options(Precision::Quantised)));
            let far = mean(&rounded, &theirs) / spread(&theirs);
            println!("{architecture:?} {kind}: mean {far} of the logits' spread");
            assert!(far < 0.03, "{architecture:?} {kind} quantised: {far}");
        }
    }
}
