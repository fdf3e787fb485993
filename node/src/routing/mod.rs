//! Which host a request goes to: a pure function of what an entry node knows of the hosts and of the request.
//!
//! [`route`] gives the hosts to try, the best first, or a [`Refusal`] that says why there is none. To try the next is the
//! caller's: before the first byte with the request itself, after it by replay of what has been answered.
//!
//! * `auto`: which model, where the request does not name one.
//! * [`affinity`]: where a session, and a prompt's beginning, went before.
//! * [`view`]: what members say, as routing wants it. [`table`]: what passive clients hold.

pub mod affinity;
mod auto;
pub mod table;
#[cfg(test)]
mod tests;
pub mod view;

use std::time::Duration;

use crate::ids::PeerId;
use crate::membership::{Abilities, Caps, Load, Offer, mix, short};

/// The model name that leaves the choice to the mesh.
pub const AUTO: &str = "auto";
/// Hosts that are tried for one request at most.
pub const TRIED_MAX: usize = 8;
/// A host's answer is taken to be as good as another's up to this factor of the time it is expected to take: among
/// these the choice is by chance, so that many entry nodes with the same stale view do not all choose one.
const AS_GOOD: f64 = 1.5;
/// Of two that are as good the one with the shorter queue is taken; a queue is told up to so much too late that more than
/// two choices would all find the same one (Mitzenmacher 2000).
const CHOICES: usize = 2;
/// Speeds that count, tokens per second of one session.
const SPEEDS: (f64, f64) = (0.5, 500.0);
/// Tokens of a prompt that are computed in the time of one that is decoded, where nothing is known.
const PREFILL_FACTOR: f64 = 20.0;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask<'a> {
    /// The model's name, or [`AUTO`].
    pub model: &'a str,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens that may be answered.
    pub output: u32,
    /// What the model must be able to do.
    pub needs: Abilities,
    /// Where the session's earlier requests were answered.
    pub sticky: Option<PeerId>,
    /// Hosts that have computed the beginning of this prompt, and how many tokens of it.
    pub prefixes: &'a [(PeerId, u32)],
    /// Hosts that have just failed this request or others: tried last.
    pub doubted: &'a [PeerId],
    /// Chance: another for each request, so that entry nodes that know the same do not choose the same.
    pub draw: u64,
}

/// What is known of a host of some model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host<'a> {
    /// Who.
    pub peer: PeerId,
    /// The model, as it says.
    pub offer: &'a Offer,
    /// Whether it answers for it; otherwise it loads it.
    pub serves: bool,
    /// It takes no new requests for it.
    pub leaves: bool,
    /// Time until it serves by its own estimate, where it loads.
    pub ready: Duration,
    /// How busy it says it is.
    pub load: Load,
    /// What it takes.
    pub caps: Caps,
    /// Requests that this entry node has sent it since it said so.
    pub sent: u32,
    /// Tokens per second that one session is expected to get there.
    pub tokens_per_s: f64,
    /// The round trip to it.
    pub round_trip: Duration,
}

/// What an entry node knows of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<'a> {
    /// Its name.
    pub model: &'a str,
    /// The word of somebody who has it on disk.
    pub offer: Option<&'a Offer>,
    /// Those that serve it or are about to.
    pub hosts: Vec<Host<'a>>,
}

impl<'a> Known<'a> {
    /// What is said of it: by those that serve it or are about to, else by one that has it on disk.
    fn offers(&self) -> impl Iterator<Item = &'a Offer> {
        let one = self.offer.filter(|_| self.hosts.is_empty());
        self.hosts.iter().map(|host| host.offer).chain(one)
    }
}

