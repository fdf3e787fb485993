//! What every engine does behind the node's seam.

use std::collections::BTreeMap;
use std::path::PathBuf;

use node::engine::{Engine, EngineError, Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::gguf::random::{Architecture, RandomModel};
use planner::plan::LayerRange;

const SESSION: SessionId = SessionId(4);

/// What these loads are.
const LOADS: &str = "a range that the model has";

fn work(session: SessionId, start: u32, count: u32) -> Work {
    let input = Input::Tokens((0..count).map(|i| Token(i + 3)).collect());
    Work { session, start, count, input, want: Want::Sample(Sampling::GREEDY) }
}

fn whole() -> Option<LayerRange> {
    Some(LayerRange::new(0, 3))
}

/// Memory for keys and values that has room for one block of 64 positions of three small layers, and not for two.
pub const KV_BYTES: u64 = 40_000;
/// The longest session of the engines that are held to it, tokens.
pub const CONTEXT: u32 = 256;

/// Holds both engines to [`Engine`], each made of its files by name: with memory for [`KV_BYTES`] and sessions of
/// [`CONTEXT`].
///
/// # Panics
/// Where they do not keep to it, which fails the test.
pub fn both_behave<A: Engine, B: Engine>(
    one: impl FnOnce(BTreeMap<String, PathBuf>) -> A,
    other: impl FnOnce(BTreeMap<String, PathBuf>) -> B,
) {
    let folder = tempfile::tempdir().expect("a folder for the model");
    let path = folder.path().join("model.gguf");
    RandomModel::tiny(Architecture::Llama).write(&path).expect("the model can be written");
    let files = BTreeMap::from([("tiny".to_owned(), path)]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(behaves(one(files.clone())));
    runtime.block_on(behaves(other(files)));
}

/// Loads, refuses and forgets as [`Engine`] says.
async fn behaves(mut engine: impl Engine) {
    assert_eq!(engine.step(vec![work(SESSION, 0, 2)]).await, [Err(EngineError::NotLoaded)]);
    for (model, layers) in [("other", whole()), ("tiny", Some(LayerRange::new(2, 9)))] {
        let refused = engine.load(model, layers).await;
        assert!(matches!(refused, Err(EngineError::Device(_))), "{refused:?}");
    }
    engine.load("tiny", whole()).await.expect(LOADS);
    let first = engine.step(vec![work(SESSION, 0, 2), work(SessionId(9), 5, 1)]).await;
    assert!(matches!(first[0], Ok(WorkOut::Token(_))), "{:?}", first[0]);
    assert_eq!(first[1], Err(EngineError::Gap { have: 0, start: 5 }));
    assert_eq!(engine.held(), [SESSION], "what was refused leaves no trace");
    // Layers that stay keep their sessions.
    engine.load("tiny", whole()).await.expect(LOADS);
    assert_eq!(engine.step(vec![work(SESSION, 2, 63)]).await, [Err(EngineError::NoRoom)]);
    assert!(engine.step(vec![work(SESSION, 2, 62)]).await[0].is_ok(), "a refusal took room");
    engine.release(SESSION);
    assert_eq!(engine.step(vec![work(SESSION, 0, 2)]).await, first[..1], "the same session again");
    engine.load("tiny", Some(LayerRange::new(0, 2))).await.expect(LOADS);
    assert_eq!(engine.held(), []);
    engine.load("tiny", None).await.expect(LOADS);
    assert_eq!(engine.step(vec![work(SESSION, 0, 2)]).await, [Err(EngineError::NotLoaded)]);
}
