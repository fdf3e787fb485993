//! The models that are measured.

use std::path::{Path, PathBuf};

use node::real::gguf::random::RandomModel;
use node::real::gguf::requantise;
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;

use super::EngineError;

/// The real llama, as it is fetched.
const SMOLLM2: &str = "smollm2-135m-instruct-q4_1.gguf";

/// A model to measure.
pub(super) struct Case {
    /// Model and format.
    pub(super) name: String,
    source: Source,
}

enum Source {
    /// A file that was fetched.
    Fetched(&'static str),
    /// SmolLM2 in another format.
    Smollm2(GgmlType),
    /// The random llama of 660 million weights.
    Llama660m(GgmlType),
}

/// All cases, the real models first.
fn all() -> Vec<Case> {
    let named = |model: &str, kind: GgmlType| format!("{model}-{}", kind.name().to_lowercase());
    let fetched = |name: &str, file| Case { name: name.into(), source: Source::Fetched(file) };
    let mut cases =
        vec![fetched("smollm2-q4_1", SMOLLM2), fetched("gemma3-270m-q4_k_m", "gemma3-270m-q4_k_m.gguf")];
    let smollm2 = [GgmlType::Q4_0, GgmlType::Q8_0];
    cases.extend(smollm2.map(|kind| Case { name: named("smollm2", kind), source: Source::Smollm2(kind) }));
    let large = [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0];
    cases.extend(large.map(|kind| Case { name: named("660m", kind), source: Source::Llama660m(kind) }));
    cases
}

/// The cases with `only` in their name.
pub(super) fn chosen(only: &str) -> Result<Vec<Case>, EngineError> {
    let mut cases = all();
    let known: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
    cases.retain(|case| case.name.contains(only));
    if cases.is_empty() {
        return Err(EngineError::NoCase { only: only.into(), known: known.join(", ") });
    }
    Ok(cases)
}

impl Case {
    /// The model's file in `folder`, made if it is not there.
    pub(super) fn path(&self, folder: &Path) -> Result<PathBuf, EngineError> {
        if let Source::Fetched(name) = self.source {
            return fetched(folder, name);
        }
        let made = folder.join("made").join(format!("{}.gguf", self.name));
        if !made.exists() {
            self.make(folder, &made)?;
        }
        Ok(made)
    }

    fn make(&self, folder: &Path, made: &Path) -> Result<(), EngineError> {
        let failed = |why: String| EngineError::Make(why);
        std::fs::create_dir_all(folder.join("made")).map_err(|why| failed(why.to_string()))?;
        match self.source {
            Source::Llama660m(kind) => {
                RandomModel::llama_660m(kind).write(made).map_err(|why| failed(why.to_string()))
            }
            Source::Smollm2(kind) => {
                let source = GgufFile::open(&fetched(folder, SMOLLM2)?)?;
                requantise(&source, kind, made).map_err(|why| failed(why.to_string()))
            }
            Source::Fetched(_) => Ok(()),
        }
    }
}

fn fetched(folder: &Path, name: &str) -> Result<PathBuf, EngineError> {
    let path = folder.join(name);
    if path.exists() { Ok(path) } else { Err(EngineError::NoModel(path)) }
}
