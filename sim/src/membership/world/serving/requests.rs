//! A request's way: from a client to its entry node, from there to a host, and on to another where one of them fails.

use std::time::Duration;

use node::PeerId;
use node::membership::{Abilities, Input};
use node::routing::{self, Ask, Refusal, view};

use super::book::NEW_NS;
use super::hosting::Run;
use super::{Due, Host};
use crate::membership::serving::ServingSabotage;
use crate::membership::world::{SECOND_NS, World};

/// A process that ends breaks its streams: the others hear of it as soon as the machine's word is there.
pub(super) const RESET_NS: u64 = 1_000_000;
/// Where nothing at all comes back, a connection is given up after this.
const CONNECT_NS: u64 = 3 * SECOND_NS / 2;
/// Between a client and its entry node, one way.
const CLIENT_NS: u64 = 20_000_000;
/// A host that is silent for so many looks, a second each, is given up; an entry node a little later.
const SILENT_HOST: u32 = 3;
const SILENT_ENTRY: u32 = 5;
/// A host that failed is tried last for this long.
const DOUBT_NS: u64 = 10 * SECOND_NS;
/// Whoever knows fewer entry nodes is invited by others, until so many have said that nobody has the model.
const ASKED_MAX: usize = 3;
/// What was sent in this time may not be in a host's word yet.
const UNTOLD_NS: u64 = SECOND_NS;

/// One request of a client, until it has all of its answer.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) client: Option<u32>,
    pub(super) entry: u32,
    pub(super) model: u32,
    pub(super) prompt: u32,
    pub(super) output: u32,
    /// Tokens of the answer that the client has from earlier hosts.
    pub(super) had: u32,
    /// Counts what was tried: what belongs to an earlier one is dropped.
    pub(super) attempt: u32,
    pub(super) host: Option<u32>,
    tried: Vec<u32>,
    pub(super) born_ns: u64,
    is_counted: bool,
    silent: u32,
    /// Entry nodes that said that nobody has the model.
    unknown_to: Vec<u32>,
    /// When its host died, if it did.
    failed_ns: Option<u64>,
    run: Option<Run>,
    /// The sabotaged variant does not go on with it.
    pub(super) is_forgotten: bool,
}

impl World {
    /// A client asks for a model.
    pub(in crate::membership::world) fn request(&mut self, member: u32, model: u32) {
        let now_ns = self.now_ns;
        let serving = self.serving_mut();
        let model = serving.shifted(now_ns, model);
        let draws = &mut serving.draws;
        let tokens = |mean: f64, draw: f64| ((mean * draw).clamp(1.0, mean * 4.0)) as u32;
        let prompt = tokens(serving.spec.prompt, draws.exponential()).max(1);
        let output = tokens(serving.spec.output, draws.exponential()).max(1);
        let count = serving.clients.len() as u64;
        let client = (count > 0).then(|| (serving.draws.bits() % count.max(1)) as u32);
        serving.next_request += 1;
        let id = serving.next_request;
        let entry = client.map_or(member, |client| serving.clients[client as usize].entry());
        let request = Request {
            client,
            entry,
            model,
            prompt,
            output,
            had: 0,
            attempt: 0,
            host: None,
            tried: Vec::new(),
            born_ns: now_ns,
            is_counted: false,
            silent: 0,
            unknown_to: Vec::new(),
            failed_ns: None,
            run: None,
            is_forgotten: false,
        };
        serving.requests.insert(id, request);
        serving.book.requests += 1;
        self.push_due(now_ns + CLIENT_NS, Due::Route { request: id, attempt: 0 });
    }

    fn open(&self, id: u64, attempt: u32) -> Option<&Request> {
        let request = self.serving().requests.get(&id)?;
        (request.attempt == attempt && !request.is_forgotten).then_some(request)
    }

