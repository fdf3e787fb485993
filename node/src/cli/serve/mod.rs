//! `serve` and `join`: a model behind the API, on this machine or on several.
//!
//! * `asked`: options, from the command line, the environment and the configuration file. `home`: where a node remembers.
//! * `joining`: which mesh it belongs to. `meshed`: the node in it. `ring`: a model that it takes part in. `attending`:
//!   which ones of others it does. `duties`: what it does for the mesh. `desk`: both as the API sees them. `machine`: this machine, for the planner.
//! * `screen`: what is said when it is up. `ending`: Ctrl-C. `log`: the log.

mod asked;
mod attending;
mod desk;
mod duties;
mod ending;
mod home;
mod joining;
mod log;
mod machine;
mod meshed;
mod ring;
mod screen;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planner::fleet::Device;
use planner::model::gguf::GgufFile;

pub(super) use self::asked::{LogFormat, Serve};
pub(super) use self::ending::Ending;
pub(super) use self::home::{home, home_path};
pub(super) use self::joining::{PORT, as_guest, is_port_free, kept_invite};
pub(super) use self::log::start as start_log;
pub(super) use self::screen::to_try;

use self::meshed::{Meshed, Own};
use self::ring::SESSIONS;
use super::failure::Failure;
use super::loading;
use crate::cli::models;
use crate::clock::{Clock as _, TokioClock};
use crate::http::{Api, Bounds, Desk, Meter, Served, Server};
use crate::membership::{Abilities, Caps, Fingerprint, MODELS_MAX, Offer, Profile};
use crate::real::gguf::fingerprint;
use crate::real::p2p::{Net, NetConfig, NetState};
use crate::real::text::{ChatTemplate, Tokenizer};

/// Where the API listens where nobody says.
pub(super) const API: &str = "127.0.0.1:9337";

/// Threads that carry requests; the engine has its own.
const CARRIERS: usize = 2;

/// How long a machine without a model waits for others to offer one.
const OFFER_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// How long another member may take to let in a node that one has turned away.
const ANOTHER_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// A model's files, opened.
struct Opened {
    path: PathBuf,
    file: GgufFile,
    fingerprint: Fingerprint,
}

impl Opened {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = GgufFile::open(path)?;
        let refused = |why: String| Failure::Load { model: path.into(), why };
        crate::real::arch::shape(&file).map_err(|why| refused(why.to_string()))?;
        let fingerprint = fingerprint(&file).map_err(|cause| Failure::Read { file: path.into(), cause })?;
        Ok(Self { path: path.into(), file, fingerprint })
    }

    fn served(&self, id: String, context: u32) -> Result<Served, Failure> {
        let tokenizer = Tokenizer::from_gguf(&self.file)?;
        let template = ChatTemplate::from_gguf(&self.file, &tokenizer)?;
        Ok(Served::new(id, self.file.model()?.name, tokenizer, template, context))
    }
}

/// Everything that is known before anything runs.
struct Prepared {
    asked: Serve,
    home: PathBuf,
    address: SocketAddr,
    net: NetConfig,
    device: Device,
    /// Models of its own; none where this machine has no files, and speaks for others that do.
    own: Vec<Own>,
    /// Whether the mesh may choose what it serves.
    stands_by: bool,
}

/// Serves until it is asked to end. A node that `joins` needs no model of its own.
pub(super) fn serve(asked: Serve, joins: bool) -> Result<(), Failure> {
    let home = home(asked.home.as_deref())?;
    let mut asked = asked.with_file(&home)?;
    asked.model = asked.model.iter().map(|model| models::named(model)).collect();
    log::start(asked.log_format.unwrap_or_default());
    let prepared = prepare(asked, home, joins)?;
    carry(run(prepared))
}

/// Does `work` with threads that carry requests.
pub(super) fn carry(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(CARRIERS).enable_all().build();
    let runtime = runtime.map_err(|why| Failure::Start(format!("the system gives no threads: {why}")))?;
    let done = runtime.block_on(work);
    // A step that still computes for nobody is not waited for.
    runtime.shutdown_background();
    done
}

