//! Stories of a few members, delivered by hand; by the hundred they run in `sim`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::item::mix;
use super::lying::{Slander, carrying, slander};
use super::*;

/// A signature that anybody could make who wanted to; the tests' liars do not.
#[derive(Debug, Clone)]
struct Toy(PeerId);

fn toy(by: PeerId, message: &[u8]) -> [u8; 64] {
    let word = message.iter().fold(mix(u64::from(by.0[0])), |hash, byte| mix(hash ^ u64::from(*byte)));
    let mut signature = [by.0[0]; 64];
    signature[..8].copy_from_slice(&word.to_be_bytes());
    signature
}

impl Trust for Toy {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        toy(self.0, message)
    }

    fn is_signed(&self, by: PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        toy(by, message) == *signature
    }
}

fn peer(i: u8) -> PeerId {
    PeerId([i; 32])
}

const LATENCY: Duration = Duration::from_millis(10);

struct Mesh {
    now: Instant,
    members: Vec<Membership<Toy>>,
    /// Who does not take part just now.
    silent: Vec<bool>,
    under_way: VecDeque<(Instant, PeerId, PeerId, Vec<u8>)>,
    events: Vec<(u8, Event)>,
}

fn member(i: u8, life: u64, now: Instant) -> Membership<Toy> {
    member_with(Config::default(), i, life, now)
}

fn member_with(config: Config, i: u8, life: u64, now: Instant) -> Membership<Toy> {
    let mut member =
        Membership::new(peer(i), Life::new(life), Toy(peer(i)), config, u64::from(i) + life, now);
    let profile = Profile { name: format!("machine {i} of life {life}"), ..Profile::default() };
    let mut out = Outputs::default();
    member.on(now, Input::Profile(profile), &mut out);
    member.on(now, Input::State(State::default()), &mut out);
    member
}

impl Mesh {
    /// So many who have met.
    fn met(count: u8) -> Self {
        Self::met_with(Config::default(), count)
    }

    /// The same where nobody probes: what others say is all that is heard.
    fn met_without_probes(count: u8) -> Self {
        Self::met_with(Config { probe_period: Duration::from_secs(100_000), ..Config::default() }, count)
    }

    fn met_with(config: Config, count: u8) -> Self {
        let now = Instant(1_000_000_000);
        let members: Vec<_> = (0..count).map(|i| member_with(config, i, 100, now)).collect();
        let silent = vec![false; members.len()];
        let mut mesh = Self { now, members, silent, under_way: VecDeque::new(), events: Vec::new() };
        for i in 1..count {
            mesh.input(i, Input::Join(&[peer(0)]));
        }
        mesh.run(10.0);
        for member in &mesh.members {
            assert_eq!(member.members().count(), usize::from(count), "{:?} has not met all", member.me());
        }
        mesh.events.clear();
        mesh
    }

    fn input(&mut self, i: u8, input: Input<'_>) {
        let mut out = Outputs::default();
        self.members[usize::from(i)].on(self.now, input, &mut out);
        self.events.extend(out.events.into_iter().map(|event| (i, event)));
        let at = self.now.after(LATENCY);
        self.under_way.extend(out.packets.into_iter().map(|(to, bytes)| (at, peer(i), to, bytes)));
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now.after(Duration::from_secs_f64(seconds));
        loop {
            let heard = |i: &usize| !self.silent[*i];
            let due = (0..self.members.len())
                .filter(heard)
                .filter_map(|i| Some((self.members[i].next_due()?, i)))
                .min();
            let packet = self.under_way.front().map(|(at, ..)| *at);
            let at = due.map(|(at, _)| at).into_iter().chain(packet).min().unwrap_or(end);
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            if packet == Some(at) {
                let Some((_, from, to, bytes)) = self.under_way.pop_front() else { continue };
                let is_lost = self.silent[usize::from(from.0[0])] || self.silent[usize::from(to.0[0])];
                if !is_lost {
                    self.input(to.0[0], Input::Packet { from, bytes: &bytes });
                }
            } else if let Some((_, i)) = due {
                self.input(i as u8, Input::Tick);
            }
        }
        self.now = end;
    }

