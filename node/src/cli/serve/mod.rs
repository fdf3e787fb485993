//! `serve` and `join`: a model behind the API, on this machine or on several.
//!
//! * `asked`: options, from the command line, the environment and the configuration file. `home`: where a node remembers.
//! * `joining`: which mesh it belongs to. `meshed`: the node in it. `machine`: this machine, for the planner.
//! * `screen`: what is said when it is up. `ending`: Ctrl-C. `log`: the log.

mod asked;
mod ending;
mod home;
mod joining;
mod log;
mod machine;
mod meshed;
mod screen;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planner::fleet::Device;
use planner::model::gguf::GgufFile;

pub(super) use self::asked::Serve;
pub(super) use self::home::home;
pub(super) use self::joining::{PORT, is_port_free, kept_invite};

use self::ending::Ending;
use self::meshed::{Meshed, Parts, Wanted};
use super::failure::Failure;
use super::loading;
use crate::cli::arguments::{LevelName, Machine};
use crate::cli::models;
use crate::clock::{Clock as _, TokioClock};
use crate::http::{Api, Bounds, Desk, Meter, Served, Server};
use crate::real::cpu::{EngineOptions, Residual};
use crate::real::gguf::fingerprint;
use crate::real::p2p::ad::{Ad, Fingerprint, Offer};
use crate::real::p2p::{HeaderError, Net, NetConfig, NetState};
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
    /// `None` where this machine has no files, and speaks for others that do.
    opened: Option<Opened>,
}

/// Serves until it is asked to end. A node that `joins` needs no model of its own.
pub(super) fn serve(asked: Serve, joins: bool) -> Result<(), Failure> {
    let home = home(asked.home.as_deref())?;
    let mut asked = asked.with_file(&home)?;
    asked.model = asked.model.as_deref().map(models::named);
    log::start(asked.log_format.unwrap_or_default());
    let prepared = prepare(asked, home, joins)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(CARRIERS).enable_all().build();
    let runtime = runtime.map_err(|why| Failure::Start(format!("the system gives no threads: {why}")))?;
    let done = runtime.block_on(run(prepared));
    // A step that still computes for nobody is not waited for.
    runtime.shutdown_background();
    done
}