fn prepare(asked: Serve, home: PathBuf, joins: bool) -> Result<Prepared, Failure> {
    check(&asked)?;
    let address = address(asked.api.as_deref().unwrap_or(API))?;
    let memory = asked.memory.as_deref().map(planner::units::bytes).transpose();
    let memory = memory.map_err(|why| Failure::Usage(format!("--memory: {why}")))?;
    let own = own(&asked, joins)?;
    let net = joining::config(&asked, &home)?;
    let device = match own.first() {
        Some(first) => machine::measured(&first.opened.file, &asked, &home, memory),
        None => machine::device(memory),
    };
    let stands_by = stands_by(&asked, joins);
    Ok(Prepared { asked, home, address, net, device, own, stands_by })
}

fn check(asked: &Serve) -> Result<(), Failure> {
    let usage = |words: &str| Err(Failure::Usage(words.into()));
    if asked.context == Some(0) {
        return usage("--context must be at least 1 token; leave it out for what fits");
    }
    if asked.sessions == Some(0) {
        return usage("--sessions must be at least 1");
    }
    Ok(())
}

/// This machine's models, each once: those that its owner has chosen, and, where the mesh may choose, those that lie
/// there.
fn own(asked: &Serve, joins: bool) -> Result<Vec<Own>, Failure> {
    let mut own: Vec<Own> = Vec::new();
    for file in &asked.model {
        let (name, opened) = (id(file), Opened::open(file)?);
        if own.iter().any(|other| other.opened.fingerprint == opened.fingerprint) {
            continue;
        }
        if let Some(other) = own.iter().find(|other| other.name == name) {
            let (one, other) = (file.display(), other.opened.path.display());
            return Err(Failure::Usage(format!(
                "--model: {one} and {other} are different models of one name"
            )));
        }
        own.push(Own { name, opened, is_pinned: true });
    }
    if stands_by(asked, joins) {
        let folders = models::folders(&asked.models);
        for file in models::present(&folders)? {
            let (name, Ok(opened)) = (id(&file), Opened::open(&file)) else { continue };
            let is = |other: &Own| other.opened.fingerprint == opened.fingerprint || other.name == name;
            if !own.iter().any(is) {
                own.push(Own { name, opened, is_pinned: false });
            }
        }
        if own.is_empty() {
            let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(Failure::Usage(format!(
                "no model that runs here lies in {}: give --model MODEL.gguf, or name another folder by --models; `meshwright \
                 models` shows what is there, `meshwright models get` fetches one",
                folders.join(", ")
            )));
        }
    }
    if own.len() > MODELS_MAX {
        let words =
            format!("{MODELS_MAX} models are the most that one node offers, and here are {}", own.len());
        return Err(Failure::Usage(words));
    }
    Ok(own)
}

/// Whether the mesh may choose what this machine serves.
fn stands_by(asked: &Serve, joins: bool) -> bool {
    asked.standby.unwrap_or(asked.model.is_empty() && !joins)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Failure> {
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| {
        Failure::Usage(format!(
            "--api: `{text}` is no address of this machine: write HOST:PORT, such as {API}"
        ))
    })
}

/// The model's name in the API: that of its file, without what says that it is one part of several.
fn id(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let whole = stem.rsplit_once("-of-").and_then(|(name, _)| name.rsplit_once('-')).map(|(name, _)| name);
    whole.filter(|_| stem.ends_with(|c: char| c.is_ascii_digit())).unwrap_or(&stem).to_owned()
}

/// What this machine says of itself.
fn profile(prepared: &Prepared) -> Result<Profile, Failure> {
    let offer = |own: &Own| {
        let Opened { file, fingerprint, .. } = &own.opened;
        let abilities = abilities(file);
        Ok(Offer { abilities, ..Offer::of(own.name.clone(), *fingerprint, &file.model()?) })
    };
    Ok(Profile {
        name: prepared.asked.name.clone().unwrap_or_else(machine::name),
        devices: vec![prepared.device.clone()],
        models: prepared.own.iter().map(offer).collect::<Result<_, Failure>>()?,
        caps: Caps {
            sessions: prepared.asked.sessions.unwrap_or(SESSIONS),
            takes_models: prepared.stands_by,
            ..Caps::default()
        },
        ..Profile::default()
    })
}

