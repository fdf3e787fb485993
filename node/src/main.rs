//! `meshwright`: one machine of the mesh. The real network, engines and API come with later releases; until then the
//! binary says what there is.

use std::process::ExitCode;

const TEXT: &str = "\
meshwright: one machine of the mesh

Real nodes (libp2p, GGUF weights, an OpenAI-compatible API) are not built yet. What works today:

  cargo run --release -p sim -- scenarios/wifi3.toml        what your machines would give, and why
  cargo run --release -p sim -- plan scenarios/wifi3.toml   the planner's answer alone
  cargo run --release -p sim -- --help                      everything the simulator can do

The node that the simulator runs is this crate's library: the same code will serve here.
";

fn main() -> ExitCode {
    let asked = std::env::args().nth(1);
    match asked.as_deref() {
        None | Some("-h" | "--help" | "help") => {
            print!("{TEXT}");
            ExitCode::SUCCESS
        }
        Some("-V" | "--version") => {
            println!("meshwright {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(command) => {
            eprintln!("meshwright: '{command}' is not built yet.\n\n{TEXT}");
            ExitCode::from(2)
        }
    }
}
