//! What a leaf can be: quantities with units, numbers, words, names. Each reads itself, and says in the schema what it
//! takes.

use planner::place::{Objective, Shape};
use planner::units::{self, UnitError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::presets::Preset;
use super::suggest;
use super::tree::{Node, Value};
use super::{EngineKind, WorldKind};

/// What was wrong with a value, and what would be right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) cure: String,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { message: message.into(), cure: cure.into() }
    }

    fn type_of(value: &Value, what: &str, cure: &str) -> Self {
        Self::new(format!("{} where {what} should be", value.what()), cure)
    }
}

impl From<UnitError> for Wrong {
    fn from(error: UnitError) -> Self {
        let text = error.to_string();
        let (message, cure) = text.split_once("; ").unwrap_or((&text, ""));
        Self::new(message, cure)
    }
}

/// A sort of value.
pub(crate) trait Kind {
    /// What it is once read.
    type Out: Clone;
    /// Its name in the schema.
    const NAME: &'static str;
    /// Whether `{ uniform = [..] }` and `{ choice = [..] }` may stand for it.
    const DRAWN: bool = false;

    /// Reads it.
    fn read(node: &Node) -> Result<Self::Out, Wrong>;

    /// Whether the first of two is not above the second; `false` where there is no order.
    fn ordered(_low: &Self::Out, _high: &Self::Out) -> bool {
        false
    }

    /// The value `at` (in `0..1`) of the way between two; `None` where there is no between.
    fn between(_low: &Self::Out, _high: &Self::Out, _at: f64) -> Option<Self::Out> {
        None
    }

    /// What a single value looks like.
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// What may stand in the file: a single value, or a range to draw it from.
    fn schema_with_ranges(generator: &mut SchemaGenerator) -> Schema {
        let one = Self::schema(generator);
        if !Self::DRAWN {
            return one;
        }
        json_schema!({ "anyOf": [
            one,
            { "type": "object", "required": ["uniform"], "additionalProperties": false,
              "properties": { "uniform": { "type": "array", "items": one, "minItems": 2, "maxItems": 2 } } },
            { "type": "object", "required": ["choice"], "additionalProperties": false,
              "properties": { "choice": { "type": "array", "items": one, "minItems": 1 } } },
        ] })
    }
}

fn mix(low: f64, high: f64, at: f64) -> f64 {
    low + (high - low) * at
}

macro_rules! quantity {
    ($(#[$doc:meta])* $kind:ident, $out:ty, $parse:path, $what:literal, $example:literal, $units:literal,
     |$low:ident, $high:ident, $at:ident| $between:expr) => {
        $(#[$doc])*
        pub(crate) struct $kind;

        impl Kind for $kind {
            type Out = $out;
            const NAME: &'static str = stringify!($kind);
            const DRAWN: bool = true;

            fn read(node: &Node) -> Result<$out, Wrong> {
                match &node.value {
                    Value::Text(text) => Ok($parse(text)?),
                    other => {
                        let cure = concat!("write a number with its unit, in quotes, such as \"", $example, "\"");
                        Err(Wrong::type_of(other, $what, cure))
                    }
                }
            }

            fn ordered(low: &$out, high: &$out) -> bool {
                low <= high
            }

            fn between($low: &$out, $high: &$out, $at: f64) -> Option<$out> {
                Some($between)
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": concat!(r"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)?\s*(", $units, r")\s*$"),
                    "examples": [$example],
                })
            }
        }
    };
}

quantity!(
    /// A duration: microseconds.
    Duration, f64, units::duration_us, "a duration", "40 ms", "ns|us|µs|μs|ms|s|min|h",
    |low, high, at| mix(*low, *high, at)
);
quantity!(
    /// An amount of memory: bytes.
    Bytes, u64, units::bytes, "an amount of memory", "17 GB", "B|kB|MB|GB|TB|KiB|MiB|GiB|TiB",
    |low, high, at| mix(*low as f64, *high as f64, at).round() as u64
);
quantity!(
    /// A bandwidth: bytes per second.
    Bandwidth, f64, units::bandwidth, "a bandwidth", "100 Mbit/s",
    "bit/s|kbit/s|Mbit/s|Gbit/s|B/s|kB/s|MB/s|GB/s|TB/s",
    |low, high, at| mix(*low, *high, at)
);
quantity!(
    /// A compute rate: FLOP per second.
    Flops, f64, units::flops, "a compute rate", "34 TFLOP/s", "MFLOP/s|GFLOP/s|TFLOP/s|PFLOP/s",
    |low, high, at| mix(*low, *high, at)
);

/// A number.
pub(crate) struct Number;

impl Kind for Number {
    type Out = f64;
    const NAME: &'static str = "Number";
    const DRAWN: bool = true;

    fn read(node: &Node) -> Result<f64, Wrong> {
        match &node.value {
            Value::Whole(n) => Ok(*n as f64),
            Value::Real(x) if x.is_finite() => Ok(*x),
            Value::Real(_) => Err(Wrong::new("not a finite number", "write a number such as 0.5")),
            other => Err(Wrong::type_of(other, "a number", "write a number such as 0.5, without quotes")),
        }
    }

    fn ordered(low: &f64, high: &f64) -> bool {
        low <= high
    }

