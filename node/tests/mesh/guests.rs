//! `meshwright client`: a machine that belongs to no mesh and asks one.

use serde_json::Value;

use crate::asking::{Question, get};
use crate::process::{Start, client, mesh, smollm2, stranger, turn};

#[test]
fn an_answer_goes_on_at_another_node_and_who_asked_a_client_sees_a_pause() {
    let _turn = turn();
    let question = Question::drawn("Once upon a time, in a small village,", 90, 7);
    let mut nodes = mesh(&smollm2(), &[10, 20]);
    let undisturbed = question.answer(nodes[0].api);
    let guest = client(&nodes.iter().collect::<Vec<_>>());
    assert_eq!(guest.said["models"][0], nodes[0].said["model"], "{}", guest.said);
    assert_eq!(question.answer(guest.api), undisturbed);
    let names = |health: &Value| {
        let peers = health["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&nodes[0].health()).len(), 2, "a client is nobody's peer: {}", nodes[0].health());
    assert_eq!(nodes[0].health()["troubles"], serde_json::json!({}));
    for _ in 0..2 {
        let entry = get(guest.api, "/status").1["node"].clone();
        let entry = nodes.iter().position(|node| node.health()["node"] == entry).unwrap();
        let mut stream = question.ask(guest.api);
        (0..30).for_each(|_| assert!(stream.step(), "the answer is too short"));
        nodes[entry].kill();
        nodes.remove(entry);
        while stream.step() {}
        assert_eq!(stream.text, undisturbed, "{}", guest.log());
        println!("entry killed with {} left: a pause of {:.2} s", nodes.len(), stream.pause.as_secs_f64());
    }
    // A whole answer, too.
    let plain = question.of("auto").status(guest.api);
    assert_eq!(plain.0, 200, "{}", plain.1);
}

#[test]
fn a_halted_entry_node_is_left_for_another() {
    let _turn = turn();
    let question = Question::greedy("The history of the steam engine begins", 24);
    let model = smollm2();
    let nodes = mesh(&model, &[]);
    let other = Start { model: None, ..Start::new("b", &model) };
    let other = other.join(&[&nodes[0]]).up();
    other.until("it knows the plan", |stages| stages == ["a"]);
    let undisturbed = question.answer(other.api);
    let guest = client(&[&other, &nodes[0]]);
    assert_eq!(get(guest.api, "/status").1["node"], "b");
    other.halt(true);
    // One that streams, and one that does not.
    assert_eq!(question.answer(guest.api), undisturbed, "{}", guest.log());
    other.halt(false);
    assert_eq!(get(guest.api, "/status").1["node"], "a", "who has failed comes last");
    let (code, models) = get(guest.api, "/v1/models");
    assert_eq!((code, &models["data"][0]["id"]), (200, &nodes[0].said["model"]));
}

#[test]
fn a_client_without_the_secret_is_turned_away_and_one_without_a_mesh_says_so() {
    let _turn = turn();
    let mut nodes = mesh(&smollm2(), &[]);
    let (words, code) = stranger(&[&nodes[0]]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("no invite"), "{words}");
    let guest = client(&[&nodes[0]]);
    nodes[0].kill();
    let (code, said) = get(guest.api, "/v1/models");
    assert_eq!((code, &said["error"]["code"]), (503, &Value::from("mesh_unreachable")), "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains(&nodes[0].listen), "{said}");
}