    /// An entry node has a request to send somewhere.
    pub(super) fn route(&mut self, id: u64, attempt: u32) {
        let Some(request) = self.open(id, attempt).cloned() else { return };
        let entry = request.entry;
        if !self.members[entry as usize].is_there() {
            return self.entry_lost(id, attempt);
        }
        let name = self.serving().offers[request.model as usize].name.clone();
        if !request.is_counted {
            self.truth.asked(self.now_ns, entry, request.model);
            self.input(entry, Input::Asked(&name));
            self.note_asked(request.model);
            if let Some(request) = self.serving_mut().requests.get_mut(&id) {
                request.is_counted = true;
            }
        }
        match self.ways(&request, &name) {
            Ok(hosts) => {
                let next = hosts.into_iter().find(|host| !request.tried.contains(host));
                match next {
                    Some(host) => self.send_to(id, host),
                    None => self.put_off(id, Duration::from_secs(1)),
                }
            }
            Err(refusal) => match refusal.retry() {
                Some(retry) => {
                    if matches!(refusal, Refusal::Unserved { .. }) {
                        self.want(entry, &name);
                    }
                    self.put_off(id, retry);
                }
                // Who has just joined does not know yet what there is.
                None if self.is_new(entry) => self.put_off(id, Duration::from_secs(2)),
                None => self.unknown(id),
            },
        }
    }

    /// The entry node says that nobody has the model. One that is cut off from those who have it says so as well, and says
    /// `503`, not that there is none: the client asks the others it knows before it tells anybody.
    fn unknown(&mut self, id: u64) {
        let serving = self.serving_mut();
        let Some(request) = serving.requests.get_mut(&id) else { return };
        request.unknown_to.push(request.entry);
        let (client, asked) = (request.client, request.unknown_to.clone());
        let known = client.and_then(|client| serving.clients[client as usize].other_than(&asked));
        let invites = |i: &u32| self.members[*i as usize].is_there() && !asked.contains(i);
        let mut strangers = (0..self.members.len() as u32).filter(invites);
        let next = known.or_else(|| strangers.next().filter(|_| asked.len() < ASKED_MAX));
        let serving = self.serving_mut();
        let (Some(next), Some(request)) = (next, serving.requests.get_mut(&id)) else {
            serving.book.unknown += 1;
            serving.requests.remove(&id);
            return;
        };
        request.entry = next;
        request.attempt += 1;
        let attempt = request.attempt;
        self.push_due(self.now_ns + 2 * CLIENT_NS, Due::Route { request: id, attempt });
    }

    fn is_new(&self, entry: u32) -> bool {
        let host = self.serving().hosts[entry as usize].as_ref();
        host.is_some_and(|host| self.now_ns < host.began_ns + NEW_NS)
    }

    fn want(&mut self, entry: u32, name: &str) {
        let now = self.members[entry as usize].clock.local(self.now_ns);
        if let Some(host) = self.serving_mut().hosts[entry as usize].as_mut() {
            host.assigner.wanted(now, name);
        }
        self.tell(entry);
        self.wake_assigner(entry);
    }

    /// What the entry node, with what it knows, makes of it.
    fn ways(&mut self, request: &Request, name: &str) -> Result<Vec<u32>, Refusal> {
        let now_ns = self.now_ns;
        let entry = request.entry;
        let draw = self.serving_mut().draws.bits();
        let host = self.serving_mut().hosts[entry as usize].as_mut();
        let (sent, doubted) = host.map_or_else(Default::default, |host| host.recent(now_ns));
        let Some(process) = self.members[entry as usize].process.as_ref() else { return Ok(Vec::new()) };
        let process = process.look();
        let member = |peer: PeerId| {
            let round_trip = process.round_trip(process.me(), peer).map_or(50_000.0, |trip| trip.us);
            Some(view::Member {
                peer,
                profile: process.profile(peer)?,
                state: process.state(peer)?,
                round_trip: Duration::from_secs_f64(if peer == process.me() {
                    0.0
                } else {
                    round_trip / 1e6
                }),
                sent: sent.iter().filter(|host| **host == peer.index()).count() as u32,
            })
        };
        let mut known = view::model(name, process.members().filter_map(member));
        let now = self.members[entry as usize].clock.local(now_ns);
        if let Some((known, host)) = known.as_mut().zip(self.serving().hosts[entry as usize].as_ref()) {
            known.hosts.retain(|other| !host.assigner.is_doubted(now, other.peer, name));
        }
        let doubted: Vec<PeerId> =
            doubted.iter().chain(&request.tried).map(|i| PeerId::from_index(*i)).collect();
        let ask = Ask {
            model: name,
            prompt: request.prompt + request.had,
            output: request.output - request.had,
            needs: Abilities::default(),
            sticky: None,
            prefixes: &[],
            doubted: &doubted,
            draw,
        };
        let ways = routing::route(&ask, known.as_slice())?;
        Ok(ways.hosts.into_iter().map(|(peer, _)| peer.index()).collect())
    }

