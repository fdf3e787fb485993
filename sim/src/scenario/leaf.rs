//! The leaves of the raw structs: each knows where its value stands and what it should be, and is read later, when all
//! problems of the file's shape are known.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Visitor};

use super::decode::LEAF;
use super::kind::Kind;

/// A value of kind `K`, not yet looked at.
pub(crate) struct Leaf<K> {
    /// Index into the arena.
    pub(crate) slot: usize,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Leaf<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Leaf<K> {}

impl<K> fmt::Debug for Leaf<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({})", self.slot)
    }
}

impl<K> Leaf<K> {
    /// The same place, read as another kind: how a union's parts are read.
    pub(crate) fn of_kind<L>(self) -> Leaf<L> {
        Leaf { slot: self.slot, kind: PhantomData }
    }
}

struct SlotVisitor;

impl Visitor<'_> for SlotVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place in the arena")
    }

    fn visit_u64<E: serde::de::Error>(self, slot: u64) -> Result<usize, E> {
        usize::try_from(slot).map_err(E::custom)
    }
}

impl<'de, K> Deserialize<'de> for Leaf<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slot = deserializer.deserialize_newtype_struct(LEAF, SlotVisitor)?;
        Ok(Self { slot, kind: PhantomData })
    }
}

impl<K: Kind> JsonSchema for Leaf<K> {
    // A leaf's schema is short, and some kinds depend on a type: writing it in place needs no names.
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        K::NAME.into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        K::schema_with_ranges(generator)
    }
}

/// The place of a raw struct's own table. Slot 0 is the whole file, so a section that is absent is "at" the file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Here {
    pub(crate) slot: usize,
}

impl<'de> Deserialize<'de> for Here {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { slot: deserializer.deserialize_u64(SlotVisitor)? })
    }
}

/// Tables by the names that the file gave them, in the file's order.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<fn() -> T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Vec<(String, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tables by name")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData)).map(Named)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": item })
    }
}
