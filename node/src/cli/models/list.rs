//! `models list`: the GGUF files of some directories, and whether they run here.

use std::path::{Path, PathBuf};

use clap::Args;
use planner::model::gguf::GgufFile;
use planner::units::fmt_bytes;
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::{print, print_json};

/// List the GGUF files that are there, and whether they run on this machine.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Where to look; may be repeated.
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_MODELS", default_value = ".")]
    dir: Vec<PathBuf>,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

/// One file.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    path: PathBuf,
    /// Of all parts, bytes.
    bytes: u64,
    /// What the file calls the model; absent in files that cannot be read.
    name: Option<String>,
    architecture: Option<String>,
    quantisation: Option<String>,
    /// Tokens that it was trained for.
    context: Option<u32>,
    /// Whether the engine runs it.
    pub(super) runs: bool,
    /// Why not.
    why: Option<String>,
}

pub(super) fn list(asked: &List) -> Result<(), Failure> {
    let mut found = Vec::new();
    for dir in &asked.dir {
        found.extend(files(dir)?.iter().map(|path| look(path)));
    }
    if asked.json { print_json(&found) } else { print(&page(&found, &asked.dir)) }
}

/// How many files in these directories run here, and how many do not.
///
/// # Errors
/// [`Failure::Read`] for a directory that cannot be read.
pub(in crate::cli) fn runnable(dirs: &[PathBuf]) -> Result<(usize, usize), Failure> {
    let mut counts = (0, 0);
    for dir in dirs {
        for path in files(dir)? {
            if look(&path).runs {
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
        }
    }
    Ok(counts)
}

/// The models of a directory by name; of a split one its first part.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let refused = |cause| Failure::Read { file: dir.into(), cause };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let is_model = path.extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let later_part = stem.contains("-of-") && !stem.contains("-00001-of-");
        if is_model && !later_part && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Found {
    /// Whether it runs here, and why not.
    pub(super) fn verdict(self) -> (bool, Option<String>) {
        (self.runs, self.why)
    }
}

pub(super) fn look(path: &Path) -> Found {
    let size = path.metadata().map_or(0, |file| file.len());
    let broken = |why: String| Found {
        path: path.into(),
        bytes: size,
        name: None,
        architecture: None,
        quantisation: None,
        context: None,
        runs: false,
        why: Some(why),
    };
    let file = match GgufFile::open(path) {
        Ok(file) => file,
        Err(why) => return broken(why.to_string()),
    };
    let model = match file.model() {
        Ok(model) => model,
        Err(why) => return broken(why.to_string()),
    };
    let shape = crate::real::arch::shape(&file);
    let tokenizer = crate::real::text::Tokenizer::from_gguf(&file);
    let why = shape.err().map(|why| why.to_string()).or(tokenizer.err().map(|why| why.to_string()));
    Found {
        bytes: file.tensors.values().map(|tensor| tensor.bytes).sum::<u64>().max(size),
        name: Some(model.name),
        architecture: Some(model.architecture),
        quantisation: Some(model.quant),
        context: Some(model.context_max),
        runs: why.is_none(),
        why,
        ..broken(String::new())
    }
}

fn page(found: &[Found], dirs: &[PathBuf]) -> String {
    if found.is_empty() {
        let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        return format!(
            "No GGUF file is in {}; --dir looks elsewhere, \
             `meshwright models get` fetches one.\n",
            dirs.join(", ")
        );
    }
    let names: Vec<String> = found.iter().map(|model| model.path.display().to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut page = String::new();
    for (model, name) in found.iter().zip(&names) {
        let kind = model.architecture.as_deref().unwrap_or("?");
        let quant = model.quantisation.as_deref().unwrap_or("?");
        let bytes = fmt_bytes(model.bytes);
        let runs = model.why.as_ref().map_or_else(|| "runs".into(), |why| format!("does not run: {why}"));
        page.push_str(&format!("{name:width$}  {kind:8} {quant:8} {bytes:>9}  {runs}\n"));
    }
    page
}
