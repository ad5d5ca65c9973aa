//! From what was typed to what is printed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ca_core::KeyKind;
use time::OffsetDateTime;
use tokio::sync::Barrier;

use super::abuse;
use super::args::{FleetArgs, LoadArgs, Verb};
use super::bare;
use super::load::{Arrival, Fleet, Plan};
use super::material;
use super::pace::Pace;
use super::plot;
use super::progress::Progress;
use super::server_process::ServerProcess;
use super::summary::{ServerSummary, Summary};
use super::tally::Tally;
use super::target::Target;
use super::workload::{self, Workload};
use crate::{ConnectionFloor, Floor, Library, Material, Stopwatch};

/// Does what was typed.
///
/// # Errors
/// When it cannot be done. Requests that fail are no error: they are counted.
#[expect(clippy::disallowed_methods, reason = "an edge: material is made now")]
pub fn run(args: FleetArgs) -> Result<()> {
    match args.verb {
        Verb::Load(args) => load(&args),
        Verb::Abuse(args) => abuse::run(&args),
        Verb::Floor {
            duration,
            connection,
        } => floor(duration, connection),
        Verb::Bare { folder } => bare::run(&folder),
        Verb::Material { folder } => material::write(&folder, OffsetDateTime::now_utc()),
    }
}

fn load(args: &LoadArgs) -> Result<()> {
    ensure!(
        args.threads > 0 && args.per_connection > 0,
        "at least one of each"
    );
    let target = Target::new(&args.target)?;
    let workloads = runtime()?.block_on(workload::make(&args.callers, args.ttl, &target))?;
    let fleets = fleets(args, &target, workloads);
    let server = args.server_pid.map(ServerProcess);

    let (end, ready) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Barrier::new(fleets.len() + 1)),
    );
    let pace = Pace::watch();
    let threads: Vec<_> = fleets
        .iter()
        .map(|fleet| start(Arc::clone(fleet), Arc::clone(&ready), Arc::clone(&end)))
        .collect();
    let measured = runtime()?.block_on(async {
        if args.once {
            start_recording(&fleets);
        }
        ready.wait().await;
        watch(args, &fleets, server).await
    });
    end.store(true, Ordering::Relaxed);
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    let (start, took, mut server) = measured?;
    let steady = pace.read().steady(start, (took.as_millis() / 100) as usize);
    // With what was under way at the end.
    let tally = merged(&fleets);
    if let Some(server) = &mut server {
        server.processor_each = server.processor_seconds * 1e6 / tally.issued().total() as f64;
    }
    let summary = Summary::new(&tally, took, &steady, server);
    println!("{summary}");
    if let Some(path) = &args.plot {
        write(path, &plot::svg(&tally, &summary))?;
    }
    if let Some(path) = &args.json {
        write(path, &serde_json::to_string_pretty(&summary)?)?;
    }
    Ok(())
}

/// The workloads and the load in equal parts, one for each thread.
fn fleets(args: &LoadArgs, target: &Target, workloads: Vec<Workload>) -> Vec<Arc<Fleet>> {
    let threads = args.threads.min(workloads.len());
    let mut parts: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, workload) in workloads.into_iter().enumerate() {
        parts[number % threads].push(workload);
    }
    let arrival = |number| match args.rate {
        _ if args.once => Arrival::Once,
        Some(rate) => Arrival::Rate(rate / threads as f64),
        None => Arrival::InFlight((args.in_flight + number) / threads),
    };
    let fleet = |(number, part)| {
        let plan = Plan {
            arrival: arrival(number),
            deadline: args.deadline,
            retries: args.retries,
            fresh: if args.once { 1.0 } else { args.fresh },
            per_connection: args.per_connection,
        };
        Arc::new(Fleet::new(target.clone(), plan, part))
    };
    parts.into_iter().enumerate().map(fleet).collect()
}

fn start(fleet: Arc<Fleet>, ready: Arc<Barrier>, end: Arc<AtomicBool>) -> JoinHandle<Result<()>> {
    thread::spawn(move || {
        runtime()?.block_on(async {
            fleet.connect().await;
            ready.wait().await;
            fleet.run(end).await;
        });
        Ok(())
    })
}

/// Warms up, measures, and shows how it goes.
async fn watch(
    args: &LoadArgs,
    fleets: &[Arc<Fleet>],
    server: Option<ServerProcess>,
) -> Result<(Instant, Duration, Option<ServerSummary>)> {
    if !args.once {
        tokio::time::sleep(args.warm_up).await;
        start_recording(fleets);
    }
    let start = Instant::now();
    let before =
        server.map(|server| Ok::<_, anyhow::Error>((server.processor_time()?, server.memory()?)));
    let before = before.transpose()?;
    let (progress, mut most, mut shown) = (Progress::new(), 0, 0);
    loop {
        let elapsed = start.elapsed();
        let is_over = args.once && merged(fleets).ended() >= args.callers.workloads as u64;
        if is_over || elapsed >= args.duration {
            break;
        }
        tokio::time::sleep(LOOK_EVERY.min(args.duration - elapsed)).await;
        if let Some(server) = server {
            most = server.memory()?.max(most);
        }
        let elapsed = start.elapsed();
        if elapsed.as_secs() > shown {
            shown = elapsed.as_secs();
            let under_way = fleets.iter().map(|fleet| fleet.under_way()).sum();
            progress.show(elapsed, &merged(fleets), under_way);
        }
    }
    progress.end();
    let took = start.elapsed();
    let server = match (server, before) {
        (Some(server), Some((time, memory))) => {
            let spent = server.processor_time()?.saturating_sub(time);
            Some(ServerSummary {
                processor_seconds: spent.as_secs_f64(),
                processor_each: 0.0,
                memory_before_kib: memory,
                memory_most_kib: most,
                memory_after_kib: server.memory()?,
            })
        }
        _ => None,
    };
    Ok((start, took, server))
}

fn start_recording(fleets: &[Arc<Fleet>]) {
    for fleet in fleets {
        fleet.start_recording();
    }
}

fn merged(fleets: &[Arc<Fleet>]) -> Tally {
    let mut all = Tally::default();
    for fleet in fleets {
        all.merge(&fleet.tally());
    }
    all
}

fn floor(duration: Duration, connection: bool) -> Result<()> {
    let floor = issuance_floor()?;
    if connection {
        let floor = ConnectionFloor::new(floor)?;
        return print_cost(duration, || floor.shake_hands_and_issue());
    }
    print_cost(duration, || floor.verify_and_sign())
}

/// Of a P-256 certificate for a P-256 key.
pub(crate) fn issuance_floor() -> Result<Floor> {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: certificates are dated now"
    )]
    let now = OffsetDateTime::now_utc();
    let folder = tempfile::tempdir()?;
    let material = Material(folder.path());
    material.make(now)?;
    let p256 = KeyKind::EcdsaP256;
    Floor::new(Library::AwsLcRs, &material, p256, p256)
}

/// In microseconds of a processor.
fn print_cost(duration: Duration, work: impl Fn() -> bool) -> Result<()> {
    let (begin, watch, mut count) = (Instant::now(), Stopwatch::start(), 0_u32);
    while begin.elapsed() < duration {
        ensure!(work(), "the floor does not hold");
        count += 1;
    }
    println!(
        "{:.2}",
        watch.read().processor.as_secs_f64() * 1e6 / f64::from(count)
    );
    Ok(())
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
