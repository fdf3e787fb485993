//! The model behind the node's seam: steps and loads run on threads of their own, so that the node goes on meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use tokio::task::spawn_blocking;

use super::{EngineOptions, Model};
use crate::engine::{Engine, EngineError, Work, WorkOut};
use crate::ids::SessionId;

/// An engine over GGUF files on this disk.
#[derive(Clone)]
pub struct CpuEngine {
    /// Where each model lies, by its name in plans.
    files: Arc<BTreeMap<String, PathBuf>>,
    options: EngineOptions,
    loaded: Arc<Mutex<Option<Loaded>>>,
}

struct Loaded {
    name: String,
    model: Model,
}

impl CpuEngine {
    /// An engine that holds nothing yet, with the models it can load.
    pub fn new(files: BTreeMap<String, PathBuf>, options: EngineOptions) -> Self {
        Self { files: Arc::new(files), options, loaded: Arc::default() }
    }

    /// The model, once no step is running.
    fn lock(&self) -> MutexGuard<'_, Option<Loaded>> {
        // A step that panicked has left a model that may be inconsistent; `step` gives it up.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load_now(&self, name: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        let mut loaded = self.lock();
        let is_there =
            |held: &Loaded| Some(held.model.range()) == layers && (layers.is_none() || held.name == name);
        if loaded.as_ref().map_or(layers.is_none(), is_there) {
            return Ok(());
        }
        // Memory for both at once may not be there.
        *loaded = None;
        let Some(layers) = layers else { return Ok(()) };
        let file = self.files.get(name);
        let file =
            file.ok_or_else(|| EngineError::Device(format!("the weights of {name} are not on this disk")))?;
        let file = GgufFile::open(file).map_err(|why| EngineError::Device(why.to_string()))?;
        let model = Model::load(&file, layers, &self.options);
        let model =
            model.map_err(|why| EngineError::Device(format!("{}: {why}", file.first_part().display())))?;
        *loaded = Some(Loaded { name: name.into(), model });
        Ok(())
    }

    fn step_now(&self, batch: &[Work]) -> Vec<Result<WorkOut, EngineError>> {
        match &mut *self.lock() {
            Some(loaded) => loaded.model.step(batch),
            None => batch.iter().map(|_| Err(EngineError::NotLoaded)).collect(),
        }
    }
}

impl Engine for CpuEngine {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        let (engine, name) = (self.clone(), model.to_owned());
        let loading = spawn_blocking(move || engine.load_now(&name, layers));
        loading.await.unwrap_or_else(|why| Err(EngineError::Device(why.to_string())))
    }

    async fn step(&mut self, batch: Vec<Work>) -> Vec<Result<WorkOut, EngineError>> {
        let (engine, count) = (self.clone(), batch.len());
        match spawn_blocking(move || engine.step_now(&batch)).await {
            Ok(results) => results,
            Err(why) => {
                *self.lock() = None;
                (0..count).map(|_| Err(EngineError::Device(why.to_string()))).collect()
            }
        }
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        if let Some(loaded) = &mut *self.lock() {
            loaded.model.truncate(session, len);
        }
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.lock().as_mut().map_or(0, |loaded| loaded.model.fork(from, to, len))
    }

    fn release(&mut self, session: SessionId) {
        if let Some(loaded) = &mut *self.lock() {
            loaded.model.release(session);
        }
    }

    fn held(&self) -> Vec<SessionId> {
        self.lock().as_ref().map_or_else(Vec::new, |loaded| loaded.model.held())
    }
}