fn prepare(asked: Serve, home: PathBuf, joins: bool) -> Result<Prepared, Failure> {
    if asked.model.is_none() && !joins {
        let words = "which model? Give --model MODEL.gguf; `meshwright models` shows what is there";
        return Err(Failure::Usage(words.into()));
    }
    check(&asked)?;
    let address = address(asked.api.as_deref().unwrap_or(API))?;
    let memory = asked.memory.as_deref().map(planner::units::bytes).transpose();
    let memory = memory.map_err(|why| Failure::Usage(format!("--memory: {why}")))?;
    let opened = asked.model.as_deref().map(Opened::open).transpose()?;
    let net = joining::config(&asked, &home)?;
    let device = match &opened {
        Some(opened) => machine::measured(&opened.file, &asked, &home, memory),
        None => machine::device(memory),
    };
    Ok(Prepared { asked, home, address, net, device, opened })
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

fn address(text: &str) -> Result<SocketAddr, Failure> {
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
fn ad(prepared: &Prepared) -> Ad {
    let offer = |opened: &Opened| Offer { name: id(&opened.path), fingerprint: opened.fingerprint };
    Ad {
        peer: prepared.net.key.peer(),
        // Above what an earlier life said.
        version: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default(),
        name: prepared.asked.name.clone().unwrap_or_else(machine::name),
        addresses: Vec::new(),
        device: prepared.device.clone(),
        models: prepared.opened.iter().map(offer).collect(),
        links: Vec::new(),
    }
}

async fn run(prepared: Prepared) -> Result<(), Failure> {
    // Before anything is loaded, so that a port that is taken is known at once.
    let address = prepared.address;
    let server = Server::bind(address).await.map_err(|cause| Failure::Listen { address, cause })?;
    let ending = Ending::listen();
    #[expect(clippy::disallowed_methods, reason = "here the node's clock is made")]
    let clock = TokioClock::new(tokio::time::Instant::now(), 1);
    let ad = ad(&prepared);
    let Prepared { asked, home, net, opened, .. } = prepared;
    let net = Net::start(net, ad)?;
    if let Some(opened) = &opened {
        net.show([(opened.fingerprint, opened.file.parts.clone())].into());
    }
    let weights = opened.as_ref().map(|opened| opened.path.clone());
    let (opened, name) = match opened {
        Some(opened) => {
            let name = id(&opened.path);
            (opened, name)
        }
        None => {
            tokio::select! {
                biased;
                () = ending.asked() => return Err(Failure::Interrupted),
                borrowed = borrow(&net, &home, clock) => borrowed?,
            }
        }
    };
    let meshed = Arc::new(Meshed::start(parts(&asked, net, opened, name, weights, clock)?));
    joining::remember(&home, meshed.net());
    let narrating = meshed.narrate(home.clone());
    let turned_away = turned_away(meshed.net(), clock, !asked.join.is_empty());
    tokio::pin!(turned_away);
    {
        let _bar = asked.model.as_deref().map(loading::bar);
        tokio::select! {
            biased;
            () = ending.asked() => return Err(Failure::Interrupted),
            why = &mut turned_away => return Err(Failure::Join(why)),
            () = meshed.until_settled() => {}
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
    narrating.abort();
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

/// What the node is made of.
fn parts(
    asked: &Serve,
    net: Net,
    opened: Opened,
    id: String,
    weights: Option<PathBuf>,
    clock: TokioClock,
) -> Result<Parts, Failure> {
    let model = opened.file.model()?;
    let wanted = Wanted {
        context: asked.context,
        sessions: asked.sessions,
        split: asked.split.unwrap_or(false),
        cut: asked.cut.clone(),
    };
    let (ask, _) = wanted.ask(&model);
    let machine = Machine { level: asked.level.unwrap_or(LevelName::Best), f32: asked.f32.unwrap_or(false) };
    let usual = loading::options(&machine, asked.threads.unwrap_or(0), ask.constraints.context);
    let options = EngineOptions {
        kv_bytes_max: meshed::kv_bytes(&model, &ask, machine.f32),
        residual: asked.activations.map_or(usual.residual, Residual::from),
        ..usual
    };
    let served = opened.served(id, ask.constraints.context)?;
    let Opened { fingerprint, .. } = opened;
    Ok(Parts { net, model, fingerprint, weights, options, served, wanted, clock })
}

/// A model that others offer: everything but its weights, and its name.
async fn borrow(net: &Net, home: &Path, clock: TokioClock) -> Result<(Opened, String), Failure> {
    let mut roster = net.roster();
    let mut state = net.state();
    let deadline = clock.now().after(OFFER_WITHIN);
    loop {
        let offers: Vec<_> = {
            let members = state.read_new(|state| state.members.clone());
            roster.read_new(|roster| {
                let connected = roster.ads().filter(|ad| members.contains(&ad.peer));
                connected.flat_map(|ad| ad.models.iter().map(|offer| (ad.peer, offer.clone()))).collect()
            })
        };
        for (peer, offer) in offers {
            match net.header(peer, offer.fingerprint, &home.join("headers")).await {
                Ok(path) => return Ok((Opened::open(&path)?, offer.name)),
                // The next offer would have no more room.
                Err(why @ HeaderError::Disk { .. }) => {
                    return Err(Failure::Start(format!("{}: {why}", offer.name)));
                }
                Err(why) => tracing::warn!("{}: {why}", offer.name),
            }
        }
        let refused = state.read(|state| state.refused.clone().filter(|_| state.members.is_empty()));
        if let Some(why) = refused {
            return Err(Failure::Join(why));
        }
        let news = async {
            tokio::select! {
                biased;
                changed = roster.changed() => changed,
                changed = state.changed() => changed,
            }
        };
        if !matches!(clock.timeout_at(deadline, news).await, Ok(true)) {
            let troubles: Vec<String> = net
                .state()
                .read(|state| state.troubles.iter().map(|(whom, what)| format!("{whom}: {what}")).collect());
            return Err(Failure::Join(if troubles.is_empty() {
                "no member of the mesh offers a model; start one with `meshwright serve --model`".into()
            } else {
                troubles.join("; ")
            }));
        }
    }
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
