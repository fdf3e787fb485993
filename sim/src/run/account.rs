//! From what was recorded to an outcome.

use node::ids::SessionId;
use node::probe::Event;
use planner::cost::memory::stage_bytes;
use planner::fleet::NodeId;
use planner::plan::{Breakdown, Epoch, LayerRange, Plan};

use super::play::Log;
use super::recoveries::{Pause, attempts, attribute, pauses};
use crate::faults::interrupts;
use crate::outcome::{Dilation, Incident, NodeUse, Outcome, RequestRecord};
use crate::record::Ledger;
use crate::scenario::{EngineKind, Scenario, WorldKind};

/// What a run leaves behind besides its ledger.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) world: WorldKind,
    pub(super) dilation: Dilation,
    pub(super) seed: u64,
    pub(super) plan: Plan,
    pub(super) requests: Vec<RequestRecord>,
    pub(super) log: Log,
}

/// The outcome of a run, its oracles not asked yet.
pub(super) fn outcome(scenario: &Scenario, remains: Remains, ledger: &Ledger) -> Outcome {
    let Remains { world, dilation, seed, plan, mut requests, log } = remains;
    let ended_ns = ended_ns(&requests, &log);
    let attempts = attempts(ledger.events());
    let mut all_pauses = Vec::new();
    for record in &mut requests {
        let tries = attempts.get(&record.session).map(Vec::as_slice).unwrap_or_default();
        record.resumptions = (tries.len() as u32).saturating_sub(1);
        all_pauses.extend(pauses(record, tries));
    }
    Outcome {
        engine: EngineKind::Ring,
        world,
        dilation,
        seed,
        breakdown: breakdown(&requests, &all_pauses, |session| ledger.tokens(session)),
        incidents: incidents(&log, ended_ns, ledger, &all_pauses),
        nodes: node_uses(scenario, &plan, &log, ended_ns, ledger),
        epoch: last_epoch(ledger, ended_ns),
        ended_us: ended_ns as f64 / 1e3,
        spans: ledger.spans().to_vec(),
        plan,
        requests,
        violations: Vec::new(),
    }
}

/// When the last request ended; where one has not, when the run was stopped.
fn ended_ns(requests: &[RequestRecord], log: &Log) -> u64 {
    let last_us = requests.iter().try_fold(0.0, |last: f64, r| r.ended_us.map(|ended| last.max(ended)));
    last_us.map_or(log.ended_ns, |last_us| (last_us * 1e3).round() as u64)
}

/// The mean over decode tokens outside of pauses. Parts are as booked; what is left of the time between two tokens
/// was waiting.
fn breakdown<'a>(
    requests: &[RequestRecord],
    pauses: &[Pause],
    booked: impl Fn(SessionId) -> &'a [(u32, Breakdown)],
) -> Breakdown {
    let (mut sum, mut lasted_ms, mut tokens) = (Breakdown::default(), 0.0, 0u64);
    for record in requests {
        let costs = booked(record.session);
        let mut own = pauses.iter().filter(|pause| pause.session == record.session).peekable();
        for (i, gap) in record.tokens_us.windows(2).enumerate() {
            while own.next_if(|pause| pause.to_us <= gap[0]).is_some() {}
            if own.peek().is_some_and(|pause| pause.from_us < gap[1]) {
                continue;
            }
            let position = record.prompt + 1 + i as u32;
            let Some(cost) = cost_at(costs, position) else { continue };
            sum.compute_ms += cost.compute_ms;
            sum.latency_ms += cost.latency_ms;
            sum.bandwidth_ms += cost.bandwidth_ms;
            sum.software_ms += cost.software_ms;
            lasted_ms += (gap[1] - gap[0]) / 1e3;
            tokens += 1;
        }
    }
    let mean = |total_ms: f64| total_ms / tokens.max(1) as f64;
    let parts = Breakdown {
        compute_ms: mean(sum.compute_ms),
        latency_ms: mean(sum.latency_ms),
        bandwidth_ms: mean(sum.bandwidth_ms),
        queueing_ms: 0.0,
        software_ms: mean(sum.software_ms),
    };
    Breakdown { queueing_ms: (mean(lasted_ms) - parts.total_ms()).max(0.0), ..parts }
}

/// What was booked on a position. Positions ascend, but for a session that went on at another node with less than its
/// first head had emitted.
fn cost_at(costs: &[(u32, Breakdown)], position: u32) -> Option<&Breakdown> {
    let first = costs.first()?.0;
    let likely = costs.get(position.checked_sub(first)? as usize);
    let found = likely.filter(|(at, _)| *at == position);
    found.or_else(|| costs.iter().find(|(at, _)| *at == position)).map(|(_, cost)| cost)
}

/// Faults and new plans, by time.
fn incidents(log: &Log, ended_ns: u64, ledger: &Ledger, pauses: &[Pause]) -> Vec<Incident> {
    let mut faults = log.incidents.clone();
    let interrupting: Vec<bool> = log.struck.iter().map(|(_, fault)| interrupts(fault)).collect();
    attribute(&mut faults, &interrupting, pauses);
    faults.extend(adoptions(ledger, ended_ns));
    faults.sort_by(|a, b| a.at_us.total_cmp(&b.at_us));
    faults
}

