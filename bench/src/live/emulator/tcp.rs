//! TCP connections through the links.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use planner::fleet::NodeId;

use super::flow::Flow;
use super::links::{Links, Punctuality};

/// Connections at one front; more are turned away.
const CONNECTIONS_MAX: usize = 256;

/// Processes are on this machine, which answers at once or not at all.
const CONNECT: Duration = Duration::from_millis(500);

/// One pair's door for TCP.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) listener: TcpListener,
    /// Where the second one's process listens.
    end: SocketAddr,
    pub(super) connections: Vec<Connection>,
}

impl Door {
    pub(super) fn open(from: NodeId, to: NodeId, front: SocketAddr, end: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(front)?;
        listener.set_nonblocking(true)?;
        Ok(Self { from, to, listener, end, connections: Vec::new() })
    }

    /// Takes one who dials.
    pub(super) fn accept(&mut self, links: &mut Links) {
        // Who has gone again before we looked is nobody.
        let Ok((near, _)) = self.listener.accept() else { return };
        if self.connections.len() >= CONNECTIONS_MAX || prepare(&near).is_err() {
            return;
        }
        if let Some(asked) = links.shake(self.from, self.to) {
            let there = Flow::new(self.from, self.to, u64::MAX);
            let back = Flow::new(self.to, self.from, u64::MAX);
            self.connections.push(Connection { near, far: Far::Asked(asked.due_ns), there, back });
        }
    }

    /// Does what is due, and drops what has ended.
    pub(super) fn advance(&mut self, links: &mut Links, punctual: &mut Punctuality) {
        let (from, to, end) = (self.from, self.to, self.end);
        self.connections.retain_mut(|connection| {
            let outcome =
                connection.greet(from, to, end, links).and_then(|()| connection.write(links, punctual));
            outcome.is_ok() && !connection.has_ended()
        });
    }
}

/// The second one's side of a connection.
#[derive(Debug)]
enum Far {
    /// The wish to talk arrives then.
    Asked(u64),
    Joined(TcpStream),
}

/// One who dialled and the process that was dialled.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) near: TcpStream,
    far: Far,
    pub(super) there: Flow,
    pub(super) back: Flow,
}

impl Connection {
    pub(super) fn far(&self) -> Option<&TcpStream> {
        match &self.far {
            Far::Asked(_) => None,
            Far::Joined(far) => Some(far),
        }
    }

    /// The handshake: a message there and its answer back, then bytes flow.
    fn greet(&mut self, from: NodeId, to: NodeId, end: SocketAddr, links: &mut Links) -> io::Result<()> {
        let Far::Asked(due_ns) = self.far else { return Ok(()) };
        let now_ns = links.now_ns();
        if due_ns > now_ns {
            return Ok(());
        }
        let far = TcpStream::connect_timeout(&end, CONNECT)?;
        prepare(&far)?;
        let answered = links.shake(to, from).ok_or(io::ErrorKind::NetworkUnreachable)?;
        self.there = Flow::new(from, to, answered.due_ns);
        self.back = Flow::new(to, from, now_ns);
        self.far = Far::Joined(far);
        Ok(())
    }

    fn write(&mut self, links: &Links, punctual: &mut Punctuality) -> io::Result<()> {
        if let Far::Joined(far) = &self.far {
            self.there.write(far, links, punctual)?;
            self.back.write(&self.near, links, punctual)?;
        }
        Ok(())
    }

    /// Takes what the first (or else the second) one has sent; false when the connection is torn.
    pub(super) fn read(&mut self, is_near: bool, links: &mut Links) -> bool {
        let Far::Joined(far) = &self.far else { return true };
        let read = if is_near { self.there.read(&self.near, links) } else { self.back.read(far, links) };
        read.is_ok()
    }

    /// When there is something to do even if nothing comes.
    pub(super) fn next_ns(&self, now_ns: u64) -> Option<u64> {
        match self.far {
            Far::Asked(due_ns) => Some(due_ns),
            Far::Joined(_) => {
                [self.there.next_ns(now_ns), self.back.next_ns(now_ns)].into_iter().flatten().min()
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.there.has_ended() && self.back.has_ended()
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)
}
