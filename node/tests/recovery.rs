//! A mesh that is hurt: no answer ends early, none has a wrong token, and afterwards everything is free again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::time::Duration;

use node::clock::Clock;
use node::ids::SessionId;
use node::probe::Event;
use node::{Limits, Reply};
use planner::plan::NodeId;
use world::{Mesh, plan, run, tokens_of, whole};

/// Short enough to be waited for often.
fn limits() -> Limits {
    Limits { kv_idle: Duration::from_secs(30), ..Limits::default() }
}

async fn drained_in_the_end(mesh: &Mesh) {
    mesh.sleep(mesh.limits.kv_idle * 2).await;
    mesh.drained().await;
}

#[test]
fn a_killed_stage_does_not_end_the_stream() {
    for victim in [1, 2] {
        run(|| async move {
            let mut mesh = Mesh::with(4, Some(plan(&[&[0, 1, 2]])), limits());
            let clock = mesh.clock;
            let all: Vec<_> = (0..3).map(|s| (s, mesh.ask(0, s, 60, 150))).collect();
            mesh.serving(0).await;
            mesh.sleep(Duration::from_millis(400)).await;
            let before = clock.now();
            mesh.kill(victim);
            for (session, replies) in all {
                whole(&clock, replies, session, 60, 150).await;
            }
            assert!(mesh.resumed() >= 3, "the kill had no effect");
            let took = clock.now().since(before);
            assert!(took < Duration::from_secs(12), "{took:?}");
            assert!(mesh.nodes[&0].epoch().0 > 1, "nobody planned anew");
            drained_in_the_end(&mesh).await;
        });
    }
}

#[test]
fn a_killed_planning_node_does_not_end_the_stream() {
    run(|| async {
        let mut mesh = Mesh::with(5, Some(plan(&[&[0, 1, 2]])), limits());
        let clock = mesh.clock;
        let all: Vec<_> = (0..3).map(|s| (s, mesh.ask(4, s, 60, 150))).collect();
        mesh.serving(4).await;
        mesh.sleep(Duration::from_millis(400)).await;
        mesh.kill(0);
        for (session, replies) in all {
            whole(&clock, replies, session, 60, 150).await;
        }
        // The next one dies too, at once after it has taken over.
        mesh.kill(1);
        whole(&clock, mesh.ask(4, 9, 60, 20), 9, 60, 20).await;
        drained_in_the_end(&mesh).await;
    });
}

#[test]
fn a_crash_while_the_prompt_is_read_costs_a_pause_only() {
    for after in [5, 30, 70] {
        run(|| async move {
            let mut mesh = Mesh::with(4, Some(plan(&[&[0, 1, 2]])), limits());
            mesh.serving(0).await;
            let clock = mesh.clock;
            let replies = mesh.ask(0, 1, 4000, 10);
            mesh.sleep(Duration::from_millis(after)).await;
            assert_eq!(mesh.count(|e| matches!(e, Event::Emitted { .. })), 0, "the prompt was read already");
            mesh.kill(2);
            whole(&clock, replies, 1, 4000, 10).await;
            drained_in_the_end(&mesh).await;
        });
    }
}

#[test]
fn a_restarted_stage_has_forgotten_its_sessions_and_they_are_replayed() {
    for pause in [0, 30, 400, 3000] {
        run(|| async move {
            // Three nodes that must all take part: nobody can replace the one that restarts.
            let mut mesh = Mesh::with(2, Some(plan(&[&[0, 1]])), limits());
            let clock = mesh.clock;
            let all: Vec<_> = (0..3).map(|s| (s, mesh.ask(0, s, 60, 150))).collect();
            mesh.serving(0).await;
            mesh.sleep(Duration::from_millis(300)).await;
            mesh.kill(1);
            mesh.sleep(Duration::from_millis(pause)).await;
            mesh.restart(1);
            for (session, replies) in all {
                whole(&clock, replies, session, 60, 150).await;
            }
            assert!(mesh.resumed() >= 3);
            drained_in_the_end(&mesh).await;
        });
    }
}

