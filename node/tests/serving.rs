//! A mesh that nobody hurts: any split gives the tokens of one machine, KV is freed, bounds are kept.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use node::engine::{Rules, Sampling};
use node::ids::{Attempt, SessionId, Token};
use node::probe::Event;
use node::transport::Lane;
use node::wire::{Frame, Route, Step, StepInput};
use node::{Limits, Refused, Reply, Request};
use planner::plan::Epoch;
use world::{Mesh, peer, pipeline, plan, prompt, run, tokens_of, whole};

#[test]
fn any_split_gives_the_tokens_of_one_machine() {
    for stages in [&[0][..], &[0, 1], &[0, 1, 2], &[2, 0, 1]] {
        run(|| async {
            let mesh = Mesh::new(3, Some(plan(&[stages])));
            for len in [1, 5, 16, 17, 512, 513, 1500] {
                let replies = mesh.ask(0, u64::from(len), len, 12);
                whole(&mesh.clock, replies, u64::from(len), len, 12).await;
            }
            mesh.drained().await;
            assert_eq!(mesh.resumed(), 0, "something had to be resumed on {stages:?}");
        });
    }
}

#[test]
fn a_token_of_three_stages_costs_three_trips() {
    run(|| async {
        let mesh = Mesh::new(3, Some(plan(&[&[0, 1, 2]])));
        mesh.serving(0).await;
        whole(&mesh.clock, mesh.ask(0, 1, 8, 40), 1, 8, 40).await;
        let events = mesh.log.events.lock().unwrap();
        let at: Vec<_> =
            events.iter().filter(|e| matches!(e.2, Event::Emitted { .. })).map(|e| e.0).collect();
        let each = at[39].since(at[10]) / 29;
        // Three steps of 1.01 ms, three trips of 2 ms.
        assert_eq!(each, Duration::from_micros(9030));
    });
}

#[test]
fn many_sessions_share_steps_and_none_mixes_with_another() {
    run(|| async {
        let mesh = Mesh::new(3, Some(plan(&[&[0, 1, 2]])));
        let all: Vec<_> = (0..24).map(|s| (s, mesh.ask((s % 3) as u32, s, 10 + s as u32 * 20, 20))).collect();
        for (session, replies) in all {
            whole(&mesh.clock, replies, session, 10 + session as u32 * 20, 20).await;
        }
        mesh.drained().await;
        let (sessions, tokens) = mesh.conditions[0].lock().unwrap().largest;
        assert!(sessions > 1, "nothing was batched");
        assert!(tokens <= mesh.limits.prefill_tokens + mesh.limits.batch as u32, "{tokens} tokens in a step");
    });
}

#[test]
fn sessions_that_came_at_different_times_decode_in_one_batch_on_one_node() {
    run(|| async {
        let mesh = Mesh::new(1, Some(plan(&[&[0]])));
        mesh.serving(0).await;
        let early: Vec<_> = (0..4).map(|s| (s, mesh.ask(0, s, 8, 60))).collect();
        mesh.sleep(Duration::from_micros(4_500)).await;
        let late: Vec<_> = (4..8).map(|s| (s, mesh.ask(0, s, 8, 60))).collect();
        for (session, replies) in early.into_iter().chain(late) {
            whole(&mesh.clock, replies, session, 8, 60).await;
        }
        let steps = mesh.count(|e| matches!(e, Event::StepBegan { .. }));
        assert!(steps < 80, "{steps} steps for 60 tokens: the two halves decode in turn");
    });
}

#[test]
fn a_long_prompt_does_not_starve_a_session_that_decodes() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        mesh.serving(0).await;
        let decoding = mesh.ask(0, 1, 8, 200);
        mesh.sleep(Duration::from_millis(50)).await;
        let prefilling = mesh.ask(0, 2, 8000, 2);
        whole(&mesh.clock, decoding, 1, 8, 200).await;
        whole(&mesh.clock, prefilling, 2, 8000, 2).await;
        let events = mesh.log.events.lock().unwrap();
        let at: Vec<_> = events
            .iter()
            .filter(|e| matches!(e.2, Event::Emitted { session: SessionId(1), .. }))
            .map(|e| e.0)
            .collect();
        let longest = at.windows(2).map(|w| w[1].since(w[0])).max().unwrap();
        // A chunk takes 6.1 ms on each of two stages, and one may be under way when the token comes.
        assert!(longest <= Duration::from_millis(35), "a token waited {longest:?}");
    });
}

