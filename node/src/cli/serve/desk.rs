//! A node of a mesh as the API sees it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use planner::fleet::{Device, Node};
use planner::place::{Candidate, LeftOut, would_help_most};
use planner::plan::{Plan, Prediction, Stage};

use super::meshed::{Meshed, Missed};
use super::ring::Ring;
use crate::clock::Clock as _;
use crate::head::{Replies, Request};
use crate::http::{
    Advice, Desk, Health, MachineHealth, ModelHealth, Need, Observation, PeerHealth, PlanHealth, Proposal,
    ReplicaHealth, Served, StageHealth, Unserved, WayHealth,
};
use crate::ids::PeerId;
use crate::membership::{self, Abilities};
use crate::real::p2p::Figures;
use crate::real::p2p::roster::{Member, Roster};
use crate::real::p2p::ways::Way;
use crate::record::{self, Header, Opening};
use crate::routing::table::Table;
use crate::routing::{AUTO, Ask, Refusal, Ways, route, view};

/// Tokens of an answer, where a choice depends on it.
const OUTPUT: u32 = 256;
/// Models that are missed at once; others are not noted.
const MISSED_MAX: usize = 64;
/// Bytes of text for each token, about.
const BYTES_PER_TOKEN: usize = 4;

impl Desk for Meshed {
    fn models(&self) -> Vec<Arc<Served>> {
        self.rings().iter().map(|ring| ring.served()).collect()
    }

    fn ask(&self, model: &str, request: Request) -> Option<Replies> {
        let ring = self.rings().into_iter().find(|ring| ring.served().id == model)?;
        self.net().asked(ring.name());
        Some(ring.take(request))
    }

    fn choose(&self, need: &Need) -> Option<Arc<Served>> {
        let tokens = need.bytes / BYTES_PER_TOKEN;
        let chat = if need.chat { Abilities::CHAT } else { Abilities::default() };
        let tools = if need.tools { Abilities::TOOLS } else { Abilities::default() };
        let prompt = u32::try_from(tokens).unwrap_or(u32::MAX);
        let route = |needs| self.route(&Ask { prompt, needs, ..ask(AUTO) });
        // Any model takes a conversation and tools as text, if worse.
        let chosen = route(chat.and(tools)).or_else(|_| route(Abilities::default())).ok()?.model;
        let ring = self.rings().into_iter().find(|ring| ring.name() == chosen && ring.is_serving())?;
        Some(ring.served()).filter(|served| tokens < served.context as usize)
    }

    fn missed(&self, model: &str) -> Option<Unserved> {
        self.net().asked(model);
        self.assigner().wanted(self.clock().now(), model);
        self.changed.notify_waiters();
        match self.route(&ask(model)) {
            Ok(_) => {
                self.note_missed(model);
                Some(Unserved {
                    why: format!("{model} is served, and this node will soon know by whom."),
                    retry_s: 1,
                })
            }
            Err(why) => {
                let retry = why.retry()?;
                let retry_s = u32::try_from(retry.as_secs()).unwrap_or(u32::MAX).max(1);
                Some(Unserved { why: format!("{why}."), retry_s })
            }
        }
    }

    fn advice(&self) -> Vec<Advice> {
        self.rings().iter().map(|ring| advice(ring)).collect()
    }

    fn table(&self) -> Table {
        self.net().roster().read(|roster| {
            let living = roster.members().filter(|member| member.alive);
            let known = living.map(|member| (member.peer, &member.profile, &member.state));
            Table::of(roster.own().peer, known)
        })
    }

    fn observe(&self, model: Option<&str>) -> Option<Observation> {
        let is_meant = |ring: &Arc<Ring>| model.is_none_or(|model| ring.served().id == model);
        let ring = self.rings().into_iter().find(is_meant)?;
        // From before the layers are looked at: what changes them then is among the lines.
        let lines = ring.observe();
        let header = self.net().roster().read(|roster| header(roster, &ring, self.path_of(&ring)));
        Some(Observation { opening: Opening { now_ns: self.clock().now().0, header }, lines })
    }

