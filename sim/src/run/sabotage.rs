//! Bugs put into a device on purpose: whatever a run of real nodes makes of them, its oracles must find them.

use std::future::Future;
use std::marker::PhantomData;

use node::engine::{Engine, EngineError, Work, WorkOut};
use node::ids::SessionId;
use node::world::{Doors, World};
use planner::plan::LayerRange;

use super::tests::scenario;
use super::*;
use crate::mesh::{Mesh, Play};
use crate::wires::Life;

/// What is wrong with the devices.
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
}

/// A device with a bug.
struct Buggy<E> {
    sound: E,
    bug: Bug,
    steps: u32,
}

impl<E: Engine> Engine for Buggy<E> {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        self.sound.load(model, layers).await
    }

    async fn step(&mut self, mut batch: Vec<Work>) -> Vec<Result<WorkOut, EngineError>> {
        self.steps += 1;
        let tenth = self.steps.is_multiple_of(10);
        if self.bug == Bug::Hangs && self.steps > 40 {
            std::future::pending::<()>().await;
        }
        if self.bug == Bug::LostContext && tenth {
            for work in batch.iter_mut().filter(|work| work.start > 1) {
                self.sound.truncate(work.session, work.start - 1);
                work.start -= 1;
            }
        }
        let mut outs = self.sound.step(batch).await;
        for out in outs.iter_mut().filter(|_| self.bug == Bug::WrongToken && tenth) {
            if let Ok(WorkOut::Token(sampled)) = out {
                sampled.token.0 ^= 1;
            }
        }
        outs
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        self.sound.truncate(session, len);
    }

    fn release(&mut self, session: SessionId) {
        if self.bug != Bug::KeepsKv {
            self.sound.release(session);
        }
    }

    fn held(&self) -> Vec<SessionId> {
        self.sound.held()
    }
}

/// A world whose devices have a bug.
struct Sabotaged<W>(PhantomData<fn() -> W>);

impl<W: World> World for Sabotaged<W> {
    type Transport = W::Transport;
    type Engine = Buggy<W::Engine>;
    type Clock = W::Clock;
    type Probe = W::Probe;
}

/// A run on such devices.
#[derive(Clone)]
struct Saboteur {
    ring: RingPlay,
    bug: Bug,
}

impl Play for Saboteur {
    fn live<W: World>(&self, life: Life, doors: Doors<W>) -> impl Future<Output = ()> + 'static {
        let Doors { transport, engine, clock, probe, seed } = doors;
        let engine = Buggy { sound: engine, bug: self.bug, steps: 0 };
        self.ring.live::<Sabotaged<W>>(life, Doors { transport, engine, clock, probe, seed })
    }

    fn direct<C: node::clock::Clock>(&self, mesh: Mesh<C>) -> impl Future<Output = ()> + 'static {
        self.ring.direct(mesh)
    }
}

/// Names of the oracles that find something.
fn found(bug: Bug) -> Vec<String> {
    let scenario = Scenario { limit_us: 400e6, ..scenario() };
    let plan = plan::choose(&scenario).expect("the cut is good");
    let setting = Setting::new(&scenario, plan, 7, false).expect("it can be run");
    let saboteur = Saboteur { ring: setting.play.clone(), bug };
    let scale = setting.perform(WorldKind::Memory, &saboteur).expect("the world holds");
    let violations = setting.close(WorldKind::Memory, scale).outcome.violations;
    let mut names: Vec<String> =
        violations.iter().filter_map(|v| v.split_once(':')).map(|(name, _)| name.to_owned()).collect();
    names.dedup();
    names
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
