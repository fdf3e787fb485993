//! What must come of single events.

use std::time::Duration;

use planner::plan::{Epoch, NodeId, Plan};

use super::bus::{Bus, LOADING};
use super::plan_of;
use crate::ids::{PeerId, PlanId};
use crate::limits::Limits;
use crate::wire::Control;

#[test]
fn a_given_plan_serves_soon_after_its_layers_are_loaded() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.run(LOADING + Duration::from_millis(20));
    bus.assert_one_mind();
    assert_eq!(bus.epoch(2), 1);
}

#[test]
fn a_lost_node_is_replaced_and_a_spare_is_not_missed() {
    let mut bus = Bus::new(4, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.kill(3);
    bus.run(Duration::from_secs(5));
    assert_eq!(bus.epoch(0), 1, "a spare's end changed the plan");
    bus.kill(1);
    bus.run(Duration::from_secs(2));
    assert_eq!(bus.nodes_of_plan(0), [0, 2]);
    bus.assert_one_mind();
}

#[test]
fn replicas_that_nobody_left_stay_and_go_on_serving() {
    let mut bus = Bus::new(6, Some(&[(0, 1), (2, 3)]));
    bus.run(Duration::from_secs(2));
    bus.kill(3);
    // Lost and planned anew, but not loaded yet.
    bus.run(Limits::default().ping_period * 3 + LOADING / 2);
    let core = bus.core(5);
    assert_eq!(core.id().epoch, Epoch(2));
    assert_eq!(bus.nodes_of_plan(5), [0, 1, 2, 4]);
    assert_eq!(core.serving.keys().copied().collect::<Vec<_>>(), [0], "the untouched replica stopped");
    bus.run(Duration::from_secs(2));
    bus.assert_one_mind();
}

#[test]
fn when_the_planning_node_dies_the_next_one_takes_over() {
    let mut bus = Bus::new(5, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.kill(0);
    bus.run(Duration::from_secs(4));
    assert_eq!(bus.nodes_of_plan(4), [1, 2]);
    assert_eq!(bus.core(4).id().maker, PeerId::from_index(1));
    bus.kill(1);
    bus.run(Duration::from_secs(4));
    assert_eq!(bus.nodes_of_plan(4), [2, 3]);
}

#[test]
fn a_better_plan_is_taken_when_a_node_comes_back_and_only_then_after_a_rest() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.kill(0);
    bus.run(Duration::from_secs(30));
    assert_eq!(bus.nodes_of_plan(1), [1, 2]);
    bus.start(0, None);
    bus.run(Limits::default().replan_rest / 2);
    assert_eq!(bus.nodes_of_plan(0), [1, 2], "changed without a rest, or forgot the plan in force");
    bus.run(Limits::default().replan_rest * 2);
    assert_eq!(bus.nodes_of_plan(0), [0, 1]);
    bus.assert_one_mind();
}

#[test]
fn a_node_that_cannot_load_is_left_out_until_it_starts_again() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.cannot_load.insert(1);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(2), [0, 2]);
    bus.assert_one_mind();
    // The only other one dies: without a restart nothing can be planned.
    bus.kill(2);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(0), [0, 2]);
    assert!(bus.core(0).serving.is_empty());
    bus.cannot_load.clear();
    bus.kill(1);
    bus.start(1, None);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(0), [0, 1]);
    bus.assert_one_mind();
}

