//! Who computes what: given a model, machines and links, which machine holds which layers, and what that gives.
//!
//! Pure by construction: no async, no clock, no socket, no entropy. The same inputs give the same plan on every node
//! of a mesh, in the simulator and in a real one.
//!
//! * [`units`]: quantities a person writes ("17 GB", "40 ms") and reads.
//! * [`model`]: shapes of models, from a GGUF header or the catalog.
//! * [`fleet`]: devices, nodes, networks and the paths between nodes.
//! * [`cost`]: what a step, a transfer, a KV cache and a load cost. Every constant stands in [`cost::constants`].
//! * [`plan`]: the answer: stages, replicas, epochs, and what is predicted of them.
//! * [`place`]: the searches that find plans, exact for small fleets, bounded for large ones.

pub mod cost;
pub mod fleet;
pub mod model;
mod near;
pub mod place;
pub mod plan;
pub mod units;
