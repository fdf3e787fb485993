//! `serve` as a person or a script meets it: where it listens, what it says, how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{json, model, refused, text};

/// A node by itself: it takes no port that another may have, and looks for nobody.
pub(crate) const ALONE: [&str; 5] = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--no-mdns"];

/// A node that serves, with its first line.
pub(crate) struct Serving {
    child: Child,
    pub(crate) said: Value,
}

impl Serving {
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        Self::start_logging(home, arguments, Stdio::piped())
    }

    /// With its log going there.
    pub(crate) fn start_logging(home: &Path, arguments: &[&str], log: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_meshwright"))
            .args(["serve", "--json"])
            .args(ALONE)
            .arg("--home")
            .arg(home)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut errors = String::new();
            child.stderr.take().map(|mut log| log.read_to_string(&mut errors));
            panic!("{errors}")
        });
        Self { child, said }
    }

    fn api(&self) -> &str {
        self.said["api"].as_str().unwrap()
    }

    pub(crate) fn host(&self) -> &str {
        self.api().strip_prefix("http://").unwrap()
    }

    /// Asks it to end, and gives its exit code and what it wrote to stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let mut errors = String::new();
        self.child.stderr.take().map(|mut log| log.read_to_string(&mut errors));
        (self.child.wait().unwrap().code(), errors)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ask(host: &str, model: &str) -> String {
    let body = format!("{{\"model\": \"{model}\", \"prompt\": \"Hi\", \"max_tokens\": 3}}");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn a_model_is_served_until_somebody_ends_it() {
    let home = tempfile::tempdir().unwrap();
    let path = model();
    let serving = Serving::start(
        home.path(),
        &["--model", path.to_str().unwrap(), "--name", "desk", "--context", "64"],
    );
    let name = serving.said["model"].as_str().unwrap().to_owned();
    assert_eq!((name.as_str(), &serving.said["context"]), ("cli-random", &Value::from(64)));
    let reply = ask(serving.host(), &name);
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("text_completion"), "{reply}");
    let status = json(&["status", "--json", "--api", serving.api()]);
    assert_eq!((&status["node"], &status["serving"]), (&Value::from("desk"), &Value::from(true)));
    let page = crate::done(&["status", "--api", serving.api()], "");
    assert!(
        page.starts_with("desk (meshwright ") && page.contains("is serving") && page.contains("64 tokens"),
        "{page}"
    );
    let home_name = home.path().to_str().unwrap();
    let again = ["serve", "--model", path.to_str().unwrap(), "--api", serving.host(), "--home", home_name];
    let taken = refused(&again, 2);
    assert!(taken.contains("another program listens there") && taken.contains("--api"), "{taken}");
    let (code, errors) = serving.end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("press Ctrl-C again to end at once"), "{errors}");
    assert!(!errors.contains('\u{1b}'), "colours are for terminals: {errors:?}");
}

