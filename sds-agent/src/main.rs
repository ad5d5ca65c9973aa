//! A small certificate agent.

use std::{
    io::{IsTerminal as _, Write as _, stderr, stdout},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use sds_agent::{App, Args, Config, Stop, status_command};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if let Some(outcome) = status_command(std::env::args_os().skip(1)) {
        return outcome;
    }
    let args = Args::parse().with_environment(std::env::vars_os());
    tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sds-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// One thread: there is one certificate to keep, and memory counts in every pod.
#[tokio::main(flavor = "current_thread")]
async fn run(args: Args) -> anyhow::Result<()> {
    let app = App::build(Config::try_from(args)?)?;
    let stop = Stop::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let (stopper, renew_now) = (stop.clone(), app.renew_now());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => renew_now.notify_one(),
            }
        }
        stopper.cancel();
    });

    // Nobody need be listening.
    let _ = writeln!(stdout(), "{}", app.announcement());
    app.run(stop).await?;
    Ok(())
}
