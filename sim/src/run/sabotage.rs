//! Bugs put into devices, networks and processes on purpose: whatever a run of real nodes makes of them, its oracles must
//! find them.

use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use node::clock::Clock;
use node::engine::{Engine, EngineError, Work, WorkOut};
use node::ids::{PeerId, SessionId};
use node::transport::{Lane, NetError, Transport, Tx};
use node::wire::Frame;
use node::world::{Doors, World};
use planner::plan::{Epoch, LayerRange};

use super::tests::{crashing, scenario};
use super::*;
use crate::mesh::{Mesh, Play};
use crate::wires::Life;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Every tenth token is another one.
    WrongToken,
    /// In every tenth step each session loses the last position of its KV, and nobody notices.
    LostContext,
    /// Sessions are never forgotten.
    KeepsKv,
    /// After some steps the device never answers again.
    Hangs,
    /// The device never comes to an end with what it is to load after what it began with.
    NeverLoadsAgain,
    /// Tokens on their way back to the head vanish.
    SwallowsTokens,
    /// The laptop's process starts again without a new life, and so goes back to the plan it was given at first.
    ForgetsPlan,
    /// No bug of a device: the machine has less memory than it says.
    ClaimsMemory,
}

/// A device with a bug.
struct Buggy<E> {
    /// `None` in the hands of another process.
    sound: Option<E>,
    bug: Bug,
    steps: u32,
    loads: u32,
}

impl<E> Buggy<E> {
    fn new(sound: Option<E>, bug: Bug) -> Self {
        Self { sound, bug, steps: 0, loads: 0 }
    }
}

impl<E: Engine> Engine for Buggy<E> {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        self.loads += 1;
        if self.bug == Bug::NeverLoadsAgain && self.loads > 1 {
            std::future::pending::<()>().await;
        }
        match &mut self.sound {
            Some(sound) => sound.load(model, layers).await,
            None => Err(EngineError::Device("another process has it".into())),
        }
    }

    async fn step(&mut self, mut batch: Vec<Work>) -> Vec<Result<WorkOut, EngineError>> {
        let Some(sound) = &mut self.sound else {
            return batch.iter().map(|_| Err(EngineError::NotLoaded)).collect();
        };
        self.steps += 1;
        let tenth = self.steps.is_multiple_of(10);
        if self.bug == Bug::Hangs && self.steps > 40 {
            std::future::pending::<()>().await;
        }
        if self.bug == Bug::LostContext && tenth {
            for work in batch.iter_mut().filter(|work| work.start > 1) {
                sound.truncate(work.session, work.start - 1);
                work.start -= 1;
            }
        }
        let mut outs = sound.step(batch).await;
        for out in outs.iter_mut().filter(|_| self.bug == Bug::WrongToken && tenth) {
            if let Ok(WorkOut::Token(sampled)) = out {
                sampled.token.0 ^= 1;
            }
        }
        outs
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        if let Some(sound) = &mut self.sound {
            sound.truncate(session, len);
        }
    }

    fn release(&mut self, session: SessionId) {
        if let Some(sound) = self.sound.as_mut().filter(|_| self.bug != Bug::KeepsKv) {
            sound.release(session);
        }
    }

    fn held(&self) -> Vec<SessionId> {
        self.sound.as_ref().map_or_else(Vec::new, Engine::held)
    }
}

/// A network with a bug.
#[derive(Clone)]
struct Leaky<T> {
    sound: T,
    bug: Bug,
}

impl<T: Transport> Transport for Leaky<T> {
    type Tx = LeakyTx<T::Tx>;
    type Rx = T::Rx;

    fn local(&self) -> PeerId {
        self.sound.local()
    }

    async fn open(&self, peer: PeerId, lane: Lane) -> Result<Self::Tx, NetError> {
        Ok(LeakyTx { sound: self.sound.open(peer, lane).await?, bug: self.bug })
    }

    async fn accept(&self) -> Result<(PeerId, Lane, Self::Rx), NetError> {
        self.sound.accept().await
    }
}

struct LeakyTx<T> {
    sound: T,
    bug: Bug,
}

impl<T: Tx> Tx for LeakyTx<T> {
    async fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        if self.bug == Bug::SwallowsTokens && matches!(frame, Frame::Token { .. }) {
            return Ok(());
        }
        self.sound.send(frame).await
    }
}

/// A world with a bug.
struct Sabotaged<W>(PhantomData<fn() -> W>);

impl<W: World> World for Sabotaged<W> {
    type Transport = Leaky<W::Transport>;
    type Engine = Buggy<W::Engine>;
    type Clock = W::Clock;
    type Probe = W::Probe;
}

