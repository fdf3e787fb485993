//! Who is there: SWIM (Das, Gupta, Motivala 2002) by `foca`. Nothing else names that crate.
//!
//! foca goes through all its members at every packet and keeps a list of them by value. So its members are eight-byte
//! slots of the table that [`Membership`](super::Membership) keeps, and what it writes is never sent as it is: its packets
//! are taken apart into [`Message`]s, and put together again from those of others. That also means that a sender cannot
//! write another's name into a packet: names come from the transport.

mod format;

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, Runtime};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

pub(super) use format::{Kind, Message, Status, Update};

use super::item::Life;
use format::Format;

/// Most bytes of a message of foca's own, which bounds how many updates travel at once.
const MESSAGE_MAX: usize = 700;

/// A member as foca knows it: its place in the table, and which life of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) slot: u32,
    pub(super) life: Life,
}

impl foca::Identity for Id {
    type Addr = u32;

    /// Another life is begun by whoever owns this one: its records have to be signed anew.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> u32 {
        self.slot
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// Something to be done at a later time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timer(foca::Timer<Id>);

impl Timer {
    /// The slot whose tombstone this ends.
    pub(super) fn forgets(&self) -> Option<Id> {
        match &self.0 {
            foca::Timer::RemoveDown(id) => Some(*id),
            _ => None,
        }
    }
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Up(Id),
    Down(Id),
    /// The first is now the second.
    Renamed(Id, Id),
    /// Others hold this member for dead.
    Buried,
    /// It did not answer.
    Suspected(Id),
}

/// What comes of a call.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) sends: Vec<(Id, Message)>,
    pub(super) timers: Vec<(Timer, Duration)>,
    pub(super) news: Vec<News>,
}

impl Runtime<Id> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        let news = match notification {
            Notification::MemberUp(id) => News::Up(*id),
            Notification::MemberDown(id) => News::Down(*id),
            Notification::Rename(old, new) => News::Renamed(*old, *new),
            Notification::Defunct => News::Buried,
            Notification::Active | Notification::Idle | Notification::Rejoin(_) => return,
        };
        self.news.push(news);
    }

    fn send_to(&mut self, to: Id, data: &[u8]) {
        if let Some(message) = Message::read_own(data) {
            self.sends.push((to, message));
        }
    }

    fn submit_after(&mut self, event: foca::Timer<Id>, after: Duration) {
        match event {
            // foca has no timer for those whom others suspect: all suspicions are ended in one way, by a look-up.
            foca::Timer::ChangeSuspectToDown { member_id, .. } => self.news.push(News::Suspected(member_id)),
            event => self.timers.push((Timer(event), after)),
        }
    }
}

/// How the probing goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) probe_period: Duration,
    pub(super) probe_timeout: Duration,
    pub(super) suspicion: Duration,
    pub(super) tombstone: Duration,
    pub(super) fanout: usize,
    /// How often an update is passed on.
    pub(super) copies: u8,
}

impl Pace {
    fn config(&self) -> Config {
        let never: Option<PeriodicParams> = None;
        Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_timeout,
            num_indirect_probes: NonZeroUsize::new(self.fanout).unwrap_or(NonZeroUsize::MIN),
            max_transmissions: NonZeroU8::new(self.copies).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: self.suspicion,
            remove_down_after: Some(self.tombstone),
            max_packet_size: NonZeroUsize::new(MESSAGE_MAX).unwrap_or(NonZeroUsize::MIN),
            // Ours: with the signed records that make them more than a claim.
            notify_down_members: false,
            periodic_announce: never.clone(),
            periodic_announce_to_down_members: never.clone(),
            periodic_gossip: never,
        }
    }
}

/// The failure detector of one member.
pub(super) struct Swim {
    foca: Foca<Id, Format, ChaCha8Rng, NoCustomBroadcast>,
    effects: Effects,
}

