//! The `ca-server` program.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use ca_server::{App, Args, Config};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    let (filter, filter_error) = args.log_filter();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    if let Some(error) = filter_error {
        tracing::warn!("{error}");
    }
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            // One line, with the causes behind each other: what an operator reads first.
            eprintln!("ca-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(command) = &args.command {
        return ca_server::run_command(command, &args);
    }
    let config = Config::try_from(args)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let (mut terminate, mut interrupt) = (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            );
            let mut end = std::pin::pin!(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
            // It may wait for another CA, and is to end all the same when it is told to.
            let app = tokio::select! {
                app = App::build(config) => app?,
                () = &mut end => return Ok(ExitCode::SUCCESS),
            };
            app.announce();
            app.run(end).await?;
            Ok(ExitCode::SUCCESS)
        })
}
