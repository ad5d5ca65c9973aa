//! What is meant: the flags, checked and grouped by who needs them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_core::{
    FirstCheck, Method, OverMax, RotationError, RotationPolicy, TrustDomain, TtlError, TtlPolicy,
};

use crate::admission::Limits;
use crate::args::{Args, RootRotation};
use crate::audit::{OnFailure, RotationLimits};
use crate::controllers::SelectorError;
use crate::grpc::GrpcConfig;
use crate::serving::Provider;
use crate::telemetry::{self, TelemetryError};

mod authentication;
mod authority;
mod cluster_callers;
mod cluster_roots;
mod kubernetes;
mod registration;
mod serving;

pub use authentication::AuthenticationError;
pub(crate) use authentication::{Authentication, Issuer, Keys, Tokens};
pub use authority::UpstreamFlagsError;
pub(crate) use authority::{UpstreamCa, UpstreamSource};
pub(crate) use cluster_callers::ClusterCallers;
pub use cluster_callers::ClusterCallersFlagsError;
pub(crate) use cluster_roots::{ClusterRoots, ConfigMaps, Publish, RootObjects, Webhooks};
pub(crate) use kubernetes::Kubernetes;
pub use registration::RegistrationFlagsError;
pub(crate) use registration::{ListenerSigner, RegistrationConfig, RootFiles, SignerConfig, Whose};
use serving::Serving;
pub use serving::ServingConfigError;

/// Everything that the server needs to know before it starts.
#[derive(Debug)]
pub struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) serving: Serving,
    /// `None`: no signer of the cluster certifies the listeners.
    pub(crate) listener_signer: Option<ListenerSigner>,
    pub(crate) ttl: TtlPolicy,
    /// `None`: there is no cluster.
    pub(crate) kubernetes: Option<Kubernetes>,
    /// Of use where there is a cluster.
    pub(crate) cluster_callers: ClusterCallers,
    pub(crate) cluster_roots: ClusterRoots,
    pub(crate) root_ca_dir: PathBuf,
    pub(crate) root_lifetime: Duration,
    pub(crate) whose: Whose,
    /// `None`: the root changes on an operator's word alone.
    pub(crate) rotation: Option<RotationPolicy>,
    pub(crate) authentication: Authentication,
    pub(crate) grpc: GrpcConfig,
    pub(crate) admission: Limits,
    pub(crate) audit: Option<Audit>,
    pub(crate) telemetry: telemetry::Config,
    pub(crate) shutdown: Duration,
}

/// Where outcomes are recorded.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) path: PathBuf,
    pub(crate) limits: RotationLimits,
    pub(crate) on_failure: OnFailure,
}

impl Config {
    /// Whether the Secret that is mounted for a plugged-in CA may be our own.
    pub(crate) fn keeps_own_ca_in_cacerts(&self) -> bool {
        self.kubernetes.is_some() && self.cluster_roots.cacerts_for_self_signed_ca
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let rotation = rotation_policy(&args)?;
        let default = args.default_workload_cert_ttl;
        let ttl = TtlPolicy::new(default, args.max_workload_cert_ttl, OverMax::Reject)?;
        if args.self_signed_ca_cert_ttl < Duration::from_secs(1) {
            return Err(ConfigError::RootLifetime);
        }
        let k8s_signer = args.registration.k8s_signer.as_deref();
        let has_cluster = args.kubernetes.kubernetes;
        let kubernetes = Kubernetes::new(args.kubernetes, args.serving.namespace.as_deref());
        let serving = Serving::new(args.serving, args.listen, Path::new("."), k8s_signer)?;
        let listener_signer = match &serving.plan.provider {
            Provider::ClusterSigner(signer) if !has_cluster => {
                return Err(ServingConfigError::NoCluster(signer.clone()).into());
            }
            Provider::ClusterSigner(signer) => {
                Some(ListenerSigner::new(signer.clone(), &args.registration)?)
            }
            Provider::OwnCa | Provider::Files(_) | Provider::Nowhere => None,
        };
        let (whose, ttl) = registration::whose(
            args.registration,
            authority::upstream(args.authority)?,
            has_cluster,
            ttl,
            Path::new("."),
        )?;
        if matches!(&whose, Whose::Signers(config) if !config.signer.certifies_servers())
            && serving.plan.needs_issuer()
        {
            return Err(RegistrationFlagsError::NoServingCertificate.into());
        }
        Ok(Self {
            data_dir: args.data_dir,
            kubernetes,
            cluster_callers: ClusterCallers::new(&args.cluster_callers, &args.authentication)?,
            cluster_roots: ClusterRoots::new(args.cluster_roots)?,
            serving,
            listener_signer,
            listen: args.listen,
            admin_listen: args.admin_listen,
            trust_domain: args.trust_domain,
            ttl,
            root_ca_dir: args.root_ca_dir,
            root_lifetime: args.self_signed_ca_cert_ttl,
            whose,
            rotation,
            authentication: args.authentication.try_into()?,
            grpc: args.grpc.into(),
            admission: Limits {
                waiting: args.max_waiting,
                waiting_of_one_caller: args.max_waiting_per_identity,
            },
            audit: args.audit_log.map(|path| Audit {
                path,
                limits: RotationLimits {
                    max_bytes: args.audit_max_bytes,
                    keep: args.audit_keep,
                },
                on_failure: if args.audit_required {
                    OnFailure::Refuse
                } else {
                    OnFailure::Release
                },
            }),
            telemetry: telemetry::Config::new(args.telemetry)?,
            shutdown: args.shutdown_duration,
        })
    }
}

