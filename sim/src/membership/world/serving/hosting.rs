//! What a machine loads and computes: the planner's own figures, one batch after the other.

use std::collections::BTreeMap;

use planner::cost::step::{Sequence, step_time, uniform_step_time};
use planner::fleet::Device;
use planner::model::Model;
use planner::plan::LayerRange;

use super::{Due, Host};
use crate::membership::serving::{Serving as Spec, ServingSabotage};
use crate::membership::world::World;

/// What each stage of a group adds to a token.
const HOP_S: f64 = 0.02;

/// How fast a device runs a model, by the planner.
#[derive(Debug, Clone)]
pub(super) struct Speed {
    prefill_s_per_token: f64,
    /// A token of each of so many sessions.
    step_s: Vec<f64>,
}

impl Speed {
    pub(super) fn of(model: &Model, device: &Device, spec: &Spec) -> Self {
        let all = LayerRange { first: 0, end: model.layer_count() };
        let chunk = Sequence { new_tokens: 512, context: 0, logits: 1 };
        // A model that does not fit is held by several: nobody reads from disk again.
        let roomy = Device { memory_bytes: 1 << 50, ..device.clone() };
        let one = Sequence::decode((spec.prompt + spec.output / 2.0) as u32);
        let step = |count| uniform_step_time(model, &roomy, all, one, count).total_us() / 1e6;
        Self {
            prefill_s_per_token: step_time(model, &roomy, all, &[chunk]).total_us() / 1e6 / 512.0,
            step_s: (1..=spec.sessions).map(step).collect(),
        }
    }
}

/// A request that is being answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) model: u32,
    pub(super) first_ns: u64,
    pub(super) done_ns: u64,
    pub(super) attempt: u32,
}

impl Host {
    /// Sessions and waiting requests; which model those wait for is not told apart.
    pub(super) fn by_model(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for run in self.running.values() {
            *counts.entry(crate::membership::truth::name(run.model)).or_default() += 1;
        }
        counts
    }
}

impl World {
    /// Reads a model, or a share of it, from disk.
    pub(super) fn load_model(&mut self, i: u32, model: u32, share: f64) {
        let now_ns = self.now_ns;
        let serving = self.serving_mut();
        serving.next_load += 1;
        let number = serving.next_load;
        let device = &serving.machines[i as usize].profile.devices[0];
        let bytes = serving.offers[model as usize].weight_bytes as f64 * share;
        let seconds = bytes / device.disk_bytes_per_s.max(1e6) + 0.5;
        let Some(host) = serving.hosts[i as usize].as_mut() else { return };
        host.loading.insert(model, number);
        let process = (i, host.began_ns);
        self.push_due(now_ns + (seconds * 1e9) as u64, Due::Loaded { host: i, model, number });
        self.note(|| format!("{i} loads model {model} in {seconds:.1} s"));
        let is_apart = self.is_apart();
        self.serving_mut().book.moved(now_ns, process, true, is_apart);
        self.note_supply(None);
    }

    pub(super) fn loaded(&mut self, i: u32, model: u32, number: u64) {
        let now_ns = self.now_ns;
        if let Some(until) = self.members[i as usize].paused {
            let at_ns = until.min(now_ns + 3_600_000_000_000);
            return self.push_due(at_ns, Due::Loaded { host: i, model, number });
        }
        let Some(host) = self.serving_mut().hosts[i as usize].as_mut() else { return };
        if host.loading.get(&model) != Some(&number) {
            return;
        }
        host.loading.remove(&model);
        self.note(|| format!("{i} has loaded model {model}"));
        let Some(host) = self.serving_mut().hosts[i as usize].as_mut() else { return };
        if let Some(holds) = host.enlisted.get_mut(&model) {
            *holds = true;
            self.regroup(model);
        } else {
            self.notice(i, model, true);
        }
        self.note_supply(None);
    }

    pub(super) fn enlist(&mut self, i: u32, model: u32) {
        let name = self.serving().offers[model as usize].name.clone();
        let Some(host) = self.serving_mut().hosts[i as usize].as_mut() else { return };
        let group = host.assigner.group(&name).len().max(1);
        host.enlisted.insert(model, false);
        self.load_model(i, model, 1.0 / group as f64);
    }

    /// Stops to serve: what runs goes on elsewhere.
    pub(super) fn retire(&mut self, i: u32, model: u32) {
        let Some(host) = self.serving_mut().hosts[i as usize].as_mut() else { return };
        let was_loading = host.loading.remove(&model).is_some();
        host.enlisted.remove(&model);
        let process = (i, host.began_ns);
        let cut: Vec<u64> =
            host.running.iter().filter(|(_, run)| run.model == model).map(|(id, _)| *id).collect();
        for id in cut {
            self.cut(id, i);
        }
        let now_ns = self.now_ns;
        self.note(|| format!("{i} gives up model {model}"));
        let is_apart = self.is_apart();
        let book = &mut self.serving_mut().book;
        book.moved(now_ns, process, false, is_apart);
        book.cancelled += u64::from(was_loading);
        self.regroup(model);
        self.start_waiting(i);
        self.note_supply(None);
    }

