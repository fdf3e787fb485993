//! Carries the core's decisions out: a ping period's ticks, frames in, frames and assignments out.

use planner::plan::{Epoch, Plan};
use tokio::sync::mpsc;

use super::ControlInput;
use super::core::{Action, Core, Setting};
use crate::clock::Clock;
use crate::hub::Hub;
use crate::probe::Event;
use crate::stage::StageInput;
use crate::transport::Lane;
use crate::wire::Frame;
use crate::world::World;

/// Runs the control plane until the node ends.
pub(crate) async fn run<W: World>(
    hub: Hub<W>,
    setting: Setting,
    initial: Option<(Epoch, Plan)>,
    mut inputs: mpsc::Receiver<ControlInput>,
) {
    let period = setting.ping;
    let mut core = Core::new(setting, hub.clock.now());
    carry_out(&hub, core.begin_with(initial)).await;
    // Nodes tick apart from each other, so that a fleet's pings do not come all at once.
    let share = hub.node().map_or(0, |n| n.0) % 16;
    let mut next = hub.clock.now().after(period / 16 * share);
    loop {
        let actions = match hub.clock.timeout_at(next, inputs.recv()).await {
            Ok(Some(input)) => decide(&hub, &mut core, input),
            Ok(None) => return,
            Err(_) => {
                next = next.after(period);
                core.tick(hub.clock.now())
            }
        };
        carry_out(&hub, actions).await;
    }
}

fn decide<W: World>(hub: &Hub<W>, core: &mut Core, input: ControlInput) -> Vec<Action> {
    let now = hub.clock.now();
    match input {
        // Strangers are not part of the fleet.
        ControlInput::Frame { from, control } => {
            hub.view.node(from).map_or_else(Vec::new, |from| core.hear(from, control, now))
        }
        ControlInput::Suspect(peer) => hub.view.node(peer).map_or_else(Vec::new, |n| core.suspect(n)),
        ControlInput::Loaded { epoch, ok } => core.loaded(epoch, ok, now),
    }
}

async fn carry_out<W: World>(hub: &Hub<W>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Send(node, control) => {
                if let Some(peer) = hub.view.peer(node) {
                    hub.send(peer, Lane::Control, Frame::Control(control));
                }
            }
            Action::Follow(published) => {
                let layers = hub.node().and_then(|me| published.plan.layers_of(me));
                let epoch = published.epoch;
                if hub.plans.publish(published) {
                    hub.tell(Event::Adopted { epoch });
                    // Only a node that ends has no stage.
                    let _ = hub.stage.send(StageInput::Assign { epoch, layers }).await;
                }
            }
            Action::Lost(node) => {
                hub.plans.set_lost(node, true);
                if let Some(peer) = hub.view.peer(node) {
                    hub.tell(Event::PeerLost { peer });
                    let _ = hub.stage.send(StageInput::HeadLost(peer)).await;
                }
            }
            Action::Back(node) => {
                hub.plans.set_lost(node, false);
                if let Some(peer) = hub.view.peer(node) {
                    hub.tell(Event::PeerBack { peer });
                }
            }
        }
    }
}
