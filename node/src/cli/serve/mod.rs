//! `serve`: a model behind the API.
//!
//! * `asked`: options, from the command line, the environment and the configuration file. `home`: where a node remembers.
//! * `solo`: a node that serves alone; `lonely` its network, `machine` its device.
//! * `screen`: what is said when it serves. `ending`: Ctrl-C. `log`: the log.

mod asked;
mod ending;
mod home;
mod log;
mod lonely;
mod machine;
mod screen;
mod solo;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planner::model::gguf::GgufFile;

pub(super) use self::asked::Serve;
pub(super) use self::home::home;

use self::ending::Ending;
use self::solo::{Solo, Wanted};
use super::failure::Failure;
use super::loading;
use crate::cli::arguments::{LevelName, Machine};
use crate::clock::TokioClock;
use crate::http::{Api, Bounds, Desk, Meter, Served, Server};
use crate::real::cpu::EngineOptions;
use crate::real::text::{ChatTemplate, Tokenizer};

/// Where the API listens where nobody says.
pub(super) const API: &str = "127.0.0.1:9337";

/// Threads that carry requests; the engine has its own.
const CARRIERS: usize = 2;

/// Everything that is known before anything runs.
struct Prepared {
    path: PathBuf,
    model: planner::model::Model,
    served: Served,
    placed: solo::Placed,
    options: EngineOptions,
    address: SocketAddr,
    json: bool,
}

pub(super) fn serve(asked: Serve) -> Result<(), Failure> {
    let home = home(asked.home.as_deref())?;
    let asked = asked.with_file(&home)?;
    log::start(asked.log_format.unwrap_or_default());
    let prepared = prepare(&asked)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(CARRIERS).enable_all().build();
    let runtime = runtime.map_err(|why| Failure::Start(format!("the system gives no threads: {why}")))?;
    let done = runtime.block_on(run(prepared));
    // A step that still computes for nobody is not waited for.
    runtime.shutdown_background();
    done
}

fn prepare(asked: &Serve) -> Result<Prepared, Failure> {
    let path = asked.model.clone().ok_or_else(|| {
        Failure::Usage("which model? Give --model MODEL.gguf; `meshwright models` shows what is there".into())
    })?;
    let address = address(asked.api.as_deref().unwrap_or(API))?;
    let memory = asked.memory.as_deref().map(planner::units::bytes).transpose();
    let memory = memory.map_err(|why| Failure::Usage(format!("--memory: {why}")))?;
    check(asked)?;
    let file = GgufFile::open(&path)?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let template = ChatTemplate::from_gguf(&file, &tokenizer)?;
    let refused = |why: String| Failure::Load { model: path.clone(), why };
    crate::real::arch::shape(&file).map_err(|why| refused(why.to_string()))?;
    let model = file.model()?;
    let name = asked.name.clone().unwrap_or_else(machine::name);
    let wanted = Wanted { name, context: asked.context, sessions: asked.sessions, memory };
    let placed = solo::room(&model, &wanted)?;
    let machine = Machine { level: asked.level.unwrap_or(LevelName::Best), f32: asked.f32.unwrap_or(false) };
    let options = EngineOptions {
        kv_bytes_max: solo::kv_bytes(&model, &placed.plan, machine.f32),
        ..loading::options(&machine, asked.threads.unwrap_or(0), placed.plan.context)
    };
    let served = Served::new(id(&path), model.name.clone(), tokenizer, template, placed.plan.context);
    Ok(Prepared { path, model, served, placed, options, address, json: asked.json })
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

async fn run(prepared: Prepared) -> Result<(), Failure> {
    let Prepared { path, model, served, placed, options, address, json } = prepared;
    // Before anything is loaded, so that a port that is taken is known at once.
    let server = Server::bind(address).await.map_err(|cause| Failure::Listen { address, cause })?;
    let ending = Ending::listen();
    #[expect(clippy::disallowed_methods, reason = "here the node's clock is made")]
    let clock = TokioClock::new(tokio::time::Instant::now(), 1);
    let words = screen::Words::new(&served, &placed.plan, server.address());
    let solo = Arc::new(Solo::start(placed, model, path.clone(), options, served, clock));
    {
        let _bar = loading::bar(&path);
        tokio::select! {
            biased;
            () = ending.asked() => return Err(Failure::Interrupted),
            loaded = solo.until_serving() => loaded.map_err(|why| Failure::Load { model: path, why })?,
        }
    }
    words.say(json)?;
    let meter = Arc::new(Meter::new());
    meter.install();
    let desk: Arc<dyn Desk> = solo;
    server.run(Api::new(desk, Bounds::default(), meter, clock), ending.asked()).await;
    Ok(())
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
