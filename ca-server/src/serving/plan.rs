//! Which certificates there are: by what name, for which names, from where.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_core::files::FollowedFiles;
use ca_core::{SubjectName, TrustBundle};
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;

use super::certificate::ServingCertificate;
use super::files::CertificateFiles;
use super::issuer::ServingIssuer;
use super::keeper::{Keeper, ServingError};
use super::status::ServingStatuses;
use super::tls::{self, CurrentTls, Dialect, TlsPolicy};

/// All serving certificates of this process.
#[derive(Debug)]
pub(crate) struct ServingPlan {
    pub(crate) provider: Provider,
    /// How long a certificate lives that is made here.
    pub(crate) lifetime: Duration,
    pub(crate) tls: TlsPolicy,
    /// Where they are written, each into a folder of its name.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) grpc: Vec<SubjectName>,
    /// `None`: there is no such listener.
    pub(crate) webhook: Option<Vec<SubjectName>>,
    pub(crate) dns: Option<Vec<SubjectName>>,
    /// Only written. Never from files, since each has names of its own.
    pub(crate) others: Vec<(String, Vec<SubjectName>)>,
}

/// Where the certificates of the listeners come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Whoever certifies the workloads: our own CA, which Istio calls `istiod`, or the signer that is asked in its place.
    OwnCa,
    /// The signer of this name in the cluster.
    ClusterSigner(String),
    Files(CertificateFiles),
    /// They have none, and refuse every connection.
    Nowhere,
}

/// Who certifies what is not in files.
#[derive(Clone, Debug)]
pub(crate) struct Issuers {
    pub(crate) listeners: ServingIssuer,
    /// What is only written.
    pub(crate) others: ServingIssuer,
}

/// The certificates of a plan, made.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) grpc: CurrentTls,
    pub(crate) webhook: Option<CurrentTls>,
    pub(crate) dns: Option<CurrentTls>,
    pub(crate) statuses: ServingStatuses,
    /// **To be run**, or nothing is renewed.
    pub(crate) keepers: Vec<Keeper>,
}

impl ServingPlan {
    /// Whether any of them is to be certified by whoever certifies the workloads.
    pub(crate) fn needs_issuer(&self) -> bool {
        self.provider == Provider::OwnCa || !self.others.is_empty()
    }

    /// Whether the listeners could show what is in the operator's files, where their certificates come from there.
    pub(crate) fn check_files(&self) -> Result<(), ServingError> {
        if let Provider::Files(files) = &self.provider {
            let certificate = files.read_now()?;
            Use::Grpc
                .dialect(&self.tls)
                .with(Some(&certificate), Some(&certificate.roots))?;
        }
        Ok(())
    }

    /// How the listener for certificate requests judges certificates of clients, where `mesh` are the roots of the mesh.
    pub(crate) fn client_verifier(
        &self,
        mesh: TrustBundle,
    ) -> Result<Arc<dyn ClientCertVerifier>, ServingError> {
        let roots = match &self.provider {
            Provider::Files(files) => mesh.merge(&files.read_now()?.roots),
            Provider::OwnCa | Provider::ClusterSigner(_) | Provider::Nowhere => mesh,
        };
        Ok(tls::client_verifier(&self.tls, &roots)?)
    }

    /// Makes or reads all certificates, and writes those that are to be written. **Blocks** on the disk.
    pub(crate) async fn carry_out(
        self,
        issuers: &Issuers,
        now: OffsetDateTime,
    ) -> Result<Serving, ServingError> {
        let files = match &self.provider {
            Provider::Files(files) => Some(files.clone().follow()?),
            Provider::OwnCa | Provider::ClusterSigner(_) | Provider::Nowhere => None,
        };
        let source = |names: Vec<SubjectName>| match (&self.provider, &files) {
            (Provider::Nowhere, _) => Source::Nowhere,
            (_, Some(files)) => Source::Files(files.clone()),
            (_, None) => Source::Issued { names },
        };
        let mut keepers = Vec::new();
        let mut keep = async |use_: Use, source: Source| {
            let keeper = Keeper::start(
                Entry {
                    dialect: use_.dialect(&self.tls),
                    verifies_clients: matches!(use_, Use::Grpc),
                    name: use_.name(),
                    source,
                    lifetime: self.lifetime,
                    folder: self.folder.clone(),
                },
                match use_ {
                    Use::Other(_) => issuers.others.clone(),
                    Use::Grpc | Use::Webhook | Use::Dns => issuers.listeners.clone(),
                },
                now,
            )
            .await?;
            let tls = keeper.tls();
            keepers.push(keeper);
            Ok::<_, ServingError>(tls)
        };
        let grpc = keep(Use::Grpc, source(self.grpc)).await?;
        let webhook = match self.webhook {
            Some(names) => Some(keep(Use::Webhook, source(names)).await?),
            None => None,
        };
        let dns = match self.dns {
            Some(names) => Some(keep(Use::Dns, source(names)).await?),
            None => None,
        };
        for (name, names) in self.others {
            keep(Use::Other(name), Source::Issued { names }).await?;
        }
        Ok(Serving {
            grpc,
            webhook,
            dns,
            statuses: keepers.iter().map(Keeper::status).collect(),
            keepers,
        })
    }
}

/// Who uses a certificate.
enum Use {
    Grpc,
    Webhook,
    Dns,
    /// Whoever reads the files.
    Other(String),
}

impl Use {
    fn name(&self) -> Arc<str> {
        match self {
            Self::Grpc => GRPC.into(),
            Self::Webhook => WEBHOOK.into(),
            Self::Dns => DNS.into(),
            Self::Other(name) => name.as_str().into(),
        }
    }

    fn dialect(&self, policy: &TlsPolicy) -> Dialect {
        Dialect {
            policy: policy.clone(),
            protocols: self.protocols(),
        }
    }

    fn protocols(&self) -> &'static [&'static [u8]] {
        match self {
            Self::Grpc => &[b"h2"],
            Self::Webhook => &[b"h2", b"http/1.1"],
            // RFC 7858 names none; this is the registered one, for clients that do.
            Self::Dns => &[b"dot"],
            Self::Other(_) => &[],
        }
    }
}

/// One certificate of the plan.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) source: Source,
    pub(super) lifetime: Duration,
    pub(super) dialect: Dialect,
    pub(super) verifies_clients: bool,
    pub(super) folder: Option<PathBuf>,
}

/// Where one certificate comes from.
#[derive(Debug)]
pub(super) enum Source {
    Issued { names: Vec<SubjectName> },
    Files(FollowedFiles<ServingCertificate>),
    Nowhere,
}

impl Source {
    /// As `PILOT_CERT_PROVIDER` says it, where that has a word for it.
    pub(super) fn name(&self, issuer: &ServingIssuer) -> &'static str {
        match self {
            Self::Issued { .. } => issuer.name(),
            Self::Files(_) => "files",
            Self::Nowhere => "none",
        }
    }
}

pub(crate) const GRPC: &str = "grpc";
pub(crate) const WEBHOOK: &str = "webhook";
pub(crate) const DNS: &str = "dns";
