//! `models get`: a model from the Hugging Face Hub.
//!
//! * [`choice`]: which files. [`hub`]: where they are. [`transfer`]: one of them, to the disk. [`refusal`]: why not.

mod choice;
mod hub;
pub(super) mod refusal;
mod transfer;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use planner::units::fmt_bytes;
use serde::Serialize;

use self::choice::{Asked, Remote, Wish};
use self::hub::{Hub, Listing};
use self::refusal::GetError;
use self::transfer::{Fetched, Transfer};
use super::list::look;
use crate::cli::failure::Failure;
use crate::cli::{print, print_json};

/// Fetch a model from the Hugging Face Hub, go on where a broken download ended, and check what came.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Get {
    /// The repository; behind a colon how the weights are stored. The address of its page will do, or of a file's.
    #[arg(value_name = "OWNER/NAME[:Q4_K_M]")]
    repo: String,
    /// The files whose name matches, `*` standing for anything; of a split model all parts come.
    #[arg(long, value_name = "GLOB")]
    file: Option<String>,
    /// The folder they go to.
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_MODELS", default_value = ".")]
    to: PathBuf,
    /// A branch, tag or commit of the repository [default: main].
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// How often a transfer that broke and got nowhere is tried again.
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  meshwright models get unsloth/Qwen3-0.6B-GGUF
      the only model there, or the one in Q4_K_M
  meshwright models get unsloth/Qwen3-0.6B-GGUF:Q8_0 --to ~/models
      the one in Q8_0
  meshwright models get unsloth/Qwen3-0.6B-GGUF --file '*BF16*'
      by its name

Environment: HF_TOKEN for private and gated repositories (or what `hf auth login` keeps), HF_ENDPOINT for a mirror,
HTTPS_PROXY for a proxy, SSL_CERT_FILE for its certificates. Given again, the command goes on where it ended, and leaves alone what is there.";

/// What was fetched.
#[derive(Debug, Serialize)]
struct Got {
    repository: String,
    /// The commit.
    revision: String,
    files: Vec<Fetched>,
    models: Vec<Model>,
}

/// A model among it: of a split one its first part.
#[derive(Debug, Serialize)]
struct Model {
    path: PathBuf,
    runs: bool,
    /// Why not.
    why: Option<String>,
}

pub(super) fn get(asked: &Get) -> Result<(), Failure> {
    let got = fetch(asked)?;
    if asked.json { print_json(&got) } else { print(&page(&got)) }
}

fn fetch(asked: &Get) -> Result<Got, GetError> {
    let Asked { repo, revision, wish } = asked.repo.parse()?;
    let wish = asked.file.clone().map_or(wish, Wish::Glob);
    let revision = asked.revision.clone().or(revision).unwrap_or_else(|| "main".into());
    let hub = Hub::from_environment()?;
    let Listing { commit, files } = hub.list(&repo, &revision)?;
    let chosen = choice::choose(&repo, &files, &wish)?;
    let folder = asked.to.as_path();
    std::fs::create_dir_all(folder).map_err(|cause| GetError::Write { file: folder.into(), cause })?;
    has_room(folder, &chosen)?;
    let bar = bar(chosen.iter().map(|remote| remote.bytes).sum());
    let mut fetched = Vec::new();
    for remote in &chosen {
        bar.set_message(remote.name().to_owned());
        let transfer =
            Transfer { hub: &hub, repo: &repo, commit: &commit, remote, retries: asked.retries, bar: &bar };
        fetched.push(transfer.run(folder)?);
    }
    bar.finish_and_clear();
    let models = fetched.iter().filter(|file| is_first(&file.path)).map(|file| model(&file.path)).collect();
    Ok(Got { repository: repo, revision: commit, files: fetched, models })
}

/// # Errors
/// [`GetError::Room`] where the disk has less than is to come.
fn has_room(folder: &Path, files: &[Remote]) -> Result<(), GetError> {
    let length = |path: PathBuf| path.metadata().map_or(0, |file| file.len());
    let to_come = |remote: &Remote| {
        let have = length(folder.join(remote.name())).max(length(transfer::partial_path(folder, remote)));
        remote.bytes.saturating_sub(have)
    };
    let needed = files.iter().map(to_come).sum();
    match free(folder) {
        Some(free) if free < needed => Err(GetError::Room { folder: folder.into(), free, needed }),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write there, where the system says.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

fn is_first(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.contains("-of-") || name.contains("-00001-of-")
}

fn model(path: &Path) -> Model {
    let (runs, why) = look(path).verdict();
    Model { path: path.into(), runs, why }
}

fn page(got: &Got) -> String {
    let mut page = String::new();
    for file in &got.files {
        let (path, bytes) = (file.path.display(), fmt_bytes(file.bytes));
        let how = if file.verified {
            "checked"
        } else {
            "the server names no SHA-256: only its length was checked"
        };
        let there = if file.fetched_bytes == 0 { ", was there" } else { "" };
        page.push_str(&format!("{path}  {bytes}  {how}{there}\n"));
    }
    for model in &got.models {
        let path = model.path.display();
        match &model.why {
            None => page.push_str(&format!("Serve it:  meshwright serve --model {path}\n")),
            Some(why) => page.push_str(&format!("{path} does not run here: {why}\n")),
        }
    }
    page
}

/// Hidden unless stderr is a terminal.
fn bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg}  {bar:24}  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    ProgressBar::new(bytes).with_style(style.expect("the template is one of indicatif's"))
}
