//! Matrices, packed in tiles.

use std::fmt;

use bytemuck::Zeroable;
use planner::model::ggml::GgmlType;

use super::erased::Shares;
use super::floats::{Brain, Column, Half, Weight};
use super::gguf;
use super::level::Level;
use super::memory::Memory;
use super::packed::{Floats, Integers, Packed};
use super::tile::{Codes, ROWS, Scales, Tile};
use crate::real::formats::{UnknownFormat, dequantise};
use crate::real::pool::Pool;

/// In which numbers a matrix is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// The weights as they are in the file; where those are integers, activations in 8 bits with a scale for each 32.
    Quantised,
    /// Weights widened to f32, activations in f32: four bytes a weight. What the other is measured against.
    F32,
}

/// Why a matrix cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// There is no kernel for the format.
    #[error(transparent)]
    Format(#[from] UnknownFormat),
    /// The bytes are not those of so many rows and columns.
    #[error(
        "a matrix of {rows} rows and {columns} columns in {kind} takes {needed} bytes, but there are {found}: the file is cut \
         short, or its header is wrong"
    )]
    Size {
        /// The format.
        kind: GgmlType,
        /// Outputs.
        rows: usize,
        /// Inputs.
        columns: usize,
        /// What they take.
        needed: u64,
        /// What was given.
        found: usize,
    },
    /// A row is no whole number of blocks.
    #[error("{columns} columns are no whole number of {kind} blocks of {} weights: the file's header is wrong", .kind.block_elements())]
    Ragged {
        /// The format.
        kind: GgmlType,
        /// Inputs.
        columns: usize,
    },
    /// The system has no memory left.
    #[error(
        "no memory for a matrix of {bytes} bytes: give this machine fewer layers, or close other programs"
    )]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
}

/// The weights of a linear map: `rows` outputs by `cols` inputs.
pub struct Matrix {
    rows: usize,
    cols: usize,
    level: Level,
    pub(super) packed: Box<dyn Packed>,
}

impl Matrix {
    /// Packs a tensor of `rows` rows of `cols` elements of the format `kind`, as in a GGUF file, for the kernels of `level`
    /// (or the machine's best, where that is less).
    ///
    /// # Errors
    /// An unknown format, bytes that are not those of the shape, no memory. Any content is accepted.
    pub fn pack(
        kind: GgmlType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        level: Level,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        Self::pack_in(&Pool::new(1), kind, rows, cols, bytes, level, precision)
    }

    /// As [`Self::pack`], on all threads of `pool`.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn pack_in(
        pool: &Pool,
        kind: GgmlType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        level: Level,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let row_bytes = checked_row(kind, rows, cols, bytes)?;
        let source = Source { pool, kind, rows, cols, row_bytes, bytes };
        let packed = match precision {
            Precision::Quantised => source.packed()?,
            Precision::F32 => source.widened()?,
        };
        Ok(Self { rows, cols, level: level.available(), packed })
    }

    /// How many outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The level whose kernels multiply it.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The bytes it holds in memory.
    pub fn bytes(&self) -> usize {
        self.packed.bytes()
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matrix({} x {}, {} bytes, {})", self.rows, self.cols, self.bytes(), self.level)
    }
}

