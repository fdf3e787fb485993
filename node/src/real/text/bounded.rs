//! Work on templates, which strangers wrote, kept within bounds that the template engine itself does not have.
//!
//! Its parser goes down once for each operator of an expression and its values free themselves level by level, so both
//! run on a stack of their own that a template of the allowed length cannot fill. And a list that a loop doubles sixty
//! times is short to write but never walked to its end: work that takes too long is given up.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use super::error::TemplateError;

/// A parser's frames for 64 KiB of operators and a value's levels for all fuel fit in a fifth of it; only what is used
/// of it takes memory.
const STACK_BYTES: usize = 256 << 20;

/// Real templates take milliseconds.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Runs `work` on a stack of its own, and for no longer than the bound. What goes on after that goes on alone, until it
/// runs out of fuel.
pub(super) fn bounded<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send + 'static,
) -> Result<T, TemplateError> {
    let failed = |problem: String| TemplateError::Failed { line: 0, problem };
    let (done, result) = sync_channel(1);
    let builder = thread::Builder::new().name("template".into()).stack_size(STACK_BYTES);
    let work = move || {
        // Nobody listens any more where it took too long.
        let _ = done.send(work());
    };
    builder.spawn(work).map_err(|e| failed(format!("no thread for it: {e}")))?;
    match result.recv_timeout(TIME_MAX) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(TemplateError::TooMuch { limit: "20 seconds" }),
        Err(RecvTimeoutError::Disconnected) => Err(failed("the template engine panicked".into())),
    }
}
