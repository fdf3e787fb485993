//! Tokens a second on libtorch by a model's size and the number of sessions, weights made up from a seed: what a GPU does with
//! the shapes of a 1.5B, an 8B, a 32B and a 70B model at 4 bit, beside how fast its memory is copied.
//!
//! ```sh
//! cargo run --release -p node --features libtorch --example torch_shapes -- --out shapes.csv
//! cargo run --release -p node --features libtorch --example torch_shapes -- --shape 660m --device cpu --batch 1,4 --steps 8
//! ```
//!
//! `--shape` takes 660m, 1.5b, 8b, 32b and 70b, several with commas; `--layers N` only the first N of each, head left out, where memory
//! is short; `--cut` measures two stages on one device, one after the other; `--format` Q4_K (the default), Q4_0, Q8_0, ...; `--context` tokens
//! behind which is decoded. The model is written to `--folder` (the system's folder for such) and removed again.
#![expect(clippy::disallowed_methods, reason = "it times this program on this machine; no node sees it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use node::engine::{Input, Sampling, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::real::gguf::random::RandomModel;
use node::real::torch::{Device, Model, TorchOptions, copy_bytes_per_s, why_no_cuda};
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

/// Bytes copied to see how fast memory is.
const COPIED: usize = 1 << 30;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// What was typed: `--name value`.
struct Asked(BTreeMap<String, String>);

impl Asked {
    fn read() -> Result<Self, String> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let mut asked = BTreeMap::new();
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
            let name = name.strip_prefix("--").ok_or_else(|| format!("{name} is no option"))?;
            asked.insert(name.to_owned(), value.clone());
        }
        Ok(Self(asked))
    }

    fn text<'a>(&'a self, name: &str, usual: &'a str) -> &'a str {
        self.0.get(name).map_or(usual, String::as_str)
    }

    fn numbers(&self, name: &str, usual: &str) -> Result<Vec<u32>, String> {
        let read = |text: &str| text.parse().map_err(|_| format!("--{name}: {text} is no number"));
        self.text(name, usual).split(',').map(read).collect()
    }

    fn number(&self, name: &str, usual: &str) -> Result<u32, String> {
        Ok(self.numbers(name, usual)?[0])
    }
}

/// How all shapes are measured.
struct Measure {
    device: Device,
    kind: GgmlType,
    batches: Vec<u32>,
    context: u32,
    steps: u32,
    layers: u32,
    is_cut: bool,
    copy_bytes_per_s: f64,
    folder: PathBuf,
}

fn run() -> Result<(), String> {
    let asked = Asked::read()?;
    let device: Device = asked.text("device", "auto").parse()?;
    if let (Device::Cpu, Some(why)) = (device.chosen(), why_no_cuda()) {
        eprintln!("on the processor: {why}");
    }
    let format = asked.text("format", "Q4_K");
    let kind = GgmlType::ALL.iter().find(|kind| kind.name().eq_ignore_ascii_case(format));
    let measure = Measure {
        device,
        kind: *kind.ok_or_else(|| format!("there is no format {format}"))?,
        batches: asked.numbers("batch", "1,2,4,8,16,32,64")?,
        context: asked.number("context", "256")?,
        steps: asked.number("steps", "32")?.max(1),
        layers: asked.number("layers", "0")?,
        is_cut: asked.text("cut", "no") == "yes",
        copy_bytes_per_s: copy_bytes_per_s(device, COPIED).map_err(|why| why.to_string())?,
        folder: asked.0.get("folder").map_or_else(std::env::temp_dir, PathBuf::from),
    };
    println!("{} copies {:.0} GB/s", device.chosen(), measure.copy_bytes_per_s / 1e9);
    let mut csv = "shape,format,layers,stages,device,copy_gb_per_s,weights_gb,batch,context,step_ms,tokens_per_s,share_of_copy\n".to_owned();
    for shape in asked.text("shape", "1.5b,8b,32b,70b").split(',') {
        measure.shape(shape, &mut csv)?;
    }
    match asked.0.get("out") {
        Some(path) => std::fs::write(path, csv).map_err(|why| format!("{path}: {why}")),
        None => Ok(()),
    }
}

impl Measure {
    fn shape(&self, name: &str, csv: &mut String) -> Result<(), String> {
        let made = match name {
            "660m" => Some(RandomModel::llama_660m(self.kind)),
            _ => RandomModel::large(name, self.kind),
        };
        let made = made.ok_or_else(|| format!("there is no shape {name}"))?;
        let path = self.folder.join(format!("random-{name}-{}.gguf", std::process::id()));
        let measured = made.write(&path).map_err(|why| why.to_string());
        let measured = measured.and_then(|()| self.file(name, &path, made.layers, csv));
        let _ = std::fs::remove_file(&path);
        measured
    }

