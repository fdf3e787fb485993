//! A model in several files, as those that are too large for one are published.

use std::path::{Path, PathBuf};

use planner::model::gguf::{GgufFile, Tensor, Value};

use super::GgufWriter;
use super::source::{CopyError, Rows, copy_metadata, in_order};

/// Writes `source` as `parts` files beside each other, `STEM-00001-of-00003.gguf` and so on as llama.cpp names them, with as
/// many tensors in each as evenly go. The metadata are in the first. Returns the files in order.
///
/// # Errors
/// [`CopyError`]; parts that were finished before stay.
///
/// # Panics
/// Where `parts` is 0.
pub fn split(source: &GgufFile, stem: &Path, parts: u16) -> Result<Vec<PathBuf>, CopyError> {
    let tensors = in_order(source);
    let bounds: Vec<usize> =
        (0..=usize::from(parts)).map(|part| tensors.len() * part / usize::from(parts)).collect();
    let mut files = Vec::new();
    for (number, bounds) in bounds.windows(2).enumerate() {
        let mut writer = GgufWriter::default();
        if number == 0 {
            copy_metadata(source, &mut writer)?;
        }
        writer.set("split.no", Value::U16(number as u16));
        writer.set("split.count", Value::U16(parts));
        writer.set("split.tensors.count", Value::I32(tensors.len() as i32));
        let path = part_path(stem, number, parts);
        write_part(source, &tensors[bounds[0]..bounds[1]], writer, &path)?;
        files.push(path);
    }
    Ok(files)
}

fn part_path(stem: &Path, number: usize, parts: u16) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(format!("-{:05}-of-{parts:05}.gguf", number + 1));
    name.into()
}

fn write_part(
    source: &GgufFile,
    tensors: &[(&str, &Tensor)],
    mut writer: GgufWriter,
    path: &Path,
) -> Result<(), CopyError> {
    for (name, tensor) in tensors {
        writer.tensor(*name, tensor.ggml_type, tensor.dims());
    }
    let mut sink = writer.create(path)?;
    for (name, tensor) in tensors {
        let mut rows = Rows::open(source, name, tensor)?;
        while let Some(bytes) = rows.next_as(tensor.ggml_type)? {
            sink.write(&bytes)?;
        }
    }
    Ok(sink.finish()?)
}
