//! Start-up, top to bottom: store, authority, authenticators, service, listeners. The only file that names every part.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_core::crypto::AWS_LC_RS;
use ca_core::files::FollowedFiles;
use ca_core::{
    BundleError, BundleStore, DirectoryStore, KeyCertBundle, RootParams, StoreError, TrustDomain,
};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::addresses::Addresses;
use crate::admin;
use crate::admission::Admission;
use crate::announce::{Announcement, Programs, ServingRoots};
use crate::audit::AuditLog;
use crate::authentication::{self, AuthenticatorsError, ClusterCallers, Witness};
use crate::authority::in_cluster::{self, ClusterCa, ClusterCaError};
use crate::authority::plugged::{self, PluggedError};
use crate::authority::registration::{self, Errands, Registration, RegistrationError};
use crate::authority::rotator::{Rotator, RotatorHandle};
use crate::authority::self_signed::{self, Origin, SelfSignedError};
use crate::authority::signing::Signing;
use crate::authority::upstream::{Meanwhile, OpenError, Upstream, UpstreamHandle};
use crate::cli::token;
use crate::config::{Config, Tokens, Whose};
use crate::control;
use crate::grpc::{self, GrpcConfig};
use crate::in_cluster::{Duties, Election};
use crate::kubernetes::{Cluster, ClusterError};
use crate::metrics::{Metrics, Verdicts};
use crate::observed::{Observed, Server};
use crate::output;
use crate::roots_file;
use crate::service::Service;
use crate::serving::{
    ClusterSigner, Issuers, Provider, Serving, ServingError, ServingIssuer, dns, webhook,
};
use crate::telemetry::{self, Exporter};

/// A server that is complete and holds its sockets, but does not answer yet.
#[derive(Debug)]
pub struct App {
    serving: TcpListener,
    admin: TcpListener,
    webhook: Option<TcpListener>,
    dns: Option<TcpListener>,
    dns_upstream: Option<SocketAddr>,
    certificates: Serving,
    /// Where those of the listeners come from.
    provider: Provider,
    service: Service,
    exporter: Exporter,
    grpc: GrpcConfig,
    observed: Observed,
    signing: Signing,
    kind: CaKind,
    /// What goes on beside requests to signers, if there are any.
    errands: Errands,
    /// Where there is a cluster.
    duties: Option<Duties>,
    control: UnixListener,
    trust_domain: TrustDomain,
    data_dir: PathBuf,
    root_file: PathBuf,
    local_tokens: bool,
    shutdown: Duration,
}

/// What changes the bundle while the server runs.
#[derive(Debug)]
enum CaKind {
    /// A root of our own, and the task that rotates it.
    SelfSigned(Box<Rotator>, RotatorHandle),
    /// A Secret of the cluster. The store is held for its lock: the folder is ours.
    InCluster(Box<ClusterCa>, DirectoryStore),
    /// Files that an operator replaces. The store is held for its lock: the folder is ours.
    Plugged(FollowedFiles<KeyCertBundle>, BundleStore, DirectoryStore),
    /// A key of our own that another CA certifies, and the task that renews that.
    Intermediate(Box<Upstream>, UpstreamHandle),
    /// No key: somebody else signs. The store is held for its lock.
    Registration(DirectoryStore),
}

impl CaKind {
    /// As a report calls it.
    fn name(&self) -> &'static str {
        match self {
            Self::SelfSigned(..) => "self-signed",
            Self::InCluster(ca, _) => ca.name(),
            Self::Plugged(..) => "plugged-in",
            Self::Intermediate(..) => "intermediate",
            Self::Registration(..) => "registration authority",
        }
    }

    fn rotator(&self) -> Option<RotatorHandle> {
        match self {
            Self::SelfSigned(_, handle) => Some(handle.clone()),
            Self::InCluster(ca, _) => ca.rotator(),
            Self::Plugged(..) | Self::Intermediate(..) | Self::Registration(..) => None,
        }
    }

    fn upstream(&self) -> Option<UpstreamHandle> {
        match self {
            Self::Intermediate(_, handle) => Some(handle.clone()),
            Self::SelfSigned(..)
            | Self::InCluster(..)
            | Self::Plugged(..)
            | Self::Registration(..) => None,
        }
    }
}

impl App {
    /// Opens the store, loads or creates the root, binds both listeners.
    ///
    /// # Errors
    /// When any of these cannot be done; nothing is left running.
    #[expect(clippy::disallowed_methods, reason = "an edge: start-up happens now")]
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let now = OffsetDateTime::now_utc();