    fn put_off(&mut self, id: u64, retry: Duration) {
        let at_ns = self.now_ns + retry.as_nanos() as u64 + 2 * CLIENT_NS;
        let serving = self.serving_mut();
        serving.book.put_off += 1;
        let Some(request) = serving.requests.get_mut(&id) else { return };
        request.tried.clear();
        request.attempt += 1;
        let attempt = request.attempt;
        self.push_due(at_ns, Due::Route { request: id, attempt });
    }

    fn send_to(&mut self, id: u64, host: u32) {
        let now_ns = self.now_ns;
        let Some(request) = self.serving_mut().requests.get_mut(&id) else { return };
        request.attempt += 1;
        request.host = Some(host);
        request.silent = 0;
        request.failed_ns = None;
        request.run = None;
        let (attempt, entry) = (request.attempt, request.entry);
        if let Some(entry) = self.serving_mut().hosts[entry as usize].as_mut() {
            entry.sent.push_back((now_ns, host));
        }
        if self.can_hear(entry, host) {
            let at_ns = now_ns + self.one_way_ns(entry, host);
            self.push_due(at_ns, Due::Arrive { request: id, attempt, host });
        } else {
            self.push_due(now_ns + CONNECT_NS, Due::Broken { request: id, attempt });
        }
    }

    fn can_hear(&self, a: u32, b: u32) -> bool {
        a == b || (self.ways.is_open(a, b) && self.ways.is_open(b, a))
    }

    fn one_way_ns(&self, a: u32, b: u32) -> u64 {
        if a == b {
            return 50_000;
        }
        let (a, b) = (&self.members[a as usize].place, &self.members[b as usize].place);
        (a.round_trip_ms(b) * 0.5e6) as u64
    }

    pub(super) fn arrive(&mut self, id: u64, attempt: u32, host: u32) {
        let Some(request) = self.open(id, attempt) else { return };
        let (entry, model) = (request.entry, request.model);
        let back_ns = self.now_ns + self.one_way_ns(entry, host);
        if self.serving().hosts[host as usize].is_none() {
            self.push_due(back_ns + RESET_NS, Due::Broken { request: id, attempt });
        } else if !self.serves(host, model) || !self.take_in(host, id) {
            // Turned away: the next one is tried.
            if !self.serves(host, model) {
                self.note_failure(entry, host, model);
            }
            let Some(request) = self.serving_mut().requests.get_mut(&id) else { return };
            request.tried.push(host);
            request.attempt += 1;
            request.host = None;
            let attempt = request.attempt;
            self.push_due(back_ns, Due::Route { request: id, attempt });
        } else if let Some(run) = self.run_of(id, host)
            && let Some(request) = self.serving_mut().requests.get_mut(&id)
        {
            request.run = Some(run);
        }
    }

    /// An entry node has found that a host does not answer for a model.
    fn note_failure(&mut self, entry: u32, host: u32, model: u32) {
        let now = self.members[entry as usize].clock.local(self.now_ns);
        let name = self.serving().offers[model as usize].name.clone();
        if let Some(own) = self.serving_mut().hosts[entry as usize].as_mut() {
            own.assigner.failed(now, PeerId::from_index(host), &name);
        }
        self.wake_assigner(entry);
    }

    fn run_of(&self, id: u64, host: u32) -> Option<Run> {
        self.serving().hosts[host as usize].as_ref()?.running.get(&id).copied()
    }

