//! Values of several possible shapes.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::{Kind, Text, Word, Wrong};
use crate::scenario::EngineKind;
use crate::scenario::tree::Node;

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