        // Sockets first: a port that is taken is found out before a new root is made.
        let serving = reserve(config.listen)?;
        let admin = bind(config.admin_listen).await?;
        let webhook = config.serving.webhook.map(reserve).transpose()?;
        let dns = config.serving.dns.map(|dns| reserve(dns.listen));
        let dns = dns.transpose()?;

        let cluster = match config.kubernetes {
            Some(kubernetes) => Some(Cluster::new(kubernetes).await?),
            None => None,
        };

        let roots = config.cluster_roots;
        let keep_in_cacerts = roots.cacerts_for_self_signed_ca;
        let election = cluster
            .as_ref()
            .map(|cluster| Election::new(cluster, roots));

        let mut authentication = config.authentication;
        let policy_path = authentication.policy.take();
        let (mut authorizer, policy) =
            authentication::authorizer(policy_path.as_ref(), &config.trust_domain)?;
        let callers = cluster.as_ref().map(|cluster| {
            ClusterCallers::follow(cluster, config.cluster_callers, &config.trust_domain)
        });
        let callers = callers.transpose().map_err(AuthenticatorsError::from)?;
        if let Some(callers) = &callers {
            authorizer = callers.authorizer(authorizer);
        }

        let store = DirectoryStore::open_with(&config.data_dir, &AWS_LC_RS)?;
        let control = control::bind(&config.data_dir).map_err(|cause| AppError::Control {
            path: control::path(&config.data_dir),
            cause,
        })?;
        let meanwhile = Meanwhile {
            admin: &admin,
            control: &control,
            started: now,
            trust_domain: &config.trust_domain,
        };
        let mut errands = Errands::new();
        let (kind, signing) = match config.whose {
            Whose::Signers(signers) => {
                let plan = &config.serving.plan;
                let opened = Registration::open(
                    signers,
                    cluster.as_ref(),
                    &plan.grpc,
                    plan.needs_issuer(),
                    meanwhile,
                );
                let (registration, work) = Box::pin(opened).await?;
                errands = work;
                (CaKind::Registration(store), Signing::Asked(registration))
            }
            Whose::Own(upstream) => {
                let plugged = plugged::follow_operators(
                    &config.root_ca_dir,
                    cluster.is_some() && keep_in_cacerts,
                )?;
                let (kind, bundles) = match (plugged, upstream) {
                    (Some(_), Some(_)) => return Err(AppError::TwoCas(config.root_ca_dir)),
                    (None, Some(above)) => {
                        let pending = config.data_dir.join("pending-key.pem");
                        let mesh = config.trust_domain.clone();
                        let (mut task, handle) =
                            Upstream::open(above, store, &pending, mesh, now).await?;
                        let bundles = match task.bundles() {
                            Some(bundles) => bundles.clone(),
                            None => {
                                let waited = meanwhile.obtain(&mut task, &handle).await;
                                waited.map_err(AppError::Waiting)?
                            }
                        };
                        (CaKind::Intermediate(Box::new(task), handle), bundles)
                    }
                    (Some(files), None) => {
                        tracing::info!(folder = %config.root_ca_dir.display(), "the CA's key is plugged in");
                        let bundles = BundleStore::new((*files.current()).clone());
                        (CaKind::Plugged(files, bundles.clone(), store), bundles)
                    }
                    (None, None) => {
                        let params =
                            RootParams::new(config.trust_domain.as_str(), config.root_lifetime);
                        if let Some((cluster, election)) = cluster.as_ref().zip(election.as_ref()) {
                            let plan = in_cluster::Plan {
                                in_cacerts: keep_in_cacerts,
                                params,
                                rotation: config.rotation,
                                leadership: election.leadership.clone(),
                            };
                            let ca = in_cluster::open(cluster, plan, meanwhile).await?;
                            let bundles = ca.bundles.clone();
                            (CaKind::InCluster(Box::new(ca), store), bundles)
                        } else {
                            let (stored, origin) =
                                self_signed::load_or_create(&store, &params, now).await?;
                            if origin == Origin::Created {
                                tracing::info!(folder = %config.data_dir.display(), "new root created");
                            }
                            let bundles = BundleStore::new(stored.state.bundle(now)?);
                            let (rotator, handle) = Rotator::new(
                                Box::new(store),
                                stored,
                                bundles.clone(),
                                params,
                                config.rotation,
                            );
                            (CaKind::SelfSigned(Box::new(rotator), handle), bundles)
                        }
                    }
                };
                (kind, Signing::Own(bundles))
            }
        };
        let (duties, in_cluster) = cluster
            .as_ref()
            .zip(election)
            .map(|(cluster, election)| {
                let secret = match &kind {
                    CaKind::InCluster(ca, _) => Some(ca.followed.clone()),
                    _ => None,
                };
                election.with_roots(cluster, signing.roots(), secret)
            })
            .unzip();
        // It may have taken days.
        let now = OffsetDateTime::now_utc();
        let serving = listen(serving)?;
        let webhook = webhook.map(listen).transpose()?;
        let dns = dns.map(listen).transpose()?;
        let root_file = config.data_dir.join("root-cert.pem");
        roots_file::write(&root_file, &signing.roots().current()).map_err(|cause| {
            AppError::RootFile {
                path: root_file.clone(),
                cause,
            }
        })?;

