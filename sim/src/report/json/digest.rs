//! From a scenario and its answer to a report.

use planner::cost::capacity::{Requests, requests_per_second};
use planner::cost::memory::{sessions_room, stage_bytes};
use planner::fleet::{Fleet, NodeId};
use planner::place::Candidate;
use planner::plan::{Plan, Prediction, Stage};

use super::parts::{
    Agreement, AtLoad, EngineFigures, IncidentFacts, LeftOutFacts, ModelFacts, NodeFacts, NodeUseFacts,
    PlanFacts, Predicted, PublishedFacts, Recommended, RequestCounts, Spread, StageFacts, Suggestion,
};
use super::{FORMAT, Report, round3};
use crate::outcome::{Answer, Outcome, RequestRecord, Status};
use crate::report::Advice;
use crate::scenario::{Arrivals, EngineKind, Published, Scenario};

/// The name of an engine in scenario files, JSON and CSV.
pub fn engine_name(engine: EngineKind) -> String {
    wire_name(&engine)
}

/// A node's name; for a node the fleet does not have, its number.
pub fn node_name(fleet: &Fleet, node: NodeId) -> String {
    fleet.nodes.get(node.index()).map_or_else(|| format!("node-{}", node.0), |n| n.name.clone())
}

/// The name that serde gives a variant without data.
fn wire_name<T: serde::Serialize>(value: &T) -> String {
    let written = serde_json::to_value(value).expect("a variant without data always serialises");
    written.as_str().expect("a variant without data is written as its name").to_owned()
}

pub(super) fn digest(scenario: &Scenario, answer: &Answer, advice: &Advice) -> Report {
    let main = &answer.main;
    let figures = figures(main, 0.0);
    let made_by = if scenario.plan.split.is_some() { "scenario" } else { "planner" };
    let predicted = answer.predicted.as_ref().map(|p| predicted(scenario, &main.plan, &main.requests, p));
    Report {
        format: FORMAT,
        scenario: scenario.name.clone(),
        question: scenario.question.clone(),
        seed: main.seed,
        world: wire_name(&main.world),
        scale: main.dilation.scale,
        scale_error_percent: round3(100.0 * main.dilation.error),
        engine: engine_name(main.engine),
        model: model_facts(scenario),
        fleet: scenario.fleet.nodes.iter().map(|n| node_facts(&scenario.fleet, n)).collect(),
        plan: plan_facts(scenario, &main.plan, made_by),
        decode_tok_s: figures.decode_tok_s,
        throughput_tok_s: figures.throughput_tok_s,
        tpot_ms: figures.tpot_ms,
        ttft_ms: figures.ttft_ms,
        breakdown_ms: figures.breakdown_ms,
        requests: figures.requests,
        agreement: predicted.map(|p| agreement(&p, &figures)),
        predicted,
        baselines: answer.baselines.iter().map(|o| baseline(o, figures.decode_tok_s)).collect(),
        recommended: answer
            .recommended
            .as_ref()
            .map(|c| recommended(scenario, answer, c, &figures, advice.gap)),
        refusal: advice.refusal.clone(),
        left_out: left_out(advice),
        would_help: suggestions(advice),
        nodes: node_uses(main),
        incidents: incidents(main),
        epoch: main.epoch.0,
        simulated_s: round3(main.ended_us / 1e6),
        violations: main.violations.clone(),
        published: scenario.published.as_ref().map(|p| published(p, figures.decode_tok_s)),
        seeds: None,
        sweep: None,
    }
}

fn model_facts(scenario: &Scenario) -> ModelFacts {
    ModelFacts {
        name: scenario.model.name.clone(),
        layers: scenario.model.layer_count(),
        weight_bytes: scenario.model.weight_bytes(),
        active_bytes: scenario.model.active_bytes().round() as u64,
    }
}

fn node_facts(fleet: &Fleet, node: &planner::fleet::Node) -> NodeFacts {
    let network = fleet
        .networks
        .get(node.network.0 as usize)
        .map_or_else(String::new, |n| format!("{} ({})", n.name, wire_name(&n.class)));
    NodeFacts {
        node: node.name.clone(),
        machine: node.machine.clone(),
        device: node.device.name.clone(),
        memory_bytes: node.device.memory_bytes,
        usable_bytes: node.device.usable_bytes(),
        bandwidth_gb_s: round3(node.device.bandwidth_bytes_per_s / 1e9),
        network,
    }
}

fn plan_facts(scenario: &Scenario, plan: &Plan, made_by: &str) -> PlanFacts {
    let stages = plan.replicas.iter().enumerate().flat_map(|(replica, pipeline)| {
        pipeline.stages.iter().map(move |stage| stage_facts(scenario, plan, replica as u32, stage))
    });
    PlanFacts {
        mode: plan.mode().as_str().to_owned(),
        made_by: made_by.to_owned(),
        replicas: plan.replicas.len() as u32,
        stages: stages.collect(),
        context: plan.context,
        sessions: plan.sessions,
        sessions_room: sessions_room(&scenario.fleet, &scenario.model, plan),
    }
}

