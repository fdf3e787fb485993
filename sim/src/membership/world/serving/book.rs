//! What really happened, seen from outside: when models had no host, who loaded at the same time, what was answered.

use super::Due;
use crate::membership::serving::{Served, Spread};
use crate::membership::truth;
use crate::membership::world::{SECOND_NS, World};

/// A model counts as asked for this long after a request.
const ASKED_NS: u64 = 60 * SECOND_NS;
/// After a partition all hear each other again within this time.
const HEALED_NS: u64 = 30 * SECOND_NS;
/// Whoever has begun within this time may not know all others yet, nor they it.
pub(super) const NEW_NS: u64 = 10 * SECOND_NS;
/// What a model takes beside its weights, about.
const BESIDE_BYTES: u64 = 3 << 30;

/// A time in which nobody serves a model that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    /// From when somebody could.
    pub(super) from_ns: u64,
    pub(super) begun_ns: Option<u64>,
    is_death: bool,
}

/// A model's part of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    asked_ns: Option<u64>,
    pub(super) gap: Option<Gap>,
    /// Since when too many load it, and whether one of them has just begun.
    double: Option<(u64, bool)>,
    /// Replicas.
    pub(super) serving: u32,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) pages: Vec<Page>,
    pub(super) requests: u64,
    answers_s: Vec<f64>,
    pub(super) retried: u64,
    pub(super) resumed: u64,
    pub(super) put_off: u64,
    /// Requests for models that an entry node took for unknown.
    pub(super) unknown: u64,
    pub(super) begun_s: Vec<f64>,
    begun_after_death_s: Vec<f64>,
    served_after_death_s: Vec<f64>,
    pub(super) served_s: Vec<f64>,
    pub(super) taken_up: u64,
    pub(super) given_up: u64,
    pub(super) cancelled: u64,
    /// When who took up or gave up something, while all could hear all, and when that process began.
    pub(super) moves: Vec<(u64, (u32, u64))>,
    pub(super) doubles_s: Vec<f64>,
    /// Those in which a member that had just begun took part.
    pub(super) doubles_of_new_s: Vec<f64>,
    pub(super) longest_queue: usize,
    pub(super) client_bytes: u64,
    pub(super) tables: u64,
    split_ns: Option<u64>,
}

impl Book {
    pub(super) fn new(models: usize) -> Self {
        Self {
            pages: vec![Page::default(); models],
            requests: 0,
            answers_s: Vec::new(),
            retried: 0,
            resumed: 0,
            put_off: 0,
            unknown: 0,
            begun_s: Vec::new(),
            begun_after_death_s: Vec::new(),
            served_after_death_s: Vec::new(),
            served_s: Vec::new(),
            taken_up: 0,
            given_up: 0,
            cancelled: 0,
            moves: Vec::new(),
            doubles_s: Vec::new(),
            doubles_of_new_s: Vec::new(),
            longest_queue: 0,
            client_bytes: 0,
            tables: 0,
            split_ns: None,
        }
    }

    pub(super) fn answered(&mut self, born_ns: u64, now_ns: u64) {
        self.answers_s.push(now_ns.saturating_sub(born_ns) as f64 / 1e9);
    }

    /// A machine takes a model up, or gives it up. While some cannot hear others each side sees to itself, and steps back
    /// afterwards: that is not counted against anybody's calm.
    pub(super) fn moved(&mut self, now_ns: u64, process: (u32, u64), is_up: bool, is_apart: bool) {
        if !is_apart {
            self.moves.push((now_ns, process));
        }
        if is_up { self.taken_up += 1 } else { self.given_up += 1 }
    }

    pub(super) fn outcome(&self, seconds: f64, clients: u32) -> Served {
        let per_minute = |bytes: u64| bytes as f64 / f64::from(clients.max(1)) / (seconds / 60.0).max(1e-9);
        Served {
            requests: self.requests,
            answered: self.answers_s.len() as u64,
            retried: self.retried,
            resumed: self.resumed,
            put_off: self.put_off,
            answer_s: Spread::of(self.answers_s.iter().copied()),
            begun_s: Spread::of(self.begun_s.iter().copied()),
            served_s: Spread::of(self.served_s.iter().copied()),
            begun_after_death_s: Spread::of(self.begun_after_death_s.iter().copied()),
            served_after_death_s: Spread::of(self.served_after_death_s.iter().copied()),
            last_move_s: self.moves.last().map_or(0.0, |(at_ns, _)| *at_ns as f64 / 1e9),
            taken_up: self.taken_up,
            given_up: self.given_up,
            doubled: (self.doubles_s.len() + self.doubles_of_new_s.len()) as u64,
            doubled_s: self
                .doubles_s
                .iter()
                .chain(&self.doubles_of_new_s)
                .fold(0.0, |sum, seconds| sum + seconds),
            replicas: self.pages.iter().map(|page| page.serving).collect(),
            client_bytes_per_minute: per_minute(self.client_bytes),
            tables: self.tables,
        }
    }
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

impl World {
    pub(super) fn look(&mut self) {
        self.push_due(self.now_ns + SECOND_NS, Due::Look);
        self.notice_silence();
        if self.is_split() {
            self.serving_mut().book.split_ns = Some(self.now_ns);
        }
        self.note_supply(None);
        let now_ns = self.now_ns;
        let is_apart = self.is_apart();
        for model in 0..self.serving().offers.len() as u32 {
            // Time in which nobody could does not count.
            let counts = !is_apart && self.somebody_could(model);
            let page = &mut self.serving_mut().book.pages[model as usize];
            if let Some(gap) = page.gap.as_mut().filter(|gap| !counts && gap.begun_ns.is_none()) {
                gap.from_ns = now_ns;
            }
        }
    }