    fn health(&self) -> Health {
        let models: Vec<ModelHealth> = self.rings().iter().map(|ring| model(ring)).collect();
        let serving = models.iter().any(|model| model.serving);
        let why = models.iter().find_map(|model| model.why.clone());
        let why = why.unwrap_or_else(|| "no member of the mesh offers a model".into());
        Health {
            serving,
            why: (!serving).then_some(why),
            node: self.net().roster().read(|roster| roster.own().profile.name.clone()),
            version: env!("CARGO_PKG_VERSION").into(),
            sessions: models.iter().map(|model| model.sessions).sum(),
            models,
            demand: self.net().demand().models,
            peers: self.peers(),
            troubles: self.net().state().read(|state| state.troubles.clone()),
            received: self.net().received().by_kind().map(|(kind, bytes)| (kind.to_owned(), bytes)).into(),
        }
    }
}

/// What a record of this node and that model begins with.
fn header(roster: &Roster, ring: &Ring, gguf: Option<PathBuf>) -> Header {
    let own = &roster.own().profile;
    let link = |link: &membership::Link| {
        let other = roster.member(link.peer)?.profile.name.clone();
        Some(record::Link {
            between: (own.name.clone(), other),
            round_trip_us: f64::from(link.round_trip_us),
            bytes_per_s: f64::from(link.bytes_per_s),
        })
    };
    let layers = ring.held().map(|(held, _)| held.layers);
    let node = |device: &Device| record::Node { name: own.name.clone(), device: device.clone(), layers };
    Header {
        meshwright_record: record::VERSION,
        world: "real".into(),
        model: ring.model.name.clone(),
        gguf,
        nodes: own.devices.first().map(node).into_iter().collect(),
        links: own.links.iter().filter_map(link).collect(),
    }
}

/// What any request for that model asks for.
fn ask(model: &str) -> Ask<'_> {
    let needs = Abilities::default();
    Ask { model, prompt: 0, output: OUTPUT, needs, sticky: None, prefixes: &[], doubted: &[], draw: 0 }
}

impl Meshed {
    /// Somebody says that it serves the model, and this node does not know by what plan.
    fn note_missed(&self, model: &str) {
        let now = self.clock().now();
        let mut missed = self.missed();
        if let Some(known) = missed.get_mut(model) {
            known.last = now;
        } else if missed.len() < MISSED_MAX {
            missed.insert(model.to_owned(), Missed { since: now, last: now });
        }
    }

    /// Which model and which hosts, by what members say.
    fn route(&self, ask: &Ask<'_>) -> Result<Ways, Refusal> {
        let doubted = self.doubted();
        self.net().roster().read(|roster| {
            let own = roster.own().peer;
            let known = roster.members().filter(|member| member.alive).map(|member| view::Member {
                peer: member.peer,
                profile: &member.profile,
                state: &member.state,
                round_trip: Duration::from_secs_f64(roster.round_trip_us(own, member.peer).max(0.0) / 1e6),
                sent: 0,
            });
            let mut models = view::models(known);
            for known in &mut models {
                known.hosts.retain(|host| !doubted.contains(&(host.peer, known.model.to_owned())));
            }
            route(ask, &models)
        })
    }

    /// Hosts that are not believed here that they serve these models. The assigner is asked while nothing of the roster is
    /// held: whoever works asks the roster while it holds the assigner.
    fn doubted(&self) -> BTreeSet<(PeerId, String)> {
        let says =
            |member: &Member| member.state.served.iter().map(|model| (member.peer, model.clone())).collect();
        let said: Vec<Vec<(PeerId, String)>> =
            self.net().roster().read(|roster| roster.others().map(says).collect());
        let (assigner, now) = (self.assigner(), self.clock().now());
        let said = said.into_iter().flatten();
        said.filter(|(peer, model)| assigner.is_doubted(now, *peer, model)).collect()
    }

