//! How fast matrices are multiplied, by format and level, on one thread: with one token as bytes of weights a second, with
//! 128 as products of a weight and an activation a second. `cargo bench -p bench --bench kernels`; `docs/engine.md` says
//! what to expect.

#![allow(missing_docs, reason = "criterion's macros make public items without words")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use node::real::formats::quantise;
use node::real::kernels::{Level, Matrix, Precision, linear};
use node::real::pool::Pool;
use planner::model::ggml::GgmlType;

/// Outputs and inputs: a matrix of some megabytes, beyond what is a core's own.
const ROWS: usize = 4096;
const COLUMNS: usize = 2048;

/// Tokens of a prompt.
const TOKENS: usize = 128;

const FORMATS: [GgmlType; 9] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q8_0,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_XS,
    GgmlType::F16,
];

fn numbers(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn packed(kind: GgmlType, level: Level) -> Matrix {
    let mut bytes = Vec::new();
    for row in numbers(ROWS * COLUMNS).chunks(COLUMNS) {
        quantise(kind, row, &mut bytes).expect("a known format");
    }
    Matrix::pack(kind, ROWS, COLUMNS, &bytes, level, Precision::Quantised).expect("whole blocks")
}

fn kernels(c: &mut Criterion) {
    let pool = Pool::new(1);
    for level in [Level::Avx512, Level::Avx2, Level::Portable] {
        if level > Level::best() {
            continue;
        }
        for kind in FORMATS {
            let matrix = packed(kind, level);
            let name = format!("{}/{level}", kind.name());
            let bytes = Throughput::Bytes(matrix.bytes() as u64);
            multiply(c, &pool, &matrix, "one-token", &name, (1, bytes));
            let products = Throughput::Elements((ROWS * COLUMNS * TOKENS) as u64);
            multiply(c, &pool, &matrix, "prompt", &name, (TOKENS, products));
        }
    }
}

fn multiply(
    c: &mut Criterion,
    pool: &Pool,
    matrix: &Matrix,
    group: &str,
    name: &str,
    (tokens, throughput): (usize, Throughput),
) {
    let (x, mut out) = (numbers(tokens * COLUMNS), vec![0.0; tokens * ROWS]);
    let mut group = c.benchmark_group(group);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    group.throughput(throughput);
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter(|| linear(pool, &x, tokens, &mut [(matrix, &mut out)]));
    });
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
