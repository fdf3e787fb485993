//! Steps between the layers of another one: nobody's bits change.

use node::asides::{Aside, asides};
use node::engine::{Engine, Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::cpu::{CpuEngine, EngineOptions, Model};
use node::real::gguf::random::{Architecture, RandomModel};
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

/// `count` tokens of a session; logits are wanted.
fn work(session: u64, start: u32, count: u32) -> Work {
    let tokens = (start..start + count).map(|i| Token((i * 37 + session as u32 * 11) % 250)).collect();
    let (session, input) = (SessionId(session), Input::Tokens(tokens));
    Work { session, start, count, input, want: Want::Logits }
}

fn made(folder: &tempfile::TempDir, architecture: Architecture) -> GgufFile {
    let path = folder.path().join("model.gguf");
    RandomModel::tiny(architecture).write(&path).unwrap();
    GgufFile::open(&path).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions { threads: 2, context_max: 512, ..EngineOptions::default() }
}

/// What a session gives that has the model for itself.
fn alone(file: &GgufFile, works: &[Work]) -> Vec<WorkOut> {
    let layers = file.model().unwrap().layer_count();
    let mut model = Model::load(file, LayerRange::new(0, layers), &options()).unwrap();
    works.iter().map(|work| model.step(std::slice::from_ref(work)).remove(0).unwrap()).collect()
}

#[test]
fn steps_before_every_layer_change_no_bit_of_anybody() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3, Architecture::Gemma3]
    {
        let folder = tempfile::tempdir().unwrap();
        let file = made(&folder, architecture);
        let layers = file.model().unwrap().layer_count();
        let long = [work(1, 0, 90)];
        let mut decode = vec![work(2, 0, 5)];
        decode.extend((0..layers).map(|i| work(2, 5 + i, 1)));
        let short = work(3, 0, 17);
        let mut model = Model::load(&file, LayerRange::new(0, layers), &options()).unwrap();
        let mut decoded = vec![model.step(&decode[..1]).remove(0).unwrap()];
        let (mut shorts, mut at) = (Vec::new(), 0);
        let results = model.step_between(&long, &mut |model| {
            at += 1;
            // The short one is forgotten and comes again, and shares its step with one that decodes.
            model.release(SessionId(3));
            let mut results = model.step(&[decode[at].clone(), short.clone()]);
            shorts.push(results.pop().unwrap().unwrap());
            decoded.push(results.pop().unwrap().unwrap());
        });
        assert_eq!(at, layers as usize);
        assert_eq!(results[0].as_ref().unwrap(), &alone(&file, &long)[0], "{architecture:?}");
        assert_eq!(decoded, alone(&file, &decode), "{architecture:?}");
        let short = alone(&file, &[short]).remove(0);
        assert!(shorts.iter().all(|other| *other == short), "{architecture:?}");
        assert_eq!(model.held(), [1, 2, 3].map(SessionId));
    }
}

#[tokio::test]
async fn the_engine_on_threads_lets_in_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = made(&folder, Architecture::Llama);
    let layers = file.model().unwrap().layer_count();
    let files = [("tiny".to_owned(), folder.path().join("model.gguf"))].into();
    let mut engine = CpuEngine::new(files, options());
    engine.load("tiny", Some(LayerRange::new(0, layers))).await.unwrap();
    assert!(engine.takes_asides());
    engine.step(vec![work(9, 0, 3)]).await;
    let sampled = |work: Work| Work { want: Want::Sample(Sampling::GREEDY), ..work };
    let (asker, asked) = asides();
    // Asked for before the long step begins, so that it is met for certain.
    asker.ask(Aside { forget: vec![SessionId(9)], batch: vec![sampled(work(2, 0, 4))] });
    let (results, beside) =
        tokio::join!(engine.step_between(vec![sampled(work(1, 0, 200))], asked), asker.answered());
    assert!(matches!(results[0], Ok(WorkOut::Token(_))) && matches!(beside[0], Ok(WorkOut::Token(_))));
    assert_eq!(engine.held(), [1, 2].map(SessionId));
}
