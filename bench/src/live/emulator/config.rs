//! What to put between which processes, as a TOML file.
//!
//! ```toml
//! scenario = "../../scenarios/wifi3.toml"   # whose machines and links; relative to this file
//!
//! [node.left]                               # a node of the scenario
//! tcp = "127.0.0.1:4001"                    # where its process listens
//! [node.mini]
//! tcp = "127.0.0.1:4002"
//! udp = "127.0.0.1:4002"
//! front.left = 5001                         # the port at which `left` reaches it; free ones otherwise
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use planner::fleet::{Fleet, NodeId};
use serde::Deserialize;
use sim::scenario::{self, ScenarioError};

use super::Ends;

/// Why a file says nothing that could be emulated.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{} cannot be read: {cause}; check the path", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is no such file.
    #[error("{}: {cause}", path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Where and what is wrong.
        cause: toml::de::Error,
    },
    /// The scenario is not right.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A name that the scenario does not know.
    #[error("{}: the scenario has no node `{name}`; it has {known}", path.display())]
    NoNode {
        /// Which file.
        path: PathBuf,
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
}

/// A network to emulate.
#[derive(Debug)]
pub struct Setup {
    /// Machines and links.
    pub fleet: Fleet,
    /// The scenario's seed: jitter and loss are drawn from it.
    pub seed: u64,
    /// Where each node's process listens, by the node's number.
    pub ends: Vec<Ends>,
    /// Ports of choice, by the pair.
    pub ports: BTreeMap<(NodeId, NodeId), u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenario: PathBuf,
    node: BTreeMap<String, NodeEnds>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEnds {
    tcp: Option<SocketAddr>,
    udp: Option<SocketAddr>,
    #[serde(default)]
    front: BTreeMap<String, u16>,
}

/// Reads the file at `path`.
///
/// # Errors
/// [`ConfigError`] names the file, and what in it is wrong.
pub fn load(path: &Path) -> Result<Setup, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.into(), cause })?;
    let file: File = toml::from_str(&text).map_err(|cause| ConfigError::Toml { path: path.into(), cause })?;
    let beside = path.parent().unwrap_or(Path::new("")).join(&file.scenario);
    let scenario = scenario::load(&beside, &[], None)?;
    let named = |name: &str| {
        scenario.fleet.by_name(name).ok_or_else(|| {
            let names: Vec<&str> = scenario.fleet.nodes.iter().map(|node| node.name.as_str()).collect();
            ConfigError::NoNode { path: path.into(), name: name.into(), known: names.join(", ") }
        })
    };
    let mut ends = vec![Ends::default(); scenario.fleet.nodes.len()];
    let mut ports = BTreeMap::new();
    for (name, node) in &file.node {
        let to = named(name)?;
        ends[to.index()] = Ends { tcp: node.tcp, udp: node.udp };
        for (from, port) in &node.front {
            ports.insert((named(from)?, to), *port);
        }
    }
    Ok(Setup { seed: scenario.seed, ends, ports, fleet: scenario.fleet })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const SCENARIO: &str = "# Who?\nmodel = \"Qwen3-8B Q4_K_M\"\n[network.home]\nclass = \"wifi\"\n[node]\n\
                            max = { device = \"apple-m4-max\" }\nmini = { device = \"apple-m4\" }\n";

    fn read(text: &str) -> Result<Setup, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("home.toml"), SCENARIO).unwrap();
        std::fs::write(folder.path().join("setup.toml"), text).unwrap();
        load(&folder.path().join("setup.toml"))
    }

    #[test]
    fn a_file_names_a_scenario_and_where_its_nodes_listen() {
        let setup = read(
            "scenario = \"home.toml\"\n[node.max]\ntcp = \"127.0.0.1:4001\"\n[node.mini]\n\
             udp = \"127.0.0.1:4002\"\nfront.max = 5001\n",
        );
        let setup = setup.unwrap();
        assert_eq!(setup.ends[0].tcp.map(|at| at.port()), Some(4001));
        assert_eq!((setup.ends[1].tcp, setup.ends[1].udp.map(|at| at.port())), (None, Some(4002)));
        assert_eq!(setup.ports, BTreeMap::from([((NodeId(0), NodeId(1)), 5001)]));
        assert!(setup.fleet.networks[0].shared);
    }

    #[test]
    fn a_wrong_file_is_told_what_is_wrong() {
        let unknown = read("scenario = \"home.toml\"\n[node.maxi]\ntcp = \"127.0.0.1:4001\"\n").unwrap_err();
        assert!(unknown.to_string().contains("no node `maxi`; it has max, mini"), "{unknown}");
        let typed = read("scenario = \"home.toml\"\n[node.max]\ntpc = \"127.0.0.1:4001\"\n").unwrap_err();
        assert!(typed.to_string().contains("tpc"), "{typed}");
        let missing = load(Path::new("no/such.toml")).unwrap_err();
        assert!(missing.to_string().contains("no/such.toml"), "{missing}");
    }
}