    fn peers(&self) -> Vec<PeerHealth> {
        let connections = self.net().state().read(|state| state.connections.clone());
        let peer = |roster: &Roster, member: &Member| {
            let connection = connections.get(&member.peer);
            let way = |(way, figures): (&Way, &Figures)| {
                let Figures { frame_us, bytes_per_s, .. } = *figures;
                (way.name().to_owned(), WayHealth { frame_us, bytes_per_s })
            };
            PeerHealth {
                name: member.profile.name.clone(),
                alive: member.alive,
                serves: member.state.served.clone(),
                sessions: member.state.load.sessions,
                round_trip_ms: roster.round_trip_us(roster.own().peer, member.peer) / 1e3,
                way: connection.map(|connection| connection.used.name().to_owned()),
                ways: connection.iter().flat_map(|connection| connection.measured.iter().map(way)).collect(),
            }
        };
        self.net().roster().read(|roster| roster.others().map(|member| peer(roster, member)).collect())
    }
}

fn model(ring: &Ring) -> ModelHealth {
    let (served, published) = (ring.served(), ring.node().published());
    let serving = ring.is_serving();
    ModelHealth {
        id: served.id.clone(),
        name: served.name.clone(),
        serving,
        why: (!serving).then(|| ring.why(published.as_deref())),
        is_here: ring.has_weights,
        sessions: ring.node().sessions(),
        epoch: ring.node().epoch().0,
        plan: published.map(|p| plan(ring, &p.plan, &p.serving.keys().copied().collect())),
    }
}

fn plan(ring: &Ring, plan: &Plan, serving: &BTreeSet<usize>) -> PlanHealth {
    let stage = |stage: &Stage| StageHealth {
        node: ring.machine(stage),
        first: stage.layers.first,
        end: stage.layers.end,
    };
    let replicas = plan.replicas.iter().enumerate().map(|(i, replica)| ReplicaHealth {
        serving: serving.contains(&i),
        stages: replica.stages.iter().map(stage).collect(),
    });
    PlanHealth {
        model: plan.model.clone(),
        context: plan.context,
        sessions: plan.sessions,
        replicas: replicas.collect(),
    }
}

fn advice(ring: &Ring) -> Advice {
    let view = ring.node().view();
    let machine = |node: &Node| MachineHealth {
        name: node.name.clone(),
        device: node.device.name.clone(),
        usable_bytes: node.device.usable_bytes(),
        bytes_per_s: node.device.bandwidth_bytes_per_s * node.device.bandwidth_efficiency,
        has_model: node.has_model,
    };
    let mut advice = Advice {
        model: ring.model.name.clone(),
        machines: view.fleet.nodes.iter().map(machine).collect(),
        ..Advice::default()
    };
    match ring.place() {
        Err(why) => advice.refusal = Some(why.to_string()),
        Ok(placement) => {
            let left_out = |left: &LeftOut| format!("{}: {}", view.fleet.node(left.node).name, left.why);
            advice.left_out = placement.left_out.iter().map(left_out).collect();
            let help = would_help_most(&view.fleet, &ring.model, &ring.ask, &placement);
            advice.would_help = help.into_iter().map(|change| change.text).collect();
            advice.proposal = Some(proposal(ring, &placement.recommended));
        }
    }
    advice
}

fn proposal(ring: &Ring, candidate: &Candidate) -> Proposal {
    let Prediction { tpot_ms, ttft_ms, breakdown, .. } = candidate.prediction;
    let parts = [
        ("computing", breakdown.compute_ms),
        ("on the way", breakdown.latency_ms),
        ("sending", breakdown.bandwidth_ms),
        ("waiting", breakdown.queueing_ms),
        ("in software", breakdown.software_ms),
    ];
    let parts = parts.map(|(part, ms)| (part.to_owned(), ms)).into();
    Proposal { plan: plan(ring, &candidate.plan, &BTreeSet::new()), tpot_ms, ttft_ms, parts }
}
