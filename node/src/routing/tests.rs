//! Where requests go, by hand and by the thousand.

use super::*;

fn peer(i: u32) -> PeerId {
    PeerId::from_index(i)
}

fn offer(name: &str, gb: u64) -> Offer {
    Offer {
        name: name.into(),
        weight_bytes: gb << 30,
        context: 8_192,
        abilities: Abilities::CHAT,
        ..Offer::default()
    }
}

fn host(i: u32, offer: &Offer) -> Host<'_> {
    Host {
        peer: peer(i),
        offer,
        serves: true,
        leaves: false,
        ready: Duration::ZERO,
        load: Load::default(),
        caps: Caps { sessions: 4, queue: 8, ..Caps::default() },
        sent: 0,
        tokens_per_s: 20.0,
        round_trip: Duration::from_millis(20),
    }
}

fn known<'a>(offer: &'a Offer, hosts: Vec<Host<'a>>) -> Known<'a> {
    Known { model: &offer.name, offer: Some(offer), hosts }
}

fn ask(model: &str) -> Ask<'_> {
    Ask {
        model,
        prompt: 500,
        output: 200,
        needs: Abilities::default(),
        sticky: None,
        prefixes: &[],
        doubted: &[],
        draw: 1,
    }
}

fn first(ask: &Ask<'_>, models: &[Known<'_>]) -> u32 {
    route(ask, models).expect("there is a way").hosts[0].0.index()
}