    pub(super) fn first_token(&mut self, id: u64, attempt: u32) {
        let Some(host) = self.open(id, attempt).and_then(|request| request.host) else { return };
        let run = self.run_of(id, host);
        if let Some(request) = self.serving_mut().requests.get_mut(&id) {
            request.run = run;
        }
    }

    pub(super) fn answered(&mut self, id: u64, attempt: u32) {
        let Some((host, entry)) = self.open(id, attempt).and_then(|r| Some((r.host?, r.entry))) else {
            return;
        };
        if self.members[host as usize].paused.is_some() || !self.can_hear(entry, host) {
            return self.push_due(self.now_ns + SECOND_NS / 4, Due::Done { request: id, attempt });
        }
        let now_ns = self.now_ns;
        let serving = self.serving_mut();
        let Some(process) = serving.hosts[host as usize].as_mut() else { return };
        if process.running.remove(&id).is_none() {
            return;
        }
        if let Some(request) = serving.requests.remove(&id) {
            serving.book.answered(request.born_ns, now_ns);
            let name = &serving.offers[request.model as usize].name;
            if let Some(own) = serving.hosts[entry as usize].as_mut() {
                own.assigner.answered(PeerId::from_index(host), name);
            }
            if let Some(client) = request.client {
                self.client_sees(client, entry);
            }
        }
        self.start_waiting(host);
        self.tell(host);
    }

    /// The stream to the host broke, or it is silent.
    pub(super) fn host_lost(&mut self, id: u64, attempt: u32) {
        let now_ns = self.now_ns;
        let Some((host, entry)) = self.open(id, attempt).and_then(|r| Some((r.host?, r.entry))) else {
            return;
        };
        if !self.members[entry as usize].is_there() {
            return self.entry_lost(id, attempt);
        }
        if let Some(entry) = self.serving_mut().hosts[entry as usize].as_mut() {
            entry.doubted.insert(host, now_ns + DOUBT_NS);
        }
        self.input(entry, Input::Unreachable(PeerId::from_index(host)));
        let model = self.serving().requests.get(&id).map(|request| request.model);
        model.into_iter().for_each(|model| self.note_failure(entry, host, model));
        if self.serving().sabotage == Some(ServingSabotage::NoRetry) {
            if let Some(request) = self.serving_mut().requests.get_mut(&id) {
                request.is_forgotten = true;
            }
            return;
        }
        let attempt = self.take_back(id, Some(host));
        self.route(id, attempt);
    }

    /// Its entry node is gone or silent: the client goes on at another one with what it has.
    pub(super) fn entry_lost(&mut self, id: u64, attempt: u32) {
        let Some(request) = self.open(id, attempt) else { return };
        let (client, entry, host) = (request.client, request.entry, request.host);
        let attempt = self.take_back(id, None);
        if let Some(host) = host {
            self.start_waiting(host);
        }
        let next = match client {
            Some(client) => self.client_moves_on(client, entry),
            None => self.somebody_else(entry),
        };
        let at_ns = self.now_ns + 2 * CLIENT_NS;
        if let Some(request) = self.serving_mut().requests.get_mut(&id) {
            request.entry = next;
            request.tried.clear();
        }
        self.push_due(at_ns, Due::Route { request: id, attempt });
    }

    pub(super) fn somebody_else(&mut self, entry: u32) -> u32 {
        let count = self.members.len() as u64;
        let draws = &mut self.serving_mut().draws;
        let first = draws.bits() % count;
        let all = (0..count).map(|i| ((first + i) % count) as u32);
        all.into_iter().find(|i| *i != entry && self.members[*i as usize].is_there()).unwrap_or(entry)
    }

    /// A host stops to serve the model in mid-answer, and says so.
    pub(super) fn cut(&mut self, id: u64, host: u32) {
        let at_ns = self.now_ns + 1;
        let attempt = self.take_back(id, Some(host));
        self.push_due(at_ns, Due::Route { request: id, attempt });
    }