#[test]
fn replicas_share_the_load_and_their_own_first_stage_is_preferred() {
    run(|| async {
        let mesh = Mesh::new(4, Some(plan(&[&[0, 1], &[2, 3]])));
        mesh.serving(2).await;
        mesh.sleep(Duration::from_secs(1)).await;
        whole(&mesh.clock, mesh.ask(2, 1, 40, 5), 1, 40, 5).await;
        let steps = |mesh: &Mesh, node| {
            mesh.log
                .events
                .lock()
                .unwrap()
                .iter()
                .any(|e| e.1 == node && matches!(e.2, Event::StepBegan { .. }))
        };
        assert!(steps(&mesh, 2) && !steps(&mesh, 0), "the local replica was not preferred");
        let all: Vec<_> = (2..10).map(|s| (s, mesh.ask(2, s, 40, 30))).collect();
        for (session, replies) in all {
            whole(&mesh.clock, replies, session, 40, 30).await;
        }
        assert!(steps(&mesh, 0), "the other replica stood idle");
        mesh.drained().await;
    });
}

#[test]
fn without_a_plan_the_planning_node_makes_one() {
    run(|| async {
        let mesh = Mesh::new(4, None);
        whole(&mesh.clock, mesh.ask(3, 1, 30, 10), 1, 30, 10).await;
        mesh.drained().await;
    });
}

#[test]
fn a_dropped_answer_frees_the_kv_of_all_stages() {
    run(|| async {
        let mesh = Mesh::new(3, Some(plan(&[&[0, 1, 2]])));
        mesh.serving(0).await;
        for (session, len) in [(1, 8), (2, 3000)] {
            let mut replies = mesh.ask(0, session, len, 5000);
            for _ in 0..3 {
                assert!(matches!(replies.next().await, Some(Reply::Token { .. })));
            }
            drop(replies);
            mesh.drained().await;
        }
        // Also while the prompt is on its way.
        let replies = mesh.ask(0, 3, 8000, 10);
        mesh.sleep(Duration::from_millis(20)).await;
        assert!(mesh.nodes[&0].held().contains(&SessionId(3)));
        drop(replies);
        mesh.drained().await;
    });
}

#[test]
fn a_client_that_does_not_read_holds_its_own_session_back_and_no_other() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        mesh.serving(0).await;
        let mut lazy = mesh.ask(0, 1, 8, 1000);
        assert!(lazy.next().await.is_some());
        mesh.sleep(Duration::from_secs(20)).await;
        let emitted = mesh.count(|e| matches!(e, Event::Emitted { session: SessionId(1), .. }));
        assert!(emitted <= mesh.limits.reply_queue + 2, "{emitted} tokens made for nobody");
        whole(&mesh.clock, mesh.ask(0, 2, 8, 50), 2, 8, 50).await;
        // Once for the token, once for the word that it is over.
        mesh.sleep(mesh.limits.client_stall * 2).await;
        mesh.drained().await;
    });
}

#[test]
fn sessions_without_room_wait_for_others_and_leave_no_trace() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        mesh.conditions[1].lock().unwrap().room = 300;
        let all: Vec<_> = (0..8).map(|s| (s, mesh.ask(0, s, 100, 20))).collect();
        for (session, replies) in all {
            whole(&mesh.clock, replies, session, 100, 20).await;
        }
        mesh.drained().await;
        assert!(mesh.resumed() > 0, "there was room for all: the test shows nothing");
    });
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_a_reason() {
    run(|| async {
        let limits = Limits { sessions: 1, plan_wait: Duration::from_secs(5), ..Limits::default() };
        let mesh = Mesh::with(2, Some(plan(&[&[0, 1]])), limits);
        let why = tokens_of(&mesh.clock, mesh.ask(0, 1, 8000, 8000), 8000).await.unwrap_err();
        assert!(why.contains("Refused") && why.contains("16000") && why.contains("8192"), "{why}");
        let why = tokens_of(&mesh.clock, mesh.ask(0, 2, 0, 5), 0).await.unwrap_err();
        assert!(why.contains("empty"), "{why}");
        let running = mesh.ask(0, 3, 8, 50);
        let why = tokens_of(&mesh.clock, mesh.ask(0, 4, 8, 5), 8).await.unwrap_err();
        assert!(why.contains("1 sessions already"), "{why}");
        whole(&mesh.clock, running, 3, 8, 50).await;
        let lonely = Mesh::with(1, None, limits);
        let why = tokens_of(&lonely.clock, lonely.ask(0, 5, 8, 5), 8).await.unwrap_err();
        assert!(why.contains("no plan"), "{why}");
    });
}