fn stage_facts(scenario: &Scenario, plan: &Plan, replica: u32, stage: &Stage) -> StageFacts {
    let device = scenario.fleet.nodes.get(stage.node.index()).map(|n| &n.device);
    StageFacts {
        replica,
        node: node_name(&scenario.fleet, stage.node),
        layers: [stage.layers.first, stage.layers.end],
        memory_bytes: stage_bytes(&scenario.model, stage.layers, plan.context, plan.sessions),
        usable_bytes: device.map_or(0, planner::fleet::Device::usable_bytes),
    }
}

/// The figures of one run; `main_tok_s` is what its ratio refers to, 0 for the main run itself.
fn figures(outcome: &Outcome, main_tok_s: f64) -> EngineFigures {
    let gaps = inter_token_ms(&outcome.requests);
    let tpot_ms = Spread::of(&gaps);
    let decode = per_second(super::super::stats::mean(&gaps));
    EngineFigures {
        decode_tok_s: round3(decode),
        throughput_tok_s: round3(throughput(&outcome.requests)),
        ratio: if main_tok_s > 0.0 { round3(decode / main_tok_s) } else { 0.0 },
        tpot_ms,
        ttft_ms: Spread::of(&first_token_ms(&outcome.requests)),
        breakdown_ms: outcome.breakdown.into(),
        requests: counts(&outcome.requests),
    }
}

/// Tokens per second at this many milliseconds a token; 0 without a token.
fn per_second(ms: Option<f64>) -> f64 {
    ms.filter(|ms| *ms > 0.0).map_or(0.0, |ms| 1000.0 / ms)
}

/// Every time from one token to the next of the same request, milliseconds.
fn inter_token_ms(requests: &[RequestRecord]) -> Vec<f64> {
    requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|pair| (pair[1] - pair[0]) / 1e3)).collect()
}

fn first_token_ms(requests: &[RequestRecord]) -> Vec<f64> {
    requests.iter().filter_map(|r| r.tokens_us.first().map(|t| (t - r.asked_us) / 1e3)).collect()
}

/// Output tokens per second between the first request and the last token.
fn throughput(requests: &[RequestRecord]) -> f64 {
    let tokens: usize = requests.iter().map(|r| r.tokens_us.len()).sum();
    let first = requests.iter().map(|r| r.asked_us).fold(f64::INFINITY, f64::min);
    let last = requests.iter().filter_map(|r| r.tokens_us.last().copied()).fold(f64::NEG_INFINITY, f64::max);
    if last > first { tokens as f64 / ((last - first) / 1e6) } else { 0.0 }
}

fn counts(requests: &[RequestRecord]) -> RequestCounts {
    let of = |wanted: fn(&Status) -> bool| requests.iter().filter(|r| wanted(&r.status)).count() as u32;
    let refused = of(|s| matches!(s, Status::Refused(_)));
    let asked = requests.len() as u32;
    RequestCounts {
        asked,
        accepted: asked - refused,
        completed: of(|s| matches!(s, Status::Completed)),
        resumed: requests.iter().filter(|r| r.resumptions > 0).count() as u32,
        refused,
        failed: of(|s| matches!(s, Status::Failed(_))),
        unfinished: of(|s| matches!(s, Status::Unfinished)),
    }
}

fn predicted(scenario: &Scenario, plan: &Plan, requests: &[RequestRecord], p: &Prediction) -> Predicted {
    Predicted {
        decode_tok_s: round3(per_second(Some(p.tpot_ms))),
        tpot_ms: round3(p.tpot_ms),
        ttft_ms: round3(p.ttft_ms),
        opening_ms: round3(p.opening_ms),
        throughput_tok_s: round3(p.throughput_tok_s),
        breakdown_ms: p.breakdown.into(),
        at_load: at_load(scenario, plan, requests, p),
    }
}

/// The prediction as the run of `requests` measures it.
fn at_load(scenario: &Scenario, plan: &Plan, requests: &[RequestRecord], p: &Prediction) -> AtLoad {
    // The first request of each copy opens its streams.
    let first = requests.len() < 2 * plan.replicas.len().max(1);
    let ttft_ms = p.ttft_ms + if first { p.opening_ms } else { 0.0 };
    let mut at_load = AtLoad {
        streams: None,
        decode_tok_s: round3(per_second(Some(p.tpot_ms))),
        throughput_tok_s: None,
        ttft_ms: round3(ttft_ms),
    };
    if let Arrivals::Closed { users, think_us } = scenario.workload.arrivals {
        let streams = f64::from(users.max(1));
        let tokens =
            requests.iter().map(|r| r.tokens_us.len()).sum::<usize>() as f64 / requests.len().max(1) as f64;
        let tpot_ms = (streams / p.throughput_tok_s * 1e3).max(p.tpot_ms);
        let request_ms = ttft_ms + (tokens - 1.0).max(0.0) * tpot_ms + think_us / 1e3;
        let requests_s = (streams / request_ms * 1e3).min(most_requests_s(scenario, plan, requests, users));
        at_load.streams = Some(users);
        at_load.decode_tok_s = round3(per_second(Some(tpot_ms)));
        at_load.throughput_tok_s = (tokens > 0.0).then(|| round3(requests_s * tokens));
    }
    at_load
}

