//! The ways to store codes.

use std::marker::PhantomData;

use bytemuck::Zeroable;

use super::tile::{COLUMNS, Codes, GROUPS, Group};
use super::vector::Vector;

/// 4 bits: group `g` in the low halves of vector `g`, group `g + 4` in the high ones.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Nibbles(pub(super) [Group; 4]);

/// 5 bits: the fifth of group `g` is bit `g` of `high`.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Fives {
    pub(super) low: Nibbles,
    pub(super) high: Group,
}

/// 6 bits, of four groups in three vectors: groups `4 * v` to `4 * v + 2` in the lower bits of vectors `3 * v` and on, the
/// last one in their upper two, from its lowest bits on.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Sixes([Group; 6]);

/// 8 bits.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Bytes(pub(super) [Group; GROUPS]);

/// 2 bits: those of group `4 * v + i` are bits `2 * i` and up of vector `v`.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Twos(pub(super) [Group; 2]);

/// 3 bits: the third of group `g` is bit `g` of `high`.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Threes {
    pub(super) low: Twos,
    pub(super) high: Group,
}

/// 4 bits that number one of 16 codes.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
pub(super) struct Looked<T> {
    pub(super) numbers: Nibbles,
    table: PhantomData<T>,
}

/// The codes behind the numbers of a [`Looked`].
pub(super) trait Table: Copy + Send + Sync + 'static {
    const MIDDLE_LOG2: u32;
    const CODES: [u8; 16];
}

/// `IQ4_NL` and `IQ4_XS`: steps that are finer around zero.
#[derive(Clone, Copy, Zeroable)]
pub(super) struct NonLinear;

impl Table for NonLinear {
    const MIDDLE_LOG2: u32 = 7;
    /// `kvalues_iq4nl` of llama.cpp's `ggml-common.h`, each plus 128.
    const CODES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];
}

/// `MXFP4`: floats of 4 bits (sign, two of exponent, one of mantissa), doubled to be whole.
#[derive(Clone, Copy, Zeroable)]
pub(super) struct SmallFloat;

impl Table for SmallFloat {
    const MIDDLE_LOG2: u32 = 4;
    /// `kvalues_mxfp4` of llama.cpp's `ggml-common.h`, each plus 16.
    const CODES: [u8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];
}

/// The bytes of `row` in a group.
#[inline(always)]
fn lane(group: &mut Group, row: usize) -> &mut [u8] {
    &mut group[4 * row..4 * row + 4]
}

/// The `width` bits from bit `from` of every code, those of group `first + i` moved to bit `width * i`; 4 columns.
#[inline(always)]
fn gathered(codes: &[u8; COLUMNS], first: usize, from: u32, width: u32) -> [u8; 4] {
    let mask = (1 << width) - 1;
    let mut gathered = [0; 4];
    for (i, group) in codes.as_chunks::<4>().0[first..][..8 / width as usize].iter().enumerate() {
        for (bits, code) in gathered.iter_mut().zip(group) {
            *bits |= ((code >> from) & mask) << (width * i as u32);
        }
    }
    gathered
}

impl Codes for Nibbles {
    const MIDDLE_LOG2: u32 = 3;
    const MAX: u8 = 15;

    #[inline(always)]
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]) {
        let (low, high) = codes.split_at(16);
        let mut both = [0; 16];
        for ((both, low), high) in both.iter_mut().zip(low).zip(high) {
            *both = low & 15 | high << 4;
        }
        for (group, bytes) in self.0.iter_mut().zip(both.as_chunks::<4>().0) {
            lane(group, row).copy_from_slice(bytes);
        }
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let mut groups = [any; GROUPS];
        for (g, both) in self.0.iter().enumerate() {
            let both = any.load(both, part);
            groups[g] = both.and(15);
            groups[g + 4] = both.lower::<4>().and(15);
        }
        groups
    }
}

impl Codes for Fives {
    const MIDDLE_LOG2: u32 = 4;
    const MAX: u8 = 31;

    #[inline(always)]
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]) {
        self.low.set(row, codes);
        lane(&mut self.high, row).copy_from_slice(&gathered(codes, 0, 4, 1));
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let high = any.load(&self.high, part);
        let moved = [
            high.raise::<4>(),
            high.raise::<3>(),
            high.raise::<2>(),
            high.raise::<1>(),
            high,
            high.lower::<1>(),
            high.lower::<2>(),
            high.lower::<3>(),
        ];
        add_bits(self.low.groups(any, part), moved, 1 << 4)
    }
}

impl Codes for Sixes {
    const MIDDLE_LOG2: u32 = 5;
    const MAX: u8 = 63;

