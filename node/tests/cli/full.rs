//! A full disk under what a node writes: keys, profiles, headers, what it remembers, its log.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use node::real::gguf::random::{Architecture, RandomModel};

use crate::disk::Disk;
use crate::serve::{ALONE, Serving, ask};
use crate::{model, text};

/// What the system says.
const FULL: &str = "No space left on device";

/// All files under a folder, with what is in them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                all.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    all
}

/// A small model with a context that is long enough to be measured behind.
fn measurable() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-measurable.gguf");
    let model = RandomModel { context: 4096, ..RandomModel::tiny(Architecture::Llama) };
    model.write(&path).unwrap();
    path
}

fn run(home: &Path, command: &str, arguments: &[&str]) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    run.arg(command).args(arguments).arg("--home").arg(home).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_node_that_cannot_keep_its_key_does_not_start_and_leaves_nothing_behind() {
    let Some(disk) = Disk::of(64 << 10, "a node's key on a full disk") else { return };
    let home = disk.path().join("home");
    std::fs::create_dir(&home).unwrap();
    disk.fill("filler");
    let path = model();
    let serve = [&ALONE[..], &["--model", path.to_str().unwrap()]].concat();
    says(&run(&home, "serve", &serve), 2, &["identity.key", FULL, "--home"]);
    assert!(files(&home).is_empty(), "{:?}", files(&home).keys());
    says(&run(&home, "doctor", &["--dir", path.parent().unwrap().to_str().unwrap()]), 1, &["to mend"]);
    assert!(files(&home).is_empty(), "{:?}", files(&home).keys());
}

#[test]
fn a_node_that_can_remember_nothing_new_serves_and_keeps_what_it_knew() {
    let Some(disk) = Disk::of(256 << 10, "a node's memory on a full disk") else { return };
    let (home, path) = (disk.path().join("home"), measurable());
    let arguments = ["--model", path.to_str().unwrap(), "--context", "64"];
    let (code, errors) = Serving::start(&home, &arguments).end();
    assert_eq!(code, Some(0), "{errors}");
    // Measured for another number of threads, so that there is something new to keep.
    let arguments = [&arguments[..], &["--threads", "1"]].concat();
    disk.fill("filler");
    let before = files(&home);
    assert!(before.contains_key("invite") && before.contains_key("mesh.key"), "{:?}", before.keys());
    let serving = Serving::start(&home, &arguments);
    let reply = ask(serving.host(), "cli-measurable");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let (code, errors) = serving.end();
    assert_eq!(code, Some(0), "{errors}");
    for word in ["cannot remember the mesh", "measured again at the next start", FULL] {
        assert!(errors.contains(word), "`{word}` is not in: {errors}");
    }
    assert_eq!(files(&home), before, "what was known is lost, or something was left behind");
    says(&run(&home, "profile", &[path.to_str().unwrap(), "-t", "1"]), 1, &["profiles", FULL, "make room"]);
    assert_eq!(files(&home), before);
}

#[test]
fn a_header_that_does_not_fit_ends_the_node_that_asked_for_it() {
    let Some(disk) = Disk::of(256 << 10, "a fetched header on a full disk") else { return };
    let (home, others, path) = (disk.path().join("home"), tempfile::tempdir().unwrap(), model());
    // It makes the key, so that the header is what does not fit.
    says(&run(&home, "doctor", &["--dir", path.parent().unwrap().to_str().unwrap()]), 0, &[]);
    let serving = Serving::start(others.path(), &["--model", path.to_str().unwrap(), "--context", "64"]);
    // Its key for the mesh, then nothing more.
    std::fs::copy(others.path().join("mesh.key"), home.join("mesh.key")).unwrap();
    std::fs::create_dir(home.join("headers")).unwrap();
    disk.fill("filler");
    let before = files(&home);
    let listens = serving.said["listen"][0].as_str().unwrap().to_owned();
    let output = run(&home, "join", &[&[listens.as_str()], &ALONE[..]].concat());
    says(&output, 1, &["cli-random", "headers", FULL, "make room", "--home"]);
    assert_eq!(files(&home), before);
}

#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_end() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        eprintln!("SKIPPED: a log on a full disk: there is no /dev/full here");
        return;
    };
    let (home, path) = (tempfile::tempdir().unwrap(), model());
    let stderr = || Stdio::from(full.try_clone().unwrap());
    for format in ["text", "json"] {
        let arguments = ["--model", path.to_str().unwrap(), "--context", "64", "--log-format", format];
        let serving = Serving::start_logging(home.path(), &arguments, stderr());
        let reply = ask(serving.host(), "cli-random");
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        assert_eq!(serving.end().0, Some(0));
    }
    let run = |arguments: &[&str], stdout: Stdio| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_meshwright"));
        let output =
            run.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr()).output().unwrap();
        output.status.code()
    };
    // What went wrong cannot be said: the exit code still does.
    assert_eq!(run(&["inspect", "no-such.gguf"], Stdio::piped()), Some(2));
    assert_eq!(run(&["run", path.to_str().unwrap(), "Hi", "-n", "2"], Stdio::piped()), Some(0));
    assert_eq!(run(&["inspect", path.to_str().unwrap()], stderr()), Some(1));
}
