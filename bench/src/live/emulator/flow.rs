//! Bytes in one direction of a connection: read, charged to the links, handed over when they are due.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use planner::fleet::NodeId;
use sim::link::QUANTUM_BYTES;
use sim::wires::WINDOW_BYTES;

use super::links::{Links, Punctuality};

/// How long before the links are done with what it sent a flow may send more: longer than a thread takes to wake, so
/// that links do not stand idle, and much shorter than a quantum takes on them, so that flows take turns.
const AHEAD_NS: u64 = 150_000;

/// Bytes on their way, and when they are due.
#[derive(Debug)]
struct Piece {
    due_ns: u64,
    bytes: Vec<u8>,
    written: usize,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Flow {
    from: NodeId,
    to: NodeId,
    /// Nothing is read before.
    opens_ns: u64,
    on_the_way: VecDeque<Piece>,
    bytes: usize,
    /// When the links are done with what was sent last.
    passed_ns: u64,
    last_due_ns: u64,
    /// When the receiver learns that nothing more comes.
    ends_ns: Option<u64>,
    has_ended: bool,
    /// The receiver takes no more just now.
    pub(super) is_blocked: bool,
}

impl Flow {
    pub(super) fn new(from: NodeId, to: NodeId, opens_ns: u64) -> Self {
        Self {
            from,
            to,
            opens_ns,
            on_the_way: VecDeque::new(),
            bytes: 0,
            passed_ns: 0,
            last_due_ns: 0,
            ends_ns: None,
            has_ended: false,
            is_blocked: false,
        }
    }

    /// Whether everything was handed over, the end too.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether it may take more from its sender: the links are nearly done with what it sent, and the window has room.
    /// What it does not take waits with the sender.
    pub(super) fn may_read(&self, now_ns: u64) -> bool {
        self.ends_ns.is_none() && self.room() > 0 && self.reads_from_ns() <= now_ns
    }

    fn room(&self) -> usize {
        (WINDOW_BYTES as usize).saturating_sub(self.bytes).min(QUANTUM_BYTES as usize)
    }

    fn reads_from_ns(&self) -> u64 {
        self.opens_ns.max(self.passed_ns.saturating_sub(AHEAD_NS))
    }

    /// When there is something to do next even if nothing comes.
    pub(super) fn next_ns(&self, now_ns: u64) -> Option<u64> {
        let due = self.on_the_way.front().map(|piece| piece.due_ns).filter(|_| !self.is_blocked);
        let end = self.ends_ns.filter(|_| self.on_the_way.is_empty() && !self.has_ended);
        let reads = Some(self.reads_from_ns()).filter(|at| self.ends_ns.is_none() && *at > now_ns);
        [due, end, reads].into_iter().flatten().min()
    }

    /// Takes what the sender has and puts it on the links.
    ///
    /// # Errors
    /// Nothing passes between the two any more.
    pub(super) fn read(&mut self, source: &TcpStream, links: &mut Links) -> io::Result<()> {
        let mut bytes = vec![0; self.room()];
        let is_sparse = self.passed_ns <= links.now_ns();
        let read = match (&mut &*source).read(&mut bytes) {
            Err(again) if is_patience(&again) => return Ok(()),
            // A peer that has died looks like one that has left; a proper farewell and a torn one take the same way.
            Err(_) | Ok(0) => {
                self.ends_ns =
                    Some(links.shake(self.from, self.to).ok_or_else(torn)?.due_ns.max(self.last_due_ns));
                return Ok(());
            }
            Ok(read) => read,
        };
        bytes.truncate(read);
        bytes.shrink_to_fit();
        let passage = links.pass(self.from, self.to, is_sparse, read).ok_or_else(torn)?;
        self.passed_ns = self.passed_ns.max(passage.passed_ns);
        self.last_due_ns = self.last_due_ns.max(passage.due_ns);
        self.bytes += read;
        self.on_the_way.push_back(Piece { due_ns: self.last_due_ns, bytes, written: 0 });
        Ok(())
    }

    /// Hands over what is due.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(super) fn write(
        &mut self,
        sink: &TcpStream,
        links: &Links,
        punctual: &mut Punctuality,
    ) -> io::Result<()> {
        self.is_blocked = false;
        while let Some(piece) = self.on_the_way.front_mut() {
            let now_ns = links.now_ns();
            if piece.due_ns > now_ns {
                return Ok(());
            }
            match (&mut &*sink).write(&piece.bytes[piece.written..]) {
                Err(again) if is_patience(&again) => {
                    self.is_blocked = true;
                    return Ok(());
                }
                Err(gone) => return Err(gone),
                Ok(written) => piece.written += written,
            }
            if piece.written == piece.bytes.len() {
                punctual.note(now_ns - piece.due_ns);
                self.bytes -= piece.written;
                self.on_the_way.pop_front();
            }
        }
        if self.ends_ns.is_some_and(|at| at <= links.now_ns()) && !self.has_ended {
            self.has_ended = true;
            sink.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn torn() -> io::Error {
    ErrorKind::NetworkUnreachable.into()
}
