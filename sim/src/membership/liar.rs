//! A member that is not honest: it sends items that it has altered, made up, or kept from long ago.

use node::PeerId;
use node::membership::{Item, Life, Topic, Version, carrying};

use super::trust::Vault;
use crate::seed::Draws;

/// The model that floods ask for.
pub(super) const FLOODED: &str = "flooded";

/// One packet of its.
pub(super) fn packet(life: Life, vault: &Vault, draws: &mut Draws) -> Vec<u8> {
    let chosen = |draws: &mut Draws| {
        let number = (draws.bits() % vault.len().max(1) as u64) as usize;
        vault.items().nth(number).map(|known| known.item.clone())
    };
    let items: Vec<Item> = (0..3).filter_map(|_| Some(spoilt(chosen(draws)?, draws))).collect();
    carrying(life, items)
}

fn spoilt(mut item: Item, draws: &mut Draws) -> Item {
    match draws.bits() % 6 {
        // Somebody's word from long ago, which was true then.
        0 => {}
        1 => item.version.sequence = item.version.sequence.saturating_add(1),
        2 => item.version = Version { life: Life::new(item.version.life.start() + 1), sequence: 1 },
        3 => {
            let at = (draws.bits() % item.body.len().max(1) as u64) as usize;
            if let Some(byte) = item.body.get_mut(at) {
                *byte ^= 1 << (draws.bits() % 8);
            }
            item.version.sequence = item.version.sequence.saturating_add(1);
        }
        4 => item.owner = PeerId::from_index((draws.bits() % 64) as u32),
        _ => {
            item.topic = Topic::ALL[(draws.bits() % 3) as usize];
            item.signature[0] ^= 1;
        }
    }
    item
}