/// Hosts to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Ways {
    /// The model: the one asked for, or the one chosen for [`AUTO`].
    pub model: String,
    /// The best first, each with the time that the whole answer is expected to take.
    pub hosts: Vec<(PeerId, Duration)>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Waiting will not help.
    #[error("no machine of the mesh has the model `{model}`; it has {known}")]
    Unknown {
        /// What was asked for.
        model: String,
        /// What there is.
        known: String,
    },
    /// No model of the mesh can do it.
    #[error("{why}; shorten the prompt or the answer, or name another model")]
    Unable {
        /// What is missing.
        why: String,
    },
    /// Somebody has it on disk, and will serve it.
    #[error("nobody serves `{model}` just now; {loading}; ask again in {} s", retry.as_secs())]
    Unserved {
        /// The model.
        model: String,
        /// Who loads it, in words.
        loading: String,
        /// When to ask again.
        retry: Duration,
    },
    /// All hosts have all they take.
    #[error("all {hosts} hosts of `{model}` are full; ask again in {} s", retry.as_secs())]
    Full {
        /// The model.
        model: String,
        /// How many.
        hosts: usize,
        /// When to ask again.
        retry: Duration,
    },
}

impl Refusal {
    /// When to ask again, if that may help.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            Refusal::Unserved { retry, .. } | Refusal::Full { retry, .. } => Some(*retry),
            Refusal::Unknown { .. } | Refusal::Unable { .. } => None,
        }
    }
}

