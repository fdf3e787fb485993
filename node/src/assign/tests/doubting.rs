//! Machines that say what is not so, or take back what they said.

use super::*;

/// Machines that all serve something, but for the liar, which says that it serves what nobody else does.
fn deceived() -> Mesh {
    let mut profiles = vec![profile(24, &[("a", 16), ("b", 16)]); 4];
    profiles.push(profile(24, &[("b", 16)]));
    let mut mesh = Mesh::new(profiles);
    mesh.machines[4].as_mut().unwrap().manner = Manner::Pretends;
    let now = mesh.now;
    let liar = &mut mesh.machines[4].as_mut().unwrap().assigner;
    liar.pin(now, "b");
    liar.notice(now, Notice::Ready("b"));
    for machine in &mut mesh.machines[..4] {
        let honest = &mut machine.as_mut().unwrap().assigner;
        honest.pin(now, "a");
        honest.notice(now, Notice::Ready("a"));
    }
    mesh.join(profile(40, &[("a", 16), ("b", 16)]));
    let now = mesh.now;
    let busy = &mut mesh.machines[5].as_mut().unwrap().assigner;
    busy.pin(now, "a");
    busy.notice(now, Notice::Ready("a"));
    mesh.demand = [("a".to_owned(), 1.0), ("b".to_owned(), 1.0)].into();
    mesh
}

#[test]
fn a_host_that_says_it_serves_and_does_not_is_found_out() {
    let mut mesh = deceived();
    mesh.run(30.0);
    assert_eq!(mesh.servers("b"), [4], "nobody has asked yet: {:?}", mesh.actions);
    // Three entry nodes find that it does not answer; the machine that has room for the model hears of it from them.
    for _ in 0..4 {
        for i in 0..3 {
            let now = mesh.now;
            let entry = &mut mesh.machines[i].as_mut().unwrap().assigner;
            entry.failed(now, peer(4), "b");
            if entry.is_doubted(now, peer(4), "b") {
                entry.wanted(now, "b");
            }
        }
        mesh.run(1.5);
    }
    mesh.run(15.0);
    assert_eq!(mesh.servers("b"), [4, 5], "{:?}", mesh.actions);
    let wants = |i: usize| mesh.machines[i].as_ref().unwrap().assigner.claims();
    assert!((0..3).all(|i| wants(i).iter().all(|claim| claim.intent != Intent::Wants)), "it is served");
    let before = mesh.moves();
    mesh.run(100.0);
    assert_eq!(mesh.moves(), before, "{:?}", &mesh.actions[before..]);
}

#[test]
fn one_who_says_that_a_host_fails_it_moves_nobody() {
    let mut mesh = deceived();
    mesh.run(30.0);
    for _ in 0..60 {
        let now = mesh.now;
        let entry = &mut mesh.machines[0].as_mut().unwrap().assigner;
        entry.failed(now, peer(4), "b");
        entry.wanted(now, "b");
        mesh.run(1.0);
    }
    assert_eq!(mesh.servers("b"), [4], "{:?}", mesh.actions);
}

#[test]
fn a_host_that_failed_and_answers_again_is_believed() {
    let mut mesh = deceived();
    mesh.run(10.0);
    let now = mesh.now;
    let entry = &mut mesh.machines[0].as_mut().unwrap().assigner;
    let second = |s: u64| now.after(Duration::from_secs(s));
    for s in 0..3 {
        entry.failed(second(s), peer(4), "b");
        assert!(!entry.is_doubted(second(s), peer(4), "b"), "three failures over two seconds may be one");
    }
    entry.failed(second(4), peer(4), "b");
    assert!(entry.is_doubted(second(4), peer(4), "b") && !entry.is_doubted(second(4), peer(4), "a"));
    (5..60).for_each(|s| entry.failed(second(s), peer(4), "b"));
    assert!(!entry.is_doubted(second(66), peer(4), "b"), "it is tried again");
    entry.failed(second(66), peer(4), "b");
    assert!(entry.is_doubted(second(180), peer(4), "b"), "the next time it takes twice as long");
    entry.answered(peer(4), "b");
    assert!(!entry.is_doubted(second(180), peer(4), "b"));
}

/// What an onlooker thinks of a machine that said it loads and takes that back, where another loads in its place or nobody.
fn is_left_out(another_loads: bool) -> bool {
    let second = |s: f64| Instant(1_000_000_000).after(Duration::from_secs_f64(s));
    let able = profile(40, &[("b", 16)]);
    let mut onlooker = Assigner::new(peer(0), able.clone(), Config::default(), 1, second(0.0));
    let loads =
        |intent| State { claims: vec![Claim { model: "b".into(), intent, ready_s: 16 }], ..State::default() };
    onlooker.see(second(0.1), peer(1), &able, &loads(Intent::Loads));
    // The word of the withdrawal comes first.
    onlooker.see(second(0.5), peer(1), &able, &State::default());
    let id = onlooker.board.names.find("b").unwrap();
    assert!(!onlooker.board.is_struck(second(0.5), peer(1), id), "it may have made way");
    if another_loads {
        onlooker.see(second(0.7), peer(2), &able, &loads(Intent::Loads));
    }
    onlooker.decide(second(1.6));
    onlooker.board.is_struck(second(1.6), peer(1), id)
}

#[test]
fn who_makes_way_for_another_is_not_left_out_and_who_failed_is() {
    assert!(!is_left_out(true));
    assert!(is_left_out(false));
}
