//! From the tree to the raw structs, by serde. What is wrong is noted, with its place, and reading goes on: an unknown
//! key is left out, a value where a table should be counts as an empty table. So all problems of a file are found at
//! once, and serde itself never fails.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::error::Fault;
use super::suggest;
use super::tree::{Entry, Node, Value};

/// The name by which a [`Leaf`](super::leaf::Leaf) asks for its place in the arena.
pub(crate) const LEAF: &str = "$leaf";

/// The field by which a raw struct gets the place of its own table.
pub(crate) const HERE: &str = "$here";

/// A value that the raw structs point to.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Its dotted key.
    pub(crate) key: String,
    pub(crate) node: Node,
}

/// The values met so far, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pub(crate) slots: Vec<Slot>,
    pub(crate) faults: Vec<Fault>,
}

/// Reads `node`, which stands at `key`, as a `T`. `None` only when `T` itself refuses, which is noted as well.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node, key: &str, arena: &RefCell<Arena>) -> Option<T> {
    match T::deserialize(Reader { node, key: key.into(), arena }) {
        Ok(value) => Some(value),
        Err(Stop(message)) => {
            arena.borrow_mut().faults.push(Fault {
                span: node.span.clone(),
                key: key.into(),
                message,
                cure: String::new(),
            });
            None
        }
    }
}

/// serde's error; raised only by types that are no part of the format.
#[derive(Debug)]
struct Stop(String);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Reader<'a> {
    node: &'a Node,
    key: String,
    arena: &'a RefCell<Arena>,
}

impl<'a> Reader<'a> {
    fn child(&self, name: &str, node: &'a Node) -> Reader<'a> {
        let key = if self.key.is_empty() { name.into() } else { format!("{}.{name}", self.key) };
        Reader { node, key, arena: self.arena }
    }

    fn fault(&self, span: &std::ops::Range<usize>, key: &str, message: String, cure: String) {
        self.arena.borrow_mut().faults.push(Fault { span: span.clone(), key: key.into(), message, cure });
    }

    fn take_slot(&self) -> u64 {
        let mut arena = self.arena.borrow_mut();
        arena.slots.push(Slot { key: self.key.clone(), node: self.node.clone() });
        arena.slots.len() as u64 - 1
    }

    fn entries(&self, cure: &str) -> &'a [Entry] {
        if let Value::Table(entries) = &self.node.value {
            return entries;
        }
        let message = format!("{} where a table should be", self.node.value.what());
        self.fault(&self.node.span, &self.key, message, cure.into());
        &[]
    }

    fn known(&self, entry: &Entry, fields: &'static [&'static str]) -> bool {
        if entry.key != HERE && fields.contains(&entry.key.as_str()) {
            return true;
        }
        let keys = fields.iter().copied().filter(|f| *f != HERE);
        let cure = suggest::cure(&entry.key, "keys here", keys);
        let key = self.child(&entry.key, &entry.node).key;
        self.fault(&entry.key_span, &key, format!("unknown key `{}`", entry.key), cure);
        false
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        Err(Stop::custom("a type that the scenario format does not have"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if name == LEAF { visitor.visit_u64(self.take_slot()) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let section = self.key.split('.').next_back().unwrap_or_default();
        let entries = self
            .entries(&format!("write [{}] and its keys below, or {section} = {{ key = value }}", self.key));
        let entries: Vec<&Entry> = entries.iter().filter(|e| self.known(e, fields)).collect();
        let here = fields.contains(&HERE).then(|| self.take_slot());
        visitor.visit_map(Fields { reader: self, here, entries: entries.into_iter(), next: None })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let entries = self.entries(&format!("write [{}.NAME] for each, with a name of your own", self.key));
        let readers = entries.iter().map(|e| (e.key.as_str(), self.child(&e.key, &e.node)));
        visitor.visit_map(MapDeserializer::new(readers))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let items: &[Node] = if let Value::List(items) = &self.node.value {
            items
        } else {
            let message = format!("{} where a list of tables should be", self.node.value.what());
            self.fault(
                &self.node.span,
                &self.key,
                message,
                format!("write [[{}]] and its keys below", self.key),
            );
            &[]
        };
        let readers = items.iter().enumerate().map(|(i, item)| self.child(&i.to_string(), item));
        visitor.visit_seq(SeqDeserializer::new(readers))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Stop> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The known keys of a table, and the table's own place first where the struct asks for it.
struct Fields<'a> {
    reader: Reader<'a>,
    here: Option<u64>,
    entries: std::vec::IntoIter<&'a Entry>,
    next: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Stop;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        if self.here.is_some() {
            let name: StrDeserializer<'_, Stop> = HERE.into_deserializer();
            return seed.deserialize(name).map(Some);
        }
        self.next = self.entries.next();
        let Some(entry) = self.next else { return Ok(None) };
        let name: StrDeserializer<'_, Stop> = entry.key.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        if let Some(slot) = self.here.take() {
            return seed.deserialize(slot.into_deserializer());
        }
        let entry = self.next.take().ok_or_else(|| Stop::custom("a value was asked for before its key"))?;
        seed.deserialize(self.reader.child(&entry.key, &entry.node))
    }
}