    fn file(&self, name: &str, path: &Path, all: u32, csv: &mut String) -> Result<(), String> {
        let file = GgufFile::open(path).map_err(|why| why.to_string())?;
        let layers = if self.layers == 0 { all } else { self.layers.min(all) };
        let cuts = if self.is_cut && layers > 1 { vec![0, layers / 2, layers] } else { vec![0, layers] };
        let most = self.batches.iter().copied().max().unwrap_or(1);
        let tokens = u64::from(most) * u64::from((self.context + 2 * self.steps).next_multiple_of(64) + 64);
        let shape = file.model().map_err(|why| why.to_string())?;
        let kv_bytes_max = tokens * shape.layers.iter().map(|layer| layer.kv_bytes_per_token).sum::<u64>();
        let options = TorchOptions { device: self.device, kv_bytes_max, ..TorchOptions::default() };
        let clock = Instant::now();
        let load = |cut: &[u32]| Model::load(&file, LayerRange::new(cut[0], cut[1]), &options);
        let stages: Result<Vec<Model>, _> = cuts.windows(2).map(load).collect();
        let mut stages = stages.map_err(|why| why.to_string())?;
        let bytes: u64 = stages.iter().map(Model::weight_bytes).sum();
        let (gb, seconds) = (bytes as f64 / 1e9, clock.elapsed().as_secs_f64());
        println!(
            "{name}: {layers} of {all} layers in {} stages, {gb:.2} GB, loaded in {seconds:.1} s",
            stages.len()
        );
        for batch in &self.batches {
            let seconds = self.decode(&mut stages, *batch)?;
            let rate = f64::from(*batch) / seconds;
            let share = bytes as f64 / seconds / self.copy_bytes_per_s;
            println!(
                "  {batch:>3} sessions  {:>8.2} ms  {rate:>9.1} tokens/s  {:>5.1} % of the copy",
                seconds * 1e3,
                share * 1e2
            );
            let (kind, stages, device) = (self.kind.name(), stages.len(), self.device.chosen());
            let copy = self.copy_bytes_per_s / 1e9;
            let (context, ms) = (self.context, seconds * 1e3);
            let _ = writeln!(
                csv,
                "{name},{kind},{layers},{stages},{device},{copy:.1},{gb:.3},{batch},{context},{ms:.3},{rate:.2},{share:.3}"
            );
        }
        Ok(())
    }

    /// Seconds of a step in which each of `batch` sessions decodes a token: the middle one.
    fn decode(&self, stages: &mut [Model], batch: u32) -> Result<f64, String> {
        let prompt: Vec<Token> = (0..self.context.max(1)).map(|i| Token(i * 7919 % 3000)).collect();
        let start = prompt.len() as u32;
        step(stages, &[(0, 0, prompt)])?;
        for stage in stages.iter_mut() {
            (1..u64::from(batch)).for_each(|session| {
                stage.fork(SessionId(0), SessionId(session), start);
            });
        }
        let mut seconds = Vec::new();
        for at in start..start + 2 * self.steps {
            let parts: Vec<_> =
                (0..u64::from(batch)).map(|session| (session, at, vec![Token(at % 3000)])).collect();
            let clock = Instant::now();
            step(stages, &parts)?;
            // The first half warms up.
            if at >= start + self.steps {
                seconds.push(clock.elapsed().as_secs_f64());
            }
        }
        for stage in stages.iter_mut() {
            (0..u64::from(batch)).for_each(|session| stage.release(SessionId(session)));
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }
}

/// One step through all stages; the last one samples, where it ends the model.
fn step(stages: &mut [Model], parts: &[(u64, u32, Vec<Token>)]) -> Result<(), String> {
    let mut inputs: Vec<Input> = parts.iter().map(|(_, _, tokens)| Input::Tokens(tokens.clone())).collect();
    for stage in stages {
        let ends = stage.range().end == stage.shape().layers;
        let want = if ends { Want::Sample(Sampling::GREEDY) } else { Want::Hidden };
        let work = |((session, start, tokens), input): (&(u64, u32, Vec<Token>), Input)| Work {
            session: SessionId(*session),
            start: *start,
            count: tokens.len() as u32,
            input,
            want: want.clone(),
        };
        let batch: Vec<Work> = parts.iter().zip(inputs).map(work).collect();
        inputs = Vec::new();
        for out in stage.step(&batch) {
            if let WorkOut::Hidden(tensor) = out.map_err(|why| why.to_string())? {
                inputs.push(Input::Hidden(tensor));
            }
        }
    }
    Ok(())
}
