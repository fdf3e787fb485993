//! SmolLM2's own weights on a mesh of real nodes: whatever crashes and is planned anew, the answers are those of one
//! machine, greedy, drawn, and under penalties with the log-probabilities that were asked for.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use node::clock::Clock;
use node::engine::{Penalties, Rules, Sampling, Want, WorkOut};
use node::ids::Token;
use node::probe::Event;
use node::real::cpu::{DirectEngine, EngineOptions};
use node::start;
use node::world::{Doors, World};
use planner::cost::predict::Load;
use planner::fleet::{Fleet, NodeId};
use planner::model::gguf::GgufFile;
use sim::mesh::{Mesh, Play};
use sim::paced::Paced;
use sim::scenario::FaultKind;
use sim::wires::Life;
use tests::chain::{Chain, Part};
use tests::models;

use crate::asking::{Asking, SECOND, Told};
use crate::fixture;

const TOKENS: u32 = 40;

/// A world whose devices compute with real weights.
struct Real<W>(PhantomData<fn() -> W>);

impl<W: World> World for Real<W> {
    type Transport = W::Transport;
    type Engine = Paced<DirectEngine, W::Clock>;
    type Clock = W::Clock;
    type Probe = W::Probe;
}

/// Devices that compute with the weights in the file, at the pace of the fleet's.
#[derive(Clone)]
struct Ring {
    asking: Asking,
    path: PathBuf,
}

impl Ring {
    fn doors<W: World>(&self, life: Life, doors: Doors<W>) -> Doors<Real<W>> {
        let Asking { fleet, model, .. } = &self.asking;
        let files = BTreeMap::from([(model.name.clone(), self.path.clone())]);
        let direct = DirectEngine::new(files, options());
        let device = fleet.node(life.node).device.clone();
        let Doors { transport, clock, probe, seed, .. } = doors;
        let engine = Paced::new(direct, clock.clone(), device, Arc::clone(model));
        Doors { transport, engine, clock, probe, seed }
    }
}

impl Play for Ring {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let ring = self.clone();
        async move {
            let clock = doors.clock.clone();
            let node = start(ring.doors(life, doors), ring.asking.config(life.incarnation));
            ring.asking.live(life, clock, node).await;
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        let ring = self.clone();
        async move { ring.asking.direct(mesh).await }
    }
}

/// Three machines so slow that an answer takes seconds, in which faults can meet it.
fn fleet() -> Fleet {
    let mut fleet = fixture::wifi(3);
    fleet.nodes.iter_mut().for_each(|node| node.device.bandwidth_bytes_per_s = 0.7e9);
    fleet
}

fn options() -> EngineOptions {
    EngineOptions { threads: 1, context_max: 1_024, ..EngineOptions::default() }
}

/// Prompts of several lengths, and every way of choosing.
fn requests() -> Vec<(Vec<Token>, Sampling)> {
    let prompt = |len: u32, step: u32| (0..len).map(|i| Token(1_000 + i * step % 7_919)).collect();
    let penalties = Penalties { window: 64, repeat: 1.2, presence: 0.3, frequency: 0.2 };
    let rules = Rules {
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        penalties: Some(penalties),
        biases: vec![(Token(2), -100.0)],
        chances: Some(3),
    };
    vec![
        (prompt(20, 37), Sampling::GREEDY),
        (prompt(33, 101), Sampling::drawn(0.9, 5)),
        (prompt(12, 11), Sampling::drawn(0.8, 7).with(rules)),
    ]
}

/// The same answers from one machine without any mesh.
fn alone(path: &std::path::Path) -> Vec<Vec<Told>> {
    let mut chain = Chain::load(&GgufFile::open(path).unwrap(), &[], &options());
    let answer = |(session, (prompt, sampling)): (usize, (Vec<Token>, Sampling))| {
        let mut said: Vec<Told> = Vec::new();
        let mut sampling = Sampling { past: Some(prompt.clone().into()), ..sampling };
        let (mut start, mut next) = (0, prompt);
        while said.len() < TOKENS as usize {
            let tokens: Vec<u32> = next.iter().map(|token| token.0).collect();
            let want = Want::Sample(sampling.clone());
            let out = chain.step(&[Part { session: session as u64, start, tokens, want }]).remove(0);
            let Ok(WorkOut::Token(sampled)) = out else { panic!("no token: {out:?}") };
            start += next.len() as u32;
            sampling.past = None;
            next = vec![sampled.token];
            said.push((sampled.token, sampled.chances));
        }
        said
    };
    requests().into_iter().enumerate().map(answer).collect()
}

/// Runs it and hands out how many attempts there were beyond the first.
fn play(world: &str, faults: &[(u64, FaultKind)], answers: &[Vec<Told>]) -> usize {
    let path = models::smollm2();
    let model = Arc::new(GgufFile::open(&path).unwrap().model().unwrap());
    let load = Load { prompt: 20, context: 60, concurrency: 1, head: None };
    let asking = Asking::new(&fleet(), model, load, requests(), TOKENS, faults);
    let (recorder, said) = asking.run(world, &Ring { asking: asking.clone(), path }, (0.0, 0.0));
    for (index, (ours, alone)) in said.iter().zip(answers).enumerate() {
        assert_eq!(ours, alone, "{world}, session {index}");
    }
    let ledger = recorder.ledger();
    let again = |event: &Event| matches!(event, Event::Attempted { attempt, .. } if attempt.0 > 0);
    ledger.events().iter().filter(|record| again(&record.event)).count()
}

#[test]
fn real_weights_give_one_machines_answers_on_a_mesh_that_crashes_and_is_planned_anew() {
    let answers = alone(&models::smollm2());
    assert!(answers[2].iter().all(|(_, chances)| chances.as_ref().is_some_and(|c| c.top.len() == 3)));
    let faults = [
        (6 * SECOND, FaultKind::Crash(NodeId(1))),
        (8 * SECOND, FaultKind::Restart(NodeId(1))),
        (9 * SECOND, FaultKind::Partition(vec![NodeId(0)], vec![NodeId(2)])),
        (11 * SECOND, FaultKind::Heal),
    ];
    for world in ["memory", "turmoil"] {
        assert_eq!(play(world, &[], &answers), 0, "{world}");
        let again = play(world, &faults, &answers);
        assert!(again >= 3, "{world}: {again} attempts were made again");
    }
}
