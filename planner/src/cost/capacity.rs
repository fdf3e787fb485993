//! How many requests a plan can finish, whatever the number of those who ask.

use super::constants::RING;
use super::predict::{batch_of, streams_of};
use super::step::{Sequence, step_time, uniform_step_time};
use crate::fleet::Fleet;
use crate::model::Model;
use crate::plan::{Pipeline, Plan, Stage};

/// Requests that are all alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Requests {
    /// Prompt length, tokens.
    pub prompt: u32,
    /// Output tokens; the first comes out of the prompt's last chunk.
    pub output: u32,
    /// Requests under way at once.
    pub concurrency: u32,
}

/// Requests per second at most: the busiest stage of each replica computes every prompt, and its share of a batch for
/// each further token, one after the other. The utilisation law; links are not counted.
pub fn requests_per_second(fleet: &Fleet, model: &Model, plan: &Plan, requests: &Requests) -> f64 {
    let replicas = plan.replicas.len().max(1) as u32;
    let per_second = |(i, pipeline): (usize, &Pipeline)| {
        let streams = streams_of(requests.concurrency, replicas, i as u32);
        let batch = batch_of(pipeline, streams.max(1));
        let busy_us = pipeline.stages.iter().map(|stage| busy_us(fleet, model, stage, requests, batch));
        let busiest_us = busy_us.fold(0.0, f64::max);
        if streams > 0 && busiest_us > 0.0 { 1e6 / busiest_us } else { 0.0 }
    };
    plan.replicas.iter().enumerate().map(per_second).sum()
}

/// What one request costs a stage that decodes in batches of `batch`.
fn busy_us(fleet: &Fleet, model: &Model, stage: &Stage, requests: &Requests, batch: u32) -> f64 {
    let device = &fleet.node(stage.node).device;
    let chunk_us = |chunk| step_time(model, device, stage.layers, &[chunk]).total_us() + RING.per_step_us;
    let prefill_us: f64 = Sequence::prefill(requests.prompt).map(chunk_us).sum();
    let one = Sequence::decode(requests.prompt.saturating_add(requests.output / 2));
    let step_us = uniform_step_time(model, device, stage.layers, one, batch).total_us() + RING.per_step_us;
    prefill_us + f64::from(requests.output.saturating_sub(1)) * step_us / f64::from(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{
        Delay, Fleet, LinkClass, Network, NetworkId, Node, NodeId, catalog::device as catalogued,
    };
    use crate::model::catalog::find as named;
    use crate::plan::LayerRange;

    fn home(devices: &[&str]) -> Fleet {
        let network = Network {
            name: "home".into(),
            class: LinkClass::Lan,
            delay: Delay { base_us: 100.0, jitter_us: 0.0 },
            bytes_per_s: 1.25e8,
            shared: false,
            air_crossings: 1.0,
            access_us: 0.0,
            loss: 0.0,
            up_bytes_per_s: None,
            down_bytes_per_s: None,
        };
        let node = |(i, device): (usize, &&str)| Node {
            name: format!("n{i}"),
            device: catalogued(device).expect("the catalog has it"),
            machine: format!("n{i}"),
            network: NetworkId(0),
            up_bytes_per_s: None,
            down_bytes_per_s: None,
            has_model: true,
        };
        let nodes = devices.iter().enumerate().map(node).collect();
        Fleet { nodes, networks: vec![network], distances: Vec::new(), overrides: Vec::new() }
    }

    fn stage(node: u32, first: u32, end: u32) -> Stage {
        Stage { node: NodeId(node), layers: LayerRange { first, end } }
    }

    fn plan(pipelines: &[&[Stage]]) -> Plan {
        Plan {
            model: "Qwen3-8B".into(),
            replicas: pipelines.iter().map(|stages| Pipeline { stages: stages.to_vec() }).collect(),
            experts: Vec::new(),
            context: 4096,
            sessions: 16,
        }
    }

    #[test]
    fn prompts_alone_are_the_time_of_their_chunks() {
        let (fleet, model) =
            (home(&["apple-m4-pro"]), named("Qwen3-8B Q4_K_M").expect("it is in the catalog"));
        let whole = stage(0, 0, 36);
        let work = [Sequence { new_tokens: 300, context: 0, logits: 1 }];
        let alone_us =
            step_time(&model, &fleet.nodes[0].device, whole.layers, &work).total_us() + RING.per_step_us;
        let requests = Requests { prompt: 300, output: 1, concurrency: 9 };
        let found = requests_per_second(&fleet, &model, &plan(&[&[whole]]), &requests);
        assert!((found * alone_us / 1e6 - 1.0).abs() < 1e-9, "{found}");
    }

    #[test]
    fn the_busiest_stage_decides_and_copies_add_up() {
        let model = named("Qwen3-8B Q4_K_M").expect("it is in the catalog");
        let fleet = home(&["apple-m4-pro", "rtx-4090", "apple-m4-pro", "rtx-4090"]);
        let requests = Requests { prompt: 256, output: 128, concurrency: 8 };
        let per_second =
            |pipelines: &[&[Stage]]| requests_per_second(&fleet, &model, &plan(pipelines), &requests);
        let one = per_second(&[&[stage(0, 0, 30), stage(1, 30, 36)]]);
        let less_of_the_slow = per_second(&[&[stage(0, 0, 20), stage(1, 20, 36)]]);
        assert!(less_of_the_slow > 1.3 * one, "{less_of_the_slow} and {one}");
        let requests = Requests { concurrency: 16, ..requests };
        let two = [stage(0, 0, 30), stage(1, 30, 36)];
        let other = [stage(2, 0, 30), stage(3, 30, 36)];
        let both = requests_per_second(&fleet, &model, &plan(&[&two, &other]), &requests);
        assert!((both / one - 2.0).abs() < 1e-9, "{both} and {one}");
    }
}