/// Kills `victim` after the `after`-th frame of the data plane. False when the session was over before that.
fn killed_after(after: usize, victim: u32) -> bool {
    let reached = std::cell::Cell::new(false);
    run(|| async {
        let mut mesh = Mesh::with(4, Some(plan(&[&[0, 1, 2]])), limits());
        mesh.serving(0).await;
        mesh.net.set_trap(after, victim);
        let clock = mesh.clock;
        let replies = mesh.ask(0, 1, 600, 6);
        let sprung = mesh.net.sprung.clone();
        let answer = whole(&clock, replies, 1, 600, 6);
        tokio::pin!(answer);
        let sprang = tokio::select! {
            biased;
            () = sprung.notified() => true,
            () = &mut answer => false,
        };
        if sprang {
            mesh.kill(victim);
            answer.await;
        }
        drained_in_the_end(&mesh).await;
        reached.set(sprang);
    });
    reached.get()
}

#[test]
fn a_stage_may_die_at_every_frame_boundary() {
    for victim in [1, 2] {
        let mut boundaries = 0;
        while killed_after(boundaries + 1, victim) {
            boundaries += 1;
            assert!(boundaries < 200, "the session never ends");
        }
        assert!(boundaries >= 15, "only {boundaries} boundaries were tried");
    }
}

#[test]
fn a_partition_costs_a_pause_only_and_heals() {
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        for pause in [200, 900, 4000] {
            run(|| async move {
                let mesh = Mesh::with(3, Some(plan(&[&[0, 1, 2]])), limits());
                let clock = mesh.clock;
                let all: Vec<_> = (0..3).map(|s| (s, mesh.ask(0, s, 60, 200))).collect();
                mesh.serving(0).await;
                mesh.sleep(Duration::from_millis(300)).await;
                mesh.net.part(a, b);
                mesh.sleep(Duration::from_millis(pause)).await;
                mesh.net.heal();
                for (session, replies) in all {
                    whole(&clock, replies, session, 60, 200).await;
                }
                drained_in_the_end(&mesh).await;
            });
        }
    }
}

#[test]
fn after_a_parted_planning_node_comes_back_all_follow_one_plan() {
    run(|| async {
        let mesh = Mesh::with(5, Some(plan(&[&[0, 1, 2]])), limits());
        mesh.serving(4).await;
        for other in 1..5 {
            mesh.net.part(0, other);
        }
        mesh.sleep(Duration::from_secs(6)).await;
        assert!(mesh.nodes[&4].epoch().0 > 1, "the others did not plan without it");
        mesh.net.heal();
        mesh.sleep(Duration::from_secs(30)).await;
        let followed: Vec<_> =
            mesh.nodes.values().map(|n| n.published().map(|p| (p.id, p.serving.clone()))).collect();
        assert!(followed.windows(2).all(|w| w[0] == w[1]), "{followed:?}");
        whole(&mesh.clock, mesh.ask(3, 1, 60, 20), 1, 60, 20).await;
    });
}

#[test]
fn an_untouched_replica_goes_on_without_noticing() {
    run(|| async {
        let mut mesh = Mesh::with(5, Some(plan(&[&[0, 1], &[2, 3]])), limits());
        let clock = mesh.clock;
        mesh.serving(0).await;
        mesh.sleep(Duration::from_secs(1)).await;
        let replies = mesh.ask(0, 1, 60, 400);
        mesh.sleep(Duration::from_millis(300)).await;
        mesh.kill(3);
        whole(&clock, replies, 1, 60, 400).await;
        let events = mesh.log.events.lock().unwrap().clone();
        let at: Vec<_> =
            events.iter().filter(|e| matches!(e.2, Event::Emitted { .. })).map(|e| e.0).collect();
        let longest = at.windows(2).map(|w| w[1].since(w[0])).max().unwrap();
        assert!(longest < Duration::from_millis(15), "a token of the other replica took {longest:?}");
        assert_eq!(mesh.resumed(), 0);
        assert!(mesh.nodes[&0].epoch().0 > 1, "nobody planned anew: the test shows nothing");
    });
}

#[test]
fn while_a_stage_is_missing_requests_wait_and_are_served_when_it_is_back() {
    run(|| async {
        let mut mesh = Mesh::with(2, Some(plan(&[&[0, 1]])), limits());
        mesh.serving(0).await;
        mesh.kill(1);
        mesh.sleep(Duration::from_secs(5)).await;
        let clock = mesh.clock;
        let replies = mesh.ask(0, 1, 60, 20);
        mesh.sleep(Duration::from_secs(20)).await;
        mesh.restart(1);
        whole(&clock, replies, 1, 60, 20).await;
        let attempts = mesh.count(|e| matches!(e, Event::Attempted { .. }));
        assert_eq!(attempts, 1, "the head tried in vain while nothing could serve");
    });
}

