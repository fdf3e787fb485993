//! Weights are in memory once, and only those of the range: in a binary of its own, since it looks at the whole process.
#![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

use node::real::cpu::{EngineOptions, Model};
use node::real::weights::range_bytes;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use tests::{memory::resident, models};

/// What a process takes beside weights: stacks of threads, the pool's queues, the header's strings.
const BESIDE: f64 = 4e6;

#[test]
fn a_range_takes_little_more_memory_than_it_has_bytes_in_the_file() {
    if resident().is_none() {
        return;
    }
    for (path, first, end) in
        [(models::smollm2(), 0, 10), (models::smollm2(), 0, 30), (models::gemma3(), 12, 18)]
    {
        let file = GgufFile::open(&path).unwrap();
        let layers = file.model().unwrap().layer_count();
        let range = LayerRange::new(first, end);
        let (before, _) = resident().unwrap();
        let model = Model::load(&file, range, &EngineOptions::default()).unwrap();
        let held = (resident().unwrap().0 - before) as f64;
        let bytes = range_bytes(&file, range, layers) as f64;
        println!("{range:?} of {}: {held} for {bytes}, {}", path.display(), held / bytes);
        assert!(held <= 1.15 * bytes + BESIDE, "{range:?} of {}: {held} for {bytes}", path.display());
        drop(model);
    }
}