/// What a model can do, as far as its template says.
fn abilities(file: &GgufFile) -> Abilities {
    let template =
        file.metadata.get("tokenizer.chat_template").and_then(|value| value.as_str()).unwrap_or_default();
    let mut abilities = if template.is_empty() { Abilities::default() } else { Abilities::CHAT };
    for (word, ability) in [("tools", Abilities::TOOLS), ("enable_thinking", Abilities::THINKING)] {
        if template.contains(word) {
            abilities = abilities.and(ability);
        }
    }
    abilities
}

async fn run(prepared: Prepared) -> Result<(), Failure> {
    // Before anything is loaded, so that a port that is taken is known at once.
    let address = prepared.address;
    let mut server = Server::bind(address).await.map_err(|cause| Failure::Listen { address, cause })?;
    let ending = Ending::listen();
    #[expect(clippy::disallowed_methods, reason = "here the node's clock is made")]
    let clock = TokioClock::new(tokio::time::Instant::now(), 1);
    let profile = profile(&prepared)?;
    let Prepared { asked, home, net, own, stands_by, .. } = prepared;
    let net = Net::start(net, profile)?;
    net.listens().await;
    if let Some(questions) = net.questions() {
        server = server.with_guests(questions);
    }
    let files = own.iter().map(|own| (own.opened.fingerprint, own.opened.file.parts.clone()));
    net.show(files.collect());
    let meshed = Meshed::start(&asked, &home, net, own, clock)?;
    let _running = meshed.follow();
    joining::remember(meshed.home(), meshed.net());
    let turned_away = turned_away(meshed.net(), clock, !asked.join.is_empty());
    tokio::pin!(turned_away);
    {
        let _bar = asked.model.first().map(|model| loading::bar(model));
        let settled = async {
            if !stands_by {
                meshed.until_any(OFFER_WITHIN).await?;
            }
            meshed.until_settled().await;
            Ok::<(), Failure>(())
        };
        tokio::select! {
            biased;
            () = ending.asked() => return Err(Failure::Interrupted),
            why = &mut turned_away => return Err(Failure::Join(why)),
            settled = settled => settled?,
        }
    }
    screen::Words::new(&meshed, server.address()).say(asked.json)?;
    let meter = Arc::new(Meter::new());
    meter.install();
    let desk: Arc<dyn Desk> = meshed.clone();
    tokio::select! {
        biased;
        why = &mut turned_away => return Err(Failure::Join(why)),
        () = server.run(Api::new(desk, Bounds::default(), meter, clock), ending.asked()) => {}
    }
    meshed.leave().await;
    Ok(())
}

/// Returns why, when this node was told to join and a member turns it away before any lets it in. While nobody answers
/// it is not turned away: others may start later.
async fn turned_away(net: &Net, clock: TokioClock, joins: bool) -> String {
    let mut state = net.state();
    let is_heard = |state: &NetState| state.refused.is_some() || !state.members.is_empty();
    if joins && state.until(is_heard).await {
        // Where several addresses were given, another member may know better.
        let let_in = state.until(|state| !state.members.is_empty());
        let is_member = clock.timeout_at(clock.now().after(ANOTHER_WITHIN), let_in).await == Ok(true);
        if let Some(why) = state.read(|state| state.refused.clone()).filter(|_| !is_member) {
            return why;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_as_its_file() {
        let names = ["a/Qwen3-8B-Q4_K_M.gguf", "big-00001-of-00003.gguf", "x-of-y.gguf", "m"];
        assert_eq!(names.map(|name| id(Path::new(name))), ["Qwen3-8B-Q4_K_M", "big", "x-of-y", "m"]);
    }
}