#[test]
fn a_client_resumes_at_another_entry_with_the_tokens_it_has() {
    run(|| async {
        let mesh = Mesh::new(3, Some(plan(&[&[0, 1, 2]])));
        let mut replies = mesh.ask(0, 1, 40, 30);
        let mut tokens = Vec::new();
        while tokens.len() < 10 {
            let Some(Reply::Token { token, .. }) = replies.next().await else { panic!("no token") };
            tokens.push(token);
        }
        // The old head is not cancelled in time: both run for a moment.
        let resumed = mesh.nodes[&2].ask(Request {
            session: SessionId(1),
            prompt: prompt(1, 40),
            generated: tokens.clone(),
            max_tokens: 30,
            ends: Default::default(),
            sampling: node::engine::Sampling::drawn(0.0, 1),
        });
        drop(replies);
        let rest = tokens_of(&mesh.clock, resumed, 50).await.unwrap();
        let all: Vec<Token> = tokens.into_iter().chain(rest).collect();
        assert_eq!(all, world::device::reference(world::LAYERS, &prompt(1, 40), 30));
        mesh.drained().await;
    });
}

fn request(prompt: Vec<Token>, sampling: Sampling) -> Request {
    let ends = Default::default();
    Request { session: SessionId(1), prompt, generated: Vec::new(), max_tokens: 4, ends, sampling }
}

/// Such a session was replayed until its patience ended: the stage took the step for one that came out of order.
#[test]
fn a_request_that_no_device_can_compute_ends_at_the_first_attempt() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[1, 0]])));
        mesh.serving(0).await;
        let mut replies = mesh.nodes[&0].ask(request(vec![Token(5), Token(u32::MAX)], Sampling::GREEDY));
        let Some(Reply::Failed(why)) = replies.next().await else { panic!("it must fail") };
        assert!(why.contains("cannot compute the request"), "{why}");
        mesh.drained().await;
        assert_eq!(mesh.resumed(), 0);
    });
}

#[test]
fn rules_out_of_their_bounds_are_refused_before_anything_is_sent() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        let sampling = Sampling::GREEDY.with(Rules { top_p: 7.0, ..Rules::default() });
        let mut replies = mesh.nodes[&0].ask(request(vec![Token(5)], sampling));
        let Some(Reply::Refused(why)) = replies.next().await else { panic!("it must be refused") };
        assert_eq!(why, Refused::Unsound("sampling: top_p must be above 0 and at most 1".into()));
    });
}

#[test]
fn the_first_token_that_ends_an_answer_is_its_last_wherever_it_is_resumed() {
    run(|| async {
        let mesh = Mesh::new(3, Some(plan(&[&[0, 1, 2]])));
        let all = world::device::reference(world::LAYERS, &prompt(1, 40), 30);
        let ends: Arc<[Token]> = vec![all[20], all[12]].into();
        let first = all.iter().position(|token| ends.contains(token)).unwrap();
        for had in [0, 5, first + 1] {
            let request = request(prompt(1, 40), Sampling::drawn(0.0, 1));
            let (generated, ends) = (all[..had].to_vec(), Arc::clone(&ends));
            let replies = mesh.nodes[&0].ask(Request { generated, max_tokens: 30, ends, ..request });
            let rest = tokens_of(&mesh.clock, replies, 40 + had as u32).await.unwrap();
            assert_eq!(rest, &all[had..=first], "{had} tokens were there before");
            mesh.drained().await;
        }
    });
}