#[test]
fn a_restart_between_two_pings_changes_the_life_of_its_replica() {
    let mut bus = Bus::new(3, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    let before = bus.core(2).serving.clone();
    bus.kill(1);
    bus.start(1, None);
    bus.run(Duration::from_secs(3));
    bus.assert_one_mind();
    assert_ne!(bus.core(2).serving, before, "heads cannot see that the stage forgot them");
}

#[test]
fn plans_of_strangers_and_nonsense_are_not_followed() {
    let mut bus = Bus::new(2, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(1));
    let id = PlanId { epoch: Epoch(9), maker: PeerId::from_index(0), life: 0 };
    let good = plan_of(&bus.model, &[(NodeId(0), NodeId(1))]);
    let mut elsewhere = good.clone();
    elsewhere.replicas[0].stages[0].node = NodeId(7);
    let mut gap = good.clone();
    gap.replicas[0].stages[1].layers.first += 1;
    let mut twice = good.clone();
    twice.replicas.push(good.replicas[0].clone());
    let other = Plan { model: "another".into(), ..good.clone() };
    let none = Plan { replicas: Vec::new(), ..good.clone() };
    let names: Vec<PeerId> = (0..8).map(PeerId::from_index).collect();
    for plan in [elsewhere, gap, twice, other, none] {
        let publish = Control::Publish { id, plan, names: names.clone() };
        bus.deliver(0, 1, 0, publish);
        assert_eq!(bus.epoch(1), 1);
    }
    let stranger = PeerId::from_index(77);
    let publish = Control::Publish { id: PlanId { maker: stranger, ..id }, plan: good, names };
    bus.cores.get_mut(&1).unwrap().1.heard(bus.now, stranger, publish);
    assert_eq!(bus.epoch(1), 1);
}

#[test]
fn traffic_grows_with_the_fleet_and_not_with_its_square() {
    let rate = |count: u32| {
        let mut bus = Bus::new(count, Some(&[(0, 1)]));
        bus.run(Duration::from_secs(20));
        let before = bus.delivered;
        bus.run(Duration::from_secs(20));
        (bus.delivered - before) as f64 / 20.0
    };
    for count in [8, 64, 256] {
        assert!(rate(count) <= f64::from(count) * 10.0, "{count} nodes: {} frames a second", rate(count));
    }
}

/// While nodes 0 and 1 did not hear each other for a moment, node 1 missed that a restarted stage served again. The
/// planning node told all only once, and node 1 asked only while something did not serve: it believed in the stage's
/// earlier life for ever, and so did its heads.
#[test]
fn news_of_what_serves_that_was_lost_is_told_again() {
    let mut bus = Bus::new(5, Some(&[(0, 1), (2, 3)]));
    bus.run(Duration::from_secs(1));
    bus.restart(3);
    bus.part(1, 0);
    bus.run(LOADING * 2);
    bus.weather.parted.clear();
    bus.run(Duration::from_secs(3));
    bus.assert_one_mind();
}

/// Node 0 gave out epoch 2 and died, and when it started again nobody was left to tell it so: it gave out another epoch
/// 2. Both went by one name, so whoever followed the one took news of the other for its own.
#[test]
fn a_planning_node_that_forgot_its_plans_gives_no_two_of_them_one_name() {
    let mut bus = Bus::new(5, Some(&[(0, 1), (2, 3)]));
    bus.run(Duration::from_secs(1));
    bus.kill(3);
    bus.run(Duration::from_secs(3));
    let before = bus.core(4).id();
    assert_eq!((before.epoch, before.maker), (Epoch(2), PeerId::from_index(0)));
    // Node 4 keeps the plan of epoch 2 but cannot say so; everybody else forgets it.
    for other in 0..4 {
        bus.part(4, other);
        bus.restart(other);
    }
    bus.run(Duration::from_secs(3));
    bus.kill(1);
    bus.run(Duration::from_secs(3));
    let after = bus.core(0).id();
    assert_eq!((after.epoch, after.maker), (before.epoch, before.maker), "the story took another turn");
    assert_ne!(after, before);
    bus.mend();
    bus.run(Duration::from_secs(30));
    bus.assert_one_mind();
}

/// Node 1 cannot hear node 0 and took itself for the planning node; node 0 held node 1 for lost. Each replaced the plans
/// of the other, four times a second, and no stage was ever loaded for long enough to serve.
#[test]
fn two_nodes_that_do_not_hear_each_other_do_not_replace_each_others_plans() {
    let mut bus = Bus::new(5, Some(&[(0, 1), (2, 3)]));
    bus.run(Duration::from_secs(2));
    bus.part(0, 1);
    bus.run(Limits::default().replan_rest * 2);
    let epoch = bus.epoch(0);
    bus.run(Duration::from_secs(60));
    assert_eq!(bus.epoch(0), epoch, "they go on planning");
    for node in 0..5 {
        assert_eq!(bus.core(node).id(), bus.core(0).id());
        assert_eq!(bus.core(node).serving, bus.core(0).serving, "node {node} was not told what serves");
    }
    assert!(!bus.core(0).serving.is_empty());
}

/// That a device could not load was said once. If that was lost, the planning node waited for it for ever; and a
/// planning node that took over later counted on it again.
#[test]
fn a_node_that_cannot_load_is_known_for_it_even_if_that_was_lost_and_by_the_next_planning_node() {
    let mut bus = Bus::new(5, Some(&[(0, 1)]));
    bus.cannot_load.insert(1);
    bus.part(0, 1);
    bus.run(LOADING * 2);
    bus.weather.parted.clear();
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(4), [0, 2]);
    bus.restart(0);
    bus.run(Duration::from_secs(3));
    bus.kill(2);
    bus.run(Duration::from_secs(3));
    assert_eq!(bus.nodes_of_plan(4), [0, 3]);
    bus.assert_one_mind();
}

