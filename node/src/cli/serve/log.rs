//! The log, on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::asked::LogFormat;

/// How much is written where `RUST_LOG` does not say: what a person should know.
const LEVEL: &str = "warn,node=info";

/// Begins it. `RUST_LOG` says how much is written.
pub(in crate::cli) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVEL));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // It would say on stderr that stderr is full, and panic.
    let log = log.log_internal_errors(false);
    // Whoever began one before us is left alone.
    let _ = match format {
        LogFormat::Text => log.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}
