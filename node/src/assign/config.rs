//! How calm and how quick assignment is.

use std::time::Duration;

/// Periods and bounds. A field says what goes wrong when it is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Nobody takes a model that nobody asks for before it has known the others this long: else all that start together
    /// take the same one.
    pub settle: Duration,
    /// The same for a model that is asked for.
    pub settle_asked: Duration,
    /// A claim is left to be heard this long before the model is loaded, ...
    pub confirm: Duration,
    /// ... and so much longer for each factor of e in the number of members: news take that much longer to reach all.
    /// Shorter saves that time after a host's death; too short loads twice.
    pub confirm_each: Duration,
    /// Each machine waits so much longer for those that rank before it: they may be unwilling without others knowing.
    pub patience: Duration,
    /// The situation is looked at this often when nothing happens.
    pub rest: Duration,
    /// After something happened it is looked at this much later: several changes mostly come together.
    pub debounce: Duration,
    /// Sessions that a machine must have room for beside the weights, ...
    pub sessions: u32,
    /// ... of this context each, or of the model's where that is shorter, tokens.
    pub context: u32,
    /// Memory that a process and its buffers take beside that, bytes.
    pub overhead_bytes: u64,
    /// A model is hot when half of its hosts are busier than this. A host's use is sessions and waiting requests by the
    /// sessions it lets run at once; more than 2 counts as 2.
    pub hot: f64,
    /// So many replicas are wanted of a hot model that their use would be this; at most twice as many as there are.
    pub aim: f64,
    /// A replica may step back when the use of those that stay is at most this. Must be well below `hot`.
    pub cool: f64,
    /// A model must have been hot this long, and a quarter of the time that loading it takes.
    pub hot_rest: Duration,
    /// After a replica has come or gone, load must have spread for this long before the next comes for it.
    pub spread: Duration,
    /// A machine that has taken a model makes no room for a hot one for this long: others can, and who gives up what it
    /// has just loaded has loaded it in vain.
    pub keep: Duration,
    /// Use must have been low this long before a replica steps back.
    pub cool_rest: Duration,
    /// A replica stays at least so long, and four times the time that loading it took.
    pub stay: Duration,
    /// Replicas that idle machines keep of a model, so that a death costs no time to load. One: none is kept ready.
    pub warm: u32,
    /// Members of a group beyond those whose memory it needs.
    pub spares: usize,
    /// A model that was asked for here is waited for this long after the last request.
    pub wants: Duration,
    /// A machine that said it would load and did not serve is left out this long, twice as long each time.
    pub strike: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let millis = Duration::from_millis;
        let seconds = Duration::from_secs;
        Self {
            settle: seconds(4),
            settle_asked: seconds(1),
            confirm: millis(300),
            confirm_each: millis(100),
            patience: seconds(2),
            rest: seconds(1),
            debounce: millis(30),
            sessions: 2,
            context: 4_096,
            overhead_bytes: 256 << 20,
            hot: 0.8,
            aim: 0.6,
            cool: 0.4,
            hot_rest: seconds(3),
            spread: seconds(10),
            keep: seconds(60),
            cool_rest: seconds(120),
            stay: seconds(120),
            warm: 2,
            spares: 1,
            wants: seconds(60),
            strike: seconds(60),
        }
    }
}

impl Config {
    pub(super) fn confirm(&self, members: usize) -> Duration {
        self.confirm + self.confirm_each.mul_f64((members.max(1) as f64).ln())
    }
}

/// Models that are told apart: more are not planned with. Sixty members that each make up all they may name reach it.
pub(super) const MODELS_MAX: usize = 4_096;
/// Machines and models that are left out for a while.
pub(super) const STRIKES_MAX: usize = 1_024;
/// Models that are waited for here, told of as wanted.
pub(super) const WANTS_MAX: usize = 6;
/// A claim of which nothing comes counts no longer than this.
pub(super) const CLAIM_MOST: Duration = Duration::from_secs(5);
/// The longest that a load may take by anybody's word.
pub(super) const READY_MOST: Duration = Duration::from_secs(300);
/// The fastest that a machine counts for, tokens per second, and the slowest: who claims more gains no more.
pub(super) const SPEEDS: (f64, f64) = (1.0, 64.0);
/// A host's use counts up to this.
pub(super) const USE_MOST: f64 = 2.0;
