//! The simulated device: its values do not depend on how work is cut, its memory has an end, its time is the planner's.

use std::sync::Arc;

use node::clock::{Clock, TokioClock};
use node::engine::{Engine, EngineError, Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use planner::cost::constants::RING;
use planner::cost::memory::{activation_bytes, kv_bytes, weight_bytes};
use planner::cost::step::{Sequence, step_time};
use planner::fleet::{Device, NodeId};
use planner::model::Model;
use planner::plan::LayerRange;
use proptest::prelude::*;
use sim::engine::{Condition, EngineSpec, SimEngine, reference_tokens};
use sim::record::Recorder;
use sim::seed::Seed;

use crate::fixture;

const LAYERS: u32 = 9;
const SAMPLING: Sampling = Sampling::drawn(0.7, 5);

fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(
        async {
            #[expect(clippy::disallowed_methods, reason = "aligns the paused clock")]
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            work.await
        },
    )
}

/// Must be made inside of the paused runtime.
fn clock() -> TokioClock {
    #[expect(clippy::disallowed_methods, reason = "the clock under test begins here")]
    TokioClock::new(tokio::time::Instant::now(), 1_000)
}

fn engine_with(device: Device, error: (f64, f64), condition: Arc<Condition>) -> SimEngine<TokioClock> {
    let spec = EngineSpec {
        node: NodeId(0),
        device,
        model: Arc::new(fixture::model(LAYERS)),
        has_model: true,
        software: RING,
        compute_error: error,
        seed: Seed::new(1),
        loaded: None,
        incarnation: 0,
    };
    SimEngine::new(spec, clock(), Recorder::new(vec!["n".into()], false), condition)
}

fn engine() -> SimEngine<TokioClock> {
    engine_with(fixture::device(), (0.0, 0.0), Arc::default())
}

async fn loaded(first: u32, end: u32) -> SimEngine<TokioClock> {
    let mut engine = engine();
    engine.load(&model().name, Some(LayerRange::new(first, end))).await.unwrap();
    engine
}

fn model() -> Model {
    fixture::model(LAYERS)
}

fn prompt(session: u64, len: usize) -> Vec<Token> {
    let mut draws = Seed::new(session).fork("prompt").draws();
    (0..len).map(|_| Token((draws.bits() % 32_000) as u32)).collect()
}

/// Sessions on a ring of engines, each with its prompt cut into chunks.
struct Ring {
    stages: Vec<SimEngine<TokioClock>>,
}

