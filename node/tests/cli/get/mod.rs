//! `models get` against a server on loopback that speaks as the Hub does.

mod hub;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use self::hub::{Asked, Behaviour, Hub, digest};
use crate::disk::Disk;
use crate::{model, text};

/// A repository on a server, and a folder to fetch it into.
struct Case {
    hub: Hub,
    folder: TempDir,
}

impl Case {
    fn new(files: &[(&str, &[u8])]) -> Self {
        Self { hub: Hub::start(files), folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(&self.hub, self.folder.path(), arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it says of a success, as JSON.
    #[track_caller]
    fn gets(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "nothing is drawn where nobody looks on");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What it says of a failure, which leaves nothing that could be taken for the file.
    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output.stderr).to_owned();
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
        assert!(said.starts_with("meshwright: ") && !said.contains("panicked"), "{said}");
        said
    }

    /// Names of what lies in the folder.
    fn lies(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn command(hub: &Hub, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    command.args(["models", "get"]).args(arguments);
    command.env("HF_ENDPOINT", format!("http://{}", hub.address)).env("MESHWRIGHT_MODELS", folder);
    // Neither this machine's token nor its proxy.
    command
        .env("HF_HOME", folder)
        .env_remove("HF_TOKEN")
        .env_remove("HF_TOKEN_PATH")
        .env_remove("SSL_CERT_FILE")
        .env("NO_PROXY", "*");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Bytes that are no model, and in which every piece differs.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn partial(name: &str, bytes: &[u8]) -> String {
    format!("{name}.{}.partial", &digest(bytes)[..8])
}

/// Waits until the process has written so much.
fn until_it_has(child: &mut Child, partial: &Path, bytes: u64) {
    for _ in 0..3000 {
        if partial.metadata().is_ok_and(|file| file.len() >= bytes) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} never had {bytes} bytes", partial.display());
}

#[test]
fn a_model_is_fetched_checked_listed_and_found_by_its_name() {
    let bytes = std::fs::read(model()).unwrap();
    let case = Case::new(&[("Tiny-Q4_K_M.gguf", &bytes), ("README.md", b"#"), ("Tiny-Q8_0.gguf", b"x")]);
    let got = case.gets(&["some/model"]);
    let file = &got["files"][0];
    assert_eq!(file["path"], case.at("Tiny-Q4_K_M.gguf").to_str().unwrap());
    assert_eq!((&file["sha256"], &file["verified"]), (&digest(&bytes).into(), &true.into()));
    assert_eq!(file["fetched_bytes"], bytes.len());
    assert_eq!((&got["models"][0]["runs"], &got["repository"]), (&true.into(), &"some/model".into()));
    assert_eq!(case.lies(), ["Tiny-Q4_K_M.gguf"]);
    assert_eq!(std::fs::read(case.at("Tiny-Q4_K_M.gguf")).unwrap(), bytes);
    // Where it lies the other commands find it.
    let other = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
        let output = command.args(arguments).env("MESHWRIGHT_MODELS", case.folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    assert!(other(&["models"]).contains("Tiny-Q4_K_M.gguf"));
    assert_eq!(other(&["models"]), other(&["models", "list"]));
    assert!(other(&["inspect", "tiny-q4_k_m"]).contains("llama"));
    // Again: nothing is fetched.
    case.hub.behave(Behaviour::default());
    let again = case.run(&["some/model:q4_k_m"]);
    let said = text(&again.stdout);
    assert!(said.contains("checked, was there") && said.contains("meshwright serve --model"), "{said}");
    assert_eq!((case.hub.sent(), case.hub.asked()), (0, Vec::new()));
}

#[test]
fn a_download_that_was_killed_goes_on_where_it_ended() {
    let bytes = noise(3 << 20);
    let case = Case::new(&[("m.gguf", &bytes)]);
    case.hub.behave(Behaviour { pause: Duration::from_millis(300), ..Behaviour::default() });
    let half = case.at(&partial("m.gguf", &bytes));
    let mut child = case.command(&["some/model"]).spawn().unwrap();
    until_it_has(&mut child, &half, 128 << 10);
    // While it runs nobody else writes there.
    case.fails(&["some/model"], 1, &["another process is fetching", ".partial"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let have = half.metadata().unwrap().len();
    assert!(!case.at("m.gguf").exists() && have < bytes.len() as u64, "{:?}", case.lies());
    case.hub.behave(Behaviour::default());
    let got = case.gets(&["some/model"]);
    let left = bytes.len() as u64 - have;
    assert_eq!(case.hub.asked(), [Asked { from: have, had_token: false }]);
    assert_eq!((case.hub.sent(), &got["files"][0]["fetched_bytes"]), (left, &left.into()));
    assert_eq!(std::fs::read(case.at("m.gguf")).unwrap(), bytes);
    assert_eq!(case.lies(), ["m.gguf"]);
}

#[test]
fn a_connection_that_is_cut_is_taken_up_again() {
    let bytes = noise(1 << 20);
    let case = Case::new(&[("m.gguf", &bytes)]);
    case.hub.behave(Behaviour { cuts: Some((2, 256 << 10)), busy: 1, ..Behaviour::default() });
    let got = case.gets(&["some/model", "--retries", "3"]);
    let from: Vec<u64> = case.hub.asked().iter().map(|asked| asked.from).collect();
    assert!(from.len() == 3 && from[0] == 0 && from[1] > 0 && from[2] > from[1], "{from:?}");
    assert_eq!(got["files"][0]["fetched_bytes"], bytes.len());
    assert_eq!(std::fs::read(case.at("m.gguf")).unwrap(), bytes);
}

#[test]
fn a_connection_that_is_always_cut_is_an_error_and_what_came_is_kept() {
    let bytes = noise(1 << 20);
    let case = Case::new(&[("m.gguf", &bytes)]);
    case.hub.behave(Behaviour { cuts: Some((99, 128 << 10)), ..Behaviour::default() });
    let half = partial("m.gguf", &bytes);
    case.fails(&["some/model", "--retries", "0"], 1, &["m.gguf", &half, "goes on from there"]);
    assert_eq!(case.lies(), [half.as_str()]);
    let kept = std::fs::read(case.at(&half)).unwrap();
    assert!(!kept.is_empty() && bytes.starts_with(&kept));
    // A server that gives only whole files: from the start, and right all the same.
    case.hub.behave(Behaviour { ignores_ranges: true, ..Behaviour::default() });
    let got = case.gets(&["some/model"]);
    assert_eq!(case.hub.asked()[0].from, kept.len() as u64);
    assert_eq!(
        (case.hub.sent(), &got["files"][0]["fetched_bytes"]),
        (bytes.len() as u64, &bytes.len().into())
    );
    assert_eq!(std::fs::read(case.at("m.gguf")).unwrap(), bytes);
}

#[test]
fn what_is_not_what_the_repository_holds_is_removed_with_both_digests_named() {
    let bytes = noise(200_000);
    let case = Case::new(&[("m.gguf", &bytes)]);
    case.hub.behave(Behaviour { damages: true, ..Behaviour::default() });
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    case.fails(&["some/model"], 1, &[&digest(&bytes), &digest(&damaged), "m.gguf", "removed", "again"]);
    assert!(case.lies().is_empty(), "{:?}", case.lies());
    // So is what was damaged on this disk, and what is longer than the file is begun anew.
    case.hub.behave(Behaviour::default());
    let half = case.at(&partial("m.gguf", &bytes));
    std::fs::write(&half, [0; 1000]).unwrap();
    case.fails(&["some/model"], 1, &[&digest(&bytes), "removed"]);
    std::fs::write(&half, vec![0; bytes.len() + 1]).unwrap();
    case.gets(&["some/model"]);
    assert_eq!(std::fs::read(case.at("m.gguf")).unwrap(), bytes);
}

#[test]
fn a_file_of_that_name_that_is_another_one_is_left_alone() {
    let bytes = noise(1000);
    let case = Case::new(&[("m.gguf", &bytes)]);
    for other in [b"something of mine".to_vec(), noise(1001)[1..].to_vec()] {
        std::fs::write(case.at("m.gguf"), &other).unwrap();
        case.fails(&["some/model"], 1, &["m.gguf is there and is not the file of some/model", "--to"]);
        assert_eq!(std::fs::read(case.at("m.gguf")).unwrap(), other);
    }
}

#[test]
fn a_server_that_names_no_digest_is_said_to() {
    let bytes = noise(300_000);
    let case = Case::new(&[("m.gguf", &bytes)]);
    case.hub.behave(Behaviour { names_no_digest: true, cuts: Some((1, 65_536)), ..Behaviour::default() });
    let output = case.run(&["some/model"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("only its length was checked"), "{}", text(&output.stdout));
    assert_eq!(std::fs::read(case.at("m.gguf")).unwrap(), bytes);
}

#[test]
fn all_parts_of_a_split_model_come() {
    let (one, two, other) = (noise(70_000), noise(50_000), noise(10));
    let (first, second) = ("Q8/m-00001-of-00002.gguf", "Q8/m-00002-of-00002.gguf");
    let case = Case::new(&[(second, &two), (first, &one), ("n-Q2_K.gguf", &other), ("n-Q3_K.gguf", &other)]);
    let why = case.fails(&["some/model"], 2, &["which one?", "n-Q2_K.gguf", "Q8/m.gguf", "--file"]);
    assert!(why.contains("120 kB"), "sizes help to choose: {why}");
    case.fails(&["some/model:Q9"], 2, &["no GGUF file that is Q9", "n-Q3_K.gguf"]);
    let got = case.gets(&["some/model", "--file", "*00002*"]);
    assert_eq!(got["files"].as_array().unwrap().len(), 2);
    assert_eq!(got["models"].as_array().unwrap().len(), 1);
    assert_eq!(case.lies(), ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
    assert_eq!(std::fs::read(case.at("m-00002-of-00002.gguf")).unwrap(), two);
}

#[test]
fn what_is_not_there_or_not_for_everybody_is_said_with_its_cure() {
    let bytes = noise(1000);
    let case = Case::new(&[("m.gguf", &bytes)]);
    let with_token = |token: &str, arguments: &[&str]| {
        let output = case.command(arguments).env("HF_TOKEN", token).output().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    case.fails(&["nobody/nothing"], 1, &["no repository nobody/nothing", "check the name", "HF_TOKEN"]);
    let (code, said) = with_token("t", &["nobody/nothing"]);
    assert!(code == Some(1) && said.contains("to the owner of this token"), "{said}");
    case.fails(&["some/model", "--revision", "v9"], 2, &["no revision v9", "--revision"]);
    case.fails(&["not a name"], 2, &["`not a name` names no repository", "OWNER/NAME"]);
    case.hub.behave(Behaviour { gated: true, ..Behaviour::default() });
    case.fails(&["some/model"], 1, &["gated", "accept its conditions at http://", "/some/model", "HF_TOKEN"]);
    case.hub.behave(Behaviour { token: Some("secret-7"), ..Behaviour::default() });
    case.fails(&["some/model"], 1, &["only to those it knows", "HF_TOKEN"]);
    let (code, said) = with_token("wrong-7", &["some/model"]);
    assert!(code == Some(1) && said.contains("does not take the token from HF_TOKEN"), "{said}");
    assert!(!said.contains("wrong-7"), "a token is nobody's business: {said}");
    let (code, said) = with_token("secret-7", &["some/model"]);
    assert_eq!(code, Some(0), "{said}");
    // The token is for the Hub, not for where it keeps its bytes.
    assert_eq!(case.hub.asked(), [Asked { from: 0, had_token: false }]);
    // So is the one that the Hub's own program keeps.
    std::fs::remove_file(case.at("m.gguf")).unwrap();
    std::fs::write(case.at("token"), "secret-7\n").unwrap();
    case.gets(&["some/model"]);
}

#[test]
fn no_network_and_no_hub_are_told_apart() {
    let bytes = noise(1000);
    let case = Case::new(&[("m.gguf", &bytes)]);
    let at = |endpoint: &str| {
        let output = case.command(&["some/model"]).env("HF_ENDPOINT", endpoint).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{endpoint}");
        text(&output.stderr).to_owned()
    };
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = at(&format!("http://{free}"));
    assert!(said.contains("cannot reach 127.0.0.1:") && said.contains("check the network"), "{said}");
    let said = at("http://no-such-host.invalid");
    assert!(said.contains("cannot reach no-such-host.invalid: "), "{said}");
    assert!(at("ftp://x").contains("HF_ENDPOINT is `ftp://x`"));
    let output = case.command(&["some/model"]).env("SSL_CERT_FILE", "/dev/null").output().unwrap();
    assert!(
        text(&output.stderr).contains("SSL_CERT_FILE is /dev/null: no certificate"),
        "{:?}",
        output.stderr
    );
    // A server of plain text is asked for TLS.
    let said = at(&format!("https://{}", case.hub.address));
    assert!(said.contains("cannot reach 127.0.0.1:"), "{said}");
    case.hub.behave(Behaviour { listing: Some("<html>"), ..Behaviour::default() });
    case.fails(&["some/model"], 1, &["its answer is no listing", "HF_ENDPOINT"]);
    case.hub.behave(Behaviour {
        listing: Some(r#"{"siblings": [{"rfilename": "../x.gguf", "size": 1}]}"#),
        ..Behaviour::default()
    });
    case.fails(&["some/model"], 1, &["no file ../x.gguf any more"]);
    case.hub.behave(Behaviour { more: 10, ..Behaviour::default() });
    case.fails(&["some/model"], 1, &["more comes than the 1000 bytes of the file"]);
    case.hub.behave(Behaviour { busy: 99, ..Behaviour::default() });
    case.fails(&["some/model", "--retries", "1"], 1, &["503", "again"]);
}

#[test]
fn a_full_disk_is_said_before_anything_is_fetched_or_when_it_fills() {
    let Some(disk) = Disk::of(1 << 20, "models get on a full disk") else { return };
    let bytes = noise(700_000);
    let case = Case::new(&[("m.gguf", &bytes)]);
    let run = || command(&case.hub, disk.path(), &["some/model"]);
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 600_000]).unwrap();
    let output = run().output().unwrap();
    let said = text(&output.stderr).to_owned();
    assert!(output.status.code() == Some(1) && said.contains("free and 700 kB are to come"), "{said}");
    assert_eq!(case.hub.sent(), 0);
    // Room enough at first; somebody else then takes it.
    std::fs::remove_file(&filler).unwrap();
    case.hub.behave(Behaviour { pause: Duration::from_millis(300), ..Behaviour::default() });
    let half = disk.path().join(partial("m.gguf", &bytes));
    let mut child = run().spawn().unwrap();
    until_it_has(&mut child, &half, 100_000);
    disk.fill("filler");
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr).to_owned();
    assert!(output.status.code() == Some(1) && said.contains("the disk is full"), "{said}");
    assert!(said.contains("goes on from there") && said.contains(".partial"), "{said}");
    let have = half.metadata().unwrap().len();
    assert!(!disk.path().join("m.gguf").exists() && have >= 100_000);
    // Room again: it goes on.
    std::fs::remove_file(&filler).unwrap();
    case.hub.behave(Behaviour::default());
    let output = run().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(case.hub.asked()[0].from, have);
    assert_eq!(std::fs::read(disk.path().join("m.gguf")).unwrap(), bytes);
}