#[test]
fn a_node_can_be_watched_until_after_its_end() {
    let home = tempfile::tempdir().unwrap();
    let path = model();
    let serving = Serving::start(home.path(), &["--model", path.to_str().unwrap(), "--context", "64"]);
    let mut watch = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .args(["status", "--watch", "--json", "--api", serving.api()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["serving"], true);
    serving.end();
    // Its end may be seen as it comes about, too.
    let last = std::iter::repeat_with(&mut next).find(|now| now["serving"] == false).unwrap();
    assert!(last["why"].as_str().is_some_and(|why| !why.is_empty()), "{last}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_model_that_has_no_room_is_not_served_and_the_api_says_why() {
    let home = tempfile::tempdir().unwrap();
    let path = model();
    let serving = Serving::start(home.path(), &["--model", path.to_str().unwrap(), "--memory", "100 kB"]);
    assert_eq!(serving.said["serving"], false, "{}", serving.said);
    let reply = ask(serving.host(), serving.said["model"].as_str().unwrap());
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("not_serving"), "{reply}");
    assert!(reply.to_ascii_lowercase().contains("retry-after: "), "{reply}");
}

#[test]
fn what_cannot_be_served_is_said_with_place_and_cure() {
    let home = tempfile::tempdir().unwrap();
    let home_name = home.path().to_str().unwrap();
    let path = model();
    let path = path.to_str().unwrap();
    let serve = |arguments: &[&str], code| {
        refused(&[&["serve", "--home", home_name][..], &ALONE, arguments].concat(), code)
    };
    let nothing = tempfile::tempdir().unwrap();
    let words = serve(&["--models", nothing.path().to_str().unwrap()], 2);
    assert!(words.contains("no model that runs here") && words.contains("--model MODEL.gguf"), "{words}");
    assert!(serve(&["--model", "no-such.gguf"], 2).contains("cannot read no-such.gguf"));
    let other = serve(&["--model", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")], 2);
    assert!(other.contains("is not a GGUF file"), "{other}");
    assert!(serve(&["--model", path, "--memory", "much"], 2).contains("--memory"));
    assert!(serve(&["--model", path, "--context", "0"], 2).contains("at least 1"));
    let address = refused(&["serve", "--model", path, "--api", "here", "--home", home_name], 2);
    assert!(address.contains("HOST:PORT"), "{address}");
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let unwritable = refused(&["serve", "--model", path, "--home", file.to_str().unwrap()], 2);
    assert!(unwritable.contains("cannot write to") && unwritable.contains("--home"), "{unwritable}");
}

#[test]
fn the_configuration_file_is_read_and_held_to_its_keys() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.toml");
    let path = model();
    std::fs::write(&config, format!("model = {:?}\ncontext = 96\nsessions = 2\n", path.to_str().unwrap()))
        .unwrap();
    let serving = Serving::start(home.path(), &["--sessions", "3"]);
    assert_eq!((&serving.said["context"], &serving.said["sessions"]), (&Value::from(96), &Value::from(3)));
    drop(serving);
    std::fs::write(&config, "context = 96\nthreds = 2\n").unwrap();
    let wrong = refused(&["serve", "--home", home.path().to_str().unwrap()], 2);
    for part in ["config.toml", "line 2", "unknown field `threds`", "`threads`"] {
        assert!(wrong.contains(part), "{part}: {wrong}");
    }
    let missing = refused(&["serve", "--home", home.path().to_str().unwrap(), "--config", "no-such.toml"], 2);
    assert!(missing.contains("cannot read no-such.toml"), "{missing}");
}

#[test]
fn status_says_when_nobody_answers_or_something_else_does() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = refused(&["status", "--api", &format!("http://{nobody}/v1")], 1);
    assert!(silent.contains("nobody answers") && silent.contains("meshwright serve"), "{silent}");
    assert!(refused(&["status", "--api", "https://127.0.0.1"], 2).contains("http://HOST:PORT"));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let mut request = [0; 512];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    });
    assert!(refused(&["status", "--api", &address], 1).contains("no node of this release"));
    answers.join().unwrap();
}

#[test]
fn models_are_listed_with_whether_they_run() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(model(), dir.path().join("good.gguf")).unwrap();
    std::fs::write(dir.path().join("bad.gguf"), b"GGUF").unwrap();
    std::fs::write(dir.path().join("notes.txt"), b"").unwrap();
    let dir = dir.path().to_str().unwrap();
    let listed = json(&["models", "--dir", dir, "--json"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["runs"], &listed[1]["runs"]), (&Value::from(false), &Value::from(true)));
    assert_eq!(listed[1]["architecture"], "llama");
    let page = crate::done(&["models", "--dir", dir], "");
    assert!(page.contains("good.gguf") && page.contains("does not run"), "{page}");
    assert!(refused(&["models", "--dir", "/no-such"], 2).contains("cannot read /no-such"));
}

#[test]
fn shells_get_what_completes_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = crate::done(&["completions", shell], "");
        assert!(script.contains("meshwright") && script.contains("serve"), "{shell}");
    }
    assert!(text(&crate::meshwright(&["completions", "tcsh"], "").stderr).contains("bash"));
}
