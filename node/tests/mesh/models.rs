//! Several models in one mesh: every node answers for all of them, and each goes on without the others.

use std::time::{Duration, Instant};

use crate::asking::{Question, get};
use crate::process::{PATIENCE, Process, Start, gemma3, smollm2, turn};

pub(crate) const SMOL: &str = "smollm2-135m-instruct-q4_1";
pub(crate) const GEMMA: &str = "gemma3-270m-q4_k_m";

pub(crate) fn until(what: &str, nodes: &[&Process], holds: impl Fn(&Process) -> bool) {
    let began = Instant::now();
    for node in nodes {
        while !holds(node) {
            assert!(began.elapsed() < PATIENCE, "{what}: {}\n{}", node.health(), node.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether that node knows the model to be served.
fn serves(node: &Process, model: &str) -> bool {
    let health = node.health();
    health["models"].as_array().unwrap().iter().any(|known| known["id"] == model && known["serving"] == true)
}

fn wanted(node: &Process, model: &str) -> f64 {
    let health = node.health();
    let demand = health["demand"].as_array().unwrap();
    demand.iter().find(|pair| pair[0] == model).map_or(0.0, |pair| pair[1].as_f64().unwrap())
}

#[test]
fn two_models_are_served_by_one_mesh_and_every_node_answers_for_both() {
    let _turn = turn();
    let (smol, gemma) = (smollm2(), gemma3());
    let a = Start::new("a", &smol).up();
    let mut b = Start::new("b", &gemma).join(&[&a]).up();
    let c = Start { model: None, ..Start::new("c", &smol) }.join(&[&a, &b]).up();
    until("everybody answers for both", &[&a, &b, &c], |node| serves(node, SMOL) && serves(node, GEMMA));
    let names = |node: &Process| {
        let listed = get(node.api, "/v1/models").1;
        let ids =
            listed["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!((names(&a), names(&b)), (vec![SMOL.into(), GEMMA.into()], vec![GEMMA.into(), SMOL.into()]));

    let ask = |model| Question::greedy("The history of the steam engine begins", 24).of(model);
    let (of_smol, of_gemma) = (ask(SMOL).answer(a.api), ask(GEMMA).answer(b.api));
    assert_ne!(of_smol, of_gemma);
    for node in [&a, &b, &c] {
        assert_eq!(
            (ask(SMOL).answer(node.api), ask(GEMMA).answer(node.api)),
            (of_smol.clone(), of_gemma.clone())
        );
    }
    until("everybody knows what is asked for", &[&a, &b, &c], |node| {
        wanted(node, SMOL) > 0.01 && wanted(node, GEMMA) > 0.01
    });
    let received = c.health()["received"].clone();
    assert_eq!(received["weights"], 0);

    // Nobody else has the other model: it is gone with its host, and what runs on this one is not disturbed.
    let question = Question::greedy("The history of the steam engine begins", 120).of(SMOL);
    let undisturbed = question.answer(a.api);
    let mut stream = question.ask(c.api);
    (0..10).for_each(|_| assert!(stream.step(), "the answer is too short"));
    b.kill();
    assert_eq!(stream.rest(), undisturbed);
    until("its host is missed", &[&a, &c], |node| !serves(node, GEMMA));
    let (code, said) = ask(GEMMA).status(a.api);
    assert_eq!(code, 503, "{said}");
    assert_eq!(ask("nowhere").status(a.api).0, 404);

    // Another machine that has it takes its place.
    let d = Start::new("d", &gemma).join(&[&a, &c]).up();
    until("it is served again", &[&a, &c, &d], |node| serves(node, GEMMA));
    assert_eq!(ask(GEMMA).answer(a.api), of_gemma);
    assert_eq!(ask(GEMMA).answer(c.api), of_gemma);
}

/// Which of these nodes serve the model, as that node knows.
pub(crate) fn hosts(node: &Process, model: &str) -> Vec<String> {
    let health = node.health();
    let known = health["models"].as_array().unwrap().iter().find(|known| known["id"] == model).cloned();
    let replicas = known.map(|known| known["plan"]["replicas"].clone()).unwrap_or_default();
    let serving = replicas.as_array().into_iter().flatten().filter(|replica| replica["serving"] == true);
    let stages = serving.flat_map(|replica| replica["stages"].as_array().unwrap().clone());
    stages.map(|stage| stage["node"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn machines_that_stand_by_serve_what_is_missing_and_take_over_from_the_dead() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    for model in [smollm2(), gemma3()] {
        std::os::unix::fs::symlink(&model, folder.path().join(model.file_name().unwrap())).unwrap();
    }
    let smol = smollm2();
    let a = Start::new("a", &smol).up();
    let b = Start::standby("b", folder.path()).join(&[&a]).up();
    let c = Start::standby("c", folder.path()).join(&[&a, &b]).up();
    // Nobody serves the other model: one of those that stand by does, and no more.
    until("it is served", &[&a, &b, &c], |node| serves(node, GEMMA));
    let ask = || Question::greedy("The history of the steam engine begins", 24).of(GEMMA);
    let first = ask().answer(a.api);
    let hosting = hosts(&a, GEMMA);
    println!("served by {hosting:?}");
    let (mut host, other) = if hosting[0] == "b" { (b, c) } else { (c, b) };
    host.kill();
    let began = Instant::now();
    until("the other one takes over", &[&a], |node| {
        let hosts = hosts(node, GEMMA);
        !hosts.is_empty() && !hosts.contains(&hosting[0])
    });
    println!("served again after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(ask().answer(a.api), first, "{}", other.log());
    assert_eq!(hosts(&a, SMOL).first().map(String::as_str), Some("a"), "its owner's choice was given up");
}
