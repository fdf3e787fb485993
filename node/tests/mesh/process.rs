//! Real processes of `meshwright`, each with a home of its own, that find each other on loopback.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::asking::get;

/// The secret of all meshes here.
pub(crate) const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Longer than anything takes on two busy cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A real model that the tests use.
pub(crate) fn model(name: &str) -> PathBuf {
    let folder = std::env::var_os("MESHWRIGHT_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models"), PathBuf::from);
    let path = folder.join(name);
    if !path.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scripts/fetch-models");
        let fetched = Command::new("python3").arg(script).status();
        assert!(fetched.is_ok_and(|status| status.success()), "{} cannot be fetched", path.display());
    }
    path
}

/// One test at a time: each has several processes that compute.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn smollm2() -> PathBuf {
    model("smollm2-135m-instruct-q4_1.gguf")
}

pub(crate) fn gemma3() -> PathBuf {
    model("gemma3-270m-q4_k_m.gguf")
}

/// A node.
pub(crate) struct Process {
    child: Child,
    home: tempfile::TempDir,
    pub(crate) api: SocketAddr,
    pub(crate) listen: String,
    pub(crate) said: Value,
}

/// What `profile` measured of this machine with that model, once for all tests: where it lies.
fn profiles(model: &Path) -> PathBuf {
    static MEASURED: OnceLock<Mutex<Vec<(PathBuf, tempfile::TempDir)>>> = OnceLock::new();
    let measured = MEASURED.get_or_init(Mutex::default);
    let mut measured = measured.lock().unwrap();
    if !measured.iter().any(|(path, _)| path == model) {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
        command.arg("profile").arg(model).args(["--threads", "1", "--home"]).arg(home.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        measured.push((model.into(), home));
    }
    let (_, home) = measured.iter().find(|(path, _)| path == model).unwrap();
    home.path().join("profiles")
}

/// The first model of a folder, by name.
fn first_of(models: &Path) -> Option<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(models).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().next()
}

/// How a node is started.
pub(crate) struct Start<'a> {
    pub(crate) name: &'a str,
    /// `None` for a node without the files.
    pub(crate) model: Option<&'a Path>,
    pub(crate) join: Vec<String>,
    pub(crate) options: Vec<String>,
    pub(crate) secret: &'a str,
    /// A folder of models of which the mesh may choose.
    pub(crate) models: Option<&'a Path>,
}

impl<'a> Start<'a> {
    pub(crate) fn new(name: &'a str, model: &'a Path) -> Self {
        Self { name, model: Some(model), join: Vec::new(), options: Vec::new(), secret: SECRET, models: None }
    }

    /// A machine with these models, which serves what the mesh needs.
    pub(crate) fn standby(name: &'a str, models: &'a Path) -> Self {
        Self { model: None, models: Some(models), ..Self::new(name, models) }
    }

    pub(crate) fn join(mut self, others: &[&Process]) -> Self {
        self.join.extend(others.iter().map(|other| other.listen.clone()));
        self
    }

    pub(crate) fn option(mut self, option: &str, value: &str) -> Self {
        self.options.extend([option.to_owned(), value.to_owned()]);
        self
    }

    fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
        match (self.model, self.join.split_first()) {
            _ if self.models.is_some() => {
                command
                    .arg("serve")
                    .args(self.models.iter().flat_map(|models| [Path::new("--models"), models]));
                command.args(self.join.iter().flat_map(|at| ["--join", at]));
            }
            (Some(model), _) => {
                command.arg("serve").arg("--model").arg(model);
                command.args(self.join.iter().flat_map(|at| ["--join", at]));
            }
            (None, Some((first, rest))) => {
                command.arg("join").arg(first);
                command.args(rest.iter().flat_map(|at| ["--join", at]));
            }
            (None, None) => panic!("a node without a model joins somebody"),
        }
        command.args(["--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--json"]);
        command.args(["--name", self.name, "--secret", self.secret, "--threads", "1"]);
        command.args(["--context", "1024"]).args(&self.options).arg("--home").arg(home);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// Starts it and waits until it is up, which need not mean that it serves.
    pub(crate) fn up(self) -> Process {
        let home = self.home();
        Process::start(self.name, self.command(home.path()), home)
    }

