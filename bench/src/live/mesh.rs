//! A mesh of real processes on this machine, with an emulated network between them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use planner::fleet::{Fleet, NodeId};
use serde::Deserialize;

use super::cells::node_name;
use super::client;
use super::emulator::{Emulator, EmulatorError, Ends, Front, Punctuality};

/// Loading a model and finding each other takes some seconds on a slow disk.
const START: Duration = Duration::from_secs(60);

/// How often it looks whether a node serves.
const LOOK: Duration = Duration::from_millis(50);

/// What all processes of one mesh know and nobody else; the meshes of this bench live for a minute and on loopback.
const SECRET: &str = "6c697665206d65736865732c206f6e65206d696e7574652c206c6f63616c2e21";

/// What the nodes speak with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// TCP, noise, yamux.
    Tcp,
    /// QUIC over UDP.
    Quic,
}

/// What a mesh is made of.
#[derive(Debug, Clone)]
pub struct MeshSpec<'a> {
    /// The `meshwright` binary.
    pub binary: &'a Path,
    /// The model, on everybody's disk.
    pub model: &'a Path,
    /// What each process serves, where not all of them serve the model together.
    pub roles: &'a [Role<'a>],
    /// How many processes.
    pub nodes: u32,
    /// Layers at which the model is cut, one fewer than nodes, ascending; `None` leaves the cut to the planner.
    pub cut: Option<&'a [u32]>,
    /// Threads of each process.
    pub threads: usize,
    /// Nodes and the links to emulate between them; the nodes' names are [`node_name`]s. `None` lets the processes meet
    /// without a network between them.
    pub fleet: Option<&'a Fleet>,
    /// Where this machine's profile lies: every process shall know it, so that none measures while others compute.
    pub profiles: &'a Path,
    /// What they speak.
    pub protocol: Protocol,
    /// More arguments for every process.
    pub more: &'a [String],
    /// Arguments that say which engine.
    pub engine: Vec<String>,
}

/// What one process serves.
#[derive(Debug, Clone, Copy)]
pub struct Role<'a> {
    /// Which model.
    pub model: &'a Path,
    /// With others, even where one would do.
    pub split: bool,
}

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No process.
    #[error("cannot start {}: {cause}; build it with `cargo build --release -p node`, or give it with --meshwright", binary.display())]
    Start {
        /// The binary.
        binary: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No port, no folder.
    #[error("cannot prepare a mesh: {0}")]
    Prepare(#[from] io::Error),
    /// No network.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// A process that ended, or said nothing useful.
    #[error("{node} does not serve: {why}\n{log}")]
    Silent {
        /// Which.
        node: String,
        /// What it did instead.
        why: String,
        /// The end of what it wrote to stderr.
        log: String,
    },
}

/// What a node prints when it is up.
#[derive(Debug, Deserialize)]
struct Up {
    api: String,
}

/// One process.
#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    api: SocketAddr,
    log: PathBuf,
}

/// A running mesh; dropping it ends it.
#[derive(Debug)]
pub struct Mesh {
    processes: Vec<Process>,
    emulator: Option<Emulator>,
    ports: Vec<u16>,
    // After the processes, which write into it.
    _home: Home,
}

