//! One row of tiles times one panel, whatever the format.

use std::ops::Range;

use super::activations::{Panel, Plain, Quantised};
use super::baseline;
use super::floats::{Column, Weight};
use super::level::Level;
use super::memory::Memory;
use super::tile::{COLUMNS, Codes, ROWS, Scales, Tile};

/// Sums of up to 8 tokens by 16 rows.
pub(super) type Sums = [[f32; ROWS]; 8];

/// What a matrix wants to be multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Quantised,
    Plain,
}

/// An input, in the forms that were wanted; the others hold what they held.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) quantised: Quantised,
    pub(super) plain: Plain,
}

/// The tiles of a matrix.
pub(super) trait Packed: Send + Sync {
    /// Bytes held.
    fn bytes(&self) -> usize;

    /// The input it wants.
    fn input(&self) -> Input;

    /// Adds to `sums` the products of a row of tiles with a panel of the input, over `columns` (whole tiles).
    fn multiply(
        &self,
        level: Level,
        tile_row: usize,
        columns: Range<usize>,
        inputs: &Inputs,
        panel: usize,
        sums: &mut Sums,
    );
}

/// Tiles of integers.
pub(super) struct Integers<C, S, const BLOCKS: usize> {
    tiles: Memory<Tile<C, S, BLOCKS>>,
    per_row: usize,
}

/// Tiles of floats.
pub(super) struct Floats<W> {
    columns: Memory<Column<W>>,
    per_row: usize,
}

impl<C, S, const BLOCKS: usize> Integers<C, S, BLOCKS> {
    pub(super) fn new(tiles: Memory<Tile<C, S, BLOCKS>>, per_row: usize) -> Self {
        Self { tiles, per_row }
    }
}

impl<W> Floats<W> {
    pub(super) fn new(columns: Memory<Column<W>>, per_row: usize) -> Self {
        Self { columns, per_row }
    }
}

/// Calls a kernel for the panel's width.
macro_rules! by_width {
    ($panel:expr, $sums:expr, |$records:ident, $narrow:ident| $call:expr) => {
        match $panel {
            Panel::One($records) => by_width!(@ 1, $sums, $narrow, $call),
            Panel::Two($records) => by_width!(@ 2, $sums, $narrow, $call),
            Panel::Four($records) => by_width!(@ 4, $sums, $narrow, $call),
            Panel::Eight($records) => by_width!(@ 8, $sums, $narrow, $call),
        }
    };
    (@ $width:literal, $sums:expr, $narrow:ident, $call:expr) => {{
        let $narrow = $sums.first_chunk_mut::<$width>().expect("room for 8 tokens");
        $call
    }};
}

impl<C: Codes, S: Scales, const BLOCKS: usize> Packed for Integers<C, S, BLOCKS> {
    fn bytes(&self) -> usize {
        size_of_val(&*self.tiles)
    }

    fn input(&self) -> Input {
        Input::Quantised
    }

    fn multiply(
        &self,
        level: Level,
        tile_row: usize,
        columns: Range<usize>,
        inputs: &Inputs,
        panel: usize,
        sums: &mut Sums,
    ) {
        let (from, to) = (columns.start / COLUMNS, columns.end / COLUMNS);
        let tiles = &self.tiles[tile_row * self.per_row..][from / BLOCKS..to / BLOCKS];
        by_width!(inputs.quantised.panel(panel, from, to), sums, |records, sums| match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only used where the machine has it.
            Level::Avx512 => unsafe { super::x86::avx512::multiply(tiles, records, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { super::x86::avx2::multiply(tiles, records, sums) },
            _ => baseline::multiply(tiles, records, sums),
        });
    }
}

impl<W: Weight> Packed for Floats<W> {
    fn bytes(&self) -> usize {
        size_of_val(&*self.columns)
    }

    fn input(&self) -> Input {
        Input::Plain
    }

    fn multiply(
        &self,
        level: Level,
        tile_row: usize,
        columns: Range<usize>,
        inputs: &Inputs,
        panel: usize,
        sums: &mut Sums,
    ) {
        let (from, to) = (columns.start, columns.end);
        let tiles = &self.columns[tile_row * self.per_row..][from..to];
        by_width!(inputs.plain.panel(panel, from, to), sums, |records, sums| match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only used where the machine has it.
            Level::Avx512 => unsafe { super::x86::avx512::multiply_floats(tiles, records, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { super::x86::avx2::multiply_floats(tiles, records, sums) },
            _ => baseline::multiply_floats(tiles, records, sums),
        });
    }
}