        let local_tokens = matches!(authentication.tokens, Tokens::Local(_)) && callers.is_none();
        let verdicts = Arc::new(Verdicts::default());
        let authenticators = Arc::new(authentication::authenticators(
            authentication,
            &config.trust_domain,
            callers.as_ref(),
            || token::load_or_create(&config.data_dir),
            &(Arc::clone(&verdicts) as Arc<dyn Witness>),
        )?);

        let others = signing.serving_issuer();
        let listeners = match cluster.as_ref().zip(config.listener_signer) {
            Some((cluster, signer)) => {
                let roots = registration::follow(&signer.roots)?;
                let (signer, upkeep) = ClusterSigner::new(signer, roots, cluster, signing.roots());
                // From now on: the first certificate needs it.
                errands.spawn(upkeep.run());
                ServingIssuer::Cluster(Arc::new(signer))
            }
            None => others.clone(),
        };
        let issuers = Issuers { listeners, others };
        let provider = config.serving.plan.provider.clone();
        let certificates = config.serving.plan.carry_out(&issuers, now).await?;
        let files = match &kind {
            CaKind::Plugged(files, ..) => Some(files.clone()),
            CaKind::SelfSigned(..)
            | CaKind::InCluster(..)
            | CaKind::Intermediate(..)
            | CaKind::Registration(..) => None,
        };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let admission = Admission::start(threads, config.admission).map_err(AppError::Threads)?;
        let metrics = Metrics::new(
            signing.clone(),
            files.clone(),
            admission.clone(),
            certificates.statuses.clone(),
        );
        let audit = config.audit.map(|audit| {
            let log = AuditLog::open(&audit.path, audit.limits, audit.on_failure);
            log.map(Arc::new).map_err(|cause| AppError::Audit {
                path: audit.path,
                cause,
            })
        });
        let (telemetry, exporter) = telemetry::start(config.telemetry);
        let observed = Observed {
            started: now,
            trust_domain: config.trust_domain.clone(),
            kind: kind.name(),
            signing: signing.clone(),
            files: files.map(|files| (config.root_ca_dir, files)),
            in_cluster,
            rotator: kind.rotator(),
            upstream: kind.upstream(),
            serving: certificates.statuses.clone(),
            authenticators: Arc::clone(&authenticators),
            cluster_callers: callers,
            policy: policy_path.zip(policy),
            admission: admission.clone(),
            audit: audit.transpose()?,
            refusals: Arc::default(),
            metrics: Arc::clone(&metrics),
            verdicts,
            spans: exporter.counts(),
        };
        let service = Service {
            authenticators,
            authorizer,
            ttl: config.ttl,
            addresses: Addresses::limited_to(config.grpc.max_requests_per_address),
            admission,
            subordinates: signing.subordinates(config.trust_domain.clone()),
            authority: signing.authority(),
            metrics: Arc::clone(&metrics),
            audit: observed.audit.clone(),
            refusals: Arc::clone(&observed.refusals),
            telemetry,
        };
        Ok(Self {
            serving,
            admin,
            webhook,
            dns,
            dns_upstream: config.serving.dns.map(|dns| dns.upstream),
            certificates,
            provider,
            service,
            exporter,
            grpc: config.grpc,
            observed,
            signing,
            kind,
            errands,
            duties,
            control,
            trust_domain: config.trust_domain,
            data_dir: config.data_dir,
            root_file,
            local_tokens,
            shutdown: config.shutdown,
        })
    }

    /// The address for certificate requests, with its real port.
    ///
    /// # Errors
    /// When the system has lost the socket.
    pub fn serving_address(&self) -> io::Result<SocketAddr> {
        self.serving.local_addr()
    }

    /// The address of the admin listener, with its real port.
    ///
    /// # Errors
    /// When the system has lost the socket.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Says on standard output where everything is and what to type next.
    pub fn announce(&self) {
        let (Ok(serving), Ok(admin)) = (self.serving_address(), self.admin_address()) else {
            return;
        };
        let roots = self.signing.roots().current();
        // In the order of the plan, which begins with the listener for certificate requests.
        let shown = self.certificates.statuses.snapshot();
        let shown = shown.first().and_then(|status| status.certificate.as_ref());
        let announcement = Announcement {
            trust_domain: &self.trust_domain,
            serving,
            serving_certificate: shown,
            serving_roots: match &self.provider {
                Provider::Files(files) => ServingRoots::File(&files.roots),
                Provider::ClusterSigner(signer) => ServingRoots::Signer(signer),
                Provider::OwnCa | Provider::Nowhere => ServingRoots::File(&self.root_file),
            },
            admin,
            webhook: address(self.webhook.as_ref()),
            dns: address(self.dns.as_ref()),
            data_dir: &self.data_dir,
            root_file: &self.root_file,
            root: &roots.certificates()[0],
            local_tokens: self.local_tokens,
            programs: Programs::of_this_process(),
        };
        output::announce(&announcement);
    }

    /// Serves until `end`, then lets requests under way finish.
    ///
    /// # Errors
    /// When a part ends that should not.
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), AppError> {
        let (draining, _) = watch::channel(false);
        let drained = |mut receiver: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which ends us as well.
            let _ = receiver.wait_for(|ended| *ended).await;
        };
        // What runs for as long as the server, and whose end is therefore a defect.
        let mut background = JoinSet::new();
        for keeper in self.certificates.keepers {
            background.spawn(named("renewal of a serving certificate", keeper.run()));
        }
        // Those beside the one for certificate requests; they drain like it.
        let mut listeners = JoinSet::new();
        if let Some((listener, tls)) = self.webhook.zip(self.certificates.webhook) {
            let served = webhook::serve(listener, tls, drained(draining.subscribe()));
            listeners.spawn(named("webhook server", served));
        }
        if let (Some((listener, tls)), Some(upstream)) =
            (self.dns.zip(self.certificates.dns), self.dns_upstream)
        {
            let served = dns::serve(listener, tls, upstream, draining.subscribe());
            listeners.spawn(named("DNS server", served));
        }
        background.spawn(named(
            "roots file",
            roots_file::keep_current(self.root_file, self.signing.roots()),
        ));
        // The lock of a folder that no task works in.
        let mut held = None;
        match self.kind {
            CaKind::SelfSigned(rotator, _) => {
                background.spawn(named("root rotation", rotator.run()));
            }
            CaKind::InCluster(ca, store) => {
                background.spawn(named("CA in the cluster", async move {
                    let _held = store;
                    ca.run().await;
                }));
            }
            CaKind::Intermediate(task, _) => {
                background.spawn(named("renewal of the CA's certificate", task.run()));
            }
            CaKind::Plugged(files, bundles, store) => {
                background.spawn(named("CA files", async move {
                    let _held = store;
                    plugged::keep_current(files, bundles).await;
                }));
            }
            CaKind::Registration(store) => held = Some(store),
        }
        let mut errands = self.errands;
        if !errands.is_empty() {
            background.spawn(named("requests to a signer", async move {
                // None of them ends, but by a panic.
                errands.join_next().await;
            }));
        }
        // The lease is let go at the end. Without the task nobody leads, which is no reason to stop signing.
        let mut lease = None;
        if let Some(duties) = self.duties {
            background.spawn(named("publishing of the roots", duties.publisher.run()));
            lease = Some(tokio::spawn(
                duties.candidate.run(drained(draining.subscribe())),
            ));
        }
        let observed = Server::Complete(Box::new(self.observed));
        let (control, server) = (self.control, observed.clone());
        background.spawn(named("control socket", async move {
            control::serve(&control, server).await;
        }));

        let mut admin = tokio::spawn(admin::serve(
            self.admin,
            observed,
            drained(draining.subscribe()),
        ));
        // Ends after the last request. Without it spans are dropped and counted, which is no reason to stop.
        let exporter = tokio::spawn(self.exporter.run());
        let mut server = tokio::spawn(grpc::serve(
            self.grpc,
            self.service,
            self.signing,
            self.serving,
            self.certificates.grpc,
            draining.subscribe(),
        ));

        tokio::select! {
            () = end => tracing::info!("draining"),
            _ = &mut server => return Err(AppError::EndedEarly("gRPC server")),
            _ = &mut admin => return Err(AppError::EndedEarly("admin server")),
            Some(ended) = listeners.join_next() => {
                return Err(AppError::EndedEarly(ended.unwrap_or("listener")));
            }
            ended = background.join_next() => {
                // A task that panicked has no name to tell; the panic itself is in the log.
                let name = ended.and_then(Result::ok).unwrap_or("background task");
                return Err(AppError::EndedEarly(name));
            }
        }
        draining.send_replace(true);
        let finished = async { (server.await, admin.await, listeners.join_all().await) };
        let deadline = Instant::now() + self.shutdown;
        if tokio::time::timeout_at(deadline, finished).await.is_err() {
            tracing::warn!("requests under way did not finish in time");
        }
        if let Some(lease) = lease {
            // It has a deadline of its own.
            let _ = tokio::time::timeout_at(deadline, lease).await;
        }
        if tokio::time::timeout_at(deadline, exporter).await.is_err() {
            tracing::warn!("the last spans were not sent in time");
        }
        drop(held);
        Ok(())
    }
}

