//! The `ca-server` program.

use std::process::ExitCode;
use std::time::Duration;

use ca_server::{App, Args, Config, Settings};
use tokio::signal::unix::{SignalKind, signal};

mod allocator;

fn main() -> ExitCode {
    let (args, settings) = match Args::load(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(error) => return error.tell(),
    };
    ca_server::start_logging(&args);
    match run(args, &settings) {
        Ok(code) => code,
        Err(error) => {
            // One line, what an operator reads first: each of our errors says its cause itself.
            eprintln!("ca-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    if let Some(command) = args.command.take() {
        return ca_server::run_command(command, args, settings);
    }
    let config = Config::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config));
    // Looking up a name may take as long as a resolver likes: nothing that blocks is waited for without a limit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
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
}
