//! The model behind the node's seam.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use tokio::task::spawn_blocking;

use super::{Backend, Model};
use crate::asides::{Asides, Results};
use crate::engine::{Engine, EngineError, Work};
use crate::ids::SessionId;

/// An engine over GGUF files on this disk that computes where it is called, on its own threads: who calls it waits. For
/// simulated time, which does not wait for threads, and for programs that do nothing else meanwhile.
pub struct DirectEngine<B: Backend> {
    /// Where each model lies, by its name in plans.
    files: BTreeMap<String, PathBuf>,
    options: B::Options,
    loaded: Option<Loaded<B>>,
}

struct Loaded<B: Backend> {
    name: String,
    model: Model<B>,
}

impl<B: Backend> DirectEngine<B> {
    /// An engine that holds nothing yet, with the models it can load.
    pub fn new(files: BTreeMap<String, PathBuf>, options: B::Options) -> Self {
        Self { files, options, loaded: None }
    }

    fn holds(&self, name: &str, layers: Option<LayerRange>) -> bool {
        match &self.loaded {
            Some(held) => Some(held.model.range()) == layers && held.name == name,
            None => layers.is_none(),
        }
    }

    fn load_now(&mut self, name: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        if self.holds(name, layers) {
            return Ok(());
        }
        // Memory for both at once may not be there.
        self.loaded = None;
        let Some(layers) = layers else { return Ok(()) };
        let file = self.files.get(name);
        let file =
            file.ok_or_else(|| EngineError::Device(format!("the weights of {name} are not on this disk")))?;
        let file = GgufFile::open(file).map_err(|why| EngineError::Device(why.to_string()))?;
        let model = Model::load(&file, layers, &self.options);
        let model =
            model.map_err(|why| EngineError::Device(format!("{}: {why}", file.first_part().display())))?;
        self.loaded = Some(Loaded { name: name.into(), model });
        Ok(())
    }

    fn step_now(&mut self, batch: &[Work], between: &mut dyn FnMut(&mut Model<B>)) -> Results {
        match &mut self.loaded {
            Some(loaded) => loaded.model.step_between(batch, between),
            None => batch.iter().map(|_| Err(EngineError::NotLoaded)).collect(),
        }
    }
}

impl<B: Backend> Engine for DirectEngine<B> {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        self.load_now(model, layers)
    }

    async fn step(&mut self, batch: Vec<Work>) -> Results {
        self.step_now(&batch, &mut |_| {})
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        if let Some(loaded) = &mut self.loaded {
            loaded.model.truncate(session, len);
        }
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.loaded.as_mut().map_or(0, |loaded| loaded.model.fork(from, to, len))
    }

    fn release(&mut self, session: SessionId) {
        self.truncate(session, 0);
    }

    fn held(&self) -> Vec<SessionId> {
        self.loaded.as_ref().map_or_else(Vec::new, |loaded| loaded.model.held())
    }
}

/// The same with loads and steps on threads of their own, so that the node goes on meanwhile.
pub struct ThreadedEngine<B: Backend> {
    direct: Arc<Mutex<DirectEngine<B>>>,
}

impl<B: Backend> Clone for ThreadedEngine<B> {
    fn clone(&self) -> Self {
        Self { direct: Arc::clone(&self.direct) }
    }
}

impl<B: Backend> ThreadedEngine<B> {
    /// An engine that holds nothing yet, with the models it can load, by their names in plans.
    pub fn new(files: BTreeMap<String, PathBuf>, options: B::Options) -> Self {
        Self { direct: Arc::new(Mutex::new(DirectEngine::new(files, options))) }
    }

    /// The engine, once no step is running.
    fn lock(&self) -> MutexGuard<'_, DirectEngine<B>> {
        // A step that panicked has left a model that may be inconsistent; `step` gives it up.
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn step_on_a_thread(
        &self,
        batch: Vec<Work>,
        mut between: impl FnMut(&mut Model<B>) + Send + 'static,
    ) -> Results {
        let (engine, count) = (self.clone(), batch.len());
        match spawn_blocking(move || engine.lock().step_now(&batch, &mut between)).await {
            Ok(results) => results,
            Err(why) => {
                self.lock().loaded = None;
                (0..count).map(|_| Err(EngineError::Device(why.to_string()))).collect()
            }
        }
    }
}

impl<B: Backend> Engine for ThreadedEngine<B> {
    async fn load(&mut self, model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        let (engine, name) = (self.clone(), model.to_owned());
        let loading = spawn_blocking(move || engine.lock().load_now(&name, layers));
        loading.await.unwrap_or_else(|why| Err(EngineError::Device(why.to_string())))
    }

    async fn step(&mut self, batch: Vec<Work>) -> Results {
        self.step_on_a_thread(batch, |_| {}).await
    }

    fn takes_asides(&self) -> bool {
        true
    }

    async fn step_between(&mut self, batch: Vec<Work>, asides: Asides) -> Results {
        let between = move |model: &mut Model<B>| {
            if let Some(aside) = asides.next() {
                aside.forget.into_iter().for_each(|session| model.release(session));
                asides.answer(model.step(&aside.batch));
            }
        };
        self.step_on_a_thread(batch, between).await
    }

    fn truncate(&mut self, session: SessionId, len: u32) {
        self.lock().truncate(session, len);
    }

    fn fork(&mut self, from: SessionId, to: SessionId, len: u32) -> u32 {
        self.lock().fork(from, to, len)
    }

    fn release(&mut self, session: SessionId) {
        self.lock().release(session);
    }

    fn held(&self) -> Vec<SessionId> {
        self.lock().held()
    }
}
