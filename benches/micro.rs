//! How long the steps of a query's way take, in nanoseconds: `cargo bench --bench micro`.
//!
//! Times depend on the machine and on its mood; `instructions.sh` counts instead.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be prepared fails loudly")]

mod operations;

use divan::Bencher;
use operations::{OPERATIONS, Operation};

fn main() {
    divan::main();
}

#[divan::bench(args = OPERATIONS)]
fn operation(bencher: Bencher<'_, '_>, operation: &Operation) {
    let mut run = (operation.prepare)();
    let mut turn = 0;
    bencher.bench_local(|| {
        run(turn);
        turn += 1;
    });
}
