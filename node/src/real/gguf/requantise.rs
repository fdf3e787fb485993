//! An existing model in another format.

use std::path::Path;

use planner::model::ggml::GgmlType;
use planner::model::gguf::{GgufFile, Tensor};

use super::GgufWriter;
use super::source::{CopyError, Rows, copy_metadata, in_order};

/// Writes `source` to `path` with every matrix in format `kind`, as `llama-quantize --pure` does without an importance
/// matrix: norms, biases and expert gates stay as they are, and a matrix whose rows are no whole number of blocks gets
/// the format of smaller blocks that llama.cpp falls back to. [`GgmlType::F32`] widens. A split model becomes one file.
///
/// # Errors
/// [`CopyError`]; no file is left at `path` then, or what was there before.
pub fn requantise(source: &GgufFile, kind: GgmlType, path: &Path) -> Result<(), CopyError> {
    let mut writer = GgufWriter::default();
    copy_metadata(source, &mut writer)?;
    writer.set("general.quantization_version", 2u32);
    if let Some(number) = file_type(kind) {
        writer.set("general.file_type", number);
    }
    let tensors = in_order(source);
    for (name, tensor) in &tensors {
        writer.tensor(*name, new_format(name, tensor, kind), tensor.dims());
    }
    let mut sink = writer.create(path)?;
    for (name, tensor) in tensors {
        let mut from = Rows::open(source, name, tensor)?;
        let kind = new_format(name, tensor, kind);
        while let Some(bytes) = from.next_as(kind)? {
            sink.write(&bytes)?;
        }
    }
    Ok(sink.finish()?)
}

/// What llama.cpp calls a file of mostly this format (`llama_ftype`).
fn file_type(kind: GgmlType) -> Option<u32> {
    Some(match kind {
        GgmlType::F32 => 0,
        GgmlType::F16 => 1,
        GgmlType::Q4_0 => 2,
        GgmlType::Q4_1 => 3,
        GgmlType::Q8_0 => 7,
        GgmlType::Q5_0 => 8,
        GgmlType::Q5_1 => 9,
        GgmlType::Q2_K => 10,
        GgmlType::Q3_K => 11,
        GgmlType::Q4_K => 14,
        GgmlType::Q5_K => 16,
        GgmlType::Q6_K => 18,
        GgmlType::IQ4_NL => 25,
        GgmlType::IQ4_XS => 30,
        GgmlType::BF16 => 32,
        _ => return None,
    })
}

/// The format a tensor gets. Source: `tensor_allows_quantization` and `tensor_type_fallback` of llama.cpp.
pub(super) fn new_format(name: &str, tensor: &Tensor, kind: GgmlType) -> GgmlType {
    let matrix = tensor.dims().iter().filter(|dim| **dim > 1).count() >= 2;
    let kept = ["_norm.weight", "ffn_gate_inp.weight"].iter().any(|part| name.contains(part));
    if !matrix || kept || !name.ends_with("weight") {
        return tensor.ggml_type;
    }
    fitting(kind, tensor.dims()[0])
}

/// `kind`, or what llama.cpp puts in its place where rows of `columns` are no whole number of its blocks.
pub(super) fn fitting(kind: GgmlType, columns: u64) -> GgmlType {
    let fits = |kind: GgmlType| columns.is_multiple_of(kind.block_elements());
    let smaller = match kind {
        _ if fits(kind) => return kind,
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ => kind,
    };
    if fits(smaller) { smaller } else { GgmlType::F16 }
}