    /// `by` says to `to` of `victim`, in its life or a later one, what is not so.
    fn slander(&mut self, by: u8, to: u8, victim: (u8, Life), what: Slander) {
        let life = |i: u8| self.members[usize::from(i)].life();
        let bytes = slander(life(by), life(to), (peer(victim.0), victim.1), what);
        self.input(to, Input::Packet { from: peer(by), bytes: &bytes });
    }

    fn life(&self, i: u8) -> Life {
        self.members[usize::from(i)].life()
    }

    fn trust(&self, i: u8, of: u8) -> f64 {
        self.members[usize::from(i)].trust_of(self.now, peer(of))
    }

    fn count(&self, i: u8, event: Event) -> usize {
        self.events.iter().filter(|told| **told == (i, event)).count()
    }

    fn told(&self, i: u8, event: Event) -> bool {
        self.events.contains(&(i, event))
    }
}

#[test]
fn a_restart_is_never_a_ghost_and_what_was_before_is_gone() {
    let mut mesh = Mesh::met(4);
    mesh.input(2, Input::State(State { served: vec!["smol".into()], ..State::default() }));
    mesh.run(3.0);
    assert_eq!(mesh.members[0].state(peer(2)).unwrap().served, ["smol"]);
    mesh.members[2] = member(2, 200, mesh.now);
    mesh.input(2, Input::Join(&[peer(0)]));
    mesh.run(2.0);
    for i in [0, 1, 3] {
        assert!(mesh.told(i, Event::Restarted(peer(2))), "{i} was not told");
        assert!(!mesh.told(i, Event::Down(peer(2))));
        let member = &mesh.members[usize::from(i)];
        assert_eq!(member.profile(peer(2)).unwrap().name, "machine 2 of life 200");
        assert!(member.state(peer(2)).unwrap().served.is_empty());
    }
}

#[test]
fn who_leaves_is_gone_at_once_and_who_dies_soon() {
    let mut mesh = Mesh::met(5);
    mesh.input(3, Input::Leave);
    mesh.run(1.0);
    assert!((0..3).all(|i| mesh.told(i, Event::Down(peer(3)))));
    mesh.silent[4] = true;
    mesh.run(8.0);
    assert!((0..3).all(|i| mesh.told(i, Event::Down(peer(4)))));
    assert_eq!(mesh.members[0].members().count(), 3);
}

#[test]
fn a_member_that_others_could_not_reach_is_back_without_a_restart() {
    let mut mesh = Mesh::met(4);
    mesh.silent[1] = true;
    mesh.run(12.0);
    assert!(mesh.told(0, Event::Down(peer(1))));
    mesh.silent[1] = false;
    mesh.run(12.0);
    assert!(mesh.told(1, Event::Revived));
    for member in &mesh.members {
        assert_eq!(member.members().count(), 4, "{:?}", member.me());
    }
    assert!(!mesh.told(0, Event::Restarted(peer(1))), "it is the same process");
}

#[test]
fn a_process_that_stood_still_does_not_blame_the_others() {
    let mut mesh = Mesh::met(3);
    // All stand still, as a laptop's lid closes on a mesh of virtual machines.
    mesh.now = mesh.now.after(Duration::from_secs(300));
    mesh.under_way.clear();
    mesh.run(10.0);
    assert!(!mesh.events.iter().any(|(_, event)| matches!(event, Event::Down(_))), "{:?}", mesh.events);
}

