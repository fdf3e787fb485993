//! Memory for tiles, in large pages where the system has them: weights are read from end to end, and with small pages a
//! core spends a good part of that time on finding the next one.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Zeroable;
use memmap2::MmapMut;

use super::matrix::KernelError;

/// A slice in memory of its own, which is all zero at first.
pub(super) struct Memory<T> {
    map: MmapMut,
    len: usize,
    item: PhantomData<T>,
}

impl<T: Zeroable> Memory<T> {
    /// Room for `rows` times `per_row` items.
    pub(super) fn zeroed(rows: usize, per_row: usize) -> Result<Self, KernelError> {
        const { assert!(align_of::<T>() <= 4096) }
        let len = rows.saturating_mul(per_row);
        let bytes = len.saturating_mul(size_of::<T>());
        // A mapping cannot be empty.
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|_| KernelError::Memory { bytes })?;
        // Where there are no large pages, small ones do.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, len, item: PhantomData })
    }
}

impl<T> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping starts at a page, which aligns any `T` that `zeroed` lets in, and has the bytes of `len` of
        // them; zero bits are a `T`, and nothing else was written but by `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the mapping is borrowed as the slice is.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
