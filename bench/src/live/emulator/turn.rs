//! The one thread that moves everything: it hands over what is due, waits for what comes or falls due, takes what came.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use planner::fleet::NodeId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Cut;
use super::links::{Links, Punctuality};
use super::tcp::Door;
use super::udp::UdpDoor;

/// The longest it sleeps: then it looks whether it shall end.
const SLEEP_MAX_NS: u64 = 20_000_000;

/// So long before something falls due it sleeps no more but looks again and again: a processor that rests takes up to some
/// hundred microseconds to wake, in a virtual machine above all.
const AWAKE_NS: u64 = 200_000;

/// All doors, and the links behind them.
#[derive(Debug)]
pub(super) struct Turn {
    links: Links,
    doors: Vec<Door>,
    udp_doors: Vec<UdpDoor>,
    punctual: Punctuality,
    told: Arc<Mutex<Punctuality>>,
    /// What it shall be.
    wanted: Arc<Mutex<Cut>>,
    cut: Cut,
}

/// What something that was waited for belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Door(usize),
    /// Door, connection, whether it is the first one's side.
    Stream(usize, usize, bool),
    /// It takes bytes again, which handing over finds out.
    Sink,
    UdpDoor(usize),
    Talk(usize, SocketAddr),
}

impl Turn {
    pub(super) fn new(links: Links, told: Arc<Mutex<Punctuality>>, wanted: Arc<Mutex<Cut>>) -> Self {
        let (punctual, cut) = (Punctuality::default(), Cut::new());
        Self { links, doors: Vec::new(), udp_doors: Vec::new(), punctual, told, wanted, cut }
    }

    /// A pair's front for TCP: where it is.
    pub(super) fn listen_tcp(
        &mut self,
        from: NodeId,
        to: NodeId,
        front: SocketAddr,
        end: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let door = Door::open(from, to, front, end)?;
        let at = door.listener.local_addr()?;
        self.doors.push(door);
        Ok(at)
    }

    /// A pair's front for UDP: where it is.
    pub(super) fn listen_udp(
        &mut self,
        from: NodeId,
        to: NodeId,
        front: SocketAddr,
        end: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let door = UdpDoor::open(from, to, front, end)?;
        let at = door.socket.local_addr()?;
        self.udp_doors.push(door);
        Ok(at)
    }

    /// Goes on until `is_over`.
    pub(super) fn run(mut self, is_over: &AtomicBool) {
        // The system may round this thread's sleeps up by 50 us otherwise; where it refuses they stay so.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        while !is_over.load(Ordering::Relaxed) {
            self.obey();
            self.hand_over();
            let ready = self.wait();
            self.take(ready);
        }
    }

    /// Cuts the network as it is wished.
    fn obey(&mut self) {
        let Ok(wanted) = self.wanted.try_lock() else { return };
        if *wanted != self.cut {
            self.cut.clone_from(&wanted);
            drop(wanted);
            self.links.cut(&self.cut);
        }
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&from) != self.cut.contains(&to)
    }

    fn hand_over(&mut self) {
        for door in &mut self.doors {
            // A greeting that is under way waits as well.
            if self.cut.contains(&door.from) == self.cut.contains(&door.to) {
                door.advance(&mut self.links, &mut self.punctual);
            }
        }
        for door in &mut self.udp_doors {
            door.advance(&self.links, &mut self.punctual);
        }
        if let Ok(mut told) = self.told.try_lock() {
            told.clone_from(&self.punctual);
        }
    }

    /// Waits for what comes or falls due, whichever is first: what came.
    fn wait(&self) -> Vec<Source> {
        let now_ns = self.links.now_ns();
        let (sources, mut polled) = self.interests(now_ns);
        let sleep_ns = self.next_ns(now_ns).saturating_sub(now_ns.saturating_add(AWAKE_NS)).min(SLEEP_MAX_NS);
        let timeout = Timespec { tv_sec: 0, tv_nsec: sleep_ns as _ };
        if poll(&mut polled, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let came = polled.iter().map(|fd| !fd.revents().is_empty());
        sources.into_iter().zip(came).filter_map(|(source, came)| came.then_some(source)).collect()
    }

    fn interests(&self, now_ns: u64) -> (Vec<Source>, Vec<PollFd<'_>>) {
        let (mut sources, mut polled) = (Vec::new(), Vec::new());
        // Who dials over a cut hears nothing, and what streams carry waits with its senders.
        let whole = |(_, door): &(usize, &Door)| !self.is_cut(door.from, door.to);
        for (d, door) in self.doors.iter().enumerate().filter(whole) {
            sources.push(Source::Door(d));
            polled.push(PollFd::new(&door.listener, PollFlags::IN));
            for (c, connection) in door.connections.iter().enumerate() {
                let Some(far) = connection.far() else { continue };
                let sides = [
                    (true, &connection.near, &connection.there, &connection.back),
                    (false, far, &connection.back, &connection.there),
                ];
                for (is_near, stream, from_it, to_it) in sides {
                    if from_it.may_read(now_ns) {
                        sources.push(Source::Stream(d, c, is_near));
                        polled.push(PollFd::new(stream, PollFlags::IN));
                    }
                    if to_it.is_blocked {
                        sources.push(Source::Sink);
                        polled.push(PollFd::new(stream, PollFlags::OUT));
                    }
                }
            }
        }
        for (d, door) in self.udp_doors.iter().enumerate() {
            sources.push(Source::UdpDoor(d));
            polled.push(PollFd::new(&door.socket, PollFlags::IN));
            for (who, talk) in &door.talks {
                sources.push(Source::Talk(d, *who));
                polled.push(PollFd::new(&talk.socket, PollFlags::IN));
            }
        }
        (sources, polled)
    }

    /// When something falls due next.
    fn next_ns(&self, now_ns: u64) -> u64 {
        let whole = self.doors.iter().filter(|door| !self.is_cut(door.from, door.to));
        let tcp = whole.flat_map(|door| door.connections.iter().filter_map(|c| c.next_ns(now_ns)));
        let udp = self.udp_doors.iter().filter_map(UdpDoor::next_ns);
        tcp.chain(udp).min().unwrap_or(u64::MAX)
    }

    fn take(&mut self, ready: Vec<Source>) {
        let mut torn = Vec::new();
        for source in ready {
            match source {
                Source::Door(d) => self.doors[d].accept(&mut self.links),
                Source::Stream(d, c, is_near) => {
                    if !self.doors[d].connections[c].read(is_near, &mut self.links) {
                        torn.push((d, c));
                    }
                }
                Source::Sink => {}
                Source::UdpDoor(d) => self.udp_doors[d].receive(&mut self.links),
                Source::Talk(d, who) => self.udp_doors[d].receive_back(who, &mut self.links),
            }
        }
        // From the last one on, so that the numbers before stay right; both sides may have torn the same.
        torn.sort_unstable();
        torn.dedup();
        for (d, c) in torn.into_iter().rev() {
            self.doors[d].connections.remove(c);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.punctual);
    }
}
