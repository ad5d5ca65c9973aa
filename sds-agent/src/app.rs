//! Wires everything. The only file that names every concrete type.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "gateway")]
use crate::gateway::{self, GatewayError};
use crate::{
    admin::Admin,
    ca_client::{CaClient, CaError, DropCaClient, GoogleCaClient, IstioCaClient, VaultCaClient},
    clock,
    config::{CaConfig, Config},
    metrics::Metrics,
    output::{OutputError, OutputFolder},
    sds::SecretService,
    secrets::{self, Keeper, Mounted, SecretName, Secrets},
    serve::serve,
    socket::{self, GuardedListener, SocketError},
    workload_api::WorkloadApi,
};

/// An agent whose sockets are open and which has not asked for anything yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    /// Who signs, unless everything is mounted.
    ca: Option<Box<dyn CaClient>>,
    /// Where that is, for people.
    certificates_from: String,
    mounted: Mounted,
    sds: UnixListener,
    admin: TcpListener,
    admin_address: SocketAddr,
    output: Option<OutputFolder>,
    renew_now: Arc<Notify>,
    metrics: Arc<Metrics>,
}

/// Tells an [`App`] to finish. Clones tell the same app.
pub type Stop = CancellationToken;

impl App {
    /// Opens the sockets and checks the files, so that what cannot work is said at once. **Must be
    /// called inside a tokio runtime.**
    ///
    /// # Errors
    ///
    /// When a socket cannot be opened, or a file that will be needed cannot be read or written. A CA
    /// that cannot be reached is not an error: it may come.
    pub fn build(config: Config) -> Result<Self, AppError> {
        let mounted = Mounted::find(&config.mounted.folders, config.output_dir.as_deref());
        if config.mounted.required && !mounted.is_complete() {
            return Err(AppError::NotMounted(config.mounted.folders));
        }
        let metrics = Arc::new(Metrics::new());
        let (ca, certificates_from) = if config.mounted.only || mounted.is_complete() {
            (None, "files".to_owned())
        } else {
            let ca = config.ca.clone().ok_or(AppError::NoCa)?;
            let address = ca.to_string();
            (Some(ca_client(ca, &metrics)?), address)
        };
        let output = config
            .output_dir
            .as_deref()
            .map(OutputFolder::open)
            .transpose()?;
        let sds = socket::bind(&config.socket)?;
        let refused = |error| AppError::Admin {
            address: config.admin_listen,
            error,
        };
        let admin = std::net::TcpListener::bind(config.admin_listen).map_err(refused)?;
        admin.set_nonblocking(true).map_err(refused)?;
        let admin = TcpListener::from_std(admin).map_err(refused)?;
        let admin_address = admin.local_addr().map_err(refused)?;
        let renew_now = Arc::default();
        Ok(Self {
            config,
            ca,
            certificates_from,
            mounted,
            sds,
            admin,
            admin_address,
            output,
            renew_now,
            metrics,
        })
    }

    /// What the agent does and where, one fact per line, for people and for scripts.
    pub fn announcement(&self) -> String {
        [
            format!("mesh-ca sds-agent {}", env!("CARGO_PKG_VERSION")),
            format!("identity           {}", self.config.workload.identity),
            format!("certificates from  {}", self.certificates_from),
            format!("serving            {}", self.config.socket.path.display()),
            format!("admin              {}", self.admin_address),
        ]
        .join("\n")
    }

    /// Where health, readiness and metrics are served: the real port, also when 0 was asked for.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Renews the certificate at once each time it is notified.
    pub fn renew_now(&self) -> Arc<Notify> {
        Arc::clone(&self.renew_now)
    }

