//! What cannot be done is an error, and leaves nothing behind.

use node::engine::{EngineError, Input, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::gguf::random::Architecture;
use node::real::kernels::Precision;
use node::real::torch::{Device, DirectEngine, Model, TorchEngine, TorchOptions, cuda_devices, why_no_cuda};
use node::real::weights::LoadError;
use planner::model::ggml::GgmlType;
use planner::plan::LayerRange;
use tests::seam::{CONTEXT, KV_BYTES, both_behave};

use crate::{made, options};

#[test]
fn both_engines_load_refuse_and_forget_as_the_seam_says() {
    let options =
        TorchOptions { kv_bytes_max: KV_BYTES, context_max: CONTEXT, ..options(Precision::Quantised) };
    both_behave(|files| DirectEngine::new(files, options), |files| TorchEngine::new(files, options));
}

#[test]
fn what_the_device_has_no_room_for_is_an_error_of_the_load() {
    let (_folder, file) = made(Architecture::Llama, GgmlType::Q4_0);
    let options = TorchOptions { kv_bytes_max: 1 << 60, ..options(Precision::Quantised) };
    let refused = Model::load(&file, LayerRange::new(0, 3), &options).map(drop);
    let Err(LoadError::Device { why }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("keys and values"), "{why}");
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let (_folder, file) = made(Architecture::Llama, GgmlType::Q4_0);
    let missing = cuda_devices() + 6;
    let options = TorchOptions { device: Device::Cuda(missing), ..options(Precision::Quantised) };
    let refused = Model::load(&file, LayerRange::new(0, 3), &options).map(drop);
    let Err(LoadError::Device { why }) = refused else { panic!("{refused:?}") };
    assert!(why.contains(&format!("cuda:{missing}")), "{why}");
    assert_eq!(why_no_cuda().is_none(), cuda_devices() > 0);
}

#[test]
fn unsound_steps_are_refused_and_others_in_the_step_go_on() {
    let (_folder, file) = made(Architecture::Qwen2, GgmlType::Q4_1);
    let mut model = Model::load(&file, LayerRange::new(0, 2), &options(Precision::Quantised)).unwrap();
    let work = |session: u64, token, want| Work {
        session: SessionId(session),
        start: 0,
        count: 1,
        input: Input::Tokens(vec![Token(token)]),
        want,
    };
    let outs = model.step(&[
        work(1, 5, Want::Hidden),
        work(2, 1 << 20, Want::Hidden),
        work(3, 5, Want::Logits),
        work(4, 6, Want::Nothing),
    ]);
    assert!(matches!(outs[0], Ok(WorkOut::Hidden(_))), "{:?}", outs[0]);
    assert!(matches!(outs[1], Err(EngineError::Unsound(_))), "{:?}", outs[1]);
    assert!(matches!(outs[2], Err(EngineError::Unsound(_))), "{:?}", outs[2]);
    assert_eq!(outs[3], Ok(WorkOut::Done));
    assert_eq!(model.held(), [SessionId(1), SessionId(4)]);
    model.release(SessionId(1));
    model.truncate(SessionId(4), 0);
    assert!(model.is_empty());
    assert_eq!(model.kv_bytes(), 0);
}