/// A node that starts twice in one life: again when it has followed a later plan for a second.
async fn forget_plan<W: World>(ring: RingPlay, life: Life, doors: Doors<Sabotaged<W>>) {
    let Doors { transport, engine, clock, probe, seed } = doors;
    let again = Doors::<Sabotaged<W>> {
        transport: transport.clone(),
        engine: Buggy::new(None, engine.bug),
        clock: clock.clone(),
        probe: probe.clone(),
        seed,
    };
    let first =
        node::start(Doors::<Sabotaged<W>> { transport, engine, clock, probe, seed }, ring.config(life));
    while first.epoch() <= Epoch(1) {
        again.clock.sleep(Duration::from_secs(1)).await;
    }
    drop(first);
    let _second = node::start(again, ring.config(life));
    std::future::pending::<()>().await;
}

/// A run in such a world.
#[derive(Clone)]
struct Saboteur {
    ring: RingPlay,
    bug: Bug,
}

impl Play for Saboteur {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let Doors { transport, engine, clock, probe, seed } = doors;
        let transport = Leaky { sound: transport, bug: self.bug };
        let engine = Buggy::new(Some(engine), self.bug);
        let doors = Doors::<Sabotaged<W>> { transport, engine, clock, probe, seed };
        let Saboteur { ring, bug } = self.clone();
        async move {
            if bug == Bug::ForgetsPlan && life.node == LAPTOP {
                forget_plan::<W>(ring, life, doors).await;
            } else {
                ring.live::<Sabotaged<W>>(life, doors).await;
            }
        }
    }

    fn direct<C: Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        self.ring.direct(mesh)
    }
}

/// The machine that nobody asks, and that takes a dead one's place.
const LAPTOP: NodeId = NodeId(2);

/// What the oracles find in a run of `scenario` with this bug.
fn violations_of(bug: Bug, scenario: Scenario) -> Vec<String> {
    let scenario = Scenario { limit_us: 400e6, ..scenario };
    let plan = plan::choose(&scenario).expect("the cut is good");
    let mut truth = scenario.clone();
    if bug == Bug::ClaimsMemory {
        truth.fleet.nodes[0].device.memory_bytes /= 4;
    }
    let mut setting = Setting::new(&scenario, plan, 7, false).expect("it can be run");
    let saboteur = Saboteur { ring: setting.play.clone(), bug };
    let scale = setting.perform(WorldKind::Memory, &saboteur).expect("the world holds");
    setting.scenario = &truth;
    setting.close(WorldKind::Memory, scale).outcome.violations
}

/// Names of the oracles that find something.
fn found_in(bug: Bug, scenario: Scenario) -> Vec<String> {
    let violations = violations_of(bug, scenario);
    let mut names: Vec<String> =
        violations.iter().filter_map(|v| v.split_once(':')).map(|(name, _)| name.to_owned()).collect();
    names.dedup();
    names
}

fn found(bug: Bug) -> Vec<String> {
    found_in(bug, scenario())
}

#[test]
fn a_device_that_samples_wrongly_is_found() {
    assert_eq!(found(Bug::WrongToken), ["exact_tokens"]);
}

#[test]
fn a_device_that_forgets_part_of_a_session_is_found() {
    assert!(found(Bug::LostContext).contains(&"exact_tokens".to_owned()));
}

#[test]
fn a_device_that_keeps_kv_is_found() {
    assert_eq!(found(Bug::KeepsKv), ["kv_freed"]);
}

#[test]
fn a_device_that_hangs_is_found() {
    assert!(found(Bug::Hangs).contains(&"bounded_time".to_owned()));
}

#[test]
fn a_mesh_that_does_not_come_back_after_a_crash_is_found() {
    assert!(found_in(Bug::NeverLoadsAgain, crashing()).contains(&"liveness".to_owned()));
}

#[test]
fn a_network_that_swallows_tokens_is_found() {
    assert!(found(Bug::SwallowsTokens).contains(&"everybody_answered".to_owned()));
}

#[test]
fn a_node_that_forgets_its_plan_is_found() {
    assert!(found_in(Bug::ForgetsPlan, crashing()).contains(&"epoch_monotone".to_owned()));
}

#[test]
fn a_machine_that_claims_more_memory_than_it_has_is_found() {
    let violations = violations_of(Bug::ClaimsMemory, scenario());
    assert!(violations.iter().any(|v| v.starts_with("memory_bounds: max held")), "{violations:?}");
}