    /// Runs until `stop`, then lets open streams and requests finish.
    ///
    /// # Errors
    ///
    /// When a part of the agent ends before it was told to.
    pub async fn run(self, stop: Stop) -> Result<(), AppError> {
        let metrics = self.metrics;
        let (publisher, secrets) = secrets::channel(Arc::clone(&metrics), self.mounted.clone());
        #[cfg(feature = "gateway")]
        let mut secrets = secrets;
        #[cfg(feature = "gateway")]
        let gateway = match self.config.gateway {
            Some(config) => {
                let client = gateway::client(&config).await?;
                let metrics = Arc::clone(&metrics);
                let served = secrets.serve_credentials(&publisher, metrics, config.namespaces);
                Some(gateway::run(client, served, config.selector, stop.clone()))
            }
            None => None,
        };
        let mut following = Vec::new();
        for (name, source) in self.mounted.sources() {
            following.extend(secrets.files().follow(&name, source));
        }
        // Without its folder, which a pod has from the start or never, following it would cost a thread for nothing.
        let crl_file = self.config.crl_file;
        if let Some(path) = crl_file.filter(|path| path.parent().is_some_and(Path::is_dir)) {
            tokio::spawn(secrets.files().clone().follow_revocation_lists(path));
        }
        let service = SecretService::new(secrets.clone(), Arc::clone(&metrics), stop.clone());
        let admin = Admin::new(secrets.clone(), Arc::clone(&metrics), service.roll());
        let workload_api = WorkloadApi::new(secrets.clone(), stop.clone());
        let listener =
            GuardedListener::new(self.sds, self.config.socket.peers, Arc::clone(&metrics));
        tokio::spawn(tell_when_ready(secrets.clone(), Arc::clone(&metrics)));

        let mut parts = JoinSet::new();
        parts.spawn(serve(listener, service, workload_api, stop.clone()));
        parts.spawn(admin.run(self.admin, stop.clone()));
        #[cfg(feature = "gateway")]
        if let Some(gateway) = gateway {
            parts.spawn(gateway);
        }
        if let Some(output) = self.output {
            parts.spawn(output.follow(secrets, Arc::clone(&metrics), stop.clone()));
        }
        match self.ca {
            Some(ca) => {
                let workload = self.config.workload;
                let keeper = Keeper::new(workload, ca, publisher, metrics, self.renew_now);
                parts.spawn(keeper.run(stop.clone()));
            }
            // Held, because whoever follows it would take its end for the agent's.
            None => {
                let stop = stop.clone();
                parts.spawn(async move {
                    let _publisher = publisher;
                    stop.cancelled().await;
                });
            }
        }

        let mut outcome = Ok(());
        while let Some(ended) = parts.join_next().await {
            let early = match ended {
                Err(error) => Some(AppError::Panicked(error)),
                Ok(()) if !stop.is_cancelled() => Some(AppError::EndedEarly),
                Ok(()) => None,
            };
            if let Some(error) = early {
                // Half an agent is worse than none: whoever supervises us can start a whole one.
                stop.cancel();
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }
}

/// The client for a CA, with the files that it will need looked at.
fn ca_client(config: CaConfig, metrics: &Arc<Metrics>) -> Result<Box<dyn CaClient>, CaError> {
    let metrics = Arc::clone(metrics);
    Ok(match config {
        CaConfig::Istio(config) => {
            let ca = IstioCaClient::new(config, metrics);
            ca.check_files()?;
            Box::new(ca)
        }
        CaConfig::Vault(config) => {
            let ca = VaultCaClient::new(config, metrics);
            ca.check_files()?;
            Box::new(ca)
        }
        CaConfig::Google(config) => {
            let ca = GoogleCaClient::new(config, metrics);
            ca.check_files()?;
            Box::new(ca)
        }
        CaConfig::Drop(config) => Box::new(DropCaClient::open(config)?),
    })
}

/// Ends with the first valid certificate, or with the agent.
async fn tell_when_ready(mut secrets: Secrets, metrics: Arc<Metrics>) {
    while secrets
        .shelf()
        .valid_at(&SecretName::KeyPair, clock::now())
        .is_none()
    {
        if secrets.changed().await.is_err() {
            return;
        }
    }
    metrics.became_ready();
}

/// Why an agent cannot start, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// Nobody to ask, and something to ask for.
    #[error("--ca-addr is needed, because not all certificates are mounted")]
    NoCa,
    /// The platform has not done what it was said to do.
    #[error("the platform's certificate, key and roots are not in {0:?}")]
    NotMounted(Vec<PathBuf>),
    /// A file for talking to the CA is not usable.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The SDS socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The output folder cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The admin address cannot be listened on.
    #[error("cannot listen on the admin address {address}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// There is no way to the API server.
    #[cfg(feature = "gateway")]
    #[error("secrets for the gateway")]
    Gateway(#[from] GatewayError),
    /// A task panicked.
    #[error("a part of the agent has failed")]
    Panicked(#[source] JoinError),
    /// A task returned although nobody told it to.
    #[error("a part of the agent ended early")]
    EndedEarly,
}