/// The hosts to try for `ask`, at most [`TRIED_MAX`].
///
/// A host's time is that of the queue before this request, of the prompt without the part it has computed already, of
/// the answer, and of the round trip. The session's last host comes first while it is not much worse than the best;
/// among those as good as the best chance decides, of two the one with the shorter time. Those that step back and those
/// that were seen to fail come last.
///
/// # Errors
/// A [`Refusal`] that says why there is none, and when to ask again.
pub fn route(ask: &Ask<'_>, models: &[Known<'_>]) -> Result<Ways, Refusal> {
    let known = if ask.model == AUTO {
        auto::choose(ask, models)?
    } else {
        let named = models.iter().find(|known| known.model == ask.model && known.offer.is_some());
        named.ok_or_else(|| unknown(ask.model, models))?
    };
    can_do(ask, known)?;
    let can_serve = |host: &&Host<'_>| host.serves && is_able(host.offer, ask);
    let serving: Vec<&Host<'_>> = known.hosts.iter().filter(can_serve).collect();
    if serving.is_empty() {
        return Err(unserved(known));
    }
    let open: Vec<(&Host<'_>, f64)> =
        serving.iter().filter(|host| !is_full(host)).map(|host| (*host, seconds(host, ask))).collect();
    if open.is_empty() {
        return Err(full(known, &serving));
    }
    let hosts = in_order(ask, open);
    let hosts = hosts.into_iter().take(TRIED_MAX);
    let hosts = hosts.map(|(peer, s)| (peer, Duration::from_secs_f64(s.min(1e6)))).collect();
    Ok(Ways { model: known.model.to_owned(), hosts })
}

/// Time until the whole answer is there, seconds.
pub fn seconds(host: &Host<'_>, ask: &Ask<'_>) -> f64 {
    let per_s = host.tokens_per_s.clamp(SPEEDS.0, SPEEDS.1);
    let cached = ask.prefixes.iter().find(|(peer, _)| *peer == host.peer).map_or(0, |(_, tokens)| *tokens);
    let prompt = f64::from(ask.prompt.saturating_sub(cached)) / (per_s * PREFILL_FACTOR);
    let own = prompt + f64::from(ask.output) / per_s;
    let slots = host.caps.sessions.max(1);
    let before = host.load.sessions.saturating_add(host.load.waiting).saturating_add(host.sent);
    // Those that run are half done in the mean; what waits needs a slot after another.
    let rounds = f64::from(before.saturating_sub(slots.saturating_sub(1))) / f64::from(slots);
    host.round_trip.as_secs_f64() + own * (1.0 + rounds.max(0.0))
}

fn is_full(host: &Host<'_>) -> bool {
    let taken = host.load.sessions.saturating_add(host.load.waiting).saturating_add(host.sent);
    taken >= host.caps.sessions.max(1).saturating_add(host.caps.queue)
}

fn in_order(ask: &Ask<'_>, mut open: Vec<(&Host<'_>, f64)>) -> Vec<(PeerId, f64)> {
    let is_last = |host: &Host<'_>| host.leaves || ask.doubted.contains(&host.peer);
    let chance = |host: &Host<'_>, turn: u64| mix(mix(ask.draw ^ turn) ^ short(host.peer));
    open.sort_by(|(a, s), (b, t)| is_last(a).cmp(&is_last(b)).then(s.total_cmp(t)).then(a.peer.cmp(&b.peer)));
    let best = open.first().map_or(0.0, |(_, seconds)| *seconds);
    let good = open.iter().take_while(|(host, s)| *s <= best * AS_GOOD && !is_last(host)).count();
    // By chance, and of the first two the better one before the other.
    open[..good].sort_by_key(|(host, _)| chance(host, 0));
    if good >= CHOICES {
        open[..CHOICES].sort_by(|(_, a), (_, b)| a.total_cmp(b));
    }
    let sticks = |(host, _): &(&Host<'_>, f64)| Some(host.peer) == ask.sticky;
    if let Some(at) = open[..good].iter().position(sticks) {
        open[..=at].rotate_right(1);
    }
    open.into_iter().map(|(host, seconds)| (host.peer, seconds)).collect()
}

/// Whether the model has the abilities and the context that are asked for. What is not known of it is not held against it.
fn is_able(offer: &Offer, ask: &Ask<'_>) -> bool {
    let fits = offer.context == 0 || ask.prompt.saturating_add(ask.output) <= offer.context;
    fits && offer.abilities.has(ask.needs)
}

fn can_do(ask: &Ask<'_>, known: &Known<'_>) -> Result<(), Refusal> {
    if known.offers().any(|offer| is_able(offer, ask)) {
        return Ok(());
    }
    let tokens = ask.prompt.saturating_add(ask.output);
    let context = known.offers().map(|offer| offer.context).max().unwrap_or(0);
    let why = if context > 0 && tokens > context {
        format!("{tokens} tokens are asked of `{}`, whose context is {context}", known.model)
    } else {
        format!("`{}` cannot do what is asked of it", known.model)
    };
    Err(Refusal::Unable { why })
}

fn unknown(model: &str, models: &[Known<'_>]) -> Refusal {
    const NAMED: usize = 12;
    let mut names: Vec<&str> =
        models.iter().filter(|known| known.offer.is_some()).map(|known| known.model).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut known = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
    if more > 0 {
        known.push_str(&format!(" and {more} more"));
    }
    Refusal::Unknown { model: model.to_owned(), known }
}

/// The longest that a client is told to wait.
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Time in which somebody comes forward.
const COMING: Duration = Duration::from_secs(5);

fn unserved(known: &Known<'_>) -> Refusal {
    let first = known.hosts.iter().min_by_key(|host| host.ready);
    let (loading, retry) = match first {
        Some(host) => (format!("{:?} is loading it", host.peer), host.ready),
        None => ("it has been asked for".to_owned(), COMING),
    };
    let retry = retry.clamp(Duration::from_secs(1), RETRY_MOST);
    Refusal::Unserved { model: known.model.to_owned(), loading, retry }
}

/// A slot is free when the first of those that run is done: in the mean after their time by their number.
fn full(known: &Known<'_>, serving: &[&Host<'_>]) -> Refusal {
    const USUAL_TOKENS: f64 = 256.0;
    let next = |host: &&&Host<'_>| {
        let per_s = host.tokens_per_s.clamp(SPEEDS.0, SPEEDS.1);
        USUAL_TOKENS / per_s / f64::from(host.caps.sessions.max(1))
    };
    let soonest = serving.iter().map(|host| next(&host)).fold(f64::INFINITY, f64::min);
    let retry = Duration::from_secs_f64(soonest.clamp(1.0, RETRY_MOST.as_secs_f64()));
    Refusal::Full { model: known.model.to_owned(), hosts: serving.len(), retry }
}
