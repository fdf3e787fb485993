# Read-only checks: what CI asks of formatting, lints and dependency direction.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    .ci/dependencies

# Formats and applies what clippy can mend by itself.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# The README's test command.
test:
    cargo test --workspace

# The main job.
run scenario="scenarios/wifi3.toml":
    cargo run --release -p sim -- {{scenario}}

# Predict the published measurements.
validate:
    cargo run --release -p bench -- validate

# Simulated seeds against every oracle.
dst seeds="1..1000":
    cargo run --release -p sim -- check scenarios/churn.toml --seeds {{seeds}}

# Criterion benches: planner, worlds, kernels.
bench:
    cargo bench -p bench

# The engine on libtorch: fetches PyTorch's half for the processor (0.5 GB), and runs its suite.
torch:
    eval "$(tests/scripts/fetch-torch --env)" && cargo test --workspace --features tests/libtorch --test torch
