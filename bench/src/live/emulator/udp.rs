//! Datagrams through the links.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use planner::fleet::NodeId;
use sim::link::QUANTUM_BYTES;

use super::links::{Links, Punctuality};

/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_536;

/// Those who may talk through one front at once.
const TALKS_MAX: usize = 256;

/// A talk of which nothing was heard for so long is over.
const SILENCE_NS: u64 = 60_000_000_000;

/// A datagram that would wait longer than this for the links is dropped: what a router holds. Source: routers of homes
/// are built to hold about a tenth of a second.
const WAIT_MAX_NS: u64 = 100_000_000;

/// One pair's door for UDP.
#[derive(Debug)]
pub(super) struct UdpDoor {
    from: NodeId,
    to: NodeId,
    pub(super) socket: UdpSocket,
    end: SocketAddr,
    pub(super) talks: BTreeMap<SocketAddr, Talk>,
}

/// One who sends to the front, with a socket of ours that answers come to.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) socket: UdpSocket,
    there: Course,
    back: Course,
    heard_ns: u64,
}

/// Datagrams in one direction.
#[derive(Debug, Default)]
struct Course {
    on_the_way: VecDeque<(u64, Vec<u8>)>,
    passed_ns: u64,
    last_due_ns: u64,
}

impl UdpDoor {
    pub(super) fn open(from: NodeId, to: NodeId, front: SocketAddr, end: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(front)?;
        socket.set_nonblocking(true)?;
        Ok(Self { from, to, socket, end, talks: BTreeMap::new() })
    }

    /// Takes what has come to the front.
    pub(super) fn receive(&mut self, links: &mut Links) {
        let mut come: BTreeMap<SocketAddr, Vec<Vec<u8>>> = BTreeMap::new();
        let mut bytes = 0;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while bytes < QUANTUM_BYTES as usize {
            // An error is what an earlier datagram met: nothing for those who come now.
            let Ok((length, who)) = self.socket.recv_from(&mut buffer) else { break };
            come.entry(who).or_default().push(buffer[..length].to_vec());
            bytes += length;
        }
        let (from, to) = (self.from, self.to);
        for (who, datagrams) in come {
            if let Some(talk) = self.talk(who, links.now_ns()) {
                talk.heard_ns = links.now_ns();
                talk.there.send(links, from, to, datagrams);
            }
        }
    }

    fn talk(&mut self, who: SocketAddr, now_ns: u64) -> Option<&mut Talk> {
        if !self.talks.contains_key(&who) {
            self.talks.retain(|_, talk| talk.heard_ns.saturating_add(SILENCE_NS) > now_ns);
            if self.talks.len() >= TALKS_MAX {
                return None;
            }
            let talk = Talk::begin(self.end, now_ns).ok()?;
            self.talks.insert(who, talk);
        }
        self.talks.get_mut(&who)
    }

    /// Takes what has come back for `who`.
    pub(super) fn receive_back(&mut self, who: SocketAddr, links: &mut Links) {
        let (from, to) = (self.to, self.from);
        let Some(talk) = self.talks.get_mut(&who) else { return };
        let mut datagrams = Vec::new();
        let mut bytes = 0;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        while bytes < QUANTUM_BYTES as usize {
            let Ok(length) = talk.socket.recv(&mut buffer) else { break };
            datagrams.push(buffer[..length].to_vec());
            bytes += length;
        }
        if !datagrams.is_empty() {
            talk.heard_ns = links.now_ns();
            talk.back.send(links, from, to, datagrams);
        }
    }

    /// Hands over what is due.
    pub(super) fn advance(&mut self, links: &Links, punctual: &mut Punctuality) {
        for (who, talk) in &mut self.talks {
            // A datagram that the receiver's system does not take is lost, as datagrams are.
            talk.there.hand_over(links, punctual, |datagram| _ = talk.socket.send(datagram));
            talk.back.hand_over(links, punctual, |datagram| _ = self.socket.send_to(datagram, who));
        }
    }

    /// When there is something to do even if nothing comes.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let due = |talk: &Talk| [talk.there.next_ns(), talk.back.next_ns()].into_iter().flatten().min();
        self.talks.values().filter_map(due).min()
    }
}

impl Talk {
    fn begin(end: SocketAddr, now_ns: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(end)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, there: Course::default(), back: Course::default(), heard_ns: now_ns })
    }
}

impl Course {
    /// Puts what came together on the links together, as one burst or radio aggregate.
    fn send(&mut self, links: &mut Links, from: NodeId, to: NodeId, datagrams: Vec<Vec<u8>>) {
        let now_ns = links.now_ns();
        if self.passed_ns > now_ns.saturating_add(WAIT_MAX_NS) {
            return;
        }
        let bytes = datagrams.iter().map(Vec::len).sum();
        let Some(passage) = links.pass(from, to, self.passed_ns <= now_ns, bytes) else { return };
        self.passed_ns = self.passed_ns.max(passage.passed_ns);
        self.last_due_ns = self.last_due_ns.max(passage.due_ns);
        self.on_the_way.extend(datagrams.into_iter().map(|datagram| (self.last_due_ns, datagram)));
    }

    fn hand_over(&mut self, links: &Links, punctual: &mut Punctuality, mut give: impl FnMut(&[u8])) {
        while let Some((due_ns, datagram)) = self.on_the_way.front() {
            let now_ns = links.now_ns();
            if *due_ns > now_ns {
                return;
            }
            give(datagram);
            punctual.note(now_ns - due_ns);
            self.on_the_way.pop_front();
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.on_the_way.front().map(|(due_ns, _)| *due_ns)
    }
}
