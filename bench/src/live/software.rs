//! What a hop costs the ring's software on this machine: the constant of the planner that neither profile nor links give.
//! A processor that rests takes up to some hundred microseconds to wake in a virtual machine, and a hop wakes several
//! threads.
//!
//! Measured on two meshes that stand in no table, in turn, so that the machine's speed of the moment falls out: what a
//! token takes longer over two nodes that meet without a network than on one is two hops and one step more.

use std::path::Path;

use planner::cost::constants::{RING, Software};
use sim::report::stats::middle;
use sim::report::write_text;

use super::cells;
use super::client::{self, Question};
use super::mesh::{Mesh, MeshSpec};
use super::{Common, LiveError, Subject, speeds};

/// Answers of each; the middle one counts.
const ANSWERS: usize = 5;

/// The costs measured before, or measured now and kept.
///
/// # Errors
/// No mesh, no answer.
pub(super) fn measured(
    common: &Common,
    subject: &Subject,
    progress: &mut impl FnMut(&str),
) -> Result<Software, LiveError> {
    let path = common.out.join("software.json");
    if let Some(kept) = kept(&path).filter(|_| !common.fresh) {
        return Ok(kept);
    }
    progress("the ring's software: one node, and two without a network");
    let software = measure(common, subject)?;
    let text = serde_json::to_string_pretty(&software).expect("finite numbers always serialise");
    write_text(&path, &(text + "\n"))?;
    Ok(software)
}

fn kept(path: &Path) -> Option<Software> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn measure(common: &Common, subject: &Subject) -> Result<Software, LiveError> {
    let layers = subject.shape.layer_count();
    let (one, two) = (start(common, subject, &[])?, start(common, subject, &cells::even_cut(layers, 2))?);
    let question = speeds::question(&subject.path, common.tokens);
    let (mut alone, mut both) = (Vec::new(), Vec::new());
    for mesh in [&one, &two] {
        client::ask(mesh.api(0), &Question { tokens: 4, ..question.clone() }, |_| {})?;
    }
    let token_us =
        |mesh: &Mesh| Ok::<f64, LiveError>(1e6 / client::ask(mesh.api(0), &question, |_| {})?.decode_tok_s());
    for _ in 0..ANSWERS {
        alone.push(token_us(&one)?);
        both.push(token_us(&two)?);
    }
    let beyond_us: Vec<f64> = alone.iter().zip(&both).map(|(alone, both)| both - alone).collect();
    let per_hop_us = ((middle(beyond_us) - RING.per_step_us) / 2.0).max(0.0);
    Ok(Software { per_hop_us, ..RING })
}

fn start(common: &Common, subject: &Subject, cut: &[u32]) -> Result<Mesh, LiveError> {
    Ok(Mesh::start(&MeshSpec { cut: Some(cut), ..common.mesh(&subject.path, cut.len() as u32 + 1) })?)
}
