//! Logits are the same bits however the layers are cut, a prompt is chunked, sessions are batched and threads are counted.

use node::ids::{SessionId, Token};
use node::real::cpu::EngineOptions;
use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::Precision;
use planner::model::ggml::GgmlType;
use proptest::prelude::*;
use tests::models;

use crate::pipeline::{Pipeline, Run};

/// Formats of each family of kernels.
const KINDS: [GgmlType; 8] = [
    GgmlType::F16,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q8_0,
    GgmlType::Q4_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_XS,
];

/// A way to do the work.
#[derive(Debug, Clone)]
struct Way {
    threads: usize,
    /// Layers before which the model is cut.
    cuts: Vec<u32>,
    /// Tokens of each step, repeated.
    chunks: Vec<usize>,
    /// Sessions that share every step, each a token later than the one before.
    sessions: u64,
}

fn ways() -> impl Strategy<Value = Way> {
    let cuts = prop::collection::btree_set(1u32..3, 0..3);
    let chunks = prop::collection::vec(1usize..20, 1..5);
    (1usize..4, cuts, chunks, 1u64..4).prop_map(|(threads, cuts, chunks, sessions)| Way {
        threads,
        cuts: cuts.into_iter().collect(),
        chunks,
        sessions,
    })
}

fn tokens(count: u32) -> Vec<Token> {
    (0..count).map(|i| Token(i * i * 7 % 251)).collect()
}

/// All sessions' logits, in the order of positions, done that way.
fn logits(pipeline: &mut Pipeline, way: &Way, tokens: &[Token]) -> Vec<Vec<f32>> {
    let mut done = vec![0; way.sessions as usize];
    let mut logits = vec![Vec::new(); done.len()];
    for (step, &chunk) in way.chunks.iter().cycle().enumerate() {
        let mut runs = Vec::new();
        // A session joins at the step of its number.
        for (session, done) in done.iter_mut().enumerate().take(step + 1) {
            let next = &tokens[*done..(*done + chunk + session).min(tokens.len())];
            if !next.is_empty() {
                runs.push(Run { session: SessionId(session as u64), start: *done as u32, tokens: next.to_vec() });
            }
            *done += next.len();
        }
        if runs.is_empty() {
            break;
        }
        for (run, out) in runs.iter().zip(pipeline.logits(&runs)) {
            logits[run.session.0 as usize].extend(out);
        }
    }
    logits
}

fn same_bits(ours: &[f32], expected: &[f32]) -> bool {
    ours.len() == expected.len() && ours.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_way_to_do_the_work_gives_the_same_bits(
        way in ways(),
        architecture in prop::sample::select(&Architecture::ALL[..]),
        kind in prop::sample::select(&KINDS[..]),
        precision in prop::sample::select(&[Precision::Quantised, Precision::F32][..]),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        let tiny = RandomModel::tiny(architecture);
        let model = RandomModel { width: 256, feed_forward: 512, kind, layers: 3, ..tiny };
        model.write(&path).expect("it can be written");
        let tokens = tokens(40);
        let one = EngineOptions { threads: 1, precision, ..EngineOptions::default() };
        let expected = Pipeline::solo(&path, &one).all_logits(&tokens);
        prop_assert!(expected.iter().all(|logit| logit.is_finite()));
        let options = EngineOptions { threads: way.threads, ..one };
        let mut pipeline = Pipeline::cut(&path, &way.cuts, &options);
        for (session, ours) in logits(&mut pipeline, &way, &tokens).iter().enumerate() {
            prop_assert!(same_bits(ours, &expected), "session {} of {:?}", session, way);
        }
    }
}

#[test]
fn the_real_models_give_the_same_bits_in_four_stages() {
    for path in [models::smollm2(), models::gemma3()].into_iter().flatten() {
        let tokens = tokens(70);
        let one = EngineOptions { threads: 1, ..EngineOptions::default() };
        let expected = Pipeline::solo(&path, &one).all_logits(&tokens);
        let way = Way { threads: 2, cuts: vec![1, 7, 16], chunks: vec![33, 1, 1, 5], sessions: 3 };
        let mut pipeline = Pipeline::cut(&path, &way.cuts, &EngineOptions { threads: way.threads, ..one });
        for ours in logits(&mut pipeline, &way, &tokens) {
            assert!(same_bits(&ours, &expected), "{}", path.display());
        }
    }
}