/// A task that says which one it was when it ends.
async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// An address cannot be had.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        cause: io::Error,
    },
    /// There is no way to the cluster.
    #[error("Kubernetes: {0}")]
    Cluster(#[from] ClusterError),
    /// The data folder cannot be used.
    #[error("data folder: {0}")]
    Store(#[from] StoreError),
    /// Orders cannot be taken.
    #[error("control socket {}: {cause}", path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Outcomes cannot be recorded.
    #[error("audit log {}: {cause}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// There are no threads to sign on.
    #[error("cannot start a thread: {0}")]
    Threads(io::Error),
    /// The plugged-in CA cannot be used.
    #[error(transparent)]
    Plugged(#[from] PluggedError),
    /// There are CA files, and another CA is to certify us.
    #[error(
        "{} has the files of a CA, and an upstream CA is configured: only one of them can be meant",
        .0.display()
    )]
    TwoCas(PathBuf),
    /// The signer cannot be asked.
    #[error("registration authority: {0}")]
    Registration(#[from] RegistrationError),
    /// The CA above cannot be had.
    #[error(transparent)]
    Upstream(#[from] OpenError),
    /// Nothing can be answered while there is no certificate.
    #[error("while waiting for the CA's certificate: {0}")]
    Waiting(io::Error),
    /// There is no CA in the cluster.
    #[error(transparent)]
    ClusterCa(#[from] ClusterCaError),
    /// What the store holds is not a CA any more.
    #[error("the CA in the store cannot be used: {0}")]
    Bundle(#[from] BundleError),
    /// There is no CA.
    #[error(transparent)]
    SelfSigned(#[from] SelfSignedError),
    /// The roots cannot be published.
    #[error("cannot write {}: {cause}", path.display())]
    RootFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Callers cannot be judged.
    #[error(transparent)]
    Authenticators(#[from] AuthenticatorsError),
    /// The listener has no certificate.
    #[error("serving certificate: {0}")]
    Serving(#[from] ServingError),
    /// A part that runs for as long as the server has ended: that is a defect, and we do not go on without it.
    #[error("the {0} ended early")]
    EndedEarly(&'static str),
}

fn address(listener: Option<&TcpListener>) -> Option<SocketAddr> {
    listener.and_then(|listener| listener.local_addr().ok())
}

/// A socket whose address is taken, and that nobody can connect to yet: who tries is refused at once, and tries again.
#[derive(Debug)]
struct Reserved(TcpSocket, SocketAddr);

fn reserve(address: SocketAddr) -> Result<Reserved, AppError> {
    let reserved = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As every listener of ours: connections of the process before us may still linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    let socket = reserved().map_err(|cause| AppError::Bind { address, cause })?;
    Ok(Reserved(socket, address))
}

fn listen(Reserved(socket, address): Reserved) -> Result<TcpListener, AppError> {
    let listening = socket.listen(BACKLOG);
    listening.map_err(|cause| AppError::Bind { address, cause })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|cause| AppError::Bind { address, cause })
}

/// Connections that wait to be accepted: what the library takes too.
const BACKLOG: u32 = 1024;
