//! The format, as it stands in the file. A struct is a table, its fields are the table's keys, and the comments on them
//! are what `sim schema` prints. Nothing is looked up or converted here.

mod fleet;
mod happening;

pub(crate) use fleet::{
    RawDevice, RawDistance, RawExperts, RawLink, RawMeasured, RawModel, RawNetwork, RawNode,
};
pub(crate) use happening::{RawChurn, RawFault, RawPlan, RawPublished, RawRun, RawWorkload};
use schemars::JsonSchema;
use serde::Deserialize;

use super::kind::{NameOr, Names};
use super::leaf::{Here, Leaf, Named};

/// A scenario: a fleet, a network, a model, a load, and what goes wrong. The comment on top is the question it answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Meshwright scenario")]
pub(crate) struct RawScenario {
    #[serde(rename = "$here")]
    #[schemars(skip)]
    pub(crate) here: Here,
    /// Files to begin with, relative to this one: their tables are merged in, and this file wins.
    #[expect(dead_code, reason = "stands here for the schema; files are merged before the format is read")]
    pub(crate) include: Option<Leaf<Names>>,
    /// What is run: a name from the catalog such as "GLM-4.7-Flash Q4_K_M", or a table.
    pub(crate) model: Option<Leaf<NameOr<RawModel>>>,
    /// Devices of this scenario's own, by name; nodes refer to them like to the catalog's.
    #[serde(default)]
    pub(crate) device: Named<RawDevice>,
    /// Machines, by name, in the order in which a list of parts cuts the model.
    #[serde(default)]
    pub(crate) node: Named<RawNode>,
    /// Local networks, by name. May be left out when all nodes share one machine.
    #[serde(default)]
    pub(crate) network: Named<RawNetwork>,
    /// Distances between networks.
    #[serde(default)]
    pub(crate) distance: Vec<RawDistance>,
    /// Exceptions for single pairs of nodes.
    #[serde(default)]
    pub(crate) link: Vec<RawLink>,
    /// How the model is spread.
    pub(crate) plan: Option<RawPlan>,
    /// Who runs it, where, and from which seed.
    pub(crate) run: Option<RawRun>,
    /// The load.
    pub(crate) workload: Option<RawWorkload>,
    /// Scripted faults.
    #[serde(default)]
    pub(crate) fault: Vec<RawFault>,
    /// Random crashes.
    pub(crate) churn: Option<RawChurn>,
    /// What somebody measured: makes the scenario a validation case.
    pub(crate) published: Option<RawPublished>,
}
