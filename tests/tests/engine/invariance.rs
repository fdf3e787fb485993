//! Logits are the same bits however layers are cut, prompts chunked, sessions batched and threads counted, whatever the
//! residual stream is rounded to.

use node::engine::{EngineError, Input, Penalties, Rules, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model, Residual};
use node::real::gguf::random::{Architecture, RandomModel};
use node::real::kernels::{Level, Precision};
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use proptest::prelude::*;
use tests::chain::{Chain, Part, decode, prompt, values};
use tests::models::{self, ARCHITECTURES};
use tests::text::pieces;

fn made(architecture: Architecture, kind: GgmlType) -> (tempfile::TempDir, GgufFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    RandomModel { kind, ..RandomModel::tiny(architecture) }.write(&path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    (folder, file)
}

fn options(threads: usize, level: Level) -> EngineOptions {
    let precision = Precision::Quantised;
    EngineOptions { threads, level, precision, context_max: 1024, ..EngineOptions::default() }
}

/// Types of the residual stream that no cut changes.
const ROUNDED_EVERYWHERE: [Residual; 3] = [Residual::F32, Residual::Bf16, Residual::F16];

/// Sends all sessions' prompts through, each step with as many tokens of each session as `chunks` says in turn; gives
/// each session's logits at every position. A step that `chunks` leaves empty sends one token of each session, so that
/// every step moves on.
fn in_chunks(chain: &mut Chain, prompts: &[Vec<u32>], chunks: &[u32]) -> Vec<Vec<f32>> {
    let mut logits = vec![Vec::new(); prompts.len()];
    let (mut done, mut turn) = (vec![0usize; prompts.len()], 0usize);
    while done.iter().zip(prompts).any(|(done, prompt)| *done < prompt.len()) {
        let mut counts: Vec<usize> = Vec::new();
        for (prompt, done) in prompts.iter().zip(&done) {
            turn += 1;
            let pick = (turn * turn * 31 + turn * 7) / 5 % chunks.len();
            counts.push((chunks[pick] as usize).min(prompt.len() - done));
        }
        if counts.iter().all(|count| *count == 0) {
            counts = prompts.iter().zip(&done).map(|(prompt, done)| (prompt.len() - done).min(1)).collect();
        }
        let mut parts = Vec::new();
        for (session, (prompt, count)) in prompts.iter().zip(counts).enumerate() {
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

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|logits| logits.iter().map(|logit| logit.to_bits()).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_cut_batching_chunking_and_thread_count_gives_the_same_bits(
        architecture in prop::sample::select(ARCHITECTURES.to_vec()),
        kind in prop::sample::select(vec![GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::F16, GgmlType::Q4_1]),
        level in prop::sample::select(Level::ALL.to_vec()),
        residual in prop::sample::select(ROUNDED_EVERYWHERE.to_vec()),
        cut in 0usize..6, threads in 1usize..4,
        lengths in prop::collection::vec(1u32..300, 1..4),
        chunks in prop::collection::vec(prop_oneof![Just(0u32), Just(1), 1u32..40, 100u32..300], 1..6),
    ) {
        let (_folder, file) = made(architecture, kind);
        let layers = file.model().unwrap().layer_count();
        let prompts: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(i, n)| prompt(i as u64, *n)).collect();
        let options = |threads| EngineOptions { residual, ..options(threads, level) };
        let mut whole = Chain::load(&file, &[], &options(1));
        let alone: Vec<Vec<f32>> =
            prompts.iter().enumerate().map(|(i, prompt)| whole.logits(i as u64, 0, prompt)).collect();
        let all_cuts: Vec<Vec<u32>> =
            vec![vec![], vec![1], (1..layers.min(4)).collect(), vec![layers / 2], vec![layers - 1], vec![1]];
        let mut cuts = all_cuts[cut].clone();
        cuts.retain(|cut| *cut > 0 && *cut < layers);
        let mut chain = Chain::load(&file, &cuts, &options(threads));
        let together = in_chunks(&mut chain, &prompts, &chunks);
        prop_assert_eq!(bits(&together), bits(&alone));
    }
}

fn penalised() -> Sampling {
    let penalties = Penalties { window: 64, repeat: 1.3, presence: 0.2, frequency: 0.1 };
    let rules = Rules { top_k: 40, top_p: 0.95, min_p: 0.01, penalties: Some(penalties), ..Rules::default() };
    Sampling::drawn(0.9, 77).with(rules)
}

#[test]
fn sampled_tokens_do_not_depend_on_the_cut() {
    for architecture in ARCHITECTURES {
        let (_folder, file) = made(architecture, GgmlType::Q8_0);
        let mut whole = Chain::load(&file, &[], &options(1, Level::best()));
        let mut cut = Chain::load(&file, &[1], &options(2, Level::best()));
        for sampling in [Sampling::GREEDY, Sampling::drawn(1.0, 3), penalised()] {
            let prompt = prompt(5, 20);
            let tokens = decode(&mut whole, 1, &prompt, 40, &sampling);
            assert_eq!(tokens, decode(&mut cut, 1, &prompt, 40, &sampling), "{architecture:?}");
            [&mut whole, &mut cut].into_iter().for_each(|chain| chain.truncate(1, 0));
        }
    }
}

/// The answer of a model cut before `cuts`.
fn answered(
    file: &GgufFile,
    cuts: &[u32],
    residual: Residual,
    prompt: &[u32],
    sampling: &Sampling,
) -> Vec<u32> {
    let options = EngineOptions { residual, ..options(2, Level::best()) };
    decode(&mut Chain::load(file, cuts, &options), 1, prompt, 32, sampling)
}

#[test]
fn real_weights_cut_in_one_two_and_three_choose_the_same_tokens() {
    for path in [models::smollm2(), models::gemma3()] {
        let file = GgufFile::open(&path).unwrap();
        let prompt: Vec<u32> = pieces(&file)[1][..50].to_vec();
        for sampling in [Sampling::GREEDY, Sampling::drawn(0.9, 11), penalised()] {
            let whole = answered(&file, &[], Residual::default(), &prompt, &sampling);
            for cuts in [&[7][..], &[5, 11]] {
                let cut = answered(&file, cuts, Residual::default(), &prompt, &sampling);
                assert_eq!(cut, whole, "{} cut before {cuts:?}", path.display());
            }
        }
    }
}

#[test]
fn rounding_is_felt_and_not_only_where_a_cut_is() {
    let (_folder, file) = made(Architecture::Llama, GgmlType::Q8_0);
    let prompt = prompt(1, 40);
    let logits = |residual, cuts: &[u32]| {
        let options = EngineOptions { residual, ..options(1, Level::best()) };
        Chain::load(&file, cuts, &options).logits(1, 0, &prompt)
    };
    let exact = logits(Residual::F32, &[]);
    for residual in [Residual::Bf16, Residual::F16] {
        assert_ne!(logits(residual, &[]), exact, "{residual}");
    }
    assert_eq!(logits(Residual::Q8, &[]), exact);
    assert_ne!(logits(Residual::Q8, &[1]), exact);
}

#[test]
fn a_stage_refuses_the_stream_of_another_type_and_goes_on() {
    let (_folder, file) = made(Architecture::Qwen3, GgmlType::Q8_0);
    let stage = |layers, residual| {
        let options = EngineOptions { residual, ..options(1, Level::best()) };
        Model::load(&file, layers, &options).unwrap()
    };
    let work = |input, want| Work { session: SessionId(1), start: 0, count: 1, input, want };
    let tensor = |residual| {
        let tokens = Input::Tokens(vec![Token(3)]);
        let out = stage(LayerRange::new(0, 1), residual).step(&[work(tokens, Want::Hidden)]).remove(0);
        let Ok(WorkOut::Hidden(tensor)) = out else { panic!("no tensor: {out:?}") };
        Input::Hidden(tensor)
    };
    let mut last = stage(LayerRange::new(1, 3), Residual::F16);
    for other in [Residual::F32, Residual::Bf16, Residual::Q8] {
        let refused = last.step(&[work(tensor(other), Want::Logits)]).remove(0);
        let Err(EngineError::Unsound(why)) = refused else { panic!("taken: {refused:?}") };
        assert!(why.contains(&other.to_string()) && why.contains("f16"), "{why}");
    }
    assert!(last.is_empty());
    assert!(last.step(&[work(tensor(Residual::F16), Want::Logits)]).remove(0).is_ok());
}

#[test]
fn a_replay_with_tokens_so_far_goes_on_as_if_nothing_had_happened() {
    let (_folder, file) = made(Architecture::Llama, GgmlType::Q4_0);
    let mut chain = Chain::load(&file, &[1], &options(2, Level::best()));
    for sampling in [Sampling::drawn(1.0, 3), penalised()] {
        let prompt = prompt(5, 20);
        let whole = decode(&mut chain, 1, &prompt, 40, &sampling);
        chain.truncate(1, 0);
        let so_far: Vec<u32> = prompt.iter().chain(&whole[..15]).copied().collect();
        assert_eq!(decode(&mut chain, 1, &so_far, 25, &sampling), whole[15..]);
        chain.truncate(1, 0);
    }
}

#[test]
fn verification_samples_what_decoding_one_by_one_samples() {
    let (_folder, file) = made(Architecture::Qwen3, GgmlType::Q8_0);
    let mut chain = Chain::load(&file, &[], &options(2, Level::best()));
    for sampling in [Sampling::GREEDY, Sampling::drawn(1.0, 9), penalised()] {
        let prompt = prompt(2, 30);
        let tokens = decode(&mut chain, 1, &prompt, 12, &sampling);
        chain.truncate(1, 0);
        let first = decode(&mut chain, 1, &prompt, 1, &sampling);
        assert_eq!(first, tokens[..1]);
        // A draft of which the last three are wrong.
        let draft: Vec<u32> = tokens[..9].iter().chain(&[1, 2, 3]).copied().collect();
        let part = Part { session: 1, start: 30, tokens: draft, want: Want::Verify(sampling.clone()) };
        let Ok(WorkOut::Tokens(sampled)) = chain.step(&[part]).remove(0) else { panic!("no tokens") };
        let sampled: Vec<u32> = sampled.iter().map(|sampled| sampled.token.0).collect();
        assert_eq!(sampled[..9], tokens[1..10]);
        // The wrong ones are rolled back, and decoding goes on with the right one.
        chain.truncate(1, 39);
        let part =
            Part { session: 1, start: 39, tokens: vec![tokens[9]], want: Want::Sample(sampling.clone()) };
        let Ok(WorkOut::Token(next)) = chain.step(&[part]).remove(0) else { panic!("no token") };
        assert_eq!(next.token.0, tokens[10]);
        chain.truncate(1, 0);
    }
}

#[test]
fn a_fork_goes_on_as_its_source_would_and_neither_disturbs_the_other() {
    let (_folder, file) = made(Architecture::Gemma3, GgmlType::Q8_0);
    let mut chain = Chain::load(&file, &[1], &options(2, Level::best()));
    let (common, one, two) = (prompt(1, 100), prompt(2, 30), prompt(3, 30));
    let whole = |chain: &mut Chain, tail: &[u32]| {
        let tokens: Vec<u32> = common.iter().chain(tail).copied().collect();
        let logits = chain.logits(9, 0, &tokens);
        chain.truncate(9, 0);
        logits[100 * chain.vocab()..].to_vec()
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

#[test]
fn a_model_in_several_files_computes_what_it_does_in_one() {
    let (folder, file) = made(Architecture::Qwen2, GgmlType::Q5_1);
    let parts = node::real::gguf::split(&file, &folder.path().join("parts"), 3).unwrap();
    let mut whole = Chain::load(&file, &[], &options(1, Level::best()));
    let mut split = Chain::load(&GgufFile::open(&parts[1]).unwrap(), &[2], &options(1, Level::best()));
    let prompt = prompt(1, 20);
    assert_eq!(whole.logits(1, 0, &prompt), split.logits(1, 0, &prompt));
}
