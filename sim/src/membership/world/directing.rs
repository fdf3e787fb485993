//! Members that are tasks of another world: what they are told, and what they tell.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use node::PeerId;
use node::gossip::Said;
use node::membership::{Event, Input};
use planner::fleet::NodeId;
use tokio::sync::{Notify, mpsc};

use super::World;
use crate::membership::hosted::{Launch, Strait};
use crate::membership::member::Process;
use crate::membership::network::Watchwork;
use crate::scenario::FaultKind as Order;

/// Things that are said to a member and wait.
const SAID_MAX: usize = 1_024;

/// What a member has done, and when.
#[derive(Debug)]
pub(in crate::membership) enum Heard {
    /// It tells something.
    Event(u64, u32, Event),
    /// It has sent a packet of that length.
    Sent(u64, u32, usize),
}

impl Heard {
    fn at_ns(&self) -> u64 {
        match self {
            Heard::Event(at_ns, ..) | Heard::Sent(at_ns, ..) => *at_ns,
        }
    }
}

/// What waits to be heard.
#[derive(Debug, Clone, Default)]
pub(in crate::membership) struct Ears {
    heard: Arc<Mutex<VecDeque<Heard>>>,
    news: Arc<Notify>,
}

impl Ears {
    pub(in crate::membership) fn hear(&self, heard: Heard) {
        let is_news = matches!(heard, Heard::Event(..));
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push_back(heard);
        if is_news {
            self.news.notify_one();
        }
    }

    fn next(&self, until_ns: u64) -> Option<Heard> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.front().is_some_and(|first| first.at_ns() <= until_ns).then(|| heard.pop_front()).flatten()
    }

    /// Returns when there may be something new.
    pub(in crate::membership) async fn news(&self) {
        self.news.notified().await;
    }
}

/// A member that runs, or is about to.
#[derive(Debug)]
struct Voice {
    said: mpsc::Sender<Said>,
    raw: mpsc::Sender<(PeerId, Vec<u8>)>,
}

/// The other side of members that run elsewhere.
#[derive(Debug)]
pub(in crate::membership) struct Hosted {
    strait: Strait,
    voices: Vec<Option<Voice>>,
    launches: Vec<Option<Launch>>,
    is_down: Vec<bool>,
    orders: Vec<Order>,
}

impl Hosted {
    pub(super) fn new(strait: Strait, members: usize) -> Self {
        Self {
            strait,
            voices: (0..members).map(|_| None).collect(),
            launches: (0..members).map(|_| None).collect(),
            is_down: vec![false; members],
            orders: Vec::new(),
        }
    }

    /// Tells a member something. Packets and the time come to it in its own world.
    pub(super) fn say(&mut self, i: u32, input: Input<'_>) {
        let said = match input {
            Input::Tick | Input::Packet { .. } => return,
            Input::Join(peers) => Said::Join(peers.to_vec()),
            Input::Profile(profile) => Said::Profile(profile),
            Input::State(state) => Said::State(state),
            Input::Asked(model) => Said::Asked(model.to_owned()),
            Input::Measured(peer, time) => Said::Measured(peer, time),
            Input::Unreachable(peer) => Said::Unreachable(peer),
            Input::Leave => Said::Leave,
        };
        if let Some(voice) = &self.voices[i as usize] {
            let _ = voice.said.try_send(said);
        }
    }

    /// Lets a member send what its membership has not said.
    pub(super) fn shout(&mut self, from: u32, to: u32, bytes: Vec<u8>) {
        if let Some(voice) = &self.voices[from as usize] {
            let _ = voice.raw.try_send((PeerId::from_index(to), bytes));
        }
    }

    /// A process begins.
    pub(super) fn launch(&mut self, i: u32, process: Process, clock: Watchwork) {
        let (said, sayings) = mpsc::channel(SAID_MAX);
        let (raw, shouts) = mpsc::channel(SAID_MAX);
        self.voices[i as usize] = Some(Voice { said, raw });
        self.launches[i as usize] = Some(Launch { process, clock, sayings, shouts });
        if std::mem::take(&mut self.is_down[i as usize]) {
            self.orders.push(Order::Restart(NodeId(i)));
        }
        self.strait.begin(i);
    }

    /// It dies.
    pub(super) fn crash(&mut self, i: u32) {
        self.voices[i as usize] = None;
        self.launches[i as usize] = None;
        self.is_down[i as usize] = true;
        self.orders.push(Order::Crash(NodeId(i)));
    }
}

impl World {
    /// The other world is as far as this: everything up to then is heard and done. Gives what is to be done to it, and
    /// when this is wanted next.
    pub(in crate::membership) fn direct(&mut self, now_ns: u64) -> (Vec<Order>, u64) {
        let Some(ears) = self.hosted.as_ref().map(|hosted| hosted.strait.ears()) else {
            return (Vec::new(), u64::MAX);
        };
        loop {
            let due = self.due_ns().filter(|at| *at <= now_ns);
            while let Some(heard) = ears.next(due.unwrap_or(now_ns)) {
                self.heard(heard);
            }
            match due {
                Some(due) => self.run_until(due),
                None => break,
            }
        }
        self.now_ns = now_ns;
        let orders = self.hosted.as_mut().map(|hosted| std::mem::take(&mut hosted.orders));
        (orders.unwrap_or_default(), self.due_ns().unwrap_or(u64::MAX))
    }

    fn heard(&mut self, heard: Heard) {
        self.now_ns = self.now_ns.max(heard.at_ns());
        match heard {
            Heard::Event(_, i, event) if self.members[i as usize].process.is_some() => self.hear(i, &event),
            Heard::Event(..) => {}
            Heard::Sent(_, i, length) => self.count_sent(i, length),
        }
    }

    /// What a host's task needs to begin, if it is to.
    pub(in crate::membership) fn take_launch(&mut self, i: u32) -> Option<Launch> {
        self.hosted.as_mut()?.launches.get_mut(i as usize)?.take()
    }

    /// The other world is told what is wrong just now.
    pub(super) fn reflect(&mut self) {
        let Some(hosted) = &mut self.hosted else { return };
        hosted.strait.set(&self.ways, self.members.iter().map(|m| (m.paused.is_some(), m.late_ns)));
        hosted.orders.push(Order::Heal);
        let ids = |side: &[bool], is: bool| -> Vec<NodeId> {
            let on = (0u32..).zip(side).filter(|(_, on)| **on == is);
            on.map(|(i, _)| NodeId(i)).collect()
        };
        for side in self.ways.sides() {
            hosted.orders.push(Order::Partition(ids(side, true), ids(side, false)));
        }
    }
}