impl std::fmt::Debug for Swim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swim")
            .field("me", self.foca.identity())
            .field("members", &self.foca.num_members())
            .finish()
    }
}

impl Swim {
    pub(super) fn new(me: Id, pace: &Pace, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { foca: Foca::new(me, pace.config(), rng, Format), effects: Effects::default() }
    }

    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Suspicion and the number of copies follow the size of the mesh.
    pub(super) fn set_pace(&mut self, pace: &Pace) {
        let _ = self.foca.set_config(pace.config());
    }

    pub(super) fn is_gossiping(&self) -> bool {
        self.foca.updates_backlog() > 0
    }

    pub(super) fn timer(&mut self, timer: Timer) {
        // What can be wrong with a timer is that it is late; foca says so, and goes on.
        let _ = self.foca.handle_timer(timer.0, &mut self.effects);
    }

    /// A message that `from` has sent. Whatever it says, the members it names are of the table.
    pub(super) fn message(&mut self, from: Id, message: &Message) {
        let me = *self.foca.identity();
        let _ = self.foca.handle_data(&message.write_own(from, me), &mut self.effects);
    }

    /// Takes a member for alive on its own word, without passing that on: its records do.
    pub(super) fn alive(&mut self, id: Id, incarnation: u16) {
        self.apply(Member::new(id, incarnation, foca::State::Alive), false);
    }

    /// Others say that this member is suspected.
    pub(super) fn doubted(&mut self, incarnation: u16) {
        let me = *self.foca.identity();
        self.apply(Member::new(me, incarnation, foca::State::Suspect), true);
    }

    /// There is reason to doubt that it lives; gives its incarnation, `None` for the dead.
    pub(super) fn suspect(&mut self, id: Id, pass_on: bool) -> Option<u16> {
        let (incarnation, is_alive) = self.state(id)?;
        if is_alive {
            self.apply(Member::new(id, incarnation, foca::State::Suspect), pass_on);
        }
        Some(incarnation)
    }

    /// Ends a suspicion that was not answered.
    pub(super) fn bury(&mut self, id: Id, incarnation: u16) {
        self.apply(Member::new(id, incarnation, foca::State::Down), true);
    }

    /// It has said itself that it left; others hear of that from its own word.
    pub(super) fn left(&mut self, id: Id) {
        self.apply(Member::new(id, 0, foca::State::Down), false);
    }

    /// In which incarnation it is suspected, if it is.
    pub(super) fn suspected(&self, id: Id) -> Option<u16> {
        self.state(id).and_then(|(incarnation, is_alive)| (!is_alive).then_some(incarnation))
    }

    /// Slots of all who are.
    pub(super) fn suspects(&self) -> Vec<u32> {
        let suspects = self.foca.iter_members().filter(|member| member.state() == foca::State::Suspect);
        suspects.map(|member| member.id().slot).collect()
    }

    /// Its incarnation, `None` for the dead.
    pub(super) fn incarnation(&self, id: Id) -> Option<u16> {
        self.state(id).map(|(incarnation, _)| incarnation)
    }

    /// Incarnation, and whether nobody doubts it; `None` for the dead.
    fn state(&self, id: Id) -> Option<(u16, bool)> {
        let member = self.foca.iter_members().find(|member| *member.id() == id)?;
        Some((member.incarnation(), member.state() == foca::State::Alive))
    }

    fn apply(&mut self, member: Member<Id>, pass_on: bool) {
        let _ = self.foca.apply_many(std::iter::once(member), pass_on, &mut self.effects);
    }

    /// Goes on under another life.
    pub(super) fn revive(&mut self, me: Id) {
        let _ = self.foca.change_identity(me, &mut self.effects);
        let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
    }

    /// Sends what is new to a few members.
    pub(super) fn gossip(&mut self) {
        let _ = self.foca.gossip(&mut self.effects);
    }

    pub(super) fn leave(&mut self) {
        let _ = self.foca.leave_cluster(&mut self.effects);
    }
}
