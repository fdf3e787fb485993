//! What a range of layers costs to load: `cargo run --release -p tests --example load -- MODEL.gguf 10 20`, or without
//! layers for all. One line of JSON: bytes in the file, memory taken, the most taken on the way, seconds, bytes a second.

use std::path::Path;
use std::process::ExitCode;

use node::real::arch::shape;
use node::real::cpu::{EngineOptions, Model};
use node::real::weights::range_bytes;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use tests::memory::resident;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, layers) = match arguments.as_slice() {
        [path] => (path, None),
        [path, first, end] => (path, Some((first, end))),
        _ => {
            return refused(
                "give a model, and the first layer and the one after the last: `model.gguf 10 20`",
            );
        }
    };
    match loaded(Path::new(path), layers) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => refused(&why),
    }
}

fn refused(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

fn loaded(path: &Path, layers: Option<(&String, &String)>) -> Result<String, String> {
    let number = |text: &String| text.parse::<u32>().map_err(|why| format!("{text}: {why}"));
    let file = GgufFile::open(path).map_err(|why| why.to_string())?;
    let count = shape(&file).map_err(|why| why.to_string())?.layers;
    let range = match layers {
        None => LayerRange::new(0, count),
        Some((first, end)) => LayerRange::new(number(first)?, number(end)?),
    };
    let (before, _) = resident().ok_or("this system does not say how much memory is in use")?;
    #[expect(clippy::disallowed_methods, reason = "a figure about this machine, not about the mesh")]
    let began = std::time::Instant::now();
    let model = Model::load(&file, range, &EngineOptions::default()).map_err(|why| why.to_string())?;
    let seconds = began.elapsed().as_secs_f64();
    let (after, most) = resident().ok_or("this system does not say how much memory is in use")?;
    let bytes = range_bytes(&file, range, count);
    let (held, peak) = (after.saturating_sub(before), most.saturating_sub(before));
    drop(model);
    Ok(format!(
        r#"{{"first": {}, "end": {}, "file_bytes": {bytes}, "held_bytes": {held}, "held_per_file_byte": {:.3}, "peak_bytes": {peak}, "seconds": {seconds:.3}, "bytes_per_s": {:.0}}}"#,
        range.first,
        range.end,
        held as f64 / bytes as f64,
        bytes as f64 / seconds
    ))
}
