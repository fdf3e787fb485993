//! Runs a [`Membership`] over a node's transport: its packets are frames of the control lane, one stream for each peer that
//! something is said to; its time is the clock's.
//!
//! The same in every world. What the membership decides is its own; here packets are only carried, and dropped where
//! queues are full, as packets may be.

mod lines;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use self::lines::Lines;
use crate::clock::{Clock, Instant};
use crate::ids::PeerId;
use crate::membership::{Event, Input, Membership, Outputs, Profile, State, Trust};
use crate::tasks::Tasks;
use crate::transport::{Rx, Transport};
use crate::wire::Frame;

/// Things said to the membership that wait.
const SAID_MAX: usize = 1024;
/// Packets that have come and wait.
const PACKETS_MAX: usize = 256;
/// Peers that may each have a stream to here.
const READERS_MAX: usize = 8192;
/// A transport that takes no streams is asked again after so long.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the last words of a member that leaves take: they are said several times.
const FAREWELL: Duration = Duration::from_millis(800);

/// What a node tells the membership of itself and of what it sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// These may be members: ask them in.
    Join(Vec<PeerId>),
    /// This node now is this.
    Profile(Profile),
    /// It now does this.
    State(State),
    /// Somebody asked it for this model.
    Asked(String),
    /// A round trip that was measured elsewhere.
    Measured(PeerId, Duration),
    /// A connection to it broke.
    Unreachable(PeerId),
    /// This node will end.
    Leave,
}

impl Said {
    fn input(&self) -> Input<'_> {
        match self {
            Said::Join(peers) => Input::Join(peers),
            Said::Profile(profile) => Input::Profile(profile.clone()),
            Said::State(state) => Input::State(state.clone()),
            Said::Asked(model) => Input::Asked(model),
            Said::Measured(peer, time) => Input::Measured(*peer, *time),
            Said::Unreachable(peer) => Input::Unreachable(*peer),
            Said::Leave => Input::Leave,
        }
    }
}

/// A membership that runs. It ends with this.
pub struct Gossip<T, C> {
    member: Arc<Mutex<Membership<T>>>,
    said: mpsc::Sender<Said>,
    clock: C,
    tasks: Tasks,
}

impl<T: Trust + Send + 'static, C: Clock> Gossip<T, C> {
    /// Starts it on the current runtime. `hear` is called with what has changed, and must be short.
    pub fn start<N: Transport>(
        transport: N,
        clock: C,
        member: Membership<T>,
        hear: impl FnMut(&Membership<T>, Vec<Event>) + Send + 'static,
    ) -> Self {
        Self::shared(transport, clock, Arc::new(Mutex::new(member)), hear)
    }

    /// The same with a membership that somebody else looks at as well: never while it waits for anything.
    pub fn shared<N: Transport>(
        transport: N,
        clock: C,
        member: Arc<Mutex<Membership<T>>>,
        hear: impl FnMut(&Membership<T>, Vec<Event>) + Send + 'static,
    ) -> Self {
        let tasks = Tasks::new();
        let (said, sayings) = mpsc::channel(SAID_MAX);
        let (packet, packets) = mpsc::channel(PACKETS_MAX);
        tasks.spawn(accept(transport.clone(), clock.clone(), packet));
        let run = Run { lines: Lines::new(transport, clock.clone()), clock: clock.clone(), hear };
        tasks.spawn(run.run(Arc::clone(&member), sayings, packets));
        Self { member, said, clock, tasks }
    }

    /// Looks at what is known now. `look` must be short.
    pub fn read<R>(&self, look: impl FnOnce(&Membership<T>) -> R) -> R {
        look(&self.member.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells it something; gives whether there was room. What is lost was said by a node that says more than it can.
    pub fn say(&self, said: Said) -> bool {
        self.said.try_send(said).is_ok()
    }

    /// Tells it something, once there is room.
    pub async fn tell(&self, said: Said) {
        let _ = self.said.send(said).await;
    }

    /// Tells the others that this node ends, and returns when that was said.
    pub async fn leave(&self) {
        if self.say(Said::Leave) {
            self.clock.sleep(FAREWELL).await;
        }
    }
}

impl<T, C> Drop for Gossip<T, C> {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

/// Takes the streams that peers open, and their packets.
async fn accept<N: Transport, C: Clock>(transport: N, clock: C, packets: mpsc::Sender<(PeerId, Bytes)>) {
    let mut readers = tokio::task::JoinSet::new();
    loop {
        match transport.accept().await {
            Ok((peer, _, rx)) => {
                while readers.try_join_next().is_some() {}
                if readers.len() < READERS_MAX {
                    readers.spawn(read(peer, rx, packets.clone()));
                }
            }
            Err(_) => clock.sleep(AGAIN).await,
        }
    }
}

async fn read<R: Rx>(peer: PeerId, mut rx: R, packets: mpsc::Sender<(PeerId, Bytes)>) {
    while let Ok(Some(Frame::Gossip(packet))) = rx.recv().await {
        if packets.send((peer, packet)).await.is_err() {
            return;
        }
    }
}

struct Run<N: Transport, C, H> {
    lines: Lines<N, C>,
    clock: C,
    hear: H,
}

impl<N: Transport, C: Clock, H> Run<N, C, H> {
    async fn run<T: Trust>(
        mut self,
        member: Arc<Mutex<Membership<T>>>,
        mut said: mpsc::Receiver<Said>,
        mut packets: mpsc::Receiver<(PeerId, Bytes)>,
    ) where
        H: FnMut(&Membership<T>, Vec<Event>),
    {
        let mut due = member.lock().unwrap_or_else(PoisonError::into_inner).next_due();
        loop {
            let timer = async {
                match due {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let mut out = Outputs::default();
            tokio::select! {
                biased;
                said = said.recv() => match said {
                    Some(said) => due = on(&member, self.clock.now(), said.input(), &mut out, &mut self.hear),
                    None => return,
                },
                packet = packets.recv() => match packet {
                    Some((from, bytes)) => {
                        let input = Input::Packet { from, bytes: &bytes };
                        due = on(&member, self.clock.now(), input, &mut out, &mut self.hear);
                    }
                    None => return,
                },
                () = timer => due = on(&member, self.clock.now(), Input::Tick, &mut out, &mut self.hear),
            }
            for (to, packet) in out.packets {
                self.lines.send(to, packet.into());
            }
        }
    }
}

/// Hands an input over, and what has changed on. Gives when the membership wants to be called next.
fn on<T: Trust>(
    member: &Mutex<Membership<T>>,
    now: Instant,
    input: Input<'_>,
    out: &mut Outputs,
    hear: &mut impl FnMut(&Membership<T>, Vec<Event>),
) -> Option<Instant> {
    let mut member = member.lock().unwrap_or_else(PoisonError::into_inner);
    member.on(now, input, out);
    if !out.events.is_empty() {
        hear(&member, std::mem::take(&mut out.events));
    }
    member.next_due()
}
