//! What a leaf can be: quantities with units, numbers, words, names. Each reads itself, and says in the schema what it
//! takes.

mod union;
mod word;

use planner::units::{self, UnitError};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::tree::{Node, Value};

pub(crate) use union::{Engines, Figure, Groups, NameOr, Names, RoundTrip, Split, Tokens};
pub(crate) use word::Word;

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