/// Requests per second that `plan` can finish at most, when they are like the run's.
fn most_requests_s(scenario: &Scenario, plan: &Plan, requests: &[RequestRecord], users: u32) -> f64 {
    let mean = |of: fn(&RequestRecord) -> f64| {
        (requests.iter().map(of).sum::<f64>() / requests.len().max(1) as f64).round() as u32
    };
    let alike = Requests {
        prompt: mean(|r| f64::from(r.prompt)),
        output: mean(|r| r.tokens_us.len() as f64),
        concurrency: users,
    };
    requests_per_second(&scenario.fleet, &scenario.model, plan, &alike)
}

fn agreement(predicted: &Predicted, run: &EngineFigures) -> Agreement {
    let expected = &predicted.at_load;
    Agreement {
        decode_tok_s_error_percent: error_percent(Some(expected.decode_tok_s), Some(run.decode_tok_s)),
        throughput_tok_s_error_percent: error_percent(expected.throughput_tok_s, Some(run.throughput_tok_s)),
        ttft_ms_error_percent: error_percent(Some(expected.ttft_ms), run.ttft_ms.p50),
    }
}

fn error_percent(expected: Option<f64>, seen: Option<f64>) -> Option<f64> {
    let (expected, seen) = expected.zip(seen.filter(|seen| *seen > 0.0))?;
    Some(round3((expected / seen - 1.0) * 100.0))
}

fn baseline(outcome: &Outcome, main_tok_s: f64) -> (String, EngineFigures) {
    (engine_name(outcome.engine), figures(outcome, main_tok_s))
}

fn recommended(
    scenario: &Scenario,
    answer: &Answer,
    candidate: &Candidate,
    main: &EngineFigures,
    gap: f64,
) -> Recommended {
    let is_main =
        answer.main.engine == EngineKind::Ring && candidate.plan.replicas == answer.main.plan.replicas;
    let own = answer.recommended_run.as_ref().map(|o| figures(o, main.decode_tok_s));
    Recommended {
        plan: plan_facts(scenario, &candidate.plan, "planner"),
        is_main,
        predicted: predicted(scenario, &candidate.plan, &answer.main.requests, &candidate.prediction),
        run: own.or_else(|| is_main.then_some(EngineFigures { ratio: 1.0, ..*main })),
        gap: round3(gap),
    }
}

fn left_out(advice: &Advice) -> Vec<LeftOutFacts> {
    advice.left_out.iter().map(|(node, why)| LeftOutFacts { node: node.clone(), why: why.clone() }).collect()
}

fn suggestions(advice: &Advice) -> Vec<Suggestion> {
    let suggestion =
        |h: &super::super::Help| Suggestion { change: h.text.clone(), gain_percent: round3(h.gain * 100.0) };
    advice.help.iter().map(suggestion).collect()
}

fn node_uses(outcome: &Outcome) -> Vec<NodeUseFacts> {
    let one = |n: &crate::outcome::NodeUse| NodeUseFacts {
        node: n.node.clone(),
        busy: round3(n.busy),
        memory_bytes: n.memory_bytes,
        steps: n.steps,
        sent_bytes: n.sent_bytes,
        kv_left: n.kv_left,
    };
    outcome.nodes.iter().map(one).collect()
}

fn incidents(outcome: &Outcome) -> Vec<IncidentFacts> {
    let one = |i: &crate::outcome::Incident| IncidentFacts {
        at_ms: round3(i.at_us / 1e3),
        what: i.what.clone(),
        pause_ms: i.pause_us.map(|us| round3(us / 1e3)),
    };
    outcome.incidents.iter().map(one).collect()
}

fn published(p: &Published, run_tok_s: f64) -> PublishedFacts {
    let (low, high) = (p.decode_tok_s.0.min(p.decode_tok_s.1), p.decode_tok_s.0.max(p.decode_tok_s.1));
    let nearest = run_tok_s.clamp(low, high);
    PublishedFacts {
        id: p.id.clone(),
        decode_tok_s: [round3(low), round3(high)],
        grade: p.grade.to_string(),
        source: p.source.clone(),
        error_percent: if nearest > 0.0 { round3((run_tok_s / nearest - 1.0) * 100.0) } else { 0.0 },
    }
}