#[test]
fn an_earlier_life_whose_clock_was_ahead_is_outlived() {
    let mut mesh = Mesh::met(3);
    mesh.members[1] = member(1, 50, mesh.now);
    mesh.input(1, Input::Join(&[peer(0)]));
    mesh.run(8.0);
    assert!(mesh.members[1].life() > Life::new(100));
    for i in [0, 2] {
        assert_eq!(mesh.members[i].profile(peer(1)).unwrap().name, "machine 1 of life 50");
    }
}

#[test]
fn forged_and_old_items_win_nothing() {
    let mut mesh = Mesh::met(3);
    let old = mesh.members[0].known(peer(1), Topic::State).unwrap().item.clone();
    mesh.input(1, Input::State(State { served: vec!["new".into()], ..State::default() }));
    mesh.run(3.0);
    let life = mesh.members[2].life();
    let mut forged = old.clone();
    forged.version.sequence = 99;
    let resigned = Item { signature: toy(peer(2), &forged.message()), ..forged.clone() };
    for item in [old, forged.clone(), resigned] {
        let bytes = carrying(life, vec![item]);
        mesh.input(0, Input::Packet { from: peer(2), bytes: &bytes });
    }
    assert_eq!(mesh.members[0].state(peer(1)).unwrap().served, ["new"]);
    let refused = Event::Refused { by: peer(2), owner: peer(1), why: ItemError::Signature };
    assert_eq!(mesh.events.iter().filter(|(i, event)| *i == 0 && *event == refused).count(), 2);
}

#[test]
fn a_dead_members_last_word_does_not_bring_it_back() {
    let mut mesh = Mesh::met(3);
    let last: Vec<Item> =
        Topic::ALL.iter().filter_map(|t| Some(mesh.members[0].known(peer(1), *t)?.item.clone())).collect();
    mesh.silent[1] = true;
    mesh.run(8.0);
    let bytes = carrying(mesh.members[2].life(), last);
    mesh.input(0, Input::Packet { from: peer(2), bytes: &bytes });
    mesh.run(2.0);
    assert_eq!(mesh.members[0].members().count(), 2);
}

#[test]
fn a_broken_stream_is_looked_into_at_once() {
    let mut mesh = Mesh::met(3);
    mesh.input(0, Input::Unreachable(peer(1)));
    mesh.run(4.0);
    assert!(!mesh.told(0, Event::Down(peer(1))), "it lives, and said so");
    mesh.silent[2] = true;
    mesh.input(0, Input::Unreachable(peer(2)));
    mesh.run(1.7);
    assert!(mesh.told(0, Event::Down(peer(2))));
}

#[test]
fn a_suspected_member_is_looked_into_though_the_word_of_its_end_is_lost() {
    // Who suspects it tells so, and then nobody says anything: a ghost stayed here for as long as nobody probed.
    let mut mesh = Mesh::met_without_probes(4);
    mesh.silent[3] = true;
    mesh.slander(1, 0, (3, mesh.life(3)), Slander::Suspected(0));
    mesh.run(4.0);
    assert!(mesh.told(0, Event::Down(peer(3))));
}

#[test]
fn a_stream_that_breaks_to_a_suspected_member_is_looked_into_too() {
    // The look-up once ended where others suspected the member before: their word of its end was lost, and it stayed.
    let mut mesh = Mesh::met_without_probes(4);
    mesh.silent[3] = true;
    mesh.slander(1, 0, (3, mesh.life(3)), Slander::Suspected(0));
    mesh.input(0, Input::Unreachable(peer(3)));
    mesh.run(1.7);
    assert!(mesh.told(0, Event::Down(peer(3))), "at once, not when a rumour is looked into");
}

#[test]
fn a_grave_of_a_later_life_ends_an_earlier_one() {
    // A liar replays what a member said in an earlier life to one who never knew it. The others remember the end of a
    // later life; as that was not heard of here, nothing came of it, and the ghost stayed.
    let mut mesh = Mesh::met_without_probes(4);
    mesh.silent[3] = true;
    mesh.slander(1, 0, (3, Life::new(101)), Slander::Grave);
    mesh.run(4.0);
    assert!(mesh.told(0, Event::Down(peer(3))));
}