#[test]
fn frames_of_old_attempts_and_of_nobody_change_nothing() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        mesh.serving(0).await;
        let running = mesh.ask(0, 1, 40, 60);
        mesh.sleep(Duration::from_millis(60)).await;
        let (session, wrong) = (SessionId(1), Token(3));
        for position in 38..60 {
            let frame = Frame::Token { session, attempt: Attempt(7), position, sampled: wrong.into() };
            mesh.net.forge(1, 0, frame).await;
        }
        let why = node::wire::Nack::Gap;
        mesh.net.forge(1, 0, Frame::Nack { session, attempt: Attempt(9), why }).await;
        mesh.net
            .forge(
                1,
                0,
                Frame::Token {
                    session: SessionId(99),
                    attempt: Attempt(0),
                    position: 1,
                    sampled: wrong.into(),
                },
            )
            .await;
        whole(&mesh.clock, running, 1, 40, 60).await;
        assert_eq!(mesh.resumed(), 0);
        let stale = mesh.count(|e| matches!(e, Event::Stale { .. }));
        assert!(stale >= 22, "{stale} stale frames were seen, 23 were sent");
    });
}

#[test]
fn prompts_travel_beside_decoding_and_tokens_of_one_step_together() {
    run(|| async {
        let mesh = Mesh::new(2, Some(plan(&[&[0, 1]])));
        mesh.serving(0).await;
        mesh.net.keep_log();
        let all: Vec<_> = (0..6).map(|s| (s, mesh.ask(0, s, 8, 30))).collect();
        let long = mesh.ask(0, 6, 700, 3);
        for (session, replies) in all {
            whole(&mesh.clock, replies, session, 8, 30).await;
        }
        whole(&mesh.clock, long, 6, 700, 3).await;
        let log = mesh.net.log();
        let mut together = 0;
        for (_, _, lane, frame) in log {
            let Frame::Steps(steps) = frame else { continue };
            together = together.max(steps.len());
            for step in steps {
                let prefills = step.session == SessionId(6) && step.start < 700;
                assert_eq!(lane == Lane::Prefill, prefills, "{:?} at {}", step.session, step.start);
            }
        }
        assert!(together > 1, "every step had a frame of its own");
    });
}

#[test]
fn kv_is_freed_when_the_head_has_died() {
    run(|| async {
        let mut mesh = Mesh::new(4, Some(plan(&[&[1, 2]])));
        mesh.serving(3).await;
        let mut replies = mesh.ask(3, 1, 40, 4000);
        assert!(replies.next().await.is_some());
        assert!(!mesh.nodes[&2].held().is_empty());
        mesh.kill(3);
        mesh.drained().await;
    });
}

#[test]
fn idle_kv_is_freed() {
    run(|| async {
        let mesh = Mesh::new(4, Some(plan(&[&[1, 2]])));
        mesh.serving(3).await;
        let step = Step {
            session: SessionId(1),
            attempt: Attempt(0),
            stage: 0,
            route: Some(Route {
                epoch: Epoch(1),
                model: world::model().name,
                head: peer(3),
                head_life: 0,
                stages: pipeline(&[1, 2]).stages.iter().map(|s| (peer(s.node.0), s.layers)).collect(),
            }),
            start: 0,
            count: 5,
            input: StepInput::Tokens(prompt(1, 5)),
            sample: None,
        };
        mesh.net.forge(3, 1, Frame::Steps(vec![step])).await;
        mesh.sleep(mesh.limits.kv_idle / 2).await;
        let holding = |mesh: &Mesh| mesh.nodes.values().filter(|n| !n.held().is_empty()).count();
        assert_eq!(holding(&mesh), 2);
        mesh.sleep(mesh.limits.kv_idle).await;
        assert_eq!(holding(&mesh), 0);
    });
}

#[test]
fn the_same_run_twice_tells_the_same_events() {
    let events = || {
        let kept = std::cell::RefCell::new(Vec::new());
        run(|| async {
            let mesh = Mesh::new(3, Some(plan(&[&[0, 1, 2]])));
            let all: Vec<_> = (0..9).map(|s| (s, mesh.ask((s % 3) as u32, s, 300, 10))).collect();
            for (session, replies) in all {
                whole(&mesh.clock, replies, session, 300, 10).await;
            }
            *kept.borrow_mut() = mesh.log.events.lock().unwrap().clone();
        });
        kept.into_inner()
    };
    assert_eq!(events(), events());
}
