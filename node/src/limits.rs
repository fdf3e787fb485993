//! Every bound of a node, in one place. A queue that is full refuses; a wait that is too long ends.

use std::time::Duration;

/// The bounds of one node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Frames that wait for one peer on one lane. More are refused, and the heads concerned are told.
    pub outbox_frames: usize,
    /// Frames that wait at a stage for its next step. Readers wait when it is full: back-pressure.
    pub inbox_frames: usize,
    /// Steps a stage holds for an engine that is loading or busy, over all sessions.
    pub pending_steps: usize,
    /// Sessions in one engine step.
    pub batch_sessions: usize,
    /// Prefill tokens in one engine step, so that decode steps come between chunks.
    pub prefill_tokens: u32,
    /// Requests at this node at once; more are refused.
    pub sessions: usize,
    /// Tokens that wait for a client that reads slowly. The head waits when it is full.
    pub replies: usize,
    /// Closed sessions a stage remembers, so that late frames do not open them again.
    pub closed_sessions: usize,
    /// The least time a head waits for a token before it suspects a stage.
    pub token_wait: Duration,
    /// The wait is at least this many times what the plan predicts.
    pub token_wait_factor: f64,
    /// A request that has not ended by then fails.
    pub session: Duration,
    /// Pause before a session tries the same plan again; doubles up to `retry_max`.
    pub retry: Duration,
    /// The longest such pause.
    pub retry_max: Duration,
    /// Distance of liveness pings in a small mesh; grows with the fleet (see [`Limits::ping_every`]).
    pub ping: Duration,
    /// A peer that has not answered for this many pings is lost.
    pub ping_misses: u32,
    /// A stream that cannot be opened or written to for this long has failed.
    pub send: Duration,
    /// Pause after a failed stream before the next try.
    pub reconnect: Duration,
    /// A session whose KV has not been touched for this long is released.
    pub kv_idle: Duration,
    /// The longest frame that is read, bytes.
    pub frame_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbox_frames: 1024,
            inbox_frames: 1024,
            pending_steps: 8192,
            batch_sessions: 64,
            prefill_tokens: 512,
            sessions: 4096,
            replies: 64,
            closed_sessions: 4096,
            token_wait: Duration::from_secs(3),
            token_wait_factor: 8.0,
            session: Duration::from_secs(1800),
            retry: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
            ping: Duration::from_millis(250),
            ping_misses: 4,
            send: Duration::from_secs(10),
            reconnect: Duration::from_millis(100),
            kv_idle: Duration::from_secs(300),
            frame_bytes: 256 << 20,
        }
    }
}

/// Fleets up to this size ping at the base distance.
const SMALL_FLEET: usize = 64;

impl Limits {
    /// Distance of pings in a fleet of `nodes`: the planning node's traffic stays that of a small mesh.
    pub fn ping_every(&self, nodes: usize) -> Duration {
        self.ping * u32::try_from(nodes.div_ceil(SMALL_FLEET)).unwrap_or(u32::MAX).max(1)
    }
}
