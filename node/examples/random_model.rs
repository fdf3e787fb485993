//! Writes a model with random weights: `cargo run -p node --example random_model -- gemma3 F32 gemma3.gguf`.
//!
//! The first argument is `llama`, `llama3` (with a table of rotary frequencies), `qwen2`, `qwen2-yarn` (with waves stretched
//! by YaRN), `qwen3` or `gemma3` for a tiny one, or `llama-660m`.

use std::path::Path;
use std::process::ExitCode;

use node::real::gguf::random::{Architecture, RandomModel};
use planner::model::ggml::GgmlType;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let made = match arguments.as_slice() {
        [shape, kind, path] => make(shape, kind, path),
        _ => Err("give a shape, a format and a file: `llama F32 model.gguf`".into()),
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn make(shape: &str, kind: &str, path: &str) -> Result<(), String> {
    let known = |kind: &&GgmlType| node::real::formats::KNOWN.contains(kind);
    let kinds = GgmlType::ALL.iter().filter(known);
    let kind = kinds.into_iter().find(|known| known.name().eq_ignore_ascii_case(kind));
    let kind = *kind.ok_or("the format is none that can be written, such as F32, Q4_0 or Q4_K")?;
    let tiny = |architecture| RandomModel { kind, ..RandomModel::tiny(architecture) };
    let model = match shape {
        "llama" => tiny(Architecture::Llama),
        "llama3" => RandomModel { rope_table: true, ..tiny(Architecture::Llama) },
        "qwen2" => tiny(Architecture::Qwen2),
        "qwen2-yarn" => RandomModel { kind, ..RandomModel::tiny_yarn() },
        "qwen3" => tiny(Architecture::Qwen3),
        "gemma3" => tiny(Architecture::Gemma3),
        "llama-660m" => RandomModel::llama_660m(kind),
        _ => return Err("the shape is llama, llama3, qwen2, qwen2-yarn, qwen3, gemma3 or llama-660m".into()),
    };
    model.write(Path::new(path)).map_err(|error| error.to_string())
}