    #[inline(always)]
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]) {
        let fours = codes.as_chunks::<4>().0.as_chunks::<4>().0;
        for (vectors, four) in self.0.as_chunks_mut::<3>().0.iter_mut().zip(fours) {
            for (i, vector) in vectors.iter_mut().enumerate() {
                for (column, byte) in lane(vector, row).iter_mut().enumerate() {
                    *byte = four[i][column] & 63 | (four[3][column] >> (2 * i) & 3) << 6;
                }
            }
        }
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let mut groups = [any; GROUPS];
        for (vectors, four) in self.0.as_chunks::<3>().0.iter().zip(groups.as_chunks_mut::<4>().0) {
            let [a, b, c] =
                [any.load(&vectors[0], part), any.load(&vectors[1], part), any.load(&vectors[2], part)];
            let lowest = a.lower::<6>().and(3);
            let lower = b.lower::<4>().and_or(3 << 2, lowest);
            *four = [a.and(63), b.and(63), c.and(63), c.lower::<2>().and_or(3 << 4, lower)];
        }
        groups
    }
}

impl Codes for Bytes {
    const MIDDLE_LOG2: u32 = 7;
    const MAX: u8 = 255;

    #[inline(always)]
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]) {
        for (group, bytes) in self.0.iter_mut().zip(codes.as_chunks::<4>().0) {
            lane(group, row).copy_from_slice(bytes);
        }
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let mut groups = [any; GROUPS];
        for (group, bytes) in groups.iter_mut().zip(&self.0) {
            *group = any.load(bytes, part);
        }
        groups
    }
}

impl Codes for Twos {
    const MIDDLE_LOG2: u32 = 1;
    const MAX: u8 = 3;

    #[inline(always)]
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]) {
        for (v, vector) in self.0.iter_mut().enumerate() {
            lane(vector, row).copy_from_slice(&gathered(codes, 4 * v, 0, 2));
        }
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let [first, last] = &self.0;
        let (first, last) = (any.load(first, part), any.load(last, part));
        let mut groups = [
            first,
            first.lower::<2>(),
            first.lower::<4>(),
            first.lower::<6>(),
            last,
            last.lower::<2>(),
            last.lower::<4>(),
            last.lower::<6>(),
        ];
        for group in &mut groups {
            *group = group.and(3);
        }
        groups
    }
}

impl Codes for Threes {
    const MIDDLE_LOG2: u32 = 2;
    const MAX: u8 = 7;

    #[inline(always)]
    fn set(&mut self, row: usize, codes: &[u8; COLUMNS]) {
        self.low.set(row, codes);
        lane(&mut self.high, row).copy_from_slice(&gathered(codes, 0, 2, 1));
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let high = any.load(&self.high, part);
        let moved = [
            high.raise::<2>(),
            high.raise::<1>(),
            high,
            high.lower::<1>(),
            high.lower::<2>(),
            high.lower::<3>(),
            high.lower::<4>(),
            high.lower::<5>(),
        ];
        add_bits(self.low.groups(any, part), moved, 1 << 2)
    }
}

impl<T: Table + Zeroable> Codes for Looked<T> {
    const MIDDLE_LOG2: u32 = T::MIDDLE_LOG2;
    const MAX: u8 = {
        let (mut max, mut i) = (0, 0);
        while i < 16 {
            if T::CODES[i] > max {
                max = T::CODES[i];
            }
            i += 1;
        }
        max
    };

    /// Stores numbers, not codes.
    #[inline(always)]
    fn set(&mut self, row: usize, numbers: &[u8; COLUMNS]) {
        self.numbers.set(row, numbers);
    }

    #[inline(always)]
    fn groups<V: Vector>(&self, any: V, part: usize) -> [V; GROUPS] {
        let mut groups = self.numbers.groups(any, part);
        for group in &mut groups {
            *group = group.look_up(&T::CODES);
        }
        groups
    }
}

/// Puts the bits `mask` of `high` into the groups they belong to.
#[inline(always)]
fn add_bits<V: Vector>(mut groups: [V; GROUPS], high: [V; GROUPS], mask: u8) -> [V; GROUPS] {
    for (group, high) in groups.iter_mut().zip(high) {
        *group = high.and_or(mask, *group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<C: Codes>() {
        let mut stored = C::zeroed();
        let code = |row: usize, column: usize| (row * 37 + column * 11 + row * column) as u8 & C::MAX;
        for row in 0..16 {
            stored.set(row, &std::array::from_fn(|column| code(row, column)));
        }
        for (g, group) in stored.groups::<Group>([0; 64], 0).iter().enumerate() {
            for (i, found) in group.iter().enumerate() {
                assert_eq!(*found, code(i / 4, 4 * g + i % 4), "group {g}, byte {i}");
            }
        }
    }

    #[test]
    fn codes_come_back_from_every_storage() {
        round_trip::<Nibbles>();
        round_trip::<Fives>();
        round_trip::<Sixes>();
        round_trip::<Bytes>();
        round_trip::<Twos>();
        round_trip::<Threes>();
    }
}
