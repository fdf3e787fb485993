//! Models by number: names come from others, so they are counted and given back.

use std::collections::BTreeMap;

use super::config::MODELS_MAX;

/// A model's number, while somebody speaks of it.
pub(super) type ModelId = u32;

/// Names and numbers.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: BTreeMap<String, ModelId>,
    slots: Vec<(String, u32)>,
    free: Vec<ModelId>,
}

impl Names {
    /// The number of `name`, which is spoken of once more. `None` where there are too many.
    pub(super) fn take(&mut self, name: &str) -> Option<ModelId> {
        if let Some(id) = self.ids.get(name).copied() {
            self.slots[id as usize].1 += 1;
            return Some(id);
        }
        if self.ids.len() >= MODELS_MAX {
            return None;
        }
        let id = self.free.pop().unwrap_or(self.slots.len() as ModelId);
        if id as usize == self.slots.len() {
            self.slots.push(Default::default());
        }
        self.slots[id as usize] = (name.to_owned(), 1);
        self.ids.insert(name.to_owned(), id);
        Some(id)
    }

    /// It is spoken of once less.
    pub(super) fn give_back(&mut self, id: ModelId) {
        let Some((name, count)) = self.slots.get_mut(id as usize) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 && self.ids.remove(name.as_str()).is_some() {
            name.clear();
            self.free.push(id);
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<ModelId> {
        self.ids.get(name).copied()
    }

    pub(super) fn name(&self, id: ModelId) -> &str {
        self.slots.get(id as usize).map_or("", |(name, _)| name)
    }

    /// All numbers are below this.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
