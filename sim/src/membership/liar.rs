//! Members that are not honest: they send items that they have altered, made up, or kept from long ago, say of others that
//! they are dead, or boast.

use node::PeerId;
use node::membership::lying::{Slander, carrying, signed, slander};
use node::membership::{Content, Item, Life, Profile, Topic, Version};
use planner::fleet::{Device, DeviceKind};

use super::trust::{Keys, Vault};
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

/// A false word on `victim`, for `to`.
pub(super) fn accusation(
    from: Life,
    to: (PeerId, Life),
    victim: (PeerId, Life),
    draws: &mut Draws,
) -> Vec<u8> {
    let what = match draws.bits() % 6 {
        _ if to.0 == victim.0 => Slander::Buried,
        0 => Slander::Grave,
        1 => Slander::Lives((draws.bits() % 65_536) as u16),
        2 => Slander::Suspected((draws.bits() % 65_536) as u16),
        3 => Slander::Suspected((draws.bits() % 4) as u16),
        _ => Slander::Dead,
    };
    slander(from, to.1, victim, what)
}

/// A machine that nobody can have.
pub(super) fn boast(keys: &Keys, life: Life, draws: &mut Draws) -> Vec<u8> {
    let device = Device {
        id: "wonder".into(),
        name: "Wonder".into(),
        kind: DeviceKind::Cpu,
        memory_bytes: 1 << 40,
        reserved_bytes: 0,
        bandwidth_bytes_per_s: 1e30,
        bandwidth_efficiency: 1.0,
        flops: 1e30,
        flops_efficiency: 1.0,
        layer_overhead_us: 0.0,
        expert_overhead_us: 0.0,
        disk_bytes_per_s: 1e12,
        measured: None,
    };
    let profile = Profile { name: "boaster".into(), devices: vec![device], ..Profile::default() };
    let version = Version { life, sequence: 1_000_000 + (draws.bits() % 1_000_000) as u32 };
    carrying(life, vec![signed(keys, keys.me, version, &Content::Profile(profile))])
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
