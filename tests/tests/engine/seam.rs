//! The engine behind the node's seam: loading, refusing, forgetting.

use std::collections::BTreeMap;

use node::engine::{Engine, EngineError, Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{CpuEngine, DirectEngine, EngineOptions, Residual};
use node::real::gguf::random::{Architecture, RandomModel};
use planner::cost::constants::{FRAME_HEADER_BYTES, RING};
use planner::cost::transfer::activation_frame_bytes;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

const SESSION: SessionId = SessionId(4);

fn options() -> EngineOptions {
    // Room for one block of 64 positions of three small layers, and not for two.
    EngineOptions { threads: 1, kv_bytes_max: 40_000, context_max: 256, ..EngineOptions::default() }
}

fn work(session: SessionId, start: u32, count: u32) -> Work {
    let input = Input::Tokens((0..count).map(|i| Token(i + 3)).collect());
    Work { session, start, count, input, want: Want::Sample(Sampling::GREEDY) }
}

fn whole() -> Option<LayerRange> {
    Some(LayerRange::new(0, 3))
}

async fn behaves(mut engine: impl Engine) {
    assert_eq!(engine.step(vec![work(SESSION, 0, 2)]).await, [Err(EngineError::NotLoaded)]);
    for (model, layers) in [("other", whole()), ("tiny", Some(LayerRange::new(2, 9)))] {
        let refused = engine.load(model, layers).await;
        assert!(matches!(refused, Err(EngineError::Device(_))), "{refused:?}");
    }
    engine.load("tiny", whole()).await.unwrap();
    let first = engine.step(vec![work(SESSION, 0, 2), work(SessionId(9), 5, 1)]).await;
    assert!(matches!(first[0], Ok(WorkOut::Token(_))), "{:?}", first[0]);
    assert_eq!(first[1], Err(EngineError::Gap { have: 0, start: 5 }));
    assert_eq!(engine.held(), [SESSION], "what was refused leaves no trace");
    // Layers that stay keep their sessions.
    engine.load("tiny", whole()).await.unwrap();
    assert_eq!(engine.step(vec![work(SESSION, 2, 63)]).await, [Err(EngineError::NoRoom)]);
    assert!(engine.step(vec![work(SESSION, 2, 62)]).await[0].is_ok(), "a refusal took room");
    engine.release(SESSION);
    assert_eq!(engine.step(vec![work(SESSION, 0, 2)]).await, first[..1], "the same session again");
    engine.load("tiny", Some(LayerRange::new(0, 2))).await.unwrap();
    assert_eq!(engine.held(), []);
    engine.load("tiny", None).await.unwrap();
    assert_eq!(engine.step(vec![work(SESSION, 0, 2)]).await, [Err(EngineError::NotLoaded)]);
}

#[test]
fn both_engines_load_refuse_and_forget_as_the_seam_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    RandomModel::tiny(Architecture::Llama).write(&path).unwrap();
    let files = BTreeMap::from([("tiny".to_owned(), path)]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(behaves(DirectEngine::new(files.clone(), options())));
    runtime.block_on(behaves(CpuEngine::new(files, options())));
}

#[test]
fn the_planner_charges_what_the_residual_stream_takes_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    RandomModel::tiny(Architecture::Llama).write(&path).unwrap();
    let model = GgufFile::open(&path).unwrap().model().unwrap();
    for tokens in [1, 512] {
        let charged = activation_frame_bytes(&model, &RING, tokens) - FRAME_HEADER_BYTES;
        let values = vec![1.0; (tokens * model.hidden) as usize];
        let taken = Residual::default().encode(&values, model.hidden as usize).len() as u64;
        assert_eq!(
            taken,
            charged + 1 + u64::from(tokens),
            "a byte each for the tensor and a token are left out"
        );
    }
}