    /// Takes a request from its host. What was answered stays; the next attempt's number is given.
    fn take_back(&mut self, id: u64, failed: Option<u32>) -> u32 {
        let now_ns = self.now_ns;
        let serving = self.serving_mut();
        let Some(request) = serving.requests.get_mut(&id) else { return 0 };
        let host = request.host.take();
        let mut run = request.run;
        if let Some(process) = host.and_then(|host| serving.hosts[host as usize].as_mut()) {
            run = process.running.remove(&id).or(run);
            process.waiting.retain(|waiting| *waiting != id);
        }
        let until_ns = request.failed_ns.unwrap_or(now_ns);
        let had = run
            .filter(|run| run.attempt == request.attempt)
            .map_or(0, |run| tokens(&run, request.output - request.had, until_ns));
        let book = &mut serving.book;
        match had {
            0 => book.retried += u64::from(host.is_some()),
            _ => book.resumed += 1,
        }
        request.had = (request.had + had).min(request.output - 1);
        request.tried.extend(failed);
        request.attempt += 1;
        request.failed_ns = None;
        request.run = None;
        request.silent = 0;
        request.attempt
    }

    /// A member's process is gone: who waits for it hears so from its machine.
    pub(super) fn drop_requests(&mut self, i: u32, reset_ns: u64) {
        let now_ns = self.now_ns;
        let concerned = |(id, request): (&u64, &Request)| {
            let is_host = request.host == Some(i);
            (is_host || request.entry == i).then_some((*id, request.attempt, request.entry, is_host))
        };
        let found: Vec<_> = self.serving().requests.iter().filter_map(concerned).collect();
        for (id, attempt, entry, is_host) in found {
            if let Some(request) = self.serving_mut().requests.get_mut(&id).filter(|_| is_host) {
                request.failed_ns = Some(now_ns);
            }
            let due = if entry == i {
                Due::EntryLost { request: id, attempt }
            } else {
                Due::Broken { request: id, attempt }
            };
            let way_ns = if entry == i { CLIENT_NS } else { self.one_way_ns(entry, i) };
            self.push_due(now_ns + way_ns + reset_ns, due);
        }
    }

    /// Those whose host or entry node has said nothing for some seconds are given up.
    pub(super) fn notice_silence(&mut self) {
        let mut lost = Vec::new();
        let ids: Vec<u64> = self.serving().requests.keys().copied().collect();
        for id in ids {
            let Some(request) = self.serving().requests.get(&id) else { continue };
            let entry = &self.members[request.entry as usize];
            let entry_is_silent = entry.paused.is_some();
            let host_is_silent = request.host.is_some_and(|host| {
                self.members[host as usize].paused.is_some() || !self.can_hear(request.entry, host)
            });
            let Some(request) = self.serving_mut().requests.get_mut(&id) else { continue };
            request.silent = if entry_is_silent || host_is_silent { request.silent + 1 } else { 0 };
            if entry_is_silent && request.silent >= SILENT_ENTRY {
                lost.push((id, request.attempt, true));
            } else if host_is_silent && !entry_is_silent && request.silent >= SILENT_HOST {
                lost.push((id, request.attempt, false));
            }
        }
        for (id, attempt, is_entry) in lost {
            if is_entry { self.entry_lost(id, attempt) } else { self.host_lost(id, attempt) }
        }
    }
}

/// Tokens that were made until then.
fn tokens(run: &Run, output: u32, until_ns: u64) -> u32 {
    if until_ns < run.first_ns {
        return 0;
    }
    let whole = run.done_ns.saturating_sub(run.first_ns).max(1) as f64;
    let share = (until_ns - run.first_ns) as f64 / whole;
    1 + (f64::from(output.saturating_sub(1)) * share.min(1.0)) as u32
}

impl Host {
    /// Whom it has sent what the hosts may not have told of yet, and whom it doubts.
    fn recent(&mut self, now_ns: u64) -> (Vec<u32>, Vec<u32>) {
        while self.sent.front().is_some_and(|(at_ns, _)| at_ns + UNTOLD_NS < now_ns) {
            self.sent.pop_front();
        }
        self.doubted.retain(|_, until| *until > now_ns);
        (self.sent.iter().map(|(_, host)| *host).collect(), self.doubted.keys().copied().collect())
    }
}
