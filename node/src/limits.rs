//! Every bound of a node in one place. A bound that is felt is back-pressure; a wait that ends is a deadline.

use std::time::Duration;

/// The bounds of a node. The defaults suit homes and small offices; a field says what goes wrong when it is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Sessions whose head may run on this node at once; more are refused. Too low turns people away.
    pub sessions: usize,
    /// Tokens a client may be behind its head before the head waits for it.
    pub reply_queue: usize,
    /// How long a head waits for a client that does not read before it gives the session up.
    pub client_stall: Duration,
    /// Frames for one head that wait to be read. A head has one token under way, so few are enough.
    pub mailbox: usize,
    /// Frames that wait for one stream to a peer. Too many hide a slow link from those who could slow down.
    pub outbox_queue: usize,
    /// Frames that wait for the stage of this node, per lane, before streams are no longer read.
    pub stage_queue: usize,
    /// Sessions in one engine step.
    pub batch: usize,
    /// Prompt tokens in one engine step, whole chunks, at least one chunk. More starves decoding.
    pub prefill_tokens: u32,
    /// A step with prompts that is expected to take longer takes no decode steps with it, and lets them in between its
    /// layers instead, where the engine can. Shorter ones take them along: that costs them less than it saves.
    pub long_step: Duration,
    /// Prompts up to this many tokens travel with the decode lane: they are as small as a decode step.
    pub small_prefill: u32,
    /// Sessions a stage remembers, alive or just ended; the one that was idle longest is forgotten first.
    pub stage_sessions: usize,
    /// KV of a session that is idle this long is freed: its head is dead. Must exceed the slowest token.
    pub kv_idle: Duration,
    /// How long a frame may wait for room towards a peer, and a write for the network.
    pub send_stall: Duration,
    /// How long a new stream may take to open.
    pub connect: Duration,
    /// After a failed connection the next one waits this long, then twice as long each time, ...
    pub reconnect_first: Duration,
    /// ... but never longer than this.
    pub reconnect_last: Duration,
    /// A stream that a head suspects is opened anew unless it is younger than this.
    pub stream_trust: Duration,
    /// Largest encoded frame accepted, bytes. Above the largest chunk of activations of any model.
    pub frame_bytes: u32,
    /// Stages a route may have.
    pub route_stages: usize,
    /// Distance of pings to a node of the plan; other nodes are pinged a quarter as often.
    pub ping_period: Duration,
    /// The period grows by this much for each node of the fleet, so that the planning node is not flooded.
    pub ping_per_node: Duration,
    /// Pings without an answer until a peer counts as lost.
    pub ping_misses: u32,
    /// Least distance of pings to a peer under suspicion.
    pub verify_period: Duration,
    /// How long a peer that refuses connections may take to answer all the same. Too short, and a network that was interrupted
    /// for a moment costs a plan; too long, and clients wait for nothing when a process has ended.
    pub refused_patience: Duration,
    /// A ping is missed after this many smoothed round trips, if that is longer than the period.
    pub rtt_multiple: u32,
    /// A better plan is adopted only if it improves the asked objective by this share: changing costs loads and replays.
    pub replan_gain: f64,
    /// How long the fleet must have been unchanged before a better plan is looked for.
    pub replan_rest: Duration,
    /// A head's deadline for a token: this many times the predicted or observed time, ...
    pub token_multiple: u32,
    /// ... at least this long for a decoded token ...
    pub token_floor: Duration,
    /// ... and this long for a first token. When it passes, the head asks the planning node to check its stages.
    pub first_token_floor: Duration,
    /// After this many deadlines the head abandons the attempt even if all stages answer pings: a frame was lost.
    pub patience: u32,
    /// A replay that comes right after a failed one waits this long, then twice as long each time, ...
    pub retry_first: Duration,
    /// ... but never longer than this.
    pub retry_last: Duration,
    /// How long a new request waits for a plan before it is refused.
    pub plan_wait: Duration,
    /// A session without a new token for this long (and four predicted first tokens) has failed.
    pub give_up: Duration,
    /// The replica that starts on this node is preferred up to this many times the load of others.
    pub local_preference: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let millis = Duration::from_millis;
        Self {
            sessions: 4096,
            reply_queue: 64,
            client_stall: seconds(60),
            mailbox: 32,
            outbox_queue: 256,
            stage_queue: 1024,
            batch: 64,
            prefill_tokens: planner::cost::constants::PREFILL_CHUNK,
            long_step: millis(60),
            small_prefill: 16,
            stage_sessions: 8192,
            kv_idle: seconds(120),
            send_stall: seconds(20),
            connect: seconds(5),
            reconnect_first: millis(100),
            reconnect_last: seconds(1),
            stream_trust: seconds(1),
            frame_bytes: 64 << 20,
            route_stages: 256,
            ping_period: millis(250),
            ping_per_node: millis(2),
            ping_misses: 3,
            verify_period: millis(120),
            refused_patience: millis(60),
            rtt_multiple: 4,
            replan_gain: 0.15,
            replan_rest: seconds(10),
            token_multiple: 8,
            token_floor: seconds(1),
            first_token_floor: seconds(3),
            patience: 4,
            retry_first: millis(100),
            retry_last: seconds(2),
            plan_wait: seconds(60),
            give_up: seconds(300),
            local_preference: 2,
        }
    }
}

impl Limits {
    /// Distance of pings in a fleet of `nodes`.
    pub fn period(&self, nodes: usize) -> Duration {
        let grown = self.ping_per_node.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX));
        self.ping_period.max(grown)
    }

    /// The pause before the `n`-th try in a row that brought nothing; none before the first.
    pub fn retry_pause(&self, n: u32) -> Duration {
        doubled(self.retry_first, self.retry_last, n)
    }

    /// The pause after the `n`-th failed connection in a row.
    pub fn reconnect_pause(&self, n: u32) -> Duration {
        doubled(self.reconnect_first, self.reconnect_last, n)
    }
}

/// `first` doubled `n - 1` times, at most `last`; zero for `n` of zero.
pub(crate) fn doubled(first: Duration, last: Duration, n: u32) -> Duration {
    match n.checked_sub(1) {
        None => Duration::ZERO,
        Some(times) => first.saturating_mul(1u32.checked_shl(times.min(30)).unwrap_or(u32::MAX)).min(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let limits = Limits::default();
        assert_eq!(limits.retry_pause(0), Duration::ZERO);
        assert_eq!(limits.retry_pause(1), limits.retry_first);
        assert_eq!(limits.retry_pause(3), limits.retry_first * 4);
        assert_eq!(limits.retry_pause(u32::MAX), limits.retry_last);
    }

    #[test]
    fn the_ping_period_grows_with_the_fleet() {
        let limits = Limits::default();
        assert_eq!(limits.period(3), limits.ping_period);
        assert!(limits.period(1000) > limits.period(200));
    }
}
