//! Models whose hosts are busy: who helps, when, and for how long.

use super::*;

#[test]
fn hosts_that_are_busy_get_help_and_it_goes_when_it_is_quiet() {
    let mut mesh = Mesh::of(10, 24, &[("m", 16)]);
    mesh.demand.insert("m".into(), 2.0);
    mesh.run(30.0);
    assert_eq!(mesh.servers("m").len(), 2);
    let all: Vec<usize> = (0..10).collect();
    mesh.busy(&all, 4);
    mesh.run(25.0);
    assert!((3..=4).contains(&mesh.servers("m").len()), "{:?}", mesh.servers("m"));
    // What the mesh had to do is spread over more now.
    mesh.busy(&all, 2);
    let before = mesh.moves();
    mesh.run(300.0);
    assert_eq!(mesh.moves(), before, "half busy is neither hot nor cool: {:?}", &mesh.actions[before..]);
    mesh.busy(&all, 0);
    mesh.run(900.0);
    assert_eq!(mesh.servers("m").len(), 2, "one to serve and one to be ready");
    let retired = mesh.actions[before..].iter().filter(|a| matches!(a.2, Action::Retire(_))).count();
    assert_eq!(mesh.moves() - before, retired, "they only stepped back: {:?}", &mesh.actions[before..]);
}

#[test]
fn who_has_just_taken_a_model_makes_no_room_for_a_hot_one() {
    // Both have the model that will be hot; the first has a larger one as well, and takes that first.
    let profiles = vec![profile(24, &[("a", 17), ("hot", 16)]), profile(24, &[("hot", 16)])];
    let mut mesh = Mesh::new(profiles);
    mesh.run(15.0);
    assert_eq!((mesh.servers("a"), mesh.servers("hot")), (vec![0], vec![1]));
    mesh.busy(&[1], 8);
    mesh.demand.insert("hot".into(), 5.0);
    mesh.run(45.0);
    assert_eq!(mesh.servers("hot"), [1], "what it has just loaded is given up: {:?}", mesh.actions);
    mesh.run(40.0);
    assert_eq!(mesh.servers("hot"), [0, 1], "help comes in the end: {:?}", mesh.actions);
}

/// When a machine that claims a hot model begins to load it, seconds after its claim, if another claims it shortly after
/// and says that as well, so much later. The other is behind it in the queue.
fn loads_a_contested_model(then: Option<Intent>, after_ms: u64) -> Option<f64> {
    let m = profile(24, &[("m", 16)]);
    let state = |served: &[&str], claims: &[Intent], sessions| State {
        served: served.iter().map(|model| (*model).to_owned()).collect(),
        claims: claims
            .iter()
            .map(|intent| Claim { model: "m".into(), intent: *intent, ready_s: 9 })
            .collect(),
        load: Load { sessions, ..Load::default() },
        ..State::default()
    };
    let mut own = Assigner::new(peer(0), m.clone(), Config::default(), 1, Instant(0));
    // Of three hundred some are behind it.
    let score = |i: usize, own: &Assigner| own.board.seats[&peer(i)].score("m", 1.0);
    let hosts = state(&["m"], &[], 8);
    own.see(Instant(0), peer(999), &m, &hosts);
    (1..300).for_each(|i| own.see(Instant(0), peer(i), &m, &State::default()));
    let behind = (1..300).find(|i| score(*i, &own) > score(0, &own)).unwrap();
    (1..300).filter(|i| *i != behind).for_each(|i| own.gone(Instant(0), peer(i)));
    let mut claimed = None;
    for now in (0..3_000).map(|i| Instant(i * 10_000_000)) {
        let actions = own.decide(now);
        if own.claims().is_empty() {
            continue;
        }
        let since = now.since(*claimed.get_or_insert(now));
        if actions.iter().any(|action| matches!(action, Action::Serve(_))) {
            return Some(since.as_secs_f64());
        }
        if since == Duration::from_millis(100) {
            own.see(now, peer(behind), &m, &state(&[], &[Intent::Claims], 0));
        }
        if since == Duration::from_millis(after_ms) {
            own.see(now, peer(behind), &m, &state(&[], then.as_slice(), 0));
        }
    }
    None
}

#[test]
fn a_contested_claim_for_a_hot_model_waits_until_it_is_heard_who_loads() {
    // 0.41 s are the time for news to reach all three.
    assert_eq!(loads_a_contested_model(Some(Intent::Loads), 500), None, "the other one loads already");
    assert_eq!(loads_a_contested_model(None, 300), Some(0.41), "the other one has made way");
    assert_eq!(loads_a_contested_model(Some(Intent::Claims), 300), Some(0.82));
}
