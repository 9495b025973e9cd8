//! The command line.

use std::{io::Write, process::ExitCode};

use pgweir::{
    check,
    cli::{self, Invocation},
    config, demo, proxy,
};

/// Gives memory of a burst back to the operating system, which glibc's keeps between what still lives.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(invocation) => carry_out(invocation),
        Err(error) => {
            eprintln!("{}", error.message);
            ExitCode::from(error.exit_code)
        }
    }
}

fn carry_out(invocation: Invocation) -> ExitCode {
    match invocation {
        Invocation::Print(text) => print(&text),
        Invocation::Reference => print(&config::reference()),
        Invocation::Check { config } => ExitCode::from(check::run(&config)),
        Invocation::Demo { duration, port } => ExitCode::from(demo::run(&demo::Options { duration, port })),
        Invocation::Report { .. } => refuse("report is not available in this version"),
        Invocation::Run(options) => run(options),
    }
}

/// A reader that went away is no reason to fail.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("FATAL {message}");
    ExitCode::FAILURE
}

fn run(options: cli::RunOptions) -> ExitCode {
    let cli::RunOptions { config, quiet, verbose, user, daemon, reboot } = options;
    proxy::run(&proxy::Options { config, quiet, verbose, user, daemon, reboot, forked: restart_allocator })
}

/// The allocator's thread that gives memory back is not there after a fork.
fn restart_allocator() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory of a burst is given back only under load");
    }
}
