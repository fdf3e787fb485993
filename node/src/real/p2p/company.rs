//! The membership of a real node: Ed25519 for its signatures, the network for its packets, the roster for what it hears.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::identity::{Key, is_signed};
use super::state::Shared;
use super::streams::P2p;
use crate::clock::{Clock as _, TokioClock};
use crate::gossip::{Gossip, Said};
use crate::ids::PeerId;
use crate::membership::{Config, Event, Life, Membership, Profile, State, Trust};
use crate::switch::Branch;

/// The membership of a node, as it runs.
pub(super) type Company = Gossip<Key, TokioClock>;

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Own {
    pub(super) profile: Profile,
    pub(super) state: State,
}

impl Trust for Key {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signature(message)
    }

    fn is_signed(&self, by: PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        is_signed(by, message, signature)
    }
}

/// Starts it in the mesh's own conversation.
pub(super) fn start(shared: &Arc<Shared>, key: Key, mesh: Branch<P2p>) -> Company {
    let now = shared.clock.now();
    let started = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let seed = u64::from_le_bytes(std::array::from_fn(|i| key.peer().0[i])) ^ started;
    let member = Membership::new(key.peer(), Life::new(started), key, Config::default(), seed, now);
    let heard = Arc::clone(shared);
    Gossip::start(mesh, shared.clock, member, move |member, events| {
        for event in &events {
            log(&heard, event);
        }
        heard.roster.send_modify(|roster| roster.follow(member, &events));
    })
}

fn log(shared: &Shared, event: &Event) {
    match event {
        Event::Up(peer) | Event::Restarted(peer) => tracing::debug!(?peer, "member heard of"),
        Event::Down(peer) => tracing::info!(?peer, "member gone or dead"),
        Event::Changed(..) => {}
        Event::Revived => tracing::warn!("others held this node for dead; it has told them that it lives"),
        Event::Refused { by, owner, why } => {
            shared.trouble(format!("{by:?}"), format!("it passed on what {owner:?} is to have said: {why}"));
        }
        Event::Distrusted(peer) => {
            let why =
                "it was wrong about others again and again: what it says of them is not believed for a while";
            shared.trouble(format!("{peer:?}"), why.into());
        }
        Event::Garbled(peer) => {
            shared
                .trouble(format!("{peer:?}"), "its gossip cannot be read; it may run another version".into());
        }
    }
}

/// Tells the membership whom this node has met, whose connections broke, and what this node says of itself.
pub(super) async fn tell(shared: Arc<Shared>, company: Arc<Company>) {
    let mut state = shared.state.subscribe();
    let mut own = shared.own.subscribe();
    let mut met = BTreeSet::new();
    speak(&shared, &company, &mut own).await;
    loop {
        let members = state.borrow_and_update().members.clone();
        let new: Vec<PeerId> = members.difference(&met).copied().collect();
        if !new.is_empty() {
            company.tell(Said::Join(new)).await;
        }
        for gone in met.difference(&members) {
            company.tell(Said::Unreachable(*gone)).await;
        }
        met = members;
        tokio::select! {
            biased;
            changed = own.changed() => match changed {
                Ok(()) => speak(&shared, &company, &mut own).await,
                Err(_) => return,
            },
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

async fn speak(shared: &Shared, company: &Company, own: &mut watch::Receiver<Own>) {
    let Own { profile, state } = own.borrow_and_update().clone();
    shared.roster.send_modify(|roster| roster.said(&profile, &state));
    company.tell(Said::Profile(profile)).await;
    company.tell(Said::State(state)).await;
}
