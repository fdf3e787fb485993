//! What the parts of one node share, and how a frame finds the part it is for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use planner::model::Model;
use planner::plan::NodeId;
use tokio::sync::mpsc;

use crate::clock::{Clock, Instant};
use crate::control::ControlInput;
use crate::head::HeadInput;
use crate::ids::{PeerId, SessionId};
use crate::limits::Limits;
use crate::outbox::{Outbox, Outgoing};
use crate::plans::Plans;
use crate::probe::{Event, Probe};
use crate::router::{FleetView, Outstanding};
use crate::stage::StageInput;
use crate::tasks::Tasks;
use crate::transport::{Lane, Transport};
use crate::wire::Frame;
use crate::world::World;

/// Requests under way at this node.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    pub(crate) inputs: BTreeMap<SessionId, mpsc::Sender<HeadInput>>,
    pub(crate) outstanding: Outstanding,
}

/// What the parts of a node share. A handle: clones share it.
pub(crate) struct Hub<W: World>(Arc<Shared<W>>);

impl<W: World> Clone for Hub<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: World> std::ops::Deref for Hub<W> {
    type Target = Shared<W>;

    fn deref(&self) -> &Shared<W> {
        &self.0
    }
}

/// Behind the handle.
pub(crate) struct Shared<W: World> {
    pub(crate) transport: W::Transport,
    pub(crate) clock: W::Clock,
    pub(crate) probe: W::Probe,
    pub(crate) view: Arc<FleetView>,
    pub(crate) model: Arc<Model>,
    pub(crate) limits: Limits,
    pub(crate) plans: Plans,
    pub(crate) tasks: Tasks,
    pub(crate) outbox: Outbox,
    pub(crate) heads: Mutex<Heads>,
    pub(crate) stage: mpsc::Sender<StageInput>,
    pub(crate) control: mpsc::Sender<ControlInput>,
}

impl<W: World> Hub<W> {
    pub(crate) fn new(shared: Shared<W>) -> Self {
        Self(Arc::new(shared))
    }

    /// This node's name.
    pub(crate) fn local(&self) -> PeerId {
        self.transport.local()
    }

    /// This node's place in the fleet; `None` for a node that is not part of it.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.view.node(self.local())
    }

    /// Tells the probe.
    pub(crate) fn tell(&self, event: Event) {
        self.probe.on(self.clock.now(), event);
    }

    /// Queues a frame nobody has to hear about when it is lost.
    pub(crate) fn send(&self, to: PeerId, lane: Lane, frame: Frame) {
        self.outbox.send(self, to, lane, Outgoing { frame, concerned: Vec::new() });
    }

    /// Something with the table of requests, under its lock.
    pub(crate) fn with_heads<R>(&self, with: impl FnOnce(&mut Heads) -> R) -> R {
        with(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands a frame that came off the network to its part; waits while that part is full.
    pub(crate) async fn deliver(&self, from: PeerId, frame: Frame) {
        match frame {
            Frame::Steps(steps) => {
                let at = self.clock.now();
                // A stage that has ended takes its node with it.
                let _ = self.stage.send(StageInput::Steps { at, steps }).await;
            }
            Frame::Close { session, attempt } => {
                let _ = self.stage.send(StageInput::Close { session, attempt }).await;
            }
            other => {
                // A head or control core that is that far behind learns by its deadlines.
                let _ = self.try_deliver(from, other);
            }
        }
    }

    /// The same without waiting; a part that is full gives the frame back.
    pub(crate) fn try_deliver(&self, from: PeerId, frame: Frame) -> Result<(), Frame> {
        match frame {
            Frame::Steps(steps) => {
                let at: Instant = self.clock.now();
                self.stage.try_send(StageInput::Steps { at, steps }).map_err(|e| match e.into_inner() {
                    StageInput::Steps { steps, .. } => Frame::Steps(steps),
                    _ => Frame::Steps(Vec::new()),
                })
            }
            Frame::Close { session, attempt } => self
                .stage
                .try_send(StageInput::Close { session, attempt })
                .map_err(|_| Frame::Close { session, attempt }),
            Frame::Token { session, attempt, position, token } => {
                self.to_head(session, HeadInput::Token { attempt, position, token });
                Ok(())
            }
            Frame::Nack { session, attempt, why } => {
                self.to_head(session, HeadInput::Nack { attempt, why });
                Ok(())
            }
            Frame::Control(control) => {
                // What is lost here is asked again with the next ping.
                let _ = self.control.try_send(ControlInput::Frame { from, control });
                Ok(())
            }
        }
    }

    fn to_head(&self, session: SessionId, input: HeadInput) {
        let taken = self.with_heads(|heads| {
            heads.inputs.get(&session).is_some_and(|queue| queue.try_send(input).is_ok())
        });
        if !taken {
            self.tell(Event::Stale { session });
        }
    }
}
