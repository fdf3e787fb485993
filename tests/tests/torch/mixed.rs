//! A ring of both engines: one computes some layers, the other the rest, in either order.

use node::engine::Sampling;
use node::real::cpu::{self, EngineOptions};
use node::real::kernels::Precision;
use node::real::torch;
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use tests::chain::{Chain, Stage, decode, prompt};
use tests::models::{self, ARCHITECTURES};
use tests::reference::{apart, reference};

use crate::{made, options};

/// The model cut in two or three, on libtorch every other stage, the first one where `first`.
fn ring(file: &GgufFile, cuts: &[u32], precision: Precision, first: bool) -> Chain<Box<dyn Stage>> {
    Chain::of(file, cuts, |index, range| {
        let options = options(precision);
        if index.is_multiple_of(2) == first {
            let stage: Box<dyn Stage> = Box::new(torch::Model::load(file, range, &options).unwrap());
            stage
        } else {
            let options = EngineOptions {
                precision,
                residual: options.residual,
                context_max: options.context_max,
                ..EngineOptions::default()
            };
            Box::new(cpu::Model::load(file, range, &options).unwrap())
        }
    })
}

#[test]
fn a_ring_of_both_gives_the_tokens_of_one_in_f32() {
    for architecture in ARCHITECTURES {
        let (_folder, file) = made(architecture, GgmlType::Q4_0);
        let exact = EngineOptions {
            precision: Precision::F32,
            residual: cpu::Residual::F32,
            context_max: 1024,
            ..EngineOptions::default()
        };
        for sampling in [Sampling::GREEDY, Sampling::drawn(1.0, 8)] {
            let prompt = prompt(4, 90);
            let expected = decode(&mut Chain::load(&file, &[], &exact), 1, &prompt, 32, &sampling);
            for (cuts, first) in [(&[1][..], true), (&[1], false), (&[1, 2], true), (&[1, 2], false)] {
                let found = decode(&mut ring(&file, cuts, Precision::F32, first), 1, &prompt, 32, &sampling);
                assert_eq!(found, expected, "{architecture:?} cut before {cuts:?}, libtorch first: {first}");
            }
        }
    }
}

#[test]
fn a_ring_of_both_is_near_the_cpu_engine_with_real_weights() {
    let file = GgufFile::open(&models::smollm2()).unwrap();
    let results = reference("smollm2-135m-dequant-f32.json");
    let results = &results[..1];
    for (name, cuts, first) in [
        ("the CPU engine, then libtorch", &[15][..], false),
        ("libtorch, then the CPU engine", &[15], true),
        ("both in turn", &[10, 20], true),
    ] {
        let mut alone = Chain::load(&file, &[], &EngineOptions::default());
        let mut ring = ring(&file, cuts, Precision::Quantised, first);
        let (apart, others, steps) = apart(&mut ring, &mut alone, results, "prompt_tokens");
        println!("{name}: mean {apart}, the likeliest is another at {others} of {steps}");
        assert!(apart <= 0.15, "{name}: {apart}");
        assert!(others * 10 <= steps, "{name}: {others} of {steps}");
    }
}