/// Flags that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// About callers.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// About callers in clusters.
    #[error(transparent)]
    ClusterCallers(#[from] ClusterCallersFlagsError),
    /// About our own certificates.
    #[error(transparent)]
    Serving(#[from] ServingConfigError),
    /// About a CA above this one.
    #[error(transparent)]
    Upstream(#[from] UpstreamFlagsError),
    /// About a signer that is asked.
    #[error(transparent)]
    Registration(#[from] RegistrationFlagsError),
    /// About where in the cluster roots go.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// The lifetimes contradict each other.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// A root that would be over at once.
    #[error("the root's lifetime is shorter than one second")]
    RootLifetime,
    /// About traces. Never, without the feature `otel`.
    #[error("traces: {0}")]
    Telemetry(#[from] TelemetryError),
    /// The root could never be rotated that way.
    #[error("root rotation: {0}")]
    Rotation(#[from] RotationError),
}

fn rotation_policy(args: &Args) -> Result<Option<RotationPolicy>, RotationError> {
    if args.root_check_interval.is_zero() {
        return Ok(None);
    }
    let first_check = if args.root_check_jitter {
        FirstCheck::Spread
    } else {
        FirstCheck::AfterInterval
    };
    let overlap = args.root_overlap.unwrap_or(args.max_workload_cert_ttl);
    let method = match args.root_rotation {
        RootRotation::Renew => Method::Renew,
        RootRotation::Replace => Method::Replace {
            spread: overlap,
            drain: overlap,
        },
    };
    RotationPolicy::new(
        args.root_check_interval,
        args.root_grace_percent,
        first_check,
        method,
    )
    .map(Some)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        Args::try_parse_from(["ca-server"].iter().chain(flags))
            .unwrap()
            .try_into()
    }

    #[test]
    fn nothing_typed_gives_istios_defaults_and_local_tokens() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:15012");
        assert_eq!(config.trust_domain.as_str(), "cluster.local");
        assert_eq!(config.ttl, TtlPolicy::default());
        assert_eq!(config.root_lifetime, Duration::from_secs(3650 * 24 * 3600));
        assert!(matches!(config.authentication.tokens, Tokens::Local(_)));
        assert_eq!(config.rotation, Some(RotationPolicy::default()));
    }

    #[test]
    fn contradictions_and_missing_files_are_told_by_name() {
        let error = config(&[
            "--default-workload-cert-ttl",
            "3h",
            "--max-workload-cert-ttl",
            "1h",
        ])
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "default TTL 3h0m0s is greater than the max allowed TTL 1h0m0s"
        );
        let error = config(&["--token-issuer-keys", "/no/such/file"])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("--token-issuer-keys: cannot read /no/such/file: "),
            "{error}"
        );
        let error = config(&["--token-issuer-keys", "Cargo.toml"])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("--token-issuer-keys: token issuer keys Cargo.toml: "),
            "{error}"
        );
    }

    #[test]
    fn malformed_flags_are_refused() {
        for bad in [
            ["--listen", "nowhere"],
            ["--trust-domain", "A B"],
            ["--default-workload-cert-ttl", "24"],
        ] {
            assert!(
                Args::try_parse_from(["ca-server"].iter().chain(&bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
