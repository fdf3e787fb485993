//! `bench`: how fast a model, or some of its layers, runs on this machine, and how near that is to what its memory allows.
//!
//! * `resident`: what it holds.
//! * `report`: what `--json` prints, and the same for people.

mod report;
mod resident;

use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;

use self::report::{Load, Profile, RangeProfile};
use super::arguments::Bench;
use super::failure::Failure;
use super::{loading, print, print_json};
use crate::real::pool::Pool;
use crate::real::profile::{Range, read_bytes_per_s};
use crate::real::weights::range_bytes;

pub(super) fn bench(asked: &Bench) -> Result<(), Failure> {
    check(asked)?;
    let file = GgufFile::open(&asked.model)?;
    let shape = file.model()?;
    let whole = [LayerRange::new(0, shape.layer_count())];
    let ranges = if asked.layers.is_empty() { &whole[..] } else { &asked.layers };
    let mut profile = Profile::new(&asked.model, &shape);
    for layers in ranges {
        for threads in &asked.threads {
            let threads = if *threads == 0 { Pool::default_threads() } else { *threads };
            profile.ranges.push(measure(asked, &file, &shape, *layers, threads)?);
        }
    }
    if asked.json { print_json(&profile) } else { print(&profile.page()) }
}

fn check(asked: &Bench) -> Result<(), Failure> {
    let zero =
        asked.runs == 0 || asked.tokens == 0 || asked.prompt.contains(&0) || asked.context.contains(&0);
    if zero {
        return Err(Failure::Usage("--runs, --tokens, --prompt and --context are at least 1".into()));
    }
    Ok(())
}

/// Everything about one range on so many threads.
fn measure(
    asked: &Bench,
    file: &GgufFile,
    shape: &planner::model::Model,
    layers: LayerRange,
    threads: usize,
) -> Result<RangeProfile, Failure> {
    let longest =
        asked.context.iter().map(|c| c.saturating_add(asked.tokens)).chain(asked.prompt.iter().copied());
    let options = loading::options(&asked.machine, threads, longest.max().unwrap_or(1))?;
    let before = resident::bytes();
    let loaded = loading::load(&asked.model, file, Some(layers), &options)?;
    let load = Load {
        seconds: loaded.seconds,
        file_bytes: range_bytes(file, layers, shape.layer_count()),
        resident_bytes: resident::bytes().zip(before).map(|(after, before)| after.saturating_sub(before)),
    };
    let mut profile = RangeProfile::new(shape, layers, threads, load);
    let mut range = Range::new(loaded.model);
    for tokens in &asked.prompt {
        profile.add_prefill(*tokens, range.prefill(*tokens, asked.runs)?);
    }
    for context in &asked.context {
        profile.add_decode(*context, range.decode(*context, asked.tokens, asked.runs)?);
    }
    drop(range);
    profile.against(read_bytes_per_s(profile.bytes_read(), threads)?);
    Ok(profile)
}
