//! Qwen 2 and 3: Llama's layer with rotation by halves; Qwen 2 adds biases to query, key and value (they are loaded
//! wherever a file has them), Qwen 3 normalises each head of query and key.

use planner::plan::LayerRange;

use super::Device;
use super::keys::Keys;
use super::llama::Llama;
use super::rope::Pairs;
use crate::real::weights::{LoadError, Weights};

pub(super) fn load<D: Device>(
    keys: &Keys<'_>,
    weights: &Weights<'_>,
    device: &D,
    range: LayerRange,
) -> Result<Llama<D>, LoadError> {
    Llama::load(keys, weights, device, range, Pairs::Halves, keys.architecture() == "qwen3")
}