/// A folder of its own, removed with everything in it.
#[derive(Debug)]
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    pub(super) fn new() -> io::Result<Self> {
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("meshwright-live-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Drop for Home {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Mesh {
    /// Starts the processes one after the other, each joining those before it through the emulator, and waits until all
    /// serve.
    ///
    /// # Errors
    /// [`MeshError`] with the end of what the process wrote.
    pub fn start(spec: &MeshSpec<'_>) -> Result<Self, MeshError> {
        let (home, count) = (Home::new()?, spec.nodes as usize);
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect::<io::Result<_>>()?;
        let fleet = spec.fleet.filter(|_| count > 1);
        let emulator = fleet.map(|fleet| start_emulator(fleet, spec.protocol, &ports)).transpose()?;
        let mut mesh = Self { processes: Vec::new(), emulator, ports, _home: home };
        for number in 0..count {
            let process = mesh.process(spec, number)?;
            mesh.processes.push(process);
        }
        mesh.wait_until_it_serves()?;
        Ok(mesh)
    }

    /// Where that node answers clients.
    pub fn api(&self, node: usize) -> SocketAddr {
        self.processes[node].api
    }

    /// How punctual the network was.
    pub fn punctuality(&self) -> Option<Punctuality> {
        self.emulator.as_ref().map(Emulator::punctuality)
    }

    /// Seconds of processor time that each process has used; none where the system does not say.
    pub fn processor_seconds(&self) -> Option<Vec<f64>> {
        self.processes.iter().map(|process| processor_seconds(process.child.id())).collect()
    }

    /// Ends that node's process at once (SIGKILL).
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        let child = &mut self.processes[node].child;
        child.kill()?;
        child.wait().map(|_| ())
    }

    /// Starts a node that has ended again, with what it remembers.
    ///
    /// # Errors
    /// [`MeshError`].
    pub fn restart(&mut self, spec: &MeshSpec<'_>, node: usize) -> Result<(), MeshError> {
        self.processes[node] = self.process(spec, node)?;
        Ok(())
    }

    /// Sends that node's process a signal: `STOP` halts it, `CONT` lets it go on.
    ///
    /// # Errors
    /// The system's.
    pub fn signal(&self, node: usize, signal: &str) -> io::Result<()> {
        let process = self.processes[node].child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &process]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -{signal}: {status}"))) }
    }

    /// Separates these nodes from all others; with nobody, all is whole again.
    pub fn cut_off(&self, nodes: &[usize]) {
        if let Some(emulator) = &self.emulator {
            emulator.cut_off(nodes.iter().map(|node| id(*node)));
        }
    }

    fn process(&self, spec: &MeshSpec<'_>, number: usize) -> Result<Process, MeshError> {
        let ports = &self.ports;
        let usual = Role { model: spec.model, split: spec.nodes > 1 };
        let role = spec.roles.get(number).copied().unwrap_or(usual);
        let name = node_name(number);
        let home = self._home.0.join(&name);
        std::fs::create_dir_all(&home)?;
        hand_over(spec.profiles, &home.join("profiles"))?;
        let log = home.join("stderr");
        let mut command = Command::new(spec.binary);
        command.args(["serve", "--json", "--api", "127.0.0.1:0"]);
        command.arg("--model").arg(role.model).arg("--home").arg(&home);
        command.args(["--name", &name, "--threads", &spec.threads.to_string()]);
        command.args(["--listen", &listen(spec.protocol, ports[number]), "--no-mdns", "--announce", "none"]);
        command.args(["--secret", SECRET]);
        if role.split {
            command.arg("--split");
        }
        if let Some(cut) = spec.cut.filter(|cut| !cut.is_empty()) {
            command.args(["--cut", &list(cut)]);
        }
        for (before, port) in ports[..number].iter().enumerate() {
            let address = match &self.emulator {
                Some(emulator) => {
                    emulator.front(id(number), id(before)).and_then(|front| dial(spec.protocol, front))
                }
                None => Some(listen(spec.protocol, *port)),
            };
            command.args(address.map(|address| format!("--join={address}")));
        }
        command.args(&spec.engine).args(spec.more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let spawned = command.spawn();
        let mut child =
            spawned.map_err(|cause| MeshError::Start { binary: spec.binary.to_owned(), cause })?;
        match up(&mut child) {
            Ok(api) => Ok(Process { name, child, api, log }),
            Err(why) => {
                // It says nothing useful and may go on saying it.
                let _ = child.kill();
                let _ = child.wait();
                Err(MeshError::Silent { node: name, why, log: tail(&log) })
            }
        }
    }

    fn wait_until_it_serves(&mut self) -> Result<(), MeshError> {
        let clock = now();
        for process in &mut self.processes {
            loop {
                let health = client::get(process.api, "/health");
                if matches!(health, Ok((200, _))) {
                    break;
                }
                let ended = process.child.try_wait()?;
                if ended.is_some() || clock.elapsed() > START {
                    let why = match (ended, health) {
                        (Some(status), _) => format!("it has ended: {status}"),
                        (None, Ok((status, body))) => format!("/health says {status} {body}"),
                        (None, Err(cause)) => format!("/health: {cause}"),
                    };
                    return Err(MeshError::Silent {
                        node: process.name.clone(),
                        why,
                        log: tail(&process.log),
                    });
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended before.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Copies the profiles in one folder into another.
pub(super) fn hand_over(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for profile in profiles(from)? {
        std::fs::copy(&profile, to.join(profile.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The profiles in a folder.
pub(super) fn profiles(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("profile-") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Source: proc(5), fields 14 and 15 of `stat`, in ticks of 10 ms.
fn processor_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in field 2 may hold anything, a bracket ends it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

fn id(node: usize) -> NodeId {
    NodeId(node as u32)
}

fn start_emulator(fleet: &Fleet, protocol: Protocol, ports: &[u16]) -> Result<Emulator, EmulatorError> {
    let end = |port: &u16| {
        let at = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        match protocol {
            Protocol::Tcp => Ends { tcp: at, udp: None },
            Protocol::Quic => Ends { tcp: None, udp: at },
        }
    };
    let ends: Vec<Ends> = ports.iter().map(end).collect();
    Emulator::start(fleet.clone(), &ends, 1)
}

fn listen(protocol: Protocol, port: u16) -> String {
    match protocol {
        Protocol::Tcp => format!("/ip4/127.0.0.1/tcp/{port}"),
        Protocol::Quic => format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
    }
}

fn dial(protocol: Protocol, front: Front) -> Option<String> {
    let at = if protocol == Protocol::Tcp { front.tcp } else { front.udp };
    at.map(|at| listen(protocol, at.port()))
}

fn list(cut: &[u32]) -> String {
    cut.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// A port that nobody listens at just now, of TCP or UDP.
fn free_port() -> io::Result<u16> {
    loop {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

/// Reads the line in which the process says where its API is.
fn up(child: &mut Child) -> Result<SocketAddr, String> {
    let out = child.stdout.take().ok_or("it has no stdout")?;
    let (told, hears) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(out).lines();
        // Whoever waits may have given up; the rest is read so that the process never waits for us.
        let _ = told.send(lines.next());
        lines.for_each(drop);
    });
    let line = match hears.recv_timeout(START) {
        Ok(Some(Ok(line))) => line,
        Ok(Some(Err(cause))) => return Err(cause.to_string()),
        Ok(None) => return Err("it ended without a word on stdout".into()),
        Err(_) => return Err("it said nothing on stdout".into()),
    };
    let up: Up = serde_json::from_str(&line).map_err(|why| format!("it said `{line}`: {why}"))?;
    let at = up.api.trim_start_matches("http://").split('/').next().unwrap_or_default();
    at.parse().map_err(|_| format!("its API is at `{}`, which is no address", up.api))
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[expect(clippy::disallowed_methods, reason = "it waits for real processes")]
fn now() -> Instant {
    Instant::now()
}