/// Two plans of one epoch: node 0, that planned last, followed the lesser one. It told the others of its plan for ever,
/// and they held to theirs.
#[test]
fn of_two_plans_of_one_epoch_the_planning_node_takes_the_greater_too() {
    let mut bus = Bus::new(4, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(1));
    let rival = |maker| PlanId { epoch: Epoch(7), maker: PeerId::from_index(maker), life: 0 };
    let plan = |a, b| plan_of(&bus.model, &[(NodeId(a), NodeId(b))]);
    let (lesser, greater) = (plan(0, 2), plan(1, 2));
    let names: Vec<PeerId> = (0..4).map(PeerId::from_index).collect();
    let publish = |id, plan| Control::Publish { id, plan, names: names.clone() };
    bus.deliver(3, 0, 0, publish(rival(2), lesser));
    bus.deliver(3, 2, 0, publish(rival(1), greater));
    bus.run(Duration::from_secs(5));
    assert_eq!(bus.core(0).id(), rival(1));
    bus.assert_one_mind();
}

/// Machines join one after the other, and everybody numbers them as it meets them.
#[test]
fn machines_that_join_are_planned_with_whatever_numbers_others_give_them() {
    let mut bus = Bus::strangers(4);
    bus.run(Duration::from_secs(1));
    bus.meet(3, &[3, 1]);
    bus.meet(1, &[1, 3]);
    bus.run(Duration::from_secs(2));
    assert_eq!(bus.core(1).id(), bus.core(3).id());
    assert_eq!(bus.core(3).id().maker, PeerId::from_index(1), "the lower name plans, not the lower number");
    bus.meet(2, &[2, 3, 0, 1]);
    bus.meet(3, &[3, 1, 2, 0]);
    bus.meet(1, &[1, 3, 0, 2]);
    bus.meet(0, &[0, 2, 1, 3]);
    bus.run(Duration::from_secs(15));
    bus.assert_one_mind();
    bus.kill(0);
    bus.run(Duration::from_secs(15));
    bus.assert_one_mind();
    assert_eq!(bus.core(2).id().maker, PeerId::from_index(1));
}

/// A plan may come before the machines it names are known: it is followed once they are.
#[test]
fn a_plan_of_machines_not_met_yet_is_followed_later() {
    let mut bus = Bus::strangers(3);
    bus.meet(0, &[0, 2, 1]);
    bus.meet(2, &[2, 0, 1]);
    bus.meet(1, &[1, 0]);
    bus.run(Duration::from_secs(3));
    let staged = bus.nodes_of_plan(0);
    assert!(staged.contains(&2), "{staged:?}");
    assert_eq!(bus.epoch(1), 0, "it follows a plan of a machine that it has not met");
    bus.meet(1, &[1, 0, 2]);
    bus.run(Duration::from_secs(3));
    bus.assert_one_mind();
}

#[test]
fn a_view_that_renumbers_is_not_taken() {
    let views = crate::view::Views::new(super::bus::view_of(&[0, 1]));
    assert!(!views.renew(super::bus::view_of(&[1, 0, 2])));
    assert!(!views.renew(super::bus::view_of(&[0])));
    assert!(views.renew(super::bus::view_of(&[0, 1, 2])));
    assert_eq!(views.current().len(), 3);
}

#[test]
fn a_node_that_leaves_is_planned_around_before_it_ends() {
    let mut bus = Bus::new(4, Some(&[(0, 1)]));
    bus.run(Duration::from_secs(2));
    bus.leave(1);
    bus.run(Duration::from_secs(2));
    assert_eq!(bus.nodes_of_plan(1), [0, 2], "it is still planned with");
    bus.leave(0);
    bus.run(Duration::from_secs(2));
    assert_eq!(bus.nodes_of_plan(0), [2, 3], "the planning node cannot leave");
    bus.kill(0);
    bus.kill(1);
    bus.run(Duration::from_secs(5));
    bus.assert_one_mind();
}
