//! A plan whose cuts somebody has chosen.

use super::costs::Costs;
use super::{Ask, Candidate, Refusal, candidate};
use crate::fleet::Fleet;
use crate::model::Model;
use crate::plan::{LayerRange, NodeId, Pipeline, Stage};
use crate::units::fmt_bytes;

/// One pipeline cut before each of the layers in `cuts`: the first stage on the usable node whose name comes first, and so
/// on in the order of names. Shape, pins and fewest layers are not asked for.
///
/// # Errors
/// A [`Refusal`] where the cuts make no sense, nodes are missing, or a stage does not fit its node.
pub fn cut(fleet: &Fleet, model: &Model, ask: &Ask, cuts: &[u32]) -> Result<Candidate, Refusal> {
    let costs = Costs::new(fleet, model, ask);
    let bounds: Vec<u32> = [0].into_iter().chain(cuts.iter().copied()).chain([model.layer_count()]).collect();
    if bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
        let layers = model.layer_count();
        let why = format!("cuts must rise, above 0 and below the model's {layers} layers; they are {cuts:?}");
        return Err(Refusal::Constraint(why));
    }
    let mut nodes = costs.allowed();
    nodes.sort_by(|a, b| fleet.nodes[*a].name.cmp(&fleet.nodes[*b].name));
    let wanted = bounds.len() - 1;
    if nodes.len() < wanted {
        let why = format!("{wanted} stages want as many nodes with the model; there are {}", nodes.len());
        return Err(Refusal::NoNodes(why));
    }
    let mut stages = Vec::with_capacity(wanted);
    for (pair, node) in bounds.windows(2).zip(nodes) {
        let need = costs.stage_bytes(pair[0] as usize, pair[1] as usize);
        let Some(at) = fleet.nodes.get(node) else { continue };
        if need > at.device.usable_bytes() {
            let (need, have) = (fmt_bytes(need), fmt_bytes(at.device.usable_bytes()));
            let why =
                format!("layers {}..{} need {need}, {} has {have}; cut elsewhere", pair[0], pair[1], at.name);
            return Err(Refusal::Constraint(why));
        }
        stages.push(Stage { node: NodeId(node as u32), layers: LayerRange::new(pair[0], pair[1]) });
    }
    let apart = || Refusal::Constraint("the nodes of two neighbouring stages cannot reach each other".into());
    candidate(&costs, vec![Pipeline { stages }]).ok_or_else(apart)
}
