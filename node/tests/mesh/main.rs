//! Real processes that serve one model together: whatever the cut, and whoever dies, the answer is one machine's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod asking;
mod guests;
mod models;
mod observing;
mod pretending;
mod process;

use std::path::Path;

use asking::{Question, get_text};
use process::{Start, gemma3, mesh, smollm2, turn};

const PROMPTS: [&str; 8] =
    ["The sea", "A mountain", "In the beginning", "The law says", "Two birds", "My name", "Water", "1 2 3 4"];

fn questions(tokens: u32) -> Vec<Question> {
    vec![
        Question::greedy("The history of the steam engine begins", tokens),
        Question::drawn("Once upon a time, in a small village,", tokens, 7),
        Question::drawn("A recipe for bread:\n1.", tokens, 11),
    ]
}

fn answers(model: &Path, cut: &[u32], tokens: u32) -> Vec<String> {
    let nodes = mesh(model, cut);
    // Every node answers for the mesh.
    let asked = questions(tokens).into_iter().enumerate();
    asked.map(|(i, question)| question.answer(nodes[i % nodes.len()].api)).collect()
}

#[test]
fn one_two_and_three_processes_give_the_same_tokens_wherever_they_cut() {
    let _turn = turn();
    for (model, cuts) in
        [(smollm2(), vec![vec![15], vec![1], vec![10, 20]]), (gemma3(), vec![vec![9], vec![4, 17]])]
    {
        let alone = answers(&model, &[], 32);
        assert!(alone.iter().all(|answer| answer.len() > 20), "{alone:?}");
        for cut in cuts {
            assert_eq!(answers(&model, &cut, 32), alone, "{} cut at {cut:?}", model.display());
        }
    }
}

#[test]
fn a_stage_that_is_killed_in_mid_stream_is_not_noticed_but_for_a_pause() {
    let _turn = turn();
    let model = smollm2();
    let question = Question::greedy("The history of the steam engine begins", 120);
    let mut nodes = mesh(&model, &[10, 20]);
    let undisturbed = question.answer(nodes[0].api);
    for victim in [1, 1] {
        let mut stream = question.ask(nodes[0].api);
        (0..20).for_each(|_| assert!(stream.step(), "the answer is too short"));
        nodes[victim].kill();
        nodes.remove(victim);
        while stream.step() {}
        assert_eq!(stream.text, undisturbed, "{}", nodes[0].log());
        println!("killed with {} left: a pause of {:.2} s", nodes.len(), stream.pause.as_secs_f64());
    }
}

#[test]
fn many_streams_survive_a_kill() {
    let _turn = turn();
    let model = smollm2();
    let mut nodes = mesh(&model, &[10, 20]);
    let question = |i: usize| Question::drawn(PROMPTS[i % PROMPTS.len()], 40, i as u64);
    let alone: Vec<String> = {
        let solo = mesh(&model, &[]);
        (0..32).map(|i| question(i).answer(solo[0].api)).collect()
    };
    let api = nodes[0].api;
    let asking: Vec<_> = (0..32)
        .map(|i| {
            std::thread::spawn(move || {
                let mut stream = question(i).ask(api);
                while stream.step() {}
                (stream.text, stream.pause)
            })
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_secs(2));
    nodes[2].kill();
    let mut longest = std::time::Duration::ZERO;
    for (i, asked) in asking.into_iter().enumerate() {
        let (text, pause) = asked.join().unwrap_or_else(|_| panic!("stream {i} broke: {}", nodes[0].log()));
        assert_eq!(text, alone[i], "stream {i}");
        longest = longest.max(pause);
    }
    println!("32 streams, a stage killed: the longest pause {:.2} s", longest.as_secs_f64());
}

#[test]
fn an_answer_whose_entry_node_is_killed_goes_on_at_another_node() {
    let _turn = turn();
    let model = smollm2();
    let question = Question::drawn("Once upon a time, in a small village,", 90, 7);
    let mut nodes = mesh(&model, &[10, 20]);
    let undisturbed = question.answer(nodes[0].api);
    for entry in [0, 0] {
        let mut stream = question.ask(nodes[entry].api);
        (0..30).for_each(|_| assert!(stream.step(), "the answer is too short"));
        nodes[entry].kill();
        nodes.remove(entry);
        let (text, event) = (stream.text.clone(), stream.event.clone().unwrap());
        let mut rest = question.ask_after(nodes[0].api, Some(&event));
        while rest.step() {}
        assert_eq!(text + &rest.text, undisturbed, "behind {event}: {}", nodes[0].log());
    }
}

#[test]
fn a_stage_that_is_asked_to_end_hands_over_first() {
    let _turn = turn();
    let model = smollm2();
    let question = Question::greedy("The history of the steam engine begins", 120);
    let mut nodes = mesh(&model, &[10, 20]);
    let undisturbed = question.answer(nodes[0].api);
    let mut stream = question.ask(nodes[0].api);
    (0..10).for_each(|_| assert!(stream.step(), "the answer is too short"));
    nodes[1].terminate();
    while stream.step() {}
    assert_eq!(stream.text, undisturbed);
    assert_eq!(nodes[1].wait(), Some(0), "{}", nodes[1].log());
}

#[test]
fn a_machine_without_the_file_answers_and_computes_nothing() {
    let _turn = turn();
    let model = smollm2();
    let nodes = mesh(&model, &[15]);
    let guest = Start { model: None, ..Start::new("guest", &model) }.join(&[&nodes[0], &nodes[1]]).up();
    let question = Question::greedy("The history of the steam engine begins", 24);
    guest.until("it knows the plan", |stages| stages == ["a", "b"]);
    assert_eq!(question.answer(guest.api), question.answer(nodes[0].api));
    assert_eq!(guest.said["model"], nodes[0].said["model"]);
    assert!(guest.resident() < 120 << 20, "{} MB", guest.resident() >> 20);
}

#[test]
fn each_stage_holds_its_share_and_no_weight_crosses_the_network() {
    let _turn = turn();
    let model = smollm2();
    let whole = mesh(&model, &[]);
    let nodes = mesh(&model, &[10, 20]);
    let question = Question::greedy("The history of the steam engine begins", 24);
    assert_eq!(question.answer(whole[0].api), question.answer(nodes[0].api));
    let idle = Start { model: None, ..Start::new("guest", &model) }.join(&[&whole[0]]).up().resident();
    let held = |process: &process::Process| process.resident().saturating_sub(idle) as f64;
    println!("whole {:.0} MB beside {:.0} MB of program", held(&whole[0]) / 1e6, idle as f64 / 1e6);
    for node in &nodes {
        let (_, metrics) = get_text(node.api, "/metrics");
        let weights = metrics
            .lines()
            .find(|line| line.starts_with("meshwright_received_bytes_total{kind=\"weights\"}"));
        assert_eq!(weights.and_then(|line| line.split(' ').nth(1)), Some("0"), "{metrics}");
        println!("a third: {:.0} MB", held(node) / 1e6);
    }
    assert!(held(&nodes[1]) < held(&whole[0]) / 3.0 * 1.15, "{} of {}", held(&nodes[1]), held(&whole[0]));
}

#[test]
fn who_was_not_invited_cannot_join_and_says_why() {
    let _turn = turn();
    let model = smollm2();
    let nodes = mesh(&model, &[]);
    let stranger = "ff".repeat(32);
    for with in [None, Some(model.as_path())] {
        let start = Start { model: with, secret: &stranger, ..Start::new("stranger", &model) };
        let (words, code) = start.join(&[&nodes[0]]).fails();
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains("no invite"), "{words}");
    }
}