/// Each plan after the first: when its last node took it up, before the next plan came.
fn adoptions(ledger: &Ledger, until_ns: u64) -> Vec<Incident> {
    let mut newest = Epoch(1);
    let mut adoptions: Vec<(Epoch, u64, u32)> = Vec::new();
    for recorded in ledger.events().iter().take_while(|r| r.at_ns <= until_ns) {
        let Event::Adopted { epoch } = recorded.event else { continue };
        if epoch > newest {
            newest = epoch;
            adoptions.push((epoch, recorded.at_ns, 1));
        } else if let Some(last) = adoptions.last_mut().filter(|last| last.0 == epoch) {
            last.1 = recorded.at_ns;
            last.2 += 1;
        }
    }
    let incident = |(epoch, at_ns, nodes): (Epoch, u64, u32)| Incident {
        at_us: at_ns as f64 / 1e3,
        what: format!("epoch {} adopted by {nodes} {}", epoch.0, if nodes == 1 { "node" } else { "nodes" }),
        pause_us: None,
    };
    adoptions.into_iter().map(incident).collect()
}

fn last_epoch(ledger: &Ledger, until_ns: u64) -> Epoch {
    let adopted = ledger.events().iter().take_while(|r| r.at_ns <= until_ns);
    let epochs = adopted.filter_map(|r| match r.event {
        Event::Adopted { epoch } => Some(epoch),
        _ => None,
    });
    epochs.max().unwrap_or_default()
}

/// Every node that had layers: by the first plan, or by a later one.
fn node_uses(scenario: &Scenario, plan: &Plan, log: &Log, ended_ns: u64, ledger: &Ledger) -> Vec<NodeUse> {
    let whole_us = (ended_ns.saturating_sub(log.opened_ns) as f64 / 1e3).max(1e-3);
    let mut uses = Vec::new();
    for node in scenario.fleet.ids() {
        let Some(layers) = plan.layers_of(node).or_else(|| loaded_later(ledger, node)) else { continue };
        let activity = log.activity.get(node.index()).copied().unwrap_or_default();
        uses.push(NodeUse {
            node: scenario.fleet.node(node).name.clone(),
            busy: activity.busy_us / whole_us,
            memory_bytes: stage_bytes(&scenario.model, layers, plan.context, plan.sessions),
            steps: activity.steps,
            sent_bytes: activity.sent_bytes,
            kv_left: log.kv_left.get(node.index()).copied().unwrap_or(0),
        });
    }
    uses
}

/// The largest range that a node loaded under a later plan.
fn loaded_later(ledger: &Ledger, node: NodeId) -> Option<LayerRange> {
    let ranges = ledger.events().iter().filter(|r| r.node == node).filter_map(|r| match r.event {
        Event::LoadBegan { layers, .. } => layers,
        _ => None,
    });
    ranges.max_by_key(|layers| layers.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Status;

    fn record(tokens_us: &[f64]) -> RequestRecord {
        RequestRecord {
            session: SessionId(0),
            entry: "max".into(),
            prompt: 10,
            output: tokens_us.len() as u32,
            asked_us: 0.0,
            tokens_us: tokens_us.to_vec(),
            tokens: Vec::new(),
            ended_us: tokens_us.last().copied(),
            status: Status::Completed,
            resumptions: 0,
        }
    }

    fn cost(compute_ms: f64) -> Breakdown {
        Breakdown { compute_ms, latency_ms: 1.0, ..Breakdown::default() }
    }

    #[test]
    fn what_is_not_booked_of_the_time_between_tokens_was_waiting() {
        let costs = [(10, cost(50.0)), (11, cost(2.0)), (12, cost(4.0))];
        let found = breakdown(&[record(&[60e3, 65e3, 74e3])], &[], |_| &costs);
        assert_eq!((found.compute_ms, found.latency_ms, found.queueing_ms), (3.0, 1.0, 3.0));
        assert_eq!(found.total_ms(), 7.0, "the mean time between tokens, the first token aside");
    }

    #[test]
    fn tokens_of_a_recovery_are_not_part_of_the_mean() {
        let costs = [(10, cost(1.0)), (11, cost(2.0)), (12, cost(900.0)), (13, cost(4.0))];
        let pause = Pause { session: SessionId(0), since_us: 20e3, from_us: 65e3, to_us: 2e6 };
        let found = breakdown(&[record(&[60e3, 65e3, 2e6, 2.005e6])], &[pause], |_| &costs);
        assert_eq!(found.compute_ms, 3.0);
        assert_eq!(found.total_ms(), 5.0);
    }

    #[test]
    fn a_run_without_decode_tokens_has_an_empty_breakdown() {
        assert_eq!(breakdown(&[record(&[60e3])], &[], |_| &[]), Breakdown::default());
    }
}
