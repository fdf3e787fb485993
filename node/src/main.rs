//! `meshwright`: runs models on this machine; as one of a mesh in a later release.

use std::process::ExitCode;

#[cfg(feature = "cli")]
fn main() -> ExitCode {
    node::cli::main()
}

#[cfg(not(feature = "cli"))]
fn main() -> ExitCode {
    eprintln!("meshwright was built without its commands: build it with the feature `cli`");
    ExitCode::from(2)
}