#[test]
fn a_false_word_of_an_end_is_looked_into_and_ends_nothing() {
    let mut mesh = Mesh::met(5);
    for what in [Slander::Dead, Slander::Grave, Slander::Suspected(3), Slander::Suspected(u16::MAX)] {
        mesh.slander(1, 0, (2, mesh.life(2)), what);
        mesh.run(4.0);
    }
    assert!(!mesh.events.iter().any(|(_, event)| matches!(event, Event::Down(_) | Event::Revived)));
    assert!(mesh.trust(0, 1) < 1.0 && mesh.trust(0, 1) > 0.85, "one may be wrong: {}", mesh.trust(0, 1));
    assert!((2..5).all(|i| mesh.trust(0, i) == 1.0));
}

#[test]
fn who_accuses_again_and_again_is_not_believed_until_it_stops() {
    let mut mesh = Mesh::met(9);
    for round in 0..14 {
        let victim = 2 + round % 7;
        mesh.slander(1, 0, (victim, mesh.life(victim)), Slander::Dead);
        mesh.run(6.0);
    }
    assert_eq!(mesh.count(0, Event::Distrusted(peer(1))), 1);
    assert!(mesh.trust(0, 1) < 0.5 && (2..9).all(|i| mesh.trust(0, i) == 1.0));
    assert!(!mesh.events.iter().any(|(_, event)| matches!(event, Event::Down(_) | Event::Revived)));
    mesh.silent[3] = true;
    mesh.slander(1, 0, (3, mesh.life(3)), Slander::Dead);
    mesh.run(180.0);
    assert!(mesh.told(0, Event::Down(peer(3))), "others are believed, and one's own eyes");
    assert!(mesh.trust(0, 1) > 0.5, "it has stopped long ago");
}

#[test]
fn who_says_it_of_one_again_and_again_is_not_heard_on_that_one() {
    let mut mesh = Mesh::met(4);
    for _ in 0..25 {
        mesh.slander(1, 2, (2, mesh.life(2)), Slander::Buried);
        mesh.run(1.0);
    }
    assert_eq!(mesh.count(2, Event::Revived), 3);
    assert!(mesh.trust(2, 1) >= 0.5, "one victim is not enough: it may have played dead");
}

#[test]
fn who_is_not_believed_and_has_lost_all_others_has_them_back() {
    let mut mesh = Mesh::met(5);
    for to in 1..5 {
        (0..40).for_each(|_| mesh.input(to, Input::Packet { from: peer(0), bytes: b"nothing" }));
        assert!(mesh.told(to, Event::Distrusted(peer(0))));
    }
    // It hears nobody, and they, who stood still, do not know of that.
    mesh.silent[1..].fill(true);
    mesh.run(15.0);
    (1..5).for_each(|i| assert!(mesh.told(0, Event::Down(peer(i)))));
    mesh.silent.fill(false);
    mesh.events.clear();
    mesh.run(15.0);
    assert_eq!(mesh.members[0].members().count(), 5);
    for i in 1..5 {
        assert!(mesh.told(0, Event::Up(peer(i))));
        assert_eq!(mesh.count(i, Event::Revived), 0, "nobody does anything on its word");
    }
    mesh.events.clear();
    mesh.run(700.0);
    assert!(
        !mesh.events.iter().any(|(_, event)| matches!(event, Event::Down(_))),
        "its graves are forgotten"
    );
    assert_eq!(mesh.members[0].size().members, 5);
}

#[test]
fn nobody_keeps_a_dead_member_alive_by_saying_so() {
    let mut mesh = Mesh::met(5);
    mesh.silent[3] = true;
    for incarnation in 1..80 {
        mesh.slander(1, 0, (3, mesh.life(3)), Slander::Lives(incarnation));
        mesh.run(0.1);
    }
    assert!(mesh.told(0, Event::Down(peer(3))));
}

