//! `profile`: how fast this machine runs a model, in the figures that the planner plans by.

use std::fmt::Write as _;

use planner::model::Model;
use planner::model::gguf::GgufFile;
use planner::units::{fmt_bytes, fmt_ms};

use super::arguments::{Machine, Profile as Asked};
use super::failure::Failure;
use super::figures::{plural, rate};
use super::serve::home;
use super::{loading, print, print_json};
use crate::real::profile::{self, Profile, Sample};

pub(super) fn profile(asked: &Asked) -> Result<(), Failure> {
    let file = GgufFile::open(&asked.model)?;
    let machine = Machine { level: asked.level, f32: false, which: asked.which };
    let options = profile::Options { engine: loading::options(&machine, asked.threads, 0)? };
    let folder = home(asked.home.as_deref())?.join("profiles");
    let measured = profile::cached(&file, &options, Some(&folder), asked.fresh)?;
    if asked.json { print_json(&measured) } else { print(&page(&measured, &file.model()?)) }
}

/// For people.
fn page(profile: &Profile, model: &Model) -> String {
    let mut page = String::new();
    write(&mut page, profile, model).expect("writing to text never fails");
    page
}

fn write(page: &mut String, profile: &Profile, model: &Model) -> std::fmt::Result {
    let (key, fit) = (&profile.key, &profile.fit);
    let per_second = |bytes: f64| format!("{} a second", fmt_bytes(bytes as u64));
    writeln!(page, "{} on {}, {}", key.model, key.hardware.processor, plural(key.threads as u64, "thread"))?;
    writeln!(page, "\n  memory gives           {}", per_second(profile.read_bytes_per_s))?;
    writeln!(page, "  weights are streamed   {}", per_second(fit.weight_bytes_per_s))?;
    writeln!(page, "  the head               {}", per_second(fit.parts.head_bytes_per_s))?;
    writeln!(page, "  the KV cache           {}", per_second(fit.parts.kv_bytes_per_s))?;
    let (products, attention) = (fit.flops / 1e9, fit.parts.attention_flops / 1e9);
    writeln!(page, "  multiplied             {products:.0} GFLOP/s, in attention {attention:.0}")?;
    match profile.disk_bytes_per_s {
        Some(disk) => writeln!(page, "  the disk gives         {}", per_second(disk))?,
        None => writeln!(page, "  the disk               could not be read")?,
    }
    let whole = planner::plan::LayerRange::new(0, model.layer_count());
    let token = Sample { sequences: 1, tokens: 1, context: 64, samples: true, us: 0.0 };
    let us = fit.step_us(model, whole, &token);
    writeln!(page, "\n  so a token of the whole model takes {}, {}", fmt_ms(us / 1e3), rate(1e6 / us))?;
    writeln!(
        page,
        "  the formula is off by {:.1} % for a token, by {:.1} % in the mean, by {:.1} % at worst;",
        fit.decode_error_percent, fit.mean_error_percent, fit.worst_error_percent
    )?;
    writeln!(
        page,
        "  of steps of 1 and 8 streams alone it foretells those of 2, 4 and 16 within {:.1} %",
        fit.unseen_error_percent
    )?;
    let (first, last) = (profile.layers.first, profile.layers.end - 1);
    writeln!(
        page,
        "\n  layers {first} to {last}: streams x tokens behind context, measured and by the formula"
    )?;
    for sample in &profile.samples {
        let formula = fit.step_us(model, profile.layers, sample);
        let Sample { sequences, tokens, context, samples, us } = sample;
        let head = if *samples { "and head" } else { "" };
        let off = (formula / us - 1.0) * 100.0;
        let (us, formula) = (fmt_ms(us / 1e3), fmt_ms(formula / 1e3));
        writeln!(
            page,
            "    {sequences:>2} x {tokens:>3} behind {context:>4} {head:<8} {us:>9} {formula:>9} {off:>+6.1} %"
        )?;
    }
    Ok(())
}
