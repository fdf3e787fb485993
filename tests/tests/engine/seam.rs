//! The engine behind the node's seam: loading, refusing, forgetting.

use node::real::cpu::{CpuEngine, DirectEngine, EngineOptions, Residual};
use node::real::gguf::random::{Architecture, RandomModel};
use planner::cost::constants::{FRAME_HEADER_BYTES, RING};
use planner::cost::transfer::activation_frame_bytes;
use planner::model::gguf::GgufFile;
use tests::seam::{CONTEXT, KV_BYTES, both_behave};

#[test]
fn both_engines_load_refuse_and_forget_as_the_seam_says() {
    let options = EngineOptions {
        threads: 1,
        kv_bytes_max: KV_BYTES,
        context_max: CONTEXT,
        ..EngineOptions::default()
    };
    both_behave(|files| DirectEngine::new(files, options), |files| CpuEngine::new(files, options));
}

#[test]
fn the_planner_charges_what_the_residual_stream_takes_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    RandomModel::tiny(Architecture::Llama).write(&path).unwrap();
    let model = GgufFile::open(&path).unwrap().model().unwrap();
    for tokens in [1, 512] {
        let charged = activation_frame_bytes(&model, &RING, tokens) - FRAME_HEADER_BYTES;
        let values = vec![1.0; (tokens * model.hidden) as usize];
        let taken = Residual::default().encode(&values, model.hidden as usize).len() as u64;
        assert_eq!(
            taken,
            charged + 1 + u64::from(tokens),
            "a byte each for the tensor and a token are left out"
        );
    }
}