    pub(super) fn regroup_all(&mut self) {
        for model in 0..self.serving().offers.len() as u32 {
            self.regroup(model);
        }
    }

    /// The group's control plane, in short: it answers while those who hold layers have room for all of them.
    pub(super) fn regroup(&mut self, model: u32) {
        let serving = self.serving();
        let name = &serving.offers[model as usize].name;
        let holds = |i: &u32| {
            let host = serving.hosts[*i as usize].as_ref();
            host.is_some_and(|host| host.enlisted.get(&model) == Some(&true))
        };
        let holders: Vec<u32> = (0..self.members.len() as u32).filter(holds).collect();
        let room: u64 = holders.iter().map(|i| serving.machines[*i as usize].profile.caps.memory_bytes).sum();
        let answers = room > serving.offers[model as usize].weight_bytes;
        let changed = |i: &u32| {
            let host = serving.hosts[*i as usize].as_ref();
            host.is_some_and(|host| host.assigner.served().contains(name) != answers)
        };
        let changed: Vec<u32> = holders.into_iter().filter(changed).collect();
        for i in changed {
            self.notice(i, model, answers);
        }
    }

    /// A request is at a host: it runs, waits, or is turned away.
    pub(super) fn take_in(&mut self, i: u32, id: u64) -> bool {
        let serving = self.serving_mut();
        let (sessions, queue) = (serving.spec.sessions as usize, serving.spec.queue as usize);
        let endless = serving.sabotage == Some(ServingSabotage::EndlessQueue);
        let Some(host) = serving.hosts[i as usize].as_mut() else { return false };
        if host.running.len() >= sessions && host.waiting.len() >= queue && !endless {
            return false;
        }
        host.waiting.push_back(id);
        self.start_waiting(i);
        let host = self.serving_mut().hosts[i as usize].as_ref();
        let waiting = host.map_or(0, |host| host.waiting.len());
        let book = &mut self.serving_mut().book;
        book.longest_queue = book.longest_queue.max(waiting);
        self.tell(i);
        true
    }

    /// Those that wait begin, as far as there are slots.
    pub(super) fn start_waiting(&mut self, i: u32) {
        loop {
            let serving = self.serving_mut();
            let sessions = serving.spec.sessions as usize;
            let Some(host) = serving.hosts[i as usize].as_mut() else { return };
            if host.running.len() >= sessions {
                return;
            }
            let Some(id) = host.waiting.pop_front() else { return };
            self.begin(i, id);
        }
    }

    fn begin(&mut self, i: u32, id: u64) {
        let now_ns = self.now_ns;
        let group = self.group_size(i, id);
        let serving = self.serving_mut();
        let Some(request) = serving.requests.get(&id).filter(|request| request.host == Some(i)) else {
            return;
        };
        let (model, attempt) = (request.model, request.attempt);
        let speed = &serving.speeds[serving.machines[i as usize].kind][model as usize];
        let Some(host) = serving.hosts[i as usize].as_mut() else { return };
        let batch = host.running.len().min(speed.step_s.len() - 1);
        let step_s = speed.step_s[batch] + HOP_S * (group.saturating_sub(1)) as f64;
        let prompt = f64::from(request.prompt + request.had);
        let first_s = prompt * speed.prefill_s_per_token + step_s;
        let rest_s = f64::from((request.output - request.had).saturating_sub(1)) * step_s;
        let first_ns = now_ns + (first_s * 1e9) as u64;
        let done_ns = first_ns + (rest_s * 1e9) as u64;
        host.running.insert(id, Run { model, first_ns, done_ns, attempt });
        self.push_due(first_ns, Due::First { request: id, attempt });
        self.push_due(done_ns, Due::Done { request: id, attempt });
    }

    /// Stages that a token passes.
    fn group_size(&self, i: u32, id: u64) -> usize {
        let serving = self.serving();
        let Some(request) = serving.requests.get(&id) else { return 1 };
        let host = serving.hosts[i as usize].as_ref();
        let is_of_group = host.is_some_and(|host| host.enlisted.contains_key(&request.model));
        let holds = |host: &Host| host.enlisted.get(&request.model) == Some(&true);
        if is_of_group { serving.hosts.iter().flatten().filter(|host| holds(host)).count() } else { 1 }
    }
}
