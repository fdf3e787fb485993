//! One process in the simulated mesh.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::PeerId;
use node::membership::{Membership, Size, Version};

use super::network::{Place, Watchwork};
use super::trust::Keys;

/// Packets that wait for a process that stands still; the system drops more.
const INBOX_MAX: usize = 256;

/// What a process knows. Behind a lock, since in some worlds its own tasks call it.
#[derive(Debug, Clone)]
pub(super) struct Process(Arc<Mutex<Membership<Keys>>>);

impl Process {
    pub(super) fn new(membership: Membership<Keys>) -> Self {
        Self(Arc::new(Mutex::new(membership)))
    }

    /// It, until the guard is dropped: nobody may look twice at one process at the same time.
    pub(super) fn look(&self) -> MutexGuard<'_, Membership<Keys>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the tasks that call it.
    pub(super) fn shared(&self) -> Arc<Mutex<Membership<Keys>>> {
        Arc::clone(&self.0)
    }
}

/// A process, or the place where one was.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) place: Place,
    pub(super) clock: Watchwork,
    pub(super) process: Option<Process>,
    /// It stands still until then.
    pub(super) paused: Option<u64>,
    /// It does everything this much later than it should.
    pub(super) late_ns: u64,
    pub(super) inbox: VecDeque<(u32, Vec<u8>)>,
    /// When it is to be called next.
    pub(super) wake: Option<u64>,
    /// It has left, and does not come back.
    pub(super) has_left: bool,
    /// What it does, to have something to change.
    pub(super) sessions: u32,
    pub(super) second: u64,
    pub(super) sent_in_second: u64,
    pub(super) peak_bytes_per_s: u64,
    pub(super) largest: Size,
    pub(super) longest_packet: usize,
    /// The latest versions it has told of, to see that none goes back; kept in small meshes only.
    pub(super) seen: BTreeMap<(PeerId, usize), Version>,
    /// When it found whom.
    pub(super) found: BTreeMap<PeerId, u64>,
}

impl Member {
    pub(super) fn new(place: Place, clock: Watchwork) -> Self {
        Self {
            place,
            clock,
            process: None,
            paused: None,
            late_ns: 0,
            inbox: VecDeque::new(),
            wake: None,
            has_left: false,
            sessions: 0,
            second: 0,
            sent_in_second: 0,
            peak_bytes_per_s: 0,
            largest: Size::default(),
            longest_packet: 0,
            seen: BTreeMap::new(),
            found: BTreeMap::new(),
        }
    }

    /// Whether there is a process that does not stand still.
    pub(super) fn is_running(&self) -> bool {
        self.process.is_some() && self.paused.is_none()
    }

    /// The same, and it has not said that it ends.
    pub(super) fn is_there(&self) -> bool {
        self.is_running() && !self.has_left
    }

    pub(super) fn put_aside(&mut self, from: u32, bytes: Vec<u8>) {
        if self.inbox.len() < INBOX_MAX {
            self.inbox.push_back((from, bytes));
        }
    }

    pub(super) fn has_sent(&mut self, at_ns: u64, bytes: u64, length: usize) {
        let second = at_ns / 1_000_000_000;
        if second != self.second {
            (self.second, self.sent_in_second) = (second, 0);
        }
        self.sent_in_second += bytes;
        self.peak_bytes_per_s = self.peak_bytes_per_s.max(self.sent_in_second);
        self.longest_packet = self.longest_packet.max(length);
    }

    pub(super) fn end(&mut self) {
        self.process = None;
        self.paused = None;
        self.inbox.clear();
        self.wake = None;
        self.seen.clear();
        self.found.clear();
    }

    pub(super) fn measure(&mut self) {
        if let Some(process) = &self.process {
            let (size, largest) = (process.look().size(), self.largest);
            self.largest = Size {
                members: largest.members.max(size.members),
                rumours: largest.rumours.max(size.rumours),
                tasks: largest.tasks.max(size.tasks),
                links: largest.links.max(size.links),
            };
        }
    }
}
