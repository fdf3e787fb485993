//! `client`: the API on a machine that belongs to no mesh, answered by nodes of one.

use std::path::PathBuf;

use clap::Args;
use futures::future::{BoxFuture, FutureExt as _};
use libp2p::Multiaddr;
use serde::Serialize;

use super::failure::Failure;
use super::figures::plural;
use super::print;
use super::serve::{self, Ending, LogFormat};
use crate::clock::TokioClock;
use crate::http::{Bounds, Door, Forward, Miss, Opened, Server, Ways, Wire};
use crate::real::p2p::guest::{CallError, Guest};

/// Ask a mesh from here, without belonging to it.
///
/// The API listens on this machine and is answered by nodes of the mesh. This machine computes nothing, joins nothing, and no
/// node remembers it. Where the node that answers dies, another one goes on with its answers.
#[derive(Debug, Args)]
pub(super) struct Client {
    /// The token of the mesh, or where members listen; may be several. Without: what a node with this home remembers.
    #[arg(value_name = "TOKEN|HOST:PORT")]
    mesh: Vec<String>,
    /// Where the API listens; port 0 takes one that is free.
    #[arg(long, value_name = "HOST:PORT", env = "MESHWRIGHT_API", default_value = serve::API)]
    api: String,
    /// The mesh's secret, 64 hexadecimal digits, instead of a token's or the remembered one.
    #[arg(long, value_name = "HEX", env = "MESHWRIGHT_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Where a node on this machine keeps what it remembers; only read [default: as `serve`].
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_HOME")]
    home: Option<PathBuf>,
    /// Print one line of JSON on stdout once the API answers, and nothing else.
    #[arg(long)]
    json: bool,
    /// How the log on stderr is written; RUST_LOG says how much of it.
    #[arg(long, value_enum, value_name = "FORMAT", env = "MESHWRIGHT_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// What is said when it is up.
#[derive(Debug, Serialize)]
struct Words {
    /// Where to ask.
    api: String,
    /// Names of what is served.
    models: Vec<String>,
    /// Nodes that can be asked.
    nodes: usize,
    pid: u32,
}

/// The mesh's network, as a guest uses it.
struct Through(Guest);

impl Ways for Through {
    fn open<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Opened> {
        let addresses: Vec<Multiaddr> =
            door.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        async move {
            match self.0.ask(door.peer, &addresses).await {
                Ok((peer, stream)) => Ok((peer, Box::new(stream) as Box<dyn Wire>)),
                Err(why @ CallError::Refused(_)) => Err(Miss(format!("turned away: {why}"))),
                Err(why) => Err(Miss(why.to_string())),
            }
        }
        .boxed()
    }
}

pub(super) fn client(asked: &Client) -> Result<(), Failure> {
    serve::start_log(asked.log_format);
    serve::carry(run(asked))
}

async fn run(asked: &Client) -> Result<(), Failure> {
    let home = serve::home_path(asked.home.as_deref());
    let (mesh, addresses) = serve::as_guest(&asked.mesh, asked.secret.as_deref(), home.as_deref())?;
    let address = serve::address(&asked.api)?;
    let server = Server::bind(address).await.map_err(|cause| Failure::Listen { address, cause })?;
    let ending = Ending::listen();
    #[expect(clippy::disallowed_methods, reason = "here the client's clock is made")]
    let clock = TokioClock::new(tokio::time::Instant::now(), 1);
    let guest = Guest::start(mesh, clock)?;
    let door = |address: Multiaddr| Door { peer: None, addresses: vec![address.to_string()] };
    let doors = addresses.into_iter().map(door).collect();
    let forward = Forward::new(Through(guest), doors, Bounds::default(), clock);
    let known = tokio::select! {
        biased;
        () = ending.asked() => return Err(Failure::Interrupted),
        known = forward.look() => known,
    };
    let (nodes, models) = known.map_err(|why| Failure::Asking(format!("the mesh cannot be asked: {why}")))?;
    let words = Words { api: format!("http://{}", server.address()), models, nodes, pid: std::process::id() };
    print(&words.shown(asked.json))?;
    forward.run(server, ending.asked()).await;
    Ok(())
}

impl Words {
    fn shown(&self, json: bool) -> String {
        if json {
            let line = serde_json::to_string(self).expect("string keys and finite numbers always serialise");
            return line + "\n";
        }
        let Words { api, models, nodes, .. } = self;
        let nodes = plural(*nodes as u64, "node");
        let served = if models.is_empty() { "none yet".into() } else { models.join(", ") };
        let model = models.first().map_or("auto", String::as_str);
        format!(
            "The mesh answers here; {nodes} of it can be asked.\n\
             \n  API     {api}/v1, as OpenAI's; any key will do\
             \n  models  {served}\n\
             \n{}\
             \nCtrl-C ends it once the answers that are being given are finished.\n",
            serve::to_try(api, model)
        )
    }
}