#[test]
fn a_session_that_nobody_can_serve_any_more_fails_with_a_reason_in_time() {
    run(|| async {
        let limits = Limits { give_up: Duration::from_secs(20), ..limits() };
        let mut mesh = Mesh::with(2, Some(plan(&[&[0, 1]])), limits);
        mesh.serving(0).await;
        let replies = mesh.ask(0, 1, 60, 5000);
        mesh.sleep(Duration::from_millis(300)).await;
        mesh.kill(1);
        let before = mesh.clock.now();
        let why = tokens_of(&mesh.clock, replies, 60).await.unwrap_err();
        assert!(why.contains("Failed") && why.contains("n1"), "{why}");
        assert!(mesh.clock.now().since(before) <= limits.give_up + Duration::from_secs(1));
        drained_in_the_end(&mesh).await;
    });
}

#[test]
fn a_node_that_comes_back_is_used_again_where_it_helps_enough() {
    run(|| async {
        let mut mesh = Mesh::with(3, None, limits());
        mesh.serving(0).await;
        let first = mesh.nodes[&0].published().unwrap().plan.clone();
        let uses = |node: u32| first.layers_of(NodeId(node)).is_some();
        let victim = (1..3).find(|n| uses(*n)).unwrap();
        mesh.kill(victim);
        mesh.sleep(Duration::from_secs(5)).await;
        let second = mesh.nodes[&0].epoch();
        mesh.restart(victim);
        mesh.sleep(Duration::from_secs(30)).await;
        // All nodes are alike: changing back would cost loads and gain nothing.
        assert_eq!(mesh.nodes[&0].epoch(), second, "a plan was changed for nothing");
        assert_eq!(mesh.nodes[&victim].epoch(), second, "who came back was not told the plan");
    });
}

#[test]
fn a_slow_device_is_waited_for_and_not_replayed() {
    run(|| async {
        let mesh = Mesh::with(3, Some(plan(&[&[0, 1, 2]])), limits());
        let clock = mesh.clock;
        mesh.serving(0).await;
        let replies = mesh.ask(0, 1, 60, 60);
        mesh.sleep(Duration::from_millis(200)).await;
        mesh.conditions[1].lock().unwrap().per_step = Duration::from_millis(1500);
        whole(&clock, replies, 1, 60, 60).await;
        assert_eq!(mesh.resumed(), 0, "a slow stage was taken for a dead one");
    });
}

#[test]
fn dropping_the_handle_ends_everything() {
    run(|| async {
        let mut mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        mesh.serving(0).await;
        let mut replies = mesh.ask(0, 1, 60, 5000);
        assert!(matches!(replies.next().await, Some(Reply::Token { .. })));
        mesh.kill(0);
        mesh.kill(1);
        mesh.sleep(Duration::from_millis(10)).await;
        let before = mesh.log.events.lock().unwrap().len();
        while replies.next().await.is_some() {}
        mesh.sleep(Duration::from_secs(60)).await;
        assert_eq!(mesh.log.events.lock().unwrap().len(), before, "something went on");
        assert_eq!(mesh.count(|e| matches!(e, Event::Completed { session: SessionId(1) })), 0);
    });
}

/// A head on the last stage's node that could not reach the first one took its own stage for the reason, found "another"
/// way at once, and failed on it at once: a million attempts in no time.
#[test]
fn setbacks_that_come_at_once_do_not_become_a_busy_loop() {
    run(|| async {
        let mesh = Mesh::with(4, Some(plan(&[&[0, 1, 2]])), limits());
        mesh.serving(2).await;
        let clock = mesh.clock;
        whole(&clock, mesh.ask(2, 1, 60, 5), 1, 60, 5).await;
        mesh.net.part(0, 2);
        let all: Vec<_> = (2..6).map(|s| (s, mesh.ask(2, s, 60, 20))).collect();
        mesh.sleep(Duration::from_secs(10)).await;
        mesh.net.heal();
        for (session, replies) in all {
            whole(&clock, replies, session, 60, 20).await;
        }
        let attempts = mesh.count(|e| matches!(e, Event::Attempted { .. }));
        assert!(attempts < 60, "{attempts} attempts for five sessions");
    });
}

