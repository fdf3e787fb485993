//! The real models that `tests/scripts/fetch-models` fetches, and the same in other formats.
//!
//! A suite that needs one says `models::smollm2()`. What is not there yet is fetched; a suite whose model cannot be had fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use node::real::gguf::random::Architecture;
use node::real::gguf::requantise;
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;

/// Every architecture, of which there are tiny models.
pub const ARCHITECTURES: [Architecture; 4] =
    [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3, Architecture::Gemma3];

/// One test makes or fetches a file, the others of the same binary wait for it.
static MAKING: Mutex<()> = Mutex::new(());

/// SmolLM2-135M-Instruct, Q4_1: a llama with 576 columns, so no K-quants.
///
/// # Panics
/// Where it cannot be had, which fails the test.
pub fn smollm2() -> PathBuf {
    fetched("smollm2-135m-instruct-q4_1.gguf")
}

/// Gemma 3 270M, Q4_K_M: mixed formats and 18 layers with sliding windows.
///
/// # Panics
/// Where it cannot be had, which fails the test.
pub fn gemma3() -> PathBuf {
    fetched("gemma3-270m-q4_k_m.gguf")
}

/// SmolLM2 in another format, made once and kept; [`GgmlType::F32`] is the model widened.
///
/// # Panics
/// Where it cannot be made, which fails the test.
pub fn smollm2_in(kind: GgmlType) -> PathBuf {
    let source = smollm2();
    let path =
        folder().join("made").join(format!("smollm2-135m-instruct-{}.gguf", kind.name().to_lowercase()));
    let _one = MAKING.lock();
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the cache can be written");
        let source = GgufFile::open(&source).expect("a model whose digest was checked");
        requantise(&source, kind, &unfinished).expect("a format that can be made");
        std::fs::rename(&unfinished, &path).expect("the cache can be written");
    }
    path
}

fn fetched(name: &str) -> PathBuf {
    let path = folder().join(name);
    let _one = MAKING.lock();
    if !path.exists() {
        fetch();
    }
    assert!(path.exists(), "{} is not there after tests/scripts/fetch-models", path.display());
    path
}

fn fetch() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch-models");
    let done = Command::new("python3").arg(&script).env("MESHWRIGHT_MODELS", folder()).status();
    let why = match done {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => format!("python3: {error}"),
    };
    panic!(
        "this test needs models that tests/scripts/fetch-models did not fetch ({why}): run it, or set MESHWRIGHT_MODELS"
    )
}

/// Where models are kept: `MESHWRIGHT_MODELS`, or `target/models` of this workspace.
fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("MESHWRIGHT_MODELS").map_or_else(|| here.join("../target/models"), PathBuf::from)
}
