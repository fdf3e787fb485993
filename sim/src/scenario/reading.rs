//! Taking values out of leaves: ranges are drawn, bounds checked, and what is wrong is noted while reading goes on.

use std::cell::{Cell, RefCell};

use serde::de::DeserializeOwned;

use super::decode::{Arena, Slot, decode};
use super::error::Fault;
use super::kind::{Kind, Wrong};
use super::leaf::{Here, Leaf};
use super::source::{Sources, Span};
use super::tree::{Node, Value};
use crate::seed::Seed;

/// One reading of a scenario: its values, its seed, and its problems.
pub(crate) struct Reading {
    arena: RefCell<Arena>,
    pub(crate) sources: Sources,
    pub(crate) seed: Cell<u64>,
    /// While one of several that share their keys is read: which. Ranges are drawn for each.
    copy: RefCell<String>,
}

/// `Ok`, or what is wrong with a value that has the right type.
pub(crate) type Checked = Result<(), Wrong>;

impl Reading {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { arena: RefCell::default(), sources, seed: Cell::new(0), copy: RefCell::default() }
    }

    /// Reads a table as a raw struct.
    pub(crate) fn table<T: DeserializeOwned + Default>(&self, node: &Node, key: &str) -> T {
        decode(node, key, &self.arena).unwrap_or_default()
    }

    /// The problems so far.
    pub(crate) fn into_faults(self) -> (Vec<Fault>, Sources) {
        (self.arena.into_inner().faults, self.sources)
    }

    /// Whether anything was wrong so far.
    pub(crate) fn failed(&self) -> bool {
        !self.arena.borrow().faults.is_empty()
    }

    /// Whether something inside `span` was wrong so far: then what follows from it need not be said.
    pub(crate) fn failed_at(&self, span: &Span) -> bool {
        self.arena.borrow().faults.iter().any(|f| span.start <= f.span.start && f.span.end <= span.end)
    }

    /// Does `work` for one of several that share their keys.
    pub(crate) fn for_copy<T>(&self, copy: &str, work: impl FnOnce() -> T) -> T {
        let before = self.copy.replace(copy.into());
        let out = work();
        self.copy.replace(before);
        out
    }

    /// Notes a problem.
    pub(crate) fn fault(&self, span: &Span, key: &str, wrong: Wrong) {
        let Wrong { message, cure } = wrong;
        self.arena.borrow_mut().faults.push(Fault { span: span.clone(), key: key.into(), message, cure });
    }

    /// Notes a problem with a value.
    pub(crate) fn fault_in<K>(&self, leaf: Leaf<K>, message: impl Into<String>, cure: impl Into<String>) {
        let slot = self.slot(leaf.slot);
        self.fault(&slot.node.span, &slot.key, Wrong::new(message, cure));
    }

    /// Notes a problem with a table as a whole.
    pub(crate) fn fault_here(&self, here: Here, message: impl Into<String>, cure: impl Into<String>) {
        let slot = self.slot(here.slot);
        if !slot.key.is_empty() && self.arena.borrow().faults.iter().any(|f| f.span == slot.node.span) {
            // The table as such is wrong already; what it lacks follows from that.
            return;
        }
        // A file as a whole has no stretch worth underlining.
        let span =
            if slot.key.is_empty() { slot.node.span.start..slot.node.span.start } else { slot.node.span };
        self.fault(&span, &slot.key, Wrong::new(message, cure));
    }

    /// The value behind a leaf, with its key.
    pub(crate) fn at<K>(&self, leaf: Leaf<K>) -> Slot {
        self.slot(leaf.slot)
    }

    fn slot(&self, slot: usize) -> Slot {
        self.arena.borrow().slots[slot].clone()
    }

    /// The value, where it is there and right.
    pub(crate) fn get<K: Kind>(&self, leaf: Option<Leaf<K>>) -> Option<K::Out> {
        self.checked(leaf, |_| Ok(()))
    }

    /// The value, where it is there, right, and passes `check`. The ends of a range must pass it too.
    pub(crate) fn checked<K: Kind>(
        &self,
        leaf: Option<Leaf<K>>,
        check: impl Fn(&K::Out) -> Checked,
    ) -> Option<K::Out> {
        let slot = self.slot(leaf?.slot);
        let read = |node: &Node| -> Result<K::Out, (Span, Wrong)> {
            let out = K::read(node).map_err(|wrong| (node.span.clone(), wrong))?;
            check(&out).map_err(|wrong| (node.span.clone(), wrong))?;
            Ok(out)
        };
        let drawn = match &slot.node.value {
            Value::Table(_) if K::DRAWN => self.draw::<K>(&slot, &read),
            _ => read(&slot.node),
        };
        drawn.map_err(|(span, wrong)| self.fault(&span, &slot.key, wrong)).ok()
    }

    /// A single value inside another one; no range.
    pub(crate) fn value<K: Kind>(&self, node: &Node, key: &str) -> Option<K::Out> {
        K::read(node).map_err(|wrong| self.fault(&node.span, key, wrong)).ok()
    }

    fn draw<K: Kind>(
        &self,
        slot: &Slot,
        read: &impl Fn(&Node) -> Result<K::Out, (Span, Wrong)>,
    ) -> Result<K::Out, (Span, Wrong)> {
        const CURE: &str = "write { uniform = [low, high] } or { choice = [a, b, c] }";
        let wrong = |span: &Span, message: &str| (span.clone(), Wrong::new(message, CURE));
        let Value::Table(entries) = &slot.node.value else { return read(&slot.node) };
        let [range] = entries.as_slice() else {
            return Err(wrong(&slot.node.span, "a range has exactly one key"));
        };
        let Value::List(items) = &range.node.value else {
            return Err(wrong(&range.node.span, "a range needs a list"));
        };
        let values = items.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        // Each draw has a seed of its own, by its key: adding a key, or moving it, changes no other draw.
        let at = Seed::new(self.seed.get()).fork(&self.draw_name(&slot.key)).draws().unit();
        match (range.key.as_str(), values.as_slice()) {
            ("uniform", [low, high]) => {
                let ordered = K::ordered(low, high);
                let between = ordered.then(|| K::between(low, high, at)).flatten();
                between.ok_or_else(|| {
                    wrong(&range.node.span, "the ends of a uniform range are a lower and a higher value")
                })
            }
            ("uniform", _) => Err(wrong(&range.node.span, "a uniform range has two ends")),
            ("choice", []) => Err(wrong(&range.node.span, "there is nothing to choose from")),
            ("choice", values) => {
                Ok(values[((values.len() as f64 * at) as usize).min(values.len() - 1)].clone())
            }
            _ => Err(wrong(&range.key_span, &format!("`{}` is no range", range.key))),
        }
    }

    fn draw_name(&self, key: &str) -> String {
        let copy = self.copy.borrow();
        if copy.is_empty() { key.into() } else { format!("{key}#{copy}") }
    }
}

/// The check that a quantity is more than nothing.
pub(crate) fn above_zero(what: &'static str, example: &'static str) -> impl Fn(&f64) -> Checked {
    move |value| {
        if *value > 0.0 {
            return Ok(());
        }
        Err(Wrong::new(format!("{what} is zero"), format!("write more than zero, such as {example}")))
    }
}

/// The check that a number lies between two bounds, which count in.
pub(crate) fn within(low: f64, high: f64) -> impl Fn(&f64) -> Checked {
    move |value| {
        if (low..=high).contains(value) {
            return Ok(());
        }
        Err(Wrong::new(format!("{value} is out of range"), format!("write a number from {low} to {high}")))
    }
}

/// The check that a count lies between two bounds, which count in.
pub(crate) fn count_within(low: u32, high: u32) -> impl Fn(&u32) -> Checked {
    move |value| {
        if (low..=high).contains(value) {
            return Ok(());
        }
        Err(Wrong::new(
            format!("{value} is out of range"),
            format!("write a whole number from {low} to {high}"),
        ))
    }
}
