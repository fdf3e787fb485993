//! Whom to call and when to try again.

use std::io;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::{ConnectionId, DialError};

use crate::clock::Instant;
use crate::ids::PeerId;
use crate::limits::doubled;

/// After a failed dial the next one waits this long, then twice as long each time, ...
pub(super) const REDIAL_FIRST: Duration = Duration::from_millis(500);
/// ... but never longer than this.
const REDIAL_LAST: Duration = Duration::from_secs(15);

/// When to try again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Redial {
    pub(super) due: Instant,
    failures: u32,
}

impl Redial {
    pub(super) fn at(due: Instant) -> Self {
        Self { due, failures: 0 }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.due = now.after(doubled(REDIAL_FIRST, REDIAL_LAST, self.failures));
    }
}

/// An address that somebody gave this node to join by, or that it remembers.
pub(super) struct Door {
    pub(super) address: Multiaddr,
    /// Tried only while nobody is connected, and not complained of.
    pub(super) is_remembered: bool,
    /// The call through it, or the connection that came of it.
    pub(super) through: Option<ConnectionId>,
    /// Who answered. The door is tried again when that peer is gone, whichever connection was the last one.
    pub(super) leads_to: Option<PeerId>,
    pub(super) redial: Redial,
}

/// Doors to be tried at once.
pub(super) fn doors(join: Vec<Multiaddr>, remembered: Vec<Multiaddr>) -> Vec<Door> {
    let redial = Redial::at(Instant(0));
    let door =
        |is_remembered| move |address| Door { address, is_remembered, through: None, leads_to: None, redial };
    join.into_iter().map(door(false)).chain(remembered.into_iter().map(door(true))).collect()
}

/// libp2p's errors name every address with every layer's error; people need the last part.
pub(super) fn brief(why: &str) -> String {
    let text = why.rsplit(": ").next().unwrap_or(why);
    text.trim_matches(|c: char| c == '[' || c == ']' || c == ')' || c == '(').chars().take(160).collect()
}

/// Whether everybody that was called said, or had it said by a machine, that nobody listens there. Silence does not say
/// so, nor does a network that has no way there.
pub(super) fn is_refusal(error: &DialError) -> bool {
    match error {
        DialError::Transport(tried) => !tried.is_empty() && tried.iter().all(|(_, why)| is_refused(why)),
        _ => false,
    }
}

/// Kinds of an error that say so: a port at which nobody listens, or a forwarder that found nobody behind it and hung up.
const REFUSED: [io::ErrorKind; 4] = [
    io::ErrorKind::ConnectionRefused,
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::BrokenPipe,
    io::ErrorKind::UnexpectedEof,
];

/// libp2p wraps the system's error in several layers, some of which show it in their words alone.
fn is_refused(why: &(dyn std::error::Error + 'static)) -> bool {
    let words = why.to_string();
    let code = words.rsplit_once("(os error ").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
    let kind = code.map(|code| io::Error::from_raw_os_error(code).kind());
    let says = |kind: &io::ErrorKind| words.to_lowercase().contains(&kind.to_string());
    let inner = why.downcast_ref::<io::Error>().and_then(|why| why.get_ref()).map(|inner| inner as _);
    kind.map_or_else(|| REFUSED.iter().any(says), |kind| REFUSED.contains(&kind))
        || inner.or_else(|| why.source()).is_some_and(is_refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use libp2p::TransportError;

    use super::*;

    fn failed(kinds: &[io::ErrorKind]) -> DialError {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let wrapped = |kind: &io::ErrorKind| io::Error::other(io::Error::other(io::Error::from(*kind)));
        let tried = kinds.iter().map(|kind| (address.clone(), TransportError::Other(wrapped(kind))));
        DialError::Transport(tried.collect())
    }

    #[test]
    fn only_who_says_that_nobody_is_there_refuses() {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, TimedOut, UnexpectedEof};
        assert!(is_refusal(&failed(&[ConnectionRefused])));
        assert!(is_refusal(&failed(&[ConnectionRefused, UnexpectedEof])));
        assert!(!is_refusal(&failed(&[ConnectionRefused, TimedOut])));
        assert!(!is_refusal(&failed(&[HostUnreachable])));
        assert!(!is_refusal(&failed(&[])) && !is_refusal(&DialError::NoAddresses));
        let nobody = std::net::TcpStream::connect("127.0.0.1:1").unwrap_err();
        let in_words = io::Error::other(format!("a layer: {nobody}"));
        assert!(is_refused(&in_words));
    }
}