#[test]
fn a_members_last_word_is_believed_whoever_passes_it_on() {
    let mut mesh = Mesh::met(3);
    mesh.silent[1] = true;
    mesh.input(2, Input::Leave);
    mesh.run(0.5);
    let last = mesh.members[0].known(peer(2), Topic::State).unwrap().item.clone();
    let bytes = carrying(mesh.life(0), vec![last]);
    mesh.input(1, Input::Packet { from: peer(0), bytes: &bytes });
    assert!(mesh.told(1, Event::Down(peer(2))));
    mesh.members[2] = member(2, 200, mesh.now);
    mesh.silent[1] = false;
    mesh.input(2, Input::Join(&[peer(0)]));
    mesh.run(2.0);
    assert!(mesh.members[1].is_member(peer(2)), "it may come back in another life");
}

#[test]
fn measured_round_trips_go_before_estimated_ones() {
    let mut mesh = Mesh::met(3);
    mesh.run(60.0);
    let measured = mesh.members[0].round_trip(peer(0), peer(1)).unwrap();
    assert!(measured.measured && (measured.us - 20_000.0).abs() < 1_000.0, "{measured:?}");
    let estimated = mesh.members[0].round_trip(peer(1), peer(2)).unwrap();
    assert!(!estimated.measured && (estimated.us - 20_000.0).abs() < 4_000.0, "{estimated:?}");
    mesh.input(0, Input::Measured(peer(1), Duration::from_millis(8)));
    assert!(mesh.members[0].round_trip(peer(1), peer(0)).unwrap().us < 15_000.0);
}

#[test]
fn a_forgotten_member_is_forgotten_by_all_and_takes_no_memory() {
    let mut mesh = Mesh::met(4);
    mesh.silent[3] = true;
    mesh.run(700.0);
    for i in 0..3 {
        assert_eq!(mesh.members[i].size().members, 3);
    }
}

#[test]
fn demand_is_the_sum_of_what_each_is_asked() {
    let mut mesh = Mesh::met(3);
    for second in 0..240 {
        for i in 0..3 {
            (0..=i).for_each(|_| mesh.input(i, Input::Asked("smol")));
        }
        mesh.run(1.0);
        let _ = second;
    }
    let truth = 6.0 * (1.0 - crate::demand::decay(Duration::from_secs(240)));
    for i in 0..3 {
        let per_s = mesh.members[i].demand(mesh.now).per_s("smol");
        assert!((per_s - truth).abs() < 0.2 * truth, "{per_s} of {truth}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives from whomever, nothing panics, and no table outgrows its bound.
    #[test]
    fn garbage_is_survived(
        packets in prop::collection::vec((0u8..6, prop::collection::vec(any::<u8>(), 0..120)), 1..30),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut mesh = Mesh::met(3);
        let mut captured: Vec<Vec<u8>> = Vec::new();
        for i in 0..3 {
            let mut out = Outputs::default();
            let due = mesh.members[i].next_due().unwrap().max(mesh.now);
            mesh.members[i].on(due, Input::Join(&[peer(0), peer(1), peer(2)]), &mut out);
            captured.extend(out.packets.into_iter().map(|(_, bytes)| bytes));
        }
        for (at, with) in spoil {
            let count = captured.len();
            let packet = &mut captured[usize::from(with) % count];
            let at = at.index(packet.len());
            packet[at] = packet[at].wrapping_add(with | 1);
        }
        let garbage = packets.into_iter().chain(captured.into_iter().map(|bytes| (2, bytes)));
        for (from, bytes) in garbage {
            for i in 0..3 {
                mesh.input(i, Input::Packet { from: peer(from), bytes: &bytes });
            }
        }
        mesh.run(3.0);
        for member in &mesh.members {
            prop_assert!(member.size().members <= 9);
        }
    }
}
