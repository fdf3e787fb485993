//! Every bound of the API in one place.

use std::time::Duration;

/// The bounds of the API. The defaults suit one machine that serves its household.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// How long the head of a request may take to arrive. Connections that ask nothing are closed after it, too.
    pub head_time: Duration,
    /// How long its body may take.
    pub body_time: Duration,
    /// How long a client may read nothing of what is there for it.
    pub stall_time: Duration,
    /// Largest body, bytes.
    pub body_bytes: usize,
    /// Bodies above `small_body_bytes` that are read or turned into tokens at once; more wait.
    pub large_bodies: usize,
    /// Bodies up to this size are not counted, bytes.
    pub small_body_bytes: usize,
    /// Requests that are turned into tokens at once, each on a thread of its own.
    pub readers: usize,
    /// Answers of one request: prompts times `n`.
    pub answers: usize,
    /// Answers that are given at once; more wait. As many as one step of an engine takes.
    pub running: usize,
    /// Requests that wait for others to end.
    pub waiting: usize,
    /// How long one may wait.
    pub turn_time: Duration,
    /// Stop strings of one request.
    pub stops: usize,
    /// Longest stop string, bytes.
    pub stop_bytes: usize,
    /// How long a request waits for its first token before the API looks whether anything serves at all, and before a
    /// stream begins without one.
    pub patience: Duration,
    /// A stream that has nothing to say for so long says that it is alive.
    pub keep_alive: Duration,
    /// Pieces of text that a client may be behind.
    pub pieces: usize,
    /// How long running answers may go on when the server is asked to stop.
    pub grace: Duration,
    /// What `Retry-After` says when there is no room, seconds.
    pub retry_s: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 512,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(60),
            body_bytes: 8 << 20,
            large_bodies: 8,
            small_body_bytes: 256 << 10,
            readers: 4,
            answers: 32,
            running: 64,
            waiting: 256,
            turn_time: Duration::from_secs(120),
            stops: 16,
            stop_bytes: 1024,
            patience: Duration::from_secs(5),
            keep_alive: Duration::from_secs(10),
            pieces: 64,
            grace: Duration::from_secs(30),
            retry_s: 2,
        }
    }
}