/// Holds shape and bytes against each other; gives the bytes of a row.
fn checked_row(kind: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<usize, KernelError> {
    let row = kind.tensor_bytes(&[cols as u64]).ok_or(KernelError::Ragged { kind, columns: cols })?;
    let needed = row.saturating_mul(rows as u64);
    if needed != bytes.len() as u64 {
        return Err(KernelError::Size { kind, rows, columns: cols, needed, found: bytes.len() });
    }
    // A row of a matrix that is there fits the address space.
    Ok(bytes.len().checked_div(rows).unwrap_or(0))
}

/// A tensor in the file, and who packs it.
struct Source<'a> {
    pool: &'a Pool,
    kind: GgmlType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl Source<'_> {
    fn packed(&self) -> Result<Box<dyn Packed>, KernelError> {
        match self.kind {
            GgmlType::F32 => self.floats::<f32>(),
            GgmlType::F16 => self.floats::<Half>(),
            GgmlType::BF16 => self.floats::<Brain>(),
            GgmlType::Q4_0 => self.integers(gguf::q4_0),
            GgmlType::Q4_1 => self.integers(gguf::q4_1),
            GgmlType::Q5_0 => self.integers(gguf::q5_0),
            GgmlType::Q5_1 => self.integers(gguf::q5_1),
            GgmlType::Q8_0 => self.integers(gguf::q8_0),
            GgmlType::Q2_K => self.integers(gguf::q2_k),
            GgmlType::Q3_K => self.integers(gguf::q3_k),
            GgmlType::Q4_K => self.integers(gguf::q4_k),
            GgmlType::Q5_K => self.integers(gguf::q5_k),
            GgmlType::Q6_K => self.integers(gguf::q6_k),
            GgmlType::IQ4_NL => self.integers(gguf::iq4_nl),
            GgmlType::IQ4_XS => self.integers(gguf::iq4_xs),
            GgmlType::MXFP4 => self.integers(gguf::mxfp4),
            kind => Err(UnknownFormat { kind }.into()),
        }
    }

    fn integers<C: Codes, S: Scales, const BLOCKS: usize>(
        &self,
        set: fn(&mut Tile<C, S, BLOCKS>, usize, &[u8]),
    ) -> Result<Box<dyn Packed>, KernelError> {
        let block_bytes = self.kind.block_bytes() as usize;
        let per_row = self.row_bytes / block_bytes;
        let tiles = self.tiles(per_row, |tiles, rows| {
            // Tile by tile, so that it stays in the first cache while its rows come in.
            for (number, tile) in tiles.iter_mut().enumerate() {
                for (lane, row) in rows.chunks_exact(self.row_bytes).enumerate() {
                    set(tile, lane, &row[number * block_bytes..][..block_bytes]);
                }
            }
        })?;
        Ok(Box::new(Integers::new(tiles, per_row)))
    }

    fn floats<W: Weight>(&self) -> Result<Box<dyn Packed>, KernelError> {
        let columns = self.tiles(self.cols, |columns: &mut [Column<W>], rows| {
            for (lane, row) in rows.chunks_exact(self.row_bytes).enumerate() {
                for (column, weight) in columns.iter_mut().zip(row.chunks_exact(W::BYTES)) {
                    column.0[lane] = W::read(weight);
                }
            }
        })?;
        Ok(Box::new(Floats::new(columns, self.cols)))
    }

    fn widened(&self) -> Result<Box<dyn Packed>, KernelError> {
        dequantise(self.kind, &[], &mut [])?;
        let columns = self.tiles(self.cols, |columns: &mut [Column<f32>], rows| {
            let mut values = vec![0.0; self.cols];
            for (lane, row) in rows.chunks_exact(self.row_bytes).enumerate() {
                dequantise(self.kind, row, &mut values).expect("a known format, as was just seen");
                for (column, value) in columns.iter_mut().zip(&values) {
                    column.0[lane] = *value;
                }
            }
        })?;
        Ok(Box::new(Floats::new(columns, self.cols)))
    }

    /// Makes the tiles, `per_row` for each 16 rows, on all threads: `set` puts the bytes of up to 16 rows into the lanes of
    /// their tiles. Lanes beyond the last row stay zero.
    fn tiles<T: Zeroable + Send>(
        &self,
        per_row: usize,
        set: impl Fn(&mut [T], &[u8]) + Sync,
    ) -> Result<Memory<T>, KernelError> {
        let tile_rows = self.rows.div_ceil(ROWS);
        let mut tiles = Memory::zeroed(tile_rows, per_row)?;
        // No columns, no bytes.
        if self.row_bytes == 0 {
            return Ok(tiles);
        }
        let share = Shares::new(&mut tiles);
        self.pool.run(tile_rows, &|tile_row| {
            share.with(tile_row * per_row..(tile_row + 1) * per_row, |tiles| {
                let rows = tile_row * ROWS..self.rows.min((tile_row + 1) * ROWS);
                set(tiles, &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes]);
            });
        });
        Ok(tiles)
    }
}
