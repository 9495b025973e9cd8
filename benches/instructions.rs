//! Runs one step of a query's way again and again, for a program that counts instructions: see `instructions.sh`.
//!
//!   instructions              says the names of the operations
//!   instructions NAME COUNT   runs one of them so many times
#![allow(clippy::expect_used, reason = "a benchmark that cannot be prepared fails loudly")]
#![allow(clippy::print_stdout, reason = "the names are for a script")]

mod operations;

use std::{env, process::ExitCode};

use operations::OPERATIONS;

fn main() -> ExitCode {
    // Cargo calls a benchmark with a flag of its own.
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            OPERATIONS.iter().for_each(|operation| println!("{operation}"));
            ExitCode::SUCCESS
        }
        [name, count] => run(name, count),
        _ => usage("one name and one count"),
    }
}

fn run(name: &str, count: &str) -> ExitCode {
    let Some(operation) = OPERATIONS.iter().find(|operation| operation.name == name) else {
        return usage("no operation of that name");
    };
    let Ok(count) = count.parse() else {
        return usage("the count is no number");
    };
    let mut step = (operation.prepare)();
    repeat(&mut *step, count);
    ExitCode::SUCCESS
}

/// Only what happens in here is counted: clocks that are calibrated beforehand take a while that differs.
#[inline(never)]
fn repeat(step: &mut dyn FnMut(usize), count: usize) {
    (0..count).for_each(step);
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("{problem}: instructions [NAME COUNT]");
    ExitCode::FAILURE
}
