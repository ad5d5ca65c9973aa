//! What no client should send, from many at once, and a few honest requests beside it that must be answered.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::args::AbuseArgs;
use super::connection::{self, Connection, ask};
use super::failure::Failure;
use super::noise::Noise;
use super::run::{runtime, write};
use super::server_process::ServerProcess;
use super::summary::milliseconds;
use super::tally::Tally;
use super::target::Target;
use super::workload::{self, Workload};

pub(crate) fn run(args: &AbuseArgs) -> Result<()> {
    let target = Target::new(&args.target)?;
    runtime()?.block_on(async {
        let workloads = workload::make(&args.callers, 3600, &target).await?;
        let abuse = Arc::new(Abuse {
            end: Instant::now() + args.duration,
            target,
            workloads,
            counts: Mutex::default(),
        });
        let report = abuse.run(args).await?;
        println!("{report}");
        match &args.json {
            Some(path) => write(path, &serde_json::to_string_pretty(&report)?),
            None => Ok(()),
        }
    })
}

struct Abuse {
    end: Instant,
    target: Target,
    workloads: Vec<Workload>,
    /// How often each kind of abuse was done.
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    done: BTreeMap<&'static str, u64>,
    idle_connections: usize,
    honest_answered: u64,
    honest_failed: u64,
    honest_failures: BTreeMap<String, u64>,
    honest_p50: f64,
    honest_p99: f64,
    honest_longest: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<Memory>,
}

#[derive(Debug, Serialize)]
struct Memory {
    before: u64,
    with_idle_connections: u64,
    most: u64,
    /// When all of it is over and its connections are closed.
    after: u64,
}

impl Abuse {
    async fn run(self: Arc<Self>, args: &AbuseArgs) -> Result<Report> {
        let start = Instant::now();
        let server = args.server_pid.map(ServerProcess);
        let memory = || server.map(ServerProcess::memory).transpose();
        let before = memory()?;
        let idle = self.idle(args.idle).await;
        let with_idle_connections = memory()?;

        let mut abusers = JoinSet::new();
        for number in 0..args.slow {
            abusers.spawn(Arc::clone(&self).again("slow handshake", Self::slow_handshake));
            abusers.spawn(Arc::clone(&self).again("slow preface", Self::slow_preface));
            abusers.spawn(
                Arc::clone(&self).again("slow message", move |abuse| abuse.slow_message(number)),
            );
        }
        for number in 0..NOISY {
            let noise = |which: u64| Noise::new(args.seed.wrapping_mul(1000) + number * 10 + which);
            let (mut one, mut two, mut three) = (noise(1), noise(2), noise(3));
            abusers.spawn(Arc::clone(&self).again("garbage for TLS", move |abuse| {
                abuse.tls_garbage(one.next_noise())
            }));
            abusers.spawn(Arc::clone(&self).again("garbage for HTTP/2", move |abuse| {
                abuse.http2_garbage(two.next_noise())
            }));
            abusers.spawn(Arc::clone(&self).again("fuzzed message", move |abuse| {
                abuse.fuzzed_messages(three.next_noise())
            }));
        }
        let (honest, most) = tokio::join!(Arc::clone(&self).honest(), self.watch(server));
        abusers.shutdown().await;
        let idle_connections = idle.len();
        drop(idle);
        // For the server to notice that they are gone.
        sleep(SETTLE).await;
        let memory_kib = match (before, with_idle_connections, most?, memory()?) {
            (Some(before), Some(with_idle_connections), Some(most), Some(after)) => Some(Memory {
                before,
                with_idle_connections,
                most,
                after,
            }),
            _ => None,
        };
        let issued = honest.issued();
        let at = |share| issued.quantile(share).map_or(0.0, milliseconds);
        let failures = honest.failures.iter();
        Ok(Report {
            seconds: start.elapsed().as_secs_f64(),
            done: self.counts().clone(),
            idle_connections,
            honest_answered: issued.total(),
            honest_failed: honest.failed.total(),
            honest_failures: failures
                .map(|(why, count)| (why.to_string(), *count))
                .collect(),
            honest_p50: at(0.5),
            honest_p99: at(0.99),
            honest_longest: milliseconds(issued.longest()),
            memory_kib,
        })
    }