#[test]
fn a_thousand_nodes_recover_like_four() {
    run(|| async {
        let replicas: Vec<[u32; 2]> = (0..300).map(|i| [3 * i, 3 * i + 1]).collect();
        let replicas: Vec<&[u32]> = replicas.iter().map(|r| &r[..]).collect();
        // The clients are read one after the other.
        let limits = Limits { reply_queue: 1024, ..limits() };
        let mut mesh = Mesh::with(1000, Some(plan(&replicas)), limits);
        let clock = mesh.clock;
        mesh.sleep(Duration::from_secs(5)).await;
        let all: Vec<_> = (0..300).map(|s| (s, mesh.ask(3 * s as u32, s, 60, 300))).collect();
        mesh.sleep(Duration::from_secs(1)).await;
        for replica in 10..20 {
            mesh.kill(3 * replica + 1);
        }
        for (session, replies) in all {
            whole(&clock, replies, session, 60, 300).await;
        }
        assert!(mesh.resumed() >= 10, "the kills had no effect");
        assert!(mesh.resumed() < 60, "{} resumptions for ten lost sessions", mesh.resumed());
    });
}

/// The last stage could not reach the head, so a token was lost, and the head waited for it for more than three minutes:
/// each attempt that a stage had refused before, at once, had doubled its patience with the next one.
#[test]
fn attempts_that_were_refused_do_not_make_a_head_wait_longer_for_a_lost_token() {
    run(|| async {
        let mut mesh = Mesh::with(5, Some(plan(&[&[0, 1, 2]])), limits());
        let clock = mesh.clock;
        mesh.serving(0).await;
        mesh.sleep(Duration::from_millis(33)).await;
        let replies = mesh.ask(3, 1, 10, 20);
        mesh.restart(0);
        mesh.kill(1);
        mesh.net.part(2, 3);
        mesh.sleep(Duration::from_millis(1600)).await;
        assert!(mesh.resumed() >= 4, "only {} attempts were refused", mesh.resumed());
        mesh.net.heal();
        let healed = clock.now();
        whole(&clock, replies, 1, 10, 20).await;
        let took = clock.now().since(healed);
        assert!(took < mesh.limits.first_token_floor * (mesh.limits.patience + 1), "{took:?}");
        drained_in_the_end(&mesh).await;
    });
}

/// A stage lost power and was back before anybody missed it, while the streams to it were younger than a doubt concerns.
/// So they were kept, and the first frames of the next attempts went to its earlier life: heads waited for tokens until
/// all patience was spent, the more of them the longer.
#[test]
fn tokens_go_to_the_life_of_a_stage_that_serves_and_not_to_the_one_before() {
    run(|| async {
        let mut mesh = Mesh::with(4, Some(plan(&[&[1, 2]])), limits());
        let clock = mesh.clock;
        mesh.net.silence_the_dead();
        mesh.serving(3).await;
        mesh.sleep(Duration::from_secs(2)).await;
        let all: Vec<_> = (0..3).map(|s| (s, mesh.ask(3, s, 60, 200))).collect();
        mesh.sleep(Duration::from_millis(300)).await;
        let struck = clock.now();
        mesh.kill(2);
        mesh.sleep(Duration::from_millis(100)).await;
        mesh.restart(2);
        for (session, replies) in all {
            whole(&clock, replies, session, 60, 200).await;
        }
        let took = clock.now().since(struck);
        assert!(took < mesh.limits.first_token_floor * 2, "{took:?}");
        assert_eq!(mesh.resumed(), 3, "the restart had no effect, or an attempt failed");
        drained_in_the_end(&mesh).await;
    });
}

/// While a node was down the planning node tried to open a stream to it; the node came back, but that attempt was waited
/// for, or a stream to its earlier life was too young to be doubted. So its pings were not answered for a second and it
/// took the planning node for lost.
#[test]
fn a_node_that_comes_back_is_answered_at_once_whatever_stream_to_its_earlier_life_there_is() {
    for (age, pause) in [(2000, 0), (2000, 300), (2000, 500), (2000, 700), (100, 0), (100, 300), (300, 500)] {
        run(|| async move {
            let mut mesh = Mesh::with(3, Some(plan(&[&[0, 1]])), limits());
            mesh.net.silence_the_dead();
            mesh.serving(0).await;
            mesh.sleep(Duration::from_millis(age)).await;
            mesh.kill(1);
            mesh.sleep(Duration::from_millis(pause)).await;
            mesh.restart(1);
            mesh.sleep(Duration::from_secs(3)).await;
            let missed = |e: &(_, u32, Event)| e.1 == 1 && matches!(e.2, Event::PeerLost { .. });
            let events = mesh.log.events.lock().unwrap();
            assert!(
                !events.iter().any(missed),
                "down for {pause} ms at {age} ms it took the planning node for lost"
            );
        });
    }
}

