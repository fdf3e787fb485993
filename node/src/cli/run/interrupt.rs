//! Ctrl-C: asks the answer that is being given to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody pressed Ctrl-C since it was last asked.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes Ctrl-C over from the system and from whoever took it before, for the rest of the program.
    pub(in crate::cli) fn listen(&self) {
        let flag = Arc::clone(&self.0);
        // Where the system refuses, Ctrl-C ends the program, as it would have.
        let _ = ctrlc::set_handler(move || {
            // Who presses again while nothing has ended yet wants the program to end.
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
    }

    /// Whether it was pressed.
    pub(in crate::cli) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Forgets what was pressed.
    pub(in crate::cli) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