    /// A partition, and a while after it: each side sees to itself.
    pub(super) fn is_apart(&self) -> bool {
        let since = self.serving().book.split_ns;
        self.is_split() || since.is_some_and(|at| self.now_ns < at + HEALED_NS)
    }

    /// A request for it has reached an entry node.
    pub(super) fn note_asked(&mut self, model: u32) {
        let now_ns = self.now_ns;
        self.serving_mut().book.pages[model as usize].asked_ns = Some(now_ns);
        if self.serving().book.pages[model as usize].serving == 0 {
            self.note_supply(None);
        }
    }

    /// Something has changed in what is served or loaded.
    pub(super) fn note_supply(&mut self, dead: Option<u32>) {
        for model in 0..self.serving().offers.len() as u32 {
            self.note_model(model, dead);
        }
    }

    fn note_model(&mut self, model: u32, dead: Option<u32>) {
        let now_ns = self.now_ns;
        let is_apart = self.is_apart();
        let serving = self.serving();
        let name = &serving.offers[model as usize].name;
        let mut counts = (0, 0, 0);
        let mut is_new = false;
        let mut is_deceived = false;
        for (i, host) in serving.hosts.iter().enumerate() {
            let Some(host) = host.as_ref().filter(|_| self.members[i].is_running()) else { continue };
            is_deceived |= host.pretends;
            counts.0 += u32::from(host.assigner.served().contains(name));
            let loads = host.loading.contains_key(&model) && !host.enlisted.contains_key(&model);
            let loads = loads && serving.machines[i].pinned != Some(model);
            counts.1 += u32::from(loads);
            // Whom nobody hears nobody makes way for.
            counts.2 += u32::from(loads && self.is_audible(i as u32));
            is_new |= loads && now_ns < host.began_ns + NEW_NS;
        }
        let (served, loading, heard_loading) = counts;
        let book = &mut self.serving_mut().book;
        let page = &mut book.pages[model as usize];
        page.serving = served;
        let is_asked = page.asked_ns.is_some_and(|at| now_ns < at + ASKED_NS);
        if served == 0 && is_asked {
            let gap =
                page.gap.get_or_insert(Gap { from_ns: now_ns, begun_ns: None, is_death: dead.is_some() });
            if loading > 0 && gap.begun_ns.is_none() {
                gap.begun_ns = Some(now_ns);
                book.begun_s.push(seconds(gap.from_ns, now_ns));
                if gap.is_death {
                    book.begun_after_death_s.push(seconds(gap.from_ns, now_ns));
                }
            } else if loading == 0 && gap.begun_ns.take().is_some() {
                gap.from_ns = now_ns;
            }
        } else if let Some(gap) = page.gap.take()
            && served > 0
        {
            book.served_s.push(seconds(gap.from_ns, now_ns));
            if gap.is_death {
                book.served_after_death_s.push(seconds(gap.from_ns, now_ns));
            }
        }
        // Of a model that has hosts at most as many more may come at once. Where somebody pretends, those who have found it
        // out and those who have not see different things.
        let allowed = served.max(1);
        if heard_loading > allowed && !is_apart && !is_deceived {
            if page.double.is_none() {
                page.double = Some((now_ns, is_new));
                self.note(|| format!("* {heard_loading} load model {model}, which {served} serve"));
            }
        } else if let Some((from_ns, is_new)) = page.double.take() {
            let doubles = if is_new { &mut book.doubles_of_new_s } else { &mut book.doubles_s };
            doubles.push(seconds(from_ns, now_ns));
        }
    }

    /// Whether a living machine that the mesh may assign has the model, and memory for it that nobody else needs.
    fn somebody_could(&self, model: u32) -> bool {
        let serving = self.serving();
        let could = |i: usize| {
            let machine = &serving.machines[i];
            let Some(host) = serving.hosts[i].as_ref().filter(|_| self.members[i].is_running()) else {
                return false;
            };
            let has = machine.profile.models.iter().any(|o| o.name == truth::name(model));
            let bytes = |model: u32| serving.offers[model as usize].weight_bytes + BESIDE_BYTES;
            let served = host.assigner.served();
            let needed = |other: &u32| {
                let page = &serving.book.pages[*other as usize];
                served.contains(&truth::name(*other))
                    && (page.serving < 2 || host.enlisted.contains_key(other))
            };
            let kept: u64 = (0..serving.offers.len() as u32).filter(needed).map(bytes).sum();
            let room = machine.profile.caps.memory_bytes.saturating_sub(kept);
            has && machine.profile.caps.takes_models && host.loading.is_empty() && room >= bytes(model)
        };
        (0..self.members.len()).any(could)
    }
}
