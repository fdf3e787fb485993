//! `doctor`: what a person should fix before, or while, a node runs here.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use clap::Args;
use planner::units::fmt_bytes;
use serde::Serialize;

use super::failure::Failure;
#[cfg(feature = "libtorch")]
use super::figures::plural;
use super::models::runnable;
use super::serve::{PORT, is_port_free};
use super::status::ask;
use super::{print, print_json, serve};
use crate::http::Health;
use crate::real::kernels::Level;
use crate::real::p2p::identity::Key;
use crate::real::profile::{Gpu, gpu, memory};

/// Find out what keeps this machine from serving, or from serving well, and say how to mend it.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Where models lie; may be repeated.
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_MODELS", default_value = ".")]
    dir: Vec<PathBuf>,
    /// Where the API listens, or shall.
    #[arg(long, value_name = "URL", env = "MESHWRIGHT_API", default_value = serve::API)]
    api: String,
    /// Where the node keeps what it remembers [default: as `serve`].
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_HOME")]
    home: Option<PathBuf>,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Good,
    /// It works, and could be better.
    Note,
    /// It must be mended.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    grade: Grade,
    words: String,
}

fn finding(what: &'static str, grade: Grade, words: impl Into<String>) -> Finding {
    Finding { what, grade, words: words.into() }
}

pub(super) fn doctor(asked: &Doctor) -> Result<(), Failure> {
    let running: Option<Health> = ask(&asked.api, "/status").ok();
    let mut findings = vec![processor(), torch(), home(asked.home.as_deref())];
    findings.push(models(&asked.dir)?);
    findings.push(api(&asked.api, running.as_ref()));
    findings.push(network(running.is_some()));
    findings.extend(running.iter().flat_map(mesh));
    if asked.json {
        print_json(&findings)?;
    } else {
        print(&page(&findings))?;
    }
    match findings.iter().filter(|finding| finding.grade == Grade::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::Unwell(bad)),
    }
}

fn page(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mark = match finding.grade {
            Grade::Good => "ok ",
            Grade::Note => "note",
            Grade::Bad => "FIX",
        };
        format!("  {mark:<5} {:<10} {}\n", finding.what, finding.words)
    };
    findings.iter().map(line).collect()
}

fn processor() -> Finding {
    let (level, cores) = (Level::best(), num_cpus::get_physical());
    let free = memory().map_or(0, |memory| memory.available_bytes);
    let words = format!("{cores} cores, {level:?} kernels, {} of memory free", fmt_bytes(free));
    match level {
        Level::Portable => {
            finding("machine", Grade::Note, format!("{words}; without AVX2 models run several times slower"))
        }
        _ => finding("machine", Grade::Good, words),
    }
}

#[cfg(feature = "libtorch")]
fn torch() -> Finding {
    use crate::real::torch::{cuda_devices, why_no_cuda};

    match why_no_cuda() {
        None => {
            let gpus: Vec<String> = (0..cuda_devices()).filter_map(gpu).map(|gpu| in_words(&gpu)).collect();
            let words = format!("{} by CUDA, for --engine torch", plural(cuda_devices() as u64, "GPU"));
            finding("libtorch", Grade::Good, [words].into_iter().chain(gpus).collect::<Vec<_>>().join("; "))
        }
        Some(why) => finding("libtorch", Grade::Note, format!("on the processor alone: {why}")),
    }
}

#[cfg(not(feature = "libtorch"))]
fn torch() -> Finding {
    match gpu(0) {
        None => {
            finding("libtorch", Grade::Good, "not built in; only GPUs need it, docs/libtorch.md says how")
        }
        Some(gpu) => {
            let words = format!(
                "not built in, so that the GPU is not used ({}): docs/libtorch.md says how to build it",
                in_words(&gpu)
            );
            finding("libtorch", Grade::Note, words)
        }
    }
}

fn in_words(gpu: &Gpu) -> String {
    format!("{}, {} of {} free", gpu.name, fmt_bytes(gpu.free_bytes), fmt_bytes(gpu.total_bytes))
}

fn home(asked: Option<&Path>) -> Finding {
    let kept = serve::home(asked).and_then(|home| {
        Key::load_or_create(&home.join("identity.key"))?;
        Ok(home)
    });
    match kept {
        Ok(home) => finding("home", Grade::Good, format!("{} can be written to", home.display())),
        Err(why) => finding("home", Grade::Bad, why.to_string()),
    }
}

fn models(dirs: &[PathBuf]) -> Result<Finding, Failure> {
    let (runs, others) = runnable(dirs)?;
    let places: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let places = places.join(", ");
    Ok(match (runs, others) {
        (0, 0) => finding(
            "models",
            Grade::Bad,
            format!(
                "no GGUF file in {places}; fetch one by `meshwright models get`, or say where they are by --dir"
            ),
        ),
        (0, _) => finding(
            "models",
            Grade::Bad,
            format!("none of the {others} files in {places} runs here; `meshwright models` says why"),
        ),
        (runs, _) => finding("models", Grade::Good, format!("{runs} in {places} that run here")),
    })
}

fn api(api: &str, running: Option<&Health>) -> Finding {
    if let Some(health) = running {
        return match &health.why {
            None => finding("api", Grade::Good, format!("{} answers at {api}", health.node)),
            Some(why) => finding("api", Grade::Bad, format!("{} does not serve: {why}", health.node)),
        };
    }
    let host = api.trim_start_matches("http://").split('/').next().unwrap_or_default();
    match TcpListener::bind(host) {
        Ok(_) => finding("api", Grade::Good, format!("nothing runs; {host} is free")),
        Err(why) => finding(
            "api",
            Grade::Bad,
            format!("another program holds {host} ({why}); end it, or choose another port by `serve --api`"),
        ),
    }
}

fn network(runs: bool) -> Finding {
    match (is_port_free(), runs) {
        (true, _) => finding("network", Grade::Good, format!("port {PORT} is free, TCP and UDP")),
        (false, true) => {
            finding("network", Grade::Good, format!("port {PORT} is used, by the node that runs"))
        }
        (false, false) => finding(
            "network",
            Grade::Note,
            format!(
                "another program holds port {PORT}: a node takes a free one, which firewalls may not know"
            ),
        ),
    }
}

fn mesh(health: &Health) -> Vec<Finding> {
    let trouble = |(whom, what): (&String, &String)| finding("mesh", Grade::Bad, format!("{whom}: {what}"));
    let mut findings: Vec<Finding> = health.troubles.iter().map(trouble).collect();
    for peer in health.peers.iter().filter(|peer| !peer.alive) {
        let words = format!("{} does not answer: is it switched on, and does a node run there?", peer.name);
        findings.push(finding("mesh", Grade::Note, words));
    }
    findings
}