impl Ring {
    async fn new(cuts: &[u32]) -> Self {
        let mut bounds: Vec<u32> = cuts.iter().map(|cut| cut % LAYERS).chain([0, LAYERS]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut stages = Vec::new();
        for pair in bounds.windows(2) {
            stages.push(loaded(pair[0], pair[1]).await);
        }
        Self { stages }
    }

    /// Passes a batch of `(session, start, tokens, whether to sample)` through all stages.
    async fn pass(&mut self, batch: &[(SessionId, u32, Vec<Token>, bool)]) -> Vec<WorkOut> {
        let last = self.stages.len() - 1;
        let mut inputs: Vec<Input> =
            batch.iter().map(|(_, _, tokens, _)| Input::Tokens(tokens.clone())).collect();
        for (index, stage) in self.stages.iter_mut().enumerate() {
            let work = batch.iter().zip(inputs).map(|((session, start, tokens, sample), input)| Work {
                session: *session,
                start: *start,
                count: tokens.len() as u32,
                input,
                want: match (index == last, sample) {
                    (false, _) => Want::Hidden,
                    (true, true) => Want::Sample(SAMPLING),
                    (true, false) => Want::Nothing,
                },
            });
            let outputs: Vec<WorkOut> =
                stage.step(work.collect()).await.into_iter().map(Result::unwrap).collect();
            if index == last {
                return outputs;
            }
            inputs = outputs
                .into_iter()
                .map(|output| match output {
                    WorkOut::Hidden(payload) => Input::Hidden(payload),
                    other => panic!("asked for hidden, got {other:?}"),
                })
                .collect();
        }
        Vec::new()
    }

    /// Answers all prompts together; sessions take part in a step when their chunk is next.
    async fn answer(&mut self, prompts: &[Vec<Token>], chunk: usize, count: usize) -> Vec<Vec<Token>> {
        let mut streams: Vec<Vec<Token>> = prompts.to_vec();
        let mut done = vec![0usize; prompts.len()];
        while streams.iter().zip(prompts).any(|(stream, prompt)| stream.len() < prompt.len() + count) {
            let mut batch = Vec::new();
            for (index, stream) in streams.iter().enumerate() {
                if stream.len() < prompts[index].len() + count {
                    let end = stream.len().min(done[index] + chunk);
                    let tokens = stream[done[index]..end].to_vec();
                    batch.push((SessionId(index as u64), done[index] as u32, tokens, end == stream.len()));
                }
            }
            let outputs = self.pass(&batch).await;
            for ((session, _, tokens, _), output) in batch.iter().zip(outputs) {
                let index = session.0 as usize;
                done[index] += tokens.len();
                if let WorkOut::Token(sampled) = output {
                    streams[index].push(sampled.token);
                }
            }
        }
        streams.iter().zip(prompts).map(|(stream, prompt)| stream[prompt.len()..].to_vec()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_split_chunking_and_batching_gives_the_reference_tokens(
        cuts in prop::collection::vec(0u32..LAYERS, 0..4),
        lengths in prop::collection::vec(1usize..40, 1..4),
        chunk in 1usize..50,
        count in 1usize..8,
    ) {
        let prompts: Vec<Vec<Token>> = lengths.iter().enumerate().map(|(i, len)| prompt(i as u64, *len)).collect();
        let answers = in_paused_time(async { Ring::new(&cuts).await.answer(&prompts, chunk, count).await });
        for (prompt, answer) in prompts.iter().zip(answers) {
            prop_assert_eq!(answer, reference_tokens(&model(), &SAMPLING, prompt, count as u32));
        }
    }
}

fn tokens(session: u64, start: u32, count: u32) -> Work {
    let input = Input::Tokens(prompt(session, count as usize));
    Work { session: SessionId(session), start, count, input, want: Want::Hidden }
}

#[test]
fn a_step_that_does_not_begin_where_the_cache_ends_is_a_gap_and_changes_nothing() {
    in_paused_time(async {
        let mut engine = loaded(0, 4).await;
        assert_eq!(engine.step(vec![tokens(1, 5, 2)]).await, [Err(EngineError::Gap { have: 0, start: 5 })]);
        assert!(engine.held().is_empty());
        assert!(engine.step(vec![tokens(1, 0, 5)]).await[0].is_ok());
        assert_eq!(engine.step(vec![tokens(1, 4, 1)]).await, [Err(EngineError::Gap { have: 5, start: 4 })]);
        assert!(engine.step(vec![tokens(1, 5, 1)]).await[0].is_ok());
    });
}

#[test]
fn without_layers_every_share_is_refused() {
    in_paused_time(async {
        let mut engine = engine();
        let both = engine.step(vec![tokens(1, 0, 5), tokens(2, 0, 1)]).await;
        assert_eq!(both, [Err(EngineError::NotLoaded), Err(EngineError::NotLoaded)]);
        assert!(matches!(
            engine.load("Another Q4_0", Some(LayerRange::new(0, 1))).await,
            Err(EngineError::Device(_))
        ));
        assert!(matches!(
            engine.load(&model().name, Some(LayerRange::new(3, LAYERS + 1))).await,
            Err(EngineError::Device(_))
        ));
    });
}

#[test]
fn loading_reads_what_is_missing_from_disk_and_releases_all_sessions() {
    in_paused_time(async {
        let mut engine = loaded(0, 4).await;
        assert!(engine.step(vec![tokens(1, 0, 5)]).await[0].is_ok());
        let clock = clock();
        engine.load(&model().name, Some(LayerRange::new(0, 4))).await.unwrap();
        assert_eq!(
            (clock.now().0, engine.held().len()),
            (0, 1),
            "the same range costs nothing and keeps the KV"
        );
        engine.load(&model().name, Some(LayerRange::new(2, 6))).await.unwrap();
        let common = weight_bytes(&model(), LayerRange::new(2, 4));
        let missing = weight_bytes(&model(), LayerRange::new(2, 6)) - common;
        let expected_us = missing as f64 / fixture::device().disk_bytes_per_s * 1e6;
        assert!((clock.now().0 as f64 / 1e3 - expected_us).abs() <= 1.0);
        assert!(engine.held().is_empty());
    });
}

/// A device with KV room for so many tokens of one session.
fn device_with_room(tokens: u32) -> Device {
    let layers = LayerRange::new(0, LAYERS);
    let need =
        weight_bytes(&model(), layers) + activation_bytes(&model()) + kv_bytes(&model(), layers, tokens);
    Device { memory_bytes: need, reserved_bytes: 0, ..fixture::device() }
}

#[test]
fn no_room_refuses_one_share_and_leaves_no_trace_of_it() {
    in_paused_time(async {
        let mut engine = engine_with(device_with_room(100), (0.0, 0.0), Arc::default());
        engine.load(&model().name, Some(LayerRange::new(0, LAYERS))).await.unwrap();
        let results = engine.step(vec![tokens(1, 0, 90), tokens(2, 0, 90)]).await;
        assert!(results[0].is_ok());
        assert_eq!(results[1], Err(EngineError::NoRoom));
        assert_eq!(engine.held(), [SessionId(1)]);
        assert!(engine.step(vec![tokens(1, 90, 10)]).await[0].is_ok(), "exactly the room there is");
        assert_eq!(engine.step(vec![tokens(1, 100, 1)]).await, [Err(EngineError::NoRoom)]);
        engine.release(SessionId(1));
        assert!(engine.held().is_empty());
        assert!(engine.step(vec![tokens(2, 0, 100)]).await[0].is_ok(), "all of it came back");
    });
}

#[test]
fn truncation_gives_room_back_and_lost_memory_takes_it() {
    in_paused_time(async {
        let condition: Arc<Condition> = Arc::default();
        let mut engine = engine_with(device_with_room(100), (0.0, 0.0), Arc::clone(&condition));
        engine.load(&model().name, Some(LayerRange::new(0, LAYERS))).await.unwrap();
        assert!(engine.step(vec![tokens(1, 0, 100)]).await[0].is_ok());
        engine.truncate(SessionId(1), 20);
        assert!(engine.step(vec![tokens(1, 20, 80)]).await[0].is_ok());
        engine.truncate(SessionId(1), 20);
        condition.lose_memory(0.5);
        assert_eq!(engine.step(vec![tokens(1, 20, 80)]).await, [Err(EngineError::NoRoom)]);
        condition.lose_memory(0.0);
        assert!(engine.step(vec![tokens(1, 20, 80)]).await[0].is_ok());
        engine.truncate(SessionId(1), 0);
        assert!(engine.held().is_empty());
    });
}

#[test]
fn a_step_takes_the_planners_time_plus_software_and_a_slow_device_longer() {
    in_paused_time(async {
        let condition: Arc<Condition> = Arc::default();
        let mut engine = engine_with(fixture::device(), (0.0, 0.0), Arc::clone(&condition));
        engine.load(&model().name, Some(LayerRange::new(0, LAYERS))).await.unwrap();
        let sequence = Sequence { new_tokens: 64, context: 0, logits: 0 };
        let planned =
            step_time(&model(), &fixture::device(), LayerRange::new(0, LAYERS), &[sequence]).total_us();
        for (session, times) in [(1, 1.0), (2, 3.0)] {
            condition.slow_down(times);
            let clock = clock();
            assert!(engine.step(vec![tokens(session, 0, 64)]).await[0].is_ok());
            let took_us = clock.now().0 as f64 / 1e3;
            let expected_us = planned * times + RING.per_step_us;
            assert!((took_us - expected_us).abs() <= 1.0, "{took_us} us, expected {expected_us}");
        }
    });
}

#[test]
fn errors_of_the_formula_have_mean_one_and_the_asked_spread() {
    in_paused_time(async {
        let mut engine = engine_with(fixture::device(), (0.0, 0.1), Arc::default());
        engine.load(&model().name, Some(LayerRange::new(0, 3))).await.unwrap();
        let planned =
            step_time(&model(), &fixture::device(), LayerRange::new(0, 3), &[Sequence::decode(0)]).total_us();
        let mut factors = Vec::new();
        for session in 0..4_000 {
            let clock = clock();
            assert!(engine.step(vec![tokens(session, 0, 1)]).await[0].is_ok());
            factors.push((clock.now().0 as f64 / 1e3 - RING.per_step_us) / planned);
        }
        let mean = factors.iter().sum::<f64>() / factors.len() as f64;
        let spread = (factors.iter().map(|f| (f - mean).powi(2)).sum::<f64>() / factors.len() as f64).sqrt();
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!((spread - 0.1).abs() < 0.01, "{spread}");
    });
}