/// A head's node lost power and was back at once. The last stage did not hear of it, as it is not the planning node, and
/// gave the tokens of the new life's sessions to a stream to the old one.
#[test]
fn tokens_go_to_the_life_of_a_head_that_asks() {
    run(|| async {
        let mut mesh = Mesh::with(4, Some(plan(&[&[0, 1]])), limits());
        let clock = mesh.clock;
        mesh.net.silence_the_dead();
        mesh.serving(3).await;
        whole(&clock, mesh.ask(3, 1, 60, 20), 1, 60, 20).await;
        mesh.restart(3);
        mesh.serving(3).await;
        let asked = clock.now();
        whole(&clock, mesh.ask(3, 2, 60, 20), 2, 60, 20).await;
        let took = clock.now().since(asked);
        assert!(took < mesh.limits.first_token_floor, "{took:?}");
        drained_in_the_end(&mesh).await;
    });
}

/// A head's node lost power again and again, and its client asked for the same session each time. A stage refused the first
/// attempt, as it had served a later one, but told so to the life before: the head took the refusal's loss for silence.
#[test]
fn a_refusal_goes_to_the_life_of_a_head_that_asks() {
    run(|| async {
        let mut mesh = Mesh::with(4, Some(plan(&[&[0, 1]])), limits());
        let clock = mesh.clock;
        mesh.net.silence_the_dead();
        for _ in 0..3 {
            mesh.serving(3).await;
            let _unheard = mesh.ask(3, 1, 60, 100);
            mesh.sleep(Duration::from_millis(300)).await;
            mesh.restart(3);
        }
        mesh.serving(3).await;
        let asked = clock.now();
        whole(&clock, mesh.ask(3, 1, 60, 100), 1, 60, 100).await;
        let took = clock.now().since(asked);
        assert!(took < mesh.limits.first_token_floor, "{took:?}");
        drained_in_the_end(&mesh).await;
    });
}

/// The stream from the last stage to the head hung, and the first token of a session was lost. The head gave the attempt
/// up, but the stage took the stream of the lane on which the prompt had come to it for the reason, and the next attempt's
/// token was lost as well.
#[test]
fn a_hanging_stream_back_to_the_head_is_opened_anew_once_its_silence_is_noticed() {
    run(|| async {
        let mesh = Mesh::with(4, Some(plan(&[&[0, 1]])), limits());
        let clock = mesh.clock;
        mesh.serving(3).await;
        // The first time, the head's word to the stage is the first it says to it, and makes it open all streams anew.
        for session in 0..3 {
            whole(&clock, mesh.ask(3, session, 60, 20), session, 60, 20).await;
            assert_eq!(mesh.resumed() as u64, session, "the stream did not hang, or was used again");
            mesh.sleep(mesh.limits.stream_trust * 2).await;
            mesh.net.hang_streams(1, 3);
        }
        drained_in_the_end(&mesh).await;
    });
}

/// While the client did not read, the head thought that the mesh was slow: each token seemed to take as long as the client
/// took, and so the stream's silence was waited out for three times as long.
#[test]
fn a_client_that_reads_late_does_not_make_its_head_more_patient() {
    run(|| async {
        let mesh = Mesh::with(4, Some(plan(&[&[0, 1]])), limits());
        let clock = mesh.clock;
        mesh.serving(3).await;
        let replies = mesh.ask(3, 1, 60, 400);
        mesh.sleep(mesh.limits.stream_trust * 2).await;
        mesh.net.hang_streams(1, 3);
        let hung = clock.now();
        whole(&clock, replies, 1, 60, 400).await;
        assert_eq!(mesh.resumed(), 1, "the stream did not hang");
        let took = clock.now().since(hung);
        assert!(took < mesh.limits.token_floor * (mesh.limits.patience + 4), "{took:?}");
        drained_in_the_end(&mesh).await;
    });
}
