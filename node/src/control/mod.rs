//! Who is alive, which plan holds, what of it serves.
//!
//! [`core`] decides, without input or output; [`liveness`] is its sense of who answers, [`planning`] what it knows when
//! it plans. This module drives it: it hands it what is heard and does what it says.

mod core;
mod liveness;
mod planning;

use std::sync::Arc;

use planner::plan::{Epoch, Plan};
use tokio::sync::mpsc;

pub(crate) use self::core::{Core, Setup};
pub use self::planning::Least;
pub(crate) use self::planning::Search;

use self::core::Action;
use crate::clock::Clock;
use crate::ids::{PeerId, PlanId};
use crate::interior::Interior;
use crate::probe::Event;
use crate::stage::LoadOrder;
use crate::transport::{Lane, Transport as _};
use crate::wire::{Control, Frame};
use crate::world::World;

/// What this node itself notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// A stream to or from it broke, or it missed a deadline.
    Unreachable(PeerId),
    /// The stage has loaded its layers of that plan, or could not.
    Loaded { plan: PlanId, ok: bool },
    /// This node will end: it is not to be planned with.
    Leaving,
}

#[derive(Debug)]
enum Input {
    Heard(PeerId, Control),
    Noticed(Report),
}

/// How others reach the control plane.
#[derive(Debug, Clone)]
pub(crate) struct ControlDoor {
    inputs: mpsc::Sender<Input>,
}

/// The other side of the door.
#[derive(Debug)]
pub(crate) struct ControlIntake {
    inputs: mpsc::Receiver<Input>,
}

impl ControlDoor {
    pub(crate) fn new(room: usize) -> (Self, ControlIntake) {
        let (sender, inputs) = mpsc::channel(room);
        (Self { inputs: sender }, ControlIntake { inputs })
    }

    pub(crate) async fn heard(&self, from: PeerId, control: Control) {
        let _ = self.inputs.send(Input::Heard(from, control)).await;
    }

    /// Lost when the queue is full: pings find out too, only later.
    pub(crate) fn notice(&self, report: Report) {
        let _ = self.inputs.try_send(Input::Noticed(report));
    }

    /// Waits for room: nobody else would find out.
    pub(crate) async fn report(&self, report: Report) {
        let _ = self.inputs.send(Input::Noticed(report)).await;
    }
}

/// Runs the control plane until the node ends.
pub(crate) async fn run<W: World>(
    node: Arc<Interior<W>>,
    mut core: Core,
    mut intake: ControlIntake,
    initial: Option<(Epoch, Plan)>,
) {
    core.begin(node.now(), initial);
    loop {
        let grown = node.views.changed();
        core.see(node.now(), node.views.current());
        act(&node, &mut core);
        let due = core.next_due();
        tokio::select! {
            biased;
            () = grown => {}
            input = intake.inputs.recv() => match input {
                Some(Input::Heard(from, control)) => core.heard(node.now(), from, control),
                Some(Input::Noticed(Report::Unreachable(peer))) => core.suspect(node.now(), peer),
                Some(Input::Noticed(Report::Leaving)) => core.leave(node.now()),
                Some(Input::Noticed(Report::Loaded { plan, ok })) => core.loaded(node.now(), plan, ok),
                None => return,
            },
            peer = node.transport.refused() => core.refused(node.now(), peer),
            () = node.clock.sleep_until(due.unwrap_or_default()), if due.is_some() => core.tick(node.now()),
        }
    }
}

fn act<W: World>(node: &Arc<Interior<W>>, core: &mut Core) {
    for action in core.take_actions() {
        match action {
            Action::Send(peer, control) => node.send_now(peer, Lane::Control, Frame::Control(control)),
            Action::Follow { id, plan, layers } => {
                let model = plan.model.clone();
                node.plans.adopt(id, plan);
                node.tell(Event::Adopted { epoch: id.epoch });
                node.stage.order(LoadOrder { plan: id, model, layers });
            }
            Action::Serve { id, serving } => {
                for peer in node.plans.renewed(id, &serving) {
                    node.renew(node.views.current().peer(peer).unwrap_or_default(), &Lane::DATA);
                }
                node.plans.serve(id, serving);
            }
            Action::Lost(peer) => {
                node.tell(Event::PeerLost { peer });
                node.doubt_all(peer);
            }
            Action::Back(peer) => {
                node.tell(Event::PeerBack { peer });
                node.doubt_all(peer);
            }
            Action::Doubt(peer) => node.doubt(peer, Lane::Control),
            Action::Renewed(peer) => node.renew(peer, &Lane::ALL),
        }
    }
}
