//! `meshwright observe`: what happens on real nodes, as a file.

use std::process::Command;

use node::ids::Token;
use node::probe::Event;
use node::record::{Header, Line};

use crate::asking::Question;
use crate::process::{mesh, smollm2, turn};

#[test]
fn a_run_is_recorded_with_its_steps_and_without_what_was_said() {
    let _turn = turn();
    let nodes = mesh(&smollm2(), &[15]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.jsonl");
    let observe = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
        command.arg("observe").arg(&file).args(["--for", "6"]);
        command.args(nodes.iter().flat_map(|node| ["--api".to_owned(), node.api.to_string()]));
        command
    };
    let mut observing = observe().spawn().unwrap();
    // It has begun when its file is there.
    while !file.exists() {
        assert!(observing.try_wait().unwrap().is_none(), "it ended too soon");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Question::greedy("The sea", 12).answer(nodes[0].api);
    assert!(observing.wait().unwrap().success());
    let text = std::fs::read_to_string(&file).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let header: Header = serde_json::from_str(first).unwrap();
    let names: Vec<&str> = header.nodes.iter().map(|node| node.name.as_str()).collect();
    let layers: Vec<u32> = header.nodes.iter().map(|node| node.layers.unwrap().len()).collect();
    assert_eq!((names, layers, header.world.as_str()), (vec!["a", "b"], vec![15, 15], "real"));
    assert!(header.gguf.is_some_and(|path| path.is_absolute() && path.exists()));
    let lines: Vec<Line> = rest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |of: fn(&Event) -> bool| lines.iter().filter(|line| of(&line.event)).count();
    assert_eq!(count(|event| matches!(event, Event::Completed { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Emitted { token, .. } if *token == Token(0))), 12);
    assert_eq!(
        count(|event| matches!(event, Event::Emitted { .. })),
        12,
        "what was said stays with who asked"
    );
    let began = count(|event| matches!(event, Event::StepBegan { .. }));
    assert_eq!(began, count(|event| matches!(event, Event::StepEnded { .. })));
    assert_eq!(began, 24, "a prompt and eleven tokens on each of two stages");
    // A file that is there is not written over.
    let refused = observe().output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains("run.jsonl") && words.contains("give another file"), "{words}");
}
