//! A reference lent to other threads for less than its lifetime, which the pool needs and types cannot tell.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;

/// A place for a reference that its owner lends and takes back.
///
/// [`Pool`](super::super::pool::Pool) keeps the rules: [`lend`](Self::lend) and [`take_back`](Self::take_back) are
/// called by the one who holds the turn, while no thread is inside; [`with`](Self::with) only by threads that are inside,
/// which the owner waits for before it takes the reference back.
pub(in crate::real) struct Borrowed<T: ?Sized + 'static>(UnsafeCell<Option<&'static T>>);

// SAFETY: all access is by the rules above: writes are alone, and ordered before and after the reads by the pool's
// state, which is stored with release and read with acquire. `T` is shared between threads, hence `T: Sync`.
unsafe impl<T: ?Sized + Sync> Sync for Borrowed<T> {}
// SAFETY: as above; the reference may be read on any thread.
unsafe impl<T: ?Sized + Sync> Send for Borrowed<T> {}

impl Borrowed<dyn Fn(usize) + Sync> {
    /// Nothing lent.
    pub(in crate::real) fn none() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Lends `work`, until [`Self::take_back`].
    pub(in crate::real) fn lend(&self, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: the lifetime is cut back by `take_back`, which the pool calls before `run` returns, after everybody
        // who could read it has left; the write is alone by the rules above.
        unsafe {
            *self.0.get() =
                Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work));
        }
    }

    /// Ends the loan.
    pub(in crate::real) fn take_back(&self) {
        // SAFETY: alone by the rules above.
        unsafe { *self.0.get() = None }
    }

    /// Runs `f` on what is lent, if something is.
    pub(in crate::real) fn with(&self, f: impl FnOnce(&(dyn Fn(usize) + Sync))) {
        // SAFETY: only read, while the owner waits for this thread to leave.
        if let Some(work) = unsafe { *self.0.get() } {
            f(work);
        }
    }
}

/// A slice of which several threads write different parts.
pub(in crate::real) struct Shares<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`, whose parts are handed to other threads, hence `T: Send`; that nobody gets the same
// part is the rule of `with`.
unsafe impl<T: Send> Sync for Shares<'_, T> {}

impl<'a, T> Shares<'a, T> {
    /// Shares out `slice`.
    pub(in crate::real) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// Hands `range` to `f`. No two threads may ask for overlapping ranges at a time; all callers are in this module,
    /// and cut ranges by the number of the part they work on.
    ///
    /// # Panics
    /// Where the range is not within the slice.
    pub(in crate::real) fn with<R>(&self, range: Range<usize>, f: impl FnOnce(&mut [T]) -> R) -> R {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: within the slice, and of no other thread by the rule above.
        f(unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) })
    }
}
