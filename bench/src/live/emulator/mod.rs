//! A network between processes of this machine: their TCP and UDP pass through here, and arrive when the simulator's own
//! link model says.
//!
//! Each ordered pair of nodes has a front, a port on loopback: who dials it is the first node of the pair, what answers
//! is the second one's process. What passes is charged to `sim::link::Net` in real time, so what is emulated and what
//! is simulated are one piece of code: uplinks, downlinks and the air of a Wi-Fi network are shared by all that pass
//! them, delay and jitter come on top. The hosts' own software is real and charged nowhere.
//!
//! * [`Emulator`]: starts it, names the fronts, says how punctual it was.
//! * [`config`]: a file that says what to put between which processes; [`command`]: `bench emulate`.
//! * `links`: the link model at the pace of the wall clock. `flow`: bytes in one direction of a connection.
//! * `tcp`, `udp`: connections and datagrams. `turn`: the one thread that moves everything.
//!
//! What it leaves out: TCP's own congestion control over the emulated link (a connection runs at the link's rate at
//! once), loss on TCP, and what TCP itself would send on the link (acknowledgements are part of the model's overhead).

pub mod command;
pub mod config;
mod flow;
mod links;
mod tcp;
#[cfg(test)]
mod tests;
mod turn;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use planner::fleet::{Fleet, NodeId};

use self::links::Links;
pub use self::links::Punctuality;
use self::turn::Turn;

/// Where a node's process listens, on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// For TCP.
    pub tcp: Option<SocketAddr>,
    /// For UDP.
    pub udp: Option<SocketAddr>,
}

/// Where one node reaches another one: the same of both protocols that the other listens for.
pub type Front = Ends;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The system gave no port or thread.
    #[error("the emulator cannot start: {0}; is the port taken, or the number of open files too small?")]
    System(#[from] io::Error),
}

/// Nodes that nothing passes to or from but among themselves; nobody where there is no partition.
pub(super) type Cut = BTreeSet<NodeId>;

/// A running network; dropping it ends it, and all connections with it.
#[derive(Debug)]
pub struct Emulator {
    fronts: BTreeMap<(NodeId, NodeId), Front>,
    punctuality: Arc<Mutex<Punctuality>>,
    cut: Arc<Mutex<Cut>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts the network of `fleet`: `ends` says where each node's process listens, by the node's number. Pairs whose
    /// networks are not joined, and nodes of one machine, which meet without a network, get no front.
    ///
    /// # Errors
    /// No port, no thread.
    pub fn start(fleet: Fleet, ends: &[Ends], seed: u64) -> Result<Self, EmulatorError> {
        Self::start_at(fleet, ends, seed, &BTreeMap::new())
    }

    /// The same with ports of choice for some fronts; the others get free ones.
    ///
    /// # Errors
    /// A port that is taken.
    pub fn start_at(
        fleet: Fleet,
        ends: &[Ends],
        seed: u64,
        wanted: &BTreeMap<(NodeId, NodeId), u16>,
    ) -> Result<Self, EmulatorError> {
        let pairs: Vec<(NodeId, NodeId, Ends)> = pairs(&fleet, ends);
        let punctuality = Arc::new(Mutex::new(Punctuality::default()));
        let cut = Arc::default();
        let mut turn = Turn::new(Links::new(fleet, seed), Arc::clone(&punctuality), Arc::clone(&cut));
        let mut fronts = BTreeMap::new();
        for (from, to, ends) in pairs {
            let port = wanted.get(&(from, to)).copied().unwrap_or(0);
            let front = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let tcp = ends.tcp.map(|end| turn.listen_tcp(from, to, front, end)).transpose()?;
            let udp = ends.udp.map(|end| turn.listen_udp(from, to, tcp.unwrap_or(front), end)).transpose()?;
            fronts.insert((from, to), Front { tcp, udp });
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("emulator".into()).spawn(move || turn.run(&over))?;
        Ok(Self { fronts, punctuality, cut, is_over, thread: Some(thread) })
    }

    /// Where `from` reaches `to`.
    pub fn front(&self, from: NodeId, to: NodeId) -> Option<Front> {
        self.fronts.get(&(from, to)).copied()
    }

    /// All fronts, by the pair.
    pub fn fronts(&self) -> &BTreeMap<(NodeId, NodeId), Front> {
        &self.fronts
    }

    /// Separates these nodes from all others, until another call: nothing passes, and nobody is told. What
    /// streams carry waits, as TCP would send it again; datagrams are lost. With nobody, all is whole again.
    pub fn cut_off(&self, nodes: impl IntoIterator<Item = NodeId>) {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = nodes.into_iter().collect();
    }

    /// How punctual it was so far.
    pub fn punctuality(&self) -> Punctuality {
        self.punctuality.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It only ends by itself; a panic in it has been printed.
            let _ = thread.join();
        }
    }
}

/// The ordered pairs that have a way over a network, and where the second of each listens.
fn pairs(fleet: &Fleet, ends: &[Ends]) -> Vec<(NodeId, NodeId, Ends)> {
    let both = |from: NodeId| fleet.ids().map(move |to| (from, to));
    let apart = |(from, to): &(NodeId, NodeId)| {
        fleet.node(*from).machine != fleet.node(*to).machine && fleet.path(*from, *to).is_some()
    };
    let ended = |(from, to): (NodeId, NodeId)| Some((from, to, *ends.get(to.index())?));
    fleet.ids().flat_map(both).filter(apart).filter_map(ended).collect()
}