#[test]
fn the_host_that_is_done_first_comes_first() {
    let smol = offer("smol", 1);
    let (mut slow, mut full, mut far) = (host(1, &smol), host(2, &smol), host(3, &smol));
    slow.tokens_per_s = 5.0;
    full.load = Load { sessions: 4, waiting: 4 };
    far.round_trip = Duration::from_secs(20);
    let models = [known(&smol, vec![slow, full, host(0, &smol), far])];
    let ways = route(&ask("smol"), &models).expect("there is a way");
    let order: Vec<u32> = ways.hosts.iter().map(|(peer, _)| peer.index()).collect();
    assert_eq!((order[0], order.len()), (0, 4));
    assert!(ways.hosts[0].1 < Duration::from_secs(13), "{ways:?}");
    assert!(ways.hosts.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{ways:?}");
}

#[test]
fn entry_nodes_with_the_same_stale_view_do_not_all_choose_one() {
    let smol = offer("smol", 1);
    let mut hosts: Vec<Host<'_>> = (0..10).map(|i| host(i, &smol)).collect();
    // All believe that this one is a little better.
    hosts[3].tokens_per_s = 22.0;
    let models = [known(&smol, hosts)];
    let mut counts = [0; 10];
    for draw in 0..1_000 {
        counts[first(&Ask { draw, ..ask("smol") }, &models) as usize] += 1;
    }
    assert!(counts.iter().all(|count| *count > 40 && *count < 250), "{counts:?}");
    assert!(counts[3] > counts[0], "it is better: {counts:?}");
}

#[test]
fn a_session_stays_where_it_was_unless_that_is_much_worse() {
    let smol = offer("smol", 1);
    let mut models = [known(&smol, (0..10).map(|i| host(i, &smol)).collect())];
    let sticky = |draw| Ask { draw, sticky: Some(peer(7)), ..ask("smol") };
    assert!((0..100).all(|draw| first(&sticky(draw), &models) == 7));
    models[0].hosts[7].load = Load { sessions: 4, waiting: 7 };
    assert!((0..100).all(|draw| first(&sticky(draw), &models) != 7));
}

#[test]
fn a_prompt_goes_where_its_beginning_was_computed() {
    let smol = offer("smol", 1);
    let models = [known(&smol, (0..10).map(|i| host(i, &smol)).collect())];
    let prefixes = [(peer(4), 3_900)];
    let long = |draw| Ask { prompt: 4_000, output: 20, prefixes: &prefixes, draw, ..ask("smol") };
    assert!((0..50).all(|draw| first(&long(draw), &models) == 4));
}

#[test]
fn who_steps_back_or_just_failed_is_tried_last() {
    let smol = offer("smol", 1);
    let mut hosts: Vec<Host<'_>> = (0..3).map(|i| host(i, &smol)).collect();
    hosts[0].leaves = true;
    hosts[2].load = Load { sessions: 4, waiting: 6 };
    let models = [known(&smol, hosts)];
    let doubted = [peer(1)];
    for draw in 0..50 {
        let ways = route(&Ask { doubted: &doubted, draw, ..ask("smol") }, &models).expect("there is a way");
        assert_eq!((ways.hosts[0].0, ways.hosts.len()), (peer(2), 3));
    }
}

#[test]
fn refusals_say_why_and_when_to_ask_again() {
    let (smol, big) = (offer("smol", 1), offer("big", 40));
    let mut loading = host(1, &big);
    (loading.serves, loading.ready) = (false, Duration::from_secs(12));
    let mut full = host(2, &smol);
    full.load = Load { sessions: 4, waiting: 8 };
    let models = [known(&big, vec![loading]), known(&smol, vec![full])];
    let unknown = route(&ask("smal"), &models).expect_err("nobody has it");
    assert!(unknown.to_string().contains("it has big, smol") && unknown.retry().is_none(), "{unknown}");
    let unserved = route(&ask("big"), &models).expect_err("nobody serves it");
    assert_eq!(unserved.retry(), Some(Duration::from_secs(12)));
    assert!(unserved.to_string().contains("peer-1 is loading it"), "{unserved}");
    let full = route(&ask("smol"), &models).expect_err("it is full");
    assert!(matches!(full, Refusal::Full { hosts: 1, .. }) && full.retry().is_some(), "{full}");
    let long = route(&Ask { prompt: 9_000, ..ask("smol") }, &models).expect_err("it is too long");
    assert!(long.to_string().contains("9200 tokens") && long.retry().is_none(), "{long}");
    let blind = route(&Ask { needs: Abilities::VISION, ..ask("smol") }, &models).expect_err("it cannot");
    assert!(matches!(blind, Refusal::Unable { .. }), "{blind}");
    assert!(matches!(route(&ask(AUTO), &[]), Err(Refusal::Unknown { .. })));
}

#[test]
fn what_was_sent_and_is_not_told_yet_counts() {
    let smol = offer("smol", 1);
    let mut hosts: Vec<Host<'_>> = (0..2).map(|i| host(i, &smol)).collect();
    hosts[0].sent = 12;
    let models = [known(&smol, hosts)];
    for draw in 0..20 {
        let ways = route(&Ask { draw, ..ask("smol") }, &models).expect("there is a way");
        assert_eq!(ways.hosts.len(), 1, "the other has all it takes");
        assert_eq!(ways.hosts[0].0, peer(1));
    }
}

#[test]
fn auto_takes_the_best_model_that_can_and_answers_in_good_time() {
    let (smol, mut big) = (offer("smol", 1), offer("big", 40));
    big.abilities = Abilities::CHAT.and(Abilities::TOOLS);
    let mut models = [known(&big, vec![host(1, &big)]), known(&smol, vec![host(2, &smol)])];
    let chosen = |ask: &Ask<'_>, models: &[Known<'_>]| route(ask, models).map(|ways| ways.model);
    assert_eq!(chosen(&ask(AUTO), &models).as_deref(), Ok("big"));
    // Its only host has a long queue: the smaller one is there at once.
    models[0].hosts[0].load = Load { sessions: 4, waiting: 7 };
    assert_eq!(chosen(&ask(AUTO), &models).as_deref(), Ok("smol"));
    let tools = Ask { needs: Abilities::TOOLS, ..ask(AUTO) };
    assert_eq!(chosen(&tools, &models).as_deref(), Ok("big"), "only that one can");
    let long = Ask { prompt: 20_000, ..ask(AUTO) };
    let refusal = route(&long, &models).expect_err("no model has that context");
    assert!(refusal.to_string().contains("8192"), "{refusal}");
}

#[test]
fn members_are_hosts_of_what_they_serve_and_load() {
    use crate::membership::{Claim, Intent, Profile, State};
    let profile = Profile { models: vec![offer("a", 4), offer("b", 4)], ..Profile::default() };
    let state = State {
        served: vec!["a".into()],
        claims: vec![
            Claim { model: "a".into(), intent: Intent::Leaves, ready_s: 0 },
            Claim { model: "b".into(), intent: Intent::Loads, ready_s: 9 },
        ],
        ..State::default()
    };
    let member = |i| view::Member {
        peer: peer(i),
        profile: &profile,
        state: &state,
        round_trip: Duration::from_millis(1),
        sent: 0,
    };
    let models = view::models([member(1), member(2)]);
    assert_eq!(models.len(), 2);
    assert!(models[0].hosts.iter().all(|host| host.serves && host.leaves));
    assert!(models[1].hosts.iter().all(|host| !host.serves && host.ready == Duration::from_secs(9)));
    assert_eq!(view::model("b", [member(1), member(2)]).as_ref(), Some(&models[1]));
    assert_eq!(view::model("c", [member(1)]), None);
}