    /// Connections that have shaken hands and then say nothing but what HTTP/2 asks for.
    async fn idle(&self, count: usize) -> Vec<Connection> {
        let mut all = Vec::new();
        for first in (0..count).step_by(OPENED_AT_ONCE) {
            let batch = first..count.min(first + OPENED_AT_ONCE);
            let open = batch.map(|number| {
                let tls = Arc::clone(&self.workloads[number % self.workloads.len()].tls);
                Connection::open(&self.target, tls)
            });
            all.extend(
                futures_util::future::join_all(open)
                    .await
                    .into_iter()
                    .flatten(),
            );
        }
        all
    }

    /// Does it again and again, and counts.
    async fn again<F: Future<Output = ()>>(
        self: Arc<Self>,
        what: &'static str,
        mut once: impl FnMut(Arc<Self>) -> F,
    ) {
        loop {
            once(Arc::clone(&self)).await;
            *self.counts().entry(what).or_default() += 1;
            sleep(BETWEEN).await;
        }
    }

    /// One byte of a record each second, until the server has had enough.
    async fn slow_handshake(self: Arc<Self>) {
        let Ok(mut tcp) = self.tcp().await else {
            return;
        };
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]
            .into_iter()
            .chain([0; 600])
        {
            if tcp.write_all(&[byte]).await.is_err() || ended(&mut tcp, DRIP).await {
                return;
            }
        }
    }

    /// TLS is spoken well, HTTP/2 byte by byte.
    async fn slow_preface(self: Arc<Self>) {
        let Some(mut tls) = self.tls(0).await else {
            return;
        };
        for byte in PREFACE.iter().cycle().take(600) {
            if tls.write_all(&[*byte]).await.is_err() || tls.flush().await.is_err() {
                return;
            }
            if ended(&mut tls, DRIP).await {
                return;
            }
        }
    }

    /// A request whose message comes byte by byte.
    async fn slow_message(self: Arc<Self>, number: usize) {
        let workload = &self.workloads[number % self.workloads.len()];
        let Ok(connection) = Connection::open(&self.target, Arc::clone(&workload.tls)).await else {
            return;
        };
        let Ok(mut sender) = connection.sender().ready().await else {
            return;
        };
        let long = HeaderValue::from_static("10H");
        let Ok(request) = connection::request(&self.target, &workload.prepared, &long) else {
            return;
        };
        let Ok((mut response, mut stream)) = sender.send_request(request, false) else {
            return;
        };
        for byte in workload.prepared.body() {
            if stream.send_data(Bytes::from(vec![*byte]), false).is_err() {
                return;
            }
            if timeout(DRIP, &mut response).await.is_ok() {
                return;
            }
        }
    }

    /// Anything, or the beginning of something.
    async fn tls_garbage(self: Arc<Self>, mut noise: Noise) {
        let Ok(mut tcp) = self.tcp().await else {
            return;
        };
        let mut bytes = noise.bytes(2000);
        if noise.below(2) == 0 && bytes.len() > 6 {
            // Looks like a handshake.
            bytes[..6].copy_from_slice(&[22, 3, 1, 1, 0, 1]);
        }
        if tcp.write_all(&bytes).await.is_ok() {
            ended(&mut tcp, BRIEFLY).await;
        }
    }

    /// Good TLS, then frames that are none, or are in no order.
    async fn http2_garbage(self: Arc<Self>, mut noise: Noise) {
        let Some(mut tls) = self.tls(noise.below(1000)).await else {
            return;
        };
        let mut bytes = if noise.below(4) == 0 {
            Vec::new()
        } else {
            PREFACE.to_vec()
        };
        for _ in 0..noise.below(20) {
            let payload = noise.bytes(60);
            let kind = noise.below(11) as u8;
            bytes.extend([
                0,
                0,
                payload.len() as u8,
                kind,
                noise.below(256) as u8,
                0,
                0,
                0,
            ]);
            bytes.push(noise.below(8) as u8);
            bytes.extend(payload);
        }
        if tls.write_all(&bytes).await.is_ok() && tls.flush().await.is_ok() {
            ended(&mut tls, BRIEFLY).await;
        }
    }

    /// Good HTTP/2; messages that were good before some of their bytes changed.
    async fn fuzzed_messages(self: Arc<Self>, mut noise: Noise) {
        let workload = &self.workloads[noise.below(self.workloads.len())];
        let Ok(connection) = Connection::open(&self.target, Arc::clone(&workload.tls)).await else {
            return;
        };
        let timeout_header = HeaderValue::from_static("5S");
        for _ in 0..FUZZED_PER_CONNECTION {
            let changed = noise.changed(workload.prepared.body());
            let prepared = workload.prepared.clone().with_body(changed.into());
            let asked = ask(
                connection.sender(),
                &self.target,
                &prepared,
                &timeout_header,
            );
            if matches!(
                timeout(PATIENCE, asked).await,
                Ok(Err(Failure::Connection)) | Err(_)
            ) {
                return;
            }
        }
    }

    /// What the others must not disturb: a few requests each second, on connections of their own.
    async fn honest(self: Arc<Self>) -> Tally {
        let (start, mut tally, mut number) = (Instant::now(), Tally::default(), 0);
        let patience = HeaderValue::from_static("10S");
        while Instant::now() < self.end {
            let workload = &self.workloads[number % self.workloads.len()];
            let begun = Instant::now();
            let asked = async {
                let tls = Arc::clone(&workload.tls);
                let connection = Connection::open(&self.target, tls).await?;
                ask(
                    connection.sender(),
                    &self.target,
                    &workload.prepared,
                    &patience,
                )
                .await?;
                Ok(())
            };
            let outcome = timeout(PATIENCE, asked)
                .await
                .unwrap_or(Err(Failure::Deadline));
            tally.add(start.elapsed(), begun.elapsed(), outcome);
            number += 1;
            sleep(BETWEEN_HONEST).await;
        }
        tally
    }

    async fn watch(&self, server: Option<ServerProcess>) -> Result<Option<u64>> {
        let mut most = None;
        while Instant::now() < self.end {
            if let Some(server) = server {
                most = Some(server.memory()?).max(most);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(most)
    }

    async fn tcp(&self) -> Result<TcpStream, Failure> {
        let connected = timeout(PATIENCE, self.target.connect()).await;
        connected.unwrap_or(Err(Failure::Deadline))
    }

    async fn tls(&self, number: usize) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
        let tls = Arc::clone(&self.workloads[number % self.workloads.len()].tls);
        let shaken = timeout(PATIENCE, connection::handshake(&self.target, tls)).await;
        shaken.ok()?.ok()
    }

    /// Held for a few lines that cannot panic.
    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits that long; `true` when the server has closed the connection.
async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin), wait: Duration) -> bool {
    let mut read = [0; 256];
    let end = Instant::now() + wait;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left, stream.read(&mut read)).await {
            // It says something, such as its settings.
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "abuse        {:.0} s, beside {} idle connections",
            self.seconds, self.idle_connections
        )?;
        for (what, count) in &self.done {
            writeln!(f, "             {count} × {what}")?;
        }
        writeln!(
            f,
            "honest       {} answered, {} failed; p50 {:.2}  p99 {:.2}  longest {:.2} ms, each with a new connection",
            self.honest_answered,
            self.honest_failed,
            self.honest_p50,
            self.honest_p99,
            self.honest_longest
        )?;
        for (why, count) in &self.honest_failures {
            writeln!(f, "             {count} × {why}")?;
        }
        match &self.memory_kib {
            None => Ok(()),
            Some(memory) => write!(
                f,
                "memory       {} KiB before, {} with idle connections, {} at most, {} after",
                memory.before, memory.with_idle_connections, memory.most, memory.after
            ),
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of each kind that sends as fast as it is answered.
const NOISY: u64 = 4;
const FUZZED_PER_CONNECTION: usize = 50;
const OPENED_AT_ONCE: usize = 64;
const DRIP: Duration = Duration::from_secs(1);
const BRIEFLY: Duration = Duration::from_millis(50);
const BETWEEN: Duration = Duration::from_millis(5);
const BETWEEN_HONEST: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(5);
