//! What the tasks of one node share.

use std::sync::Arc;

use planner::model::Model;

use crate::clock::{Clock, Instant};
use crate::control::ControlDoor;
use crate::heads::Heads;
use crate::ids::PeerId;
use crate::ledger::Ledger;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::plans::Plans;
use crate::probe::{Event, Probe};
use crate::stage::StageDoor;
use crate::tasks::Tasks;
use crate::view::Views;
use crate::world::World;

/// Held by every task of a node, and by its handle.
pub(crate) struct Interior<W: World> {
    pub(crate) me: PeerId,
    /// Which life of it this is.
    pub(crate) incarnation: u64,
    pub(crate) views: Views,
    pub(crate) model: Arc<Model>,
    pub(crate) limits: Limits,
    pub(crate) transport: W::Transport,
    pub(crate) clock: W::Clock,
    pub(crate) probe: W::Probe,
    pub(crate) plans: Plans,
    pub(crate) ledger: Ledger,
    pub(crate) heads: Heads,
    pub(crate) outbox: Outbox,
    pub(crate) stage: StageDoor,
    pub(crate) control: ControlDoor,
    pub(crate) tasks: Tasks,
}

impl<W: World> Interior<W> {
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Tells the probe.
    pub(crate) fn tell(&self, event: Event) {
        self.probe.on(self.clock.now(), event);
    }
}