    /// Starts it where it must fail; gives what it says on stderr and its exit code.
    pub(crate) fn fails(self) -> (String, Option<i32>) {
        let home = self.home();
        let output = self.command(home.path()).stderr(Stdio::piped()).output().unwrap();
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    }

    fn home(&self) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        // A standby is measured with the first model that it has.
        let first = self.models.and_then(first_of);
        if let Some(model) = first.as_deref().or(self.model) {
            let kept = home.path().join("profiles");
            std::fs::create_dir_all(&kept).unwrap();
            for entry in std::fs::read_dir(profiles(model)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), kept.join(entry.file_name())).unwrap();
            }
        }
        home
    }
}

/// The command of a machine that asks these nodes.
fn asks(nodes: &[&Process], secret: &str, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    command.arg("client").args(nodes.iter().map(|node| &node.listen));
    command.args(["--api", "127.0.0.1:0", "--secret", secret, "--json", "--home"]).arg(home);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// A machine that only asks these nodes.
pub(crate) fn client(nodes: &[&Process]) -> Process {
    let home = tempfile::tempdir().unwrap();
    Process::start("client", asks(nodes, SECRET, home.path()), home)
}

/// One that does not know the mesh's secret: what it says on stderr, and its exit code.
pub(crate) fn stranger(nodes: &[&Process]) -> (String, Option<i32>) {
    let home = tempfile::tempdir().unwrap();
    let output = asks(nodes, &"ff".repeat(32), home.path()).stderr(Stdio::piped()).output().unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

impl Process {
    /// Starts it and waits until it says that it is up.
    fn start(name: &str, mut command: Command, home: tempfile::TempDir) -> Self {
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut child = command.stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, line) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(PATIENCE).unwrap_or_default();
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            panic!("{name} did not start: {}", std::fs::read_to_string(home.path().join("log")).unwrap());
        };
        let api = said["api"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
        let listen = said["listen"][0].as_str().unwrap_or_default().to_owned();
        Self { child, home, api, listen, said }
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub(crate) fn halt(&self, halts: bool) {
        let signal = if halts { "-STOP" } else { "-CONT" };
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn health(&self) -> Value {
        get(self.api, "/status").1
    }

    /// The names of the nodes of the first replica, once all of it serves as this node sees it.
    pub(crate) fn stages(&self) -> Option<Vec<String>> {
        let health = self.health();
        let replica = &health["models"][0]["plan"]["replicas"][0];
        let stages = replica["stages"].as_array().filter(|_| replica["serving"] == true)?;
        Some(stages.iter().map(|stage| stage["node"].as_str().unwrap().to_owned()).collect())
    }

    /// Waits until that holds of the stages that serve.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let began = Instant::now();
        while !self.stages().is_some_and(|stages| holds(&stages)) {
            assert!(began.elapsed() < PATIENCE, "{what}: {}\n{}", self.health(), self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end in good order.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Memory that is its own, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nodes `a`, `b`, ... that all know each other, and the cut between them; they serve when this returns.
pub(crate) fn mesh(model: &Path, cut: &[u32]) -> Vec<Process> {
    let names = ["a", "b", "c", "d"];
    let cuts: Vec<String> = cut.iter().map(u32::to_string).collect();
    let mut nodes: Vec<Process> = Vec::new();
    for name in &names[..=cut.len()] {
        let others: Vec<&Process> = nodes.iter().collect();
        let mut start = Start::new(name, model).join(&others);
        if !cuts.is_empty() {
            start = start.option("--cut", &cuts.join(","));
        }
        let node = start.up();
        nodes.push(node);
    }
    let wanted = &names[..=cut.len()];
    nodes.iter().for_each(|node| node.until("the mesh serves", |stages| stages == wanted));
    nodes
}