    fn between(low: &f64, high: &f64, at: f64) -> Option<f64> {
        Some(mix(*low, *high, at))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

/// How many.
pub(crate) struct Count;

impl Kind for Count {
    type Out = u32;
    const NAME: &'static str = "Count";
    const DRAWN: bool = true;

    fn read(node: &Node) -> Result<u32, Wrong> {
        let cure = format!("write a whole number from 0 to {}", u32::MAX);
        match &node.value {
            Value::Whole(n) => {
                u32::try_from(*n).map_err(|_| Wrong::new(format!("{n} is out of range"), cure))
            }
            other => {
                Err(Wrong::type_of(other, "a whole number", "write a whole number such as 4, without quotes"))
            }
        }
    }

    fn ordered(low: &u32, high: &u32) -> bool {
        low <= high
    }

    fn between(low: &u32, high: &u32, at: f64) -> Option<u32> {
        let choices = f64::from(high - low) + 1.0;
        Some((low + (choices * at) as u32).min(*high))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
}

/// A seed: any whole number that is not negative.
pub(crate) struct Seed;

impl Kind for Seed {
    type Out = u64;
    const NAME: &'static str = "Seed";

    fn read(node: &Node) -> Result<u64, Wrong> {
        match &node.value {
            Value::Whole(n) if *n >= 0 => Ok(n.unsigned_abs()),
            Value::Whole(n) => Err(Wrong::new(format!("{n} is negative"), "write a whole number from 0 on")),
            other => Err(Wrong::type_of(other, "a whole number", "write a whole number from 0 on")),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }
}

/// Yes or no.
pub(crate) struct Flag;

impl Kind for Flag {
    type Out = bool;
    const NAME: &'static str = "Flag";

    fn read(node: &Node) -> Result<bool, Wrong> {
        match &node.value {
            Value::Flag(flag) => Ok(*flag),
            other => Err(Wrong::type_of(other, "true or false", "write true or false, without quotes")),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A name, a path, a sentence.
pub(crate) struct Text;

impl Kind for Text {
    type Out = String;
    const NAME: &'static str = "Text";
    const DRAWN: bool = true;

    fn read(node: &Node) -> Result<String, Wrong> {
        match &node.value {
            Value::Text(text) => Ok(text.clone()),
            other => Err(Wrong::type_of(other, "a text", "write it in quotes")),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

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
    const ALL: &'static [(&'static str, Self)] = super::presets::ALL;
}

/// A value of several possible shapes; whoever resolves it takes it apart.
macro_rules! union {
    ($(#[$doc:meta])* $kind:ident, $schema:tt) => {
        $(#[$doc])*
        pub(crate) struct $kind;

        impl Kind for $kind {
            type Out = Node;
            const NAME: &'static str = stringify!($kind);

            fn read(node: &Node) -> Result<Node, Wrong> {
                Ok(node.clone())
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                let schema = json!($schema);
                Schema::try_from(schema).expect("a JSON object is a schema")
            }
        }
    };
}

union!(
    /// One name or several.
    Names, { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }
);
union!(
    /// A cut: parts by node, parts in the order of the nodes, or a rule.
    Split, { "anyOf": [
        { "enum": ["equal", "memory"] },
        { "type": "array", "items": { "type": "number", "exclusiveMinimum": 0 }, "minItems": 1 },
        { "type": "object", "additionalProperties": { "type": "number", "exclusiveMinimum": 0 }, "minProperties": 1 },
    ] }
);
union!(
    /// A length: a number of tokens, or a distribution drawn for each request.
    Tokens, { "anyOf": [
        { "type": "integer", "minimum": 1 },
        { "type": "object", "required": ["uniform"], "additionalProperties": false, "properties": {
            "uniform": { "type": "array", "items": { "type": "integer", "minimum": 1 }, "minItems": 2, "maxItems": 2 } } },
        { "type": "object", "required": ["median", "p90", "max"], "additionalProperties": false, "properties": {
            "median": { "type": "integer", "minimum": 1 }, "p90": { "type": "integer", "minimum": 1 },
            "max": { "type": "integer", "minimum": 1 } } },
    ] }
);
union!(
    /// A round trip: one for all pairs, or a matrix.
    RoundTrip, { "anyOf": [
        { "type": "string" },
        { "type": "object" },
        { "type": "array", "items": { "type": "array", "items": { "type": "string" } } },
    ] }
);
union!(
    /// Two groups of nodes.
    Groups, { "type": "array", "minItems": 2, "maxItems": 2, "items":
        { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] } }
);
union!(
    /// A published figure: one, or the ends of a range.
    Figure, { "anyOf": [
        { "type": "number", "exclusiveMinimum": 0 },
        { "type": "array", "items": { "type": "number", "exclusiveMinimum": 0 }, "minItems": 2, "maxItems": 2 },
    ] }
);

/// A list of engines.
pub(crate) struct Engines;

impl Kind for Engines {
    type Out = Node;
    const NAME: &'static str = "Engines";

    fn read(node: &Node) -> Result<Node, Wrong> {
        Ok(node.clone())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": Word::<EngineKind>::schema(generator) })
    }
}

/// A name, or a table that says it all.
pub(crate) struct NameOr<T>(std::marker::PhantomData<T>);

impl<T: JsonSchema> Kind for NameOr<T> {
    type Out = Node;
    const NAME: &'static str = "NameOrTable";

    fn read(node: &Node) -> Result<Node, Wrong> {
        Ok(node.clone())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let choice = Text::schema_with_ranges(generator);
        json_schema!({ "anyOf": [choice, generator.subschema_for::<T>()] })
    }
}
