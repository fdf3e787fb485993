//! The real models that `tests/scripts/fetch-models` fetches, and the same in other formats.
//!
//! A suite that needs one does `let Some(path) = models::smollm2() else { return };`. Where it is not there, that is a skipped
//! test on a developer's machine and a failed one in CI (`CI` set), where the fetching is a step before the tests.

use std::path::{Path, PathBuf};

use node::real::gguf::requantise;
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;

/// SmolLM2-135M-Instruct, Q4_1: a llama with 576 columns, so no K-quants.
pub fn smollm2() -> Option<PathBuf> {
    fetched("smollm2-135m-instruct-q4_1.gguf")
}

/// Gemma 3 270M, Q4_K_M: mixed formats and 18 layers with sliding windows.
pub fn gemma3() -> Option<PathBuf> {
    fetched("gemma3-270m-q4_k_m.gguf")
}

/// SmolLM2 in another format, made once and kept; [`GgmlType::F32`] is the model widened.
///
/// # Panics
/// Where it cannot be made, which fails the test.
pub fn smollm2_in(kind: GgmlType) -> Option<PathBuf> {
    let source = smollm2()?;
    let made =
        folder().join("made").join(format!("smollm2-135m-instruct-{}.gguf", kind.name().to_lowercase()));
    if !made.exists() {
        std::fs::create_dir_all(made.parent().expect("it is in a folder")).expect("the cache can be written");
        let source = GgufFile::open(&source).expect("a model whose digest was checked");
        requantise(&source, kind, &made).expect("a format that can be made");
    }
    Some(made)
}

fn fetched(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{} is not there: tests/scripts/fetch-models fetches it", path.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

/// Where models are kept: `MESHWRIGHT_MODELS`, or `target/models` of this workspace.
fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("MESHWRIGHT_MODELS").map_or_else(|| here.join("../target/models"), PathBuf::from)
}
