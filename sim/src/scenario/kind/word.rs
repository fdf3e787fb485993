//! Words of a fixed set: engines, worlds, modes, classes of network.

use planner::place::{Objective, Shape};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{Kind, Wrong};
use crate::scenario::presets::{self, Preset};
use crate::scenario::suggest;
use crate::scenario::tree::{Node, Value};
use crate::scenario::{EngineKind, WorldKind};

/// Words of a fixed set.
pub(crate) trait Words: Copy + 'static {
    /// The set's name in the schema.
    const NAME: &'static str;
    /// What one of them is.
    const WHAT: &'static str;
    /// The words and what they mean.
    const ALL: &'static [(&'static str, Self)];
}

/// One word of the set `W`.
pub(crate) struct Word<W>(std::marker::PhantomData<W>);

impl<W: Words> Kind for Word<W> {
    type Out = W;
    const NAME: &'static str = W::NAME;
    const DRAWN: bool = true;

    fn read(node: &Node) -> Result<W, Wrong> {
        let words = || W::ALL.iter().map(|(word, _)| *word);
        let Value::Text(text) = &node.value else {
            let all: Vec<&str> = words().collect();
            return Err(Wrong::type_of(
                &node.value,
                W::WHAT,
                &format!("write one of: {}", suggest::list(&all)),
            ));
        };
        W::ALL.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            Wrong::new(format!("`{text}` is not {}", W::WHAT), suggest::cure(text, "there are", words()))
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = W::ALL.iter().map(|(word, _)| *word).collect();
        json_schema!({ "type": "string", "enum": words })
    }
}

impl Words for WorldKind {
    const NAME: &'static str = "World";
    const WHAT: &'static str = "a world";
    const ALL: &'static [(&'static str, Self)] = &[("turmoil", Self::Turmoil), ("memory", Self::Memory)];
}

impl Words for EngineKind {
    const NAME: &'static str = "Engine";
    const WHAT: &'static str = "an engine";
    const ALL: &'static [(&'static str, Self)] = &[
        ("ring", Self::Ring),
        ("llama-rpc", Self::LlamaRpc),
        ("llama-rpc-558", Self::LlamaRpc558),
        ("llama-rpc-8", Self::LlamaRpc8),
        ("hop-by-hop", Self::HopByHop),
        ("client-relay", Self::ClientRelay),
        ("exo", Self::Exo),
        ("tensor-parallel", Self::TensorParallel),
    ];
}

impl Words for Objective {
    const NAME: &'static str = "Objective";
    const WHAT: &'static str = "an objective";
    const ALL: &'static [(&'static str, Self)] =
        &[("tpot", Self::Tpot), ("throughput", Self::Throughput), ("ttft", Self::Ttft)];
}

impl Words for Shape {
    const NAME: &'static str = "Mode";
    const WHAT: &'static str = "a mode";
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("solo", Self::Solo),
        ("pipeline", Self::Pipeline),
        ("replicas", Self::Replicas),
    ];
}

impl Words for &'static Preset {
    const NAME: &'static str = "LinkClass";
    const WHAT: &'static str = "a class of network";
    const ALL: &'static [(&'static str, Self)] = presets::ALL;
}
