//! What is meant about a signer that is asked for every certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ca_core::{OverMax, TtlError, TtlPolicy};
use ca_ra::{Afterwards, Approval, ConfigMapRef, IssuerRef, Issuers, SignerNames, UpstreamConfig};

use super::authority::{UpstreamCa, UpstreamSource};
use crate::args::RegistrationArgs;

/// The signer.
#[derive(Debug)]
pub(crate) struct RegistrationConfig {
    pub(crate) signer: SignerConfig,
    /// For one certificate.
    pub(crate) deadline: Duration,
}

/// Who signs.
#[derive(Debug)]
pub(crate) enum SignerConfig {
    KubernetesCsr {
        signers: SignerNames,
        approval: Approval,
        roots: RootFiles,
    },
    CertManager {
        namespace: String,
        issuers: Issuers,
        approval: Approval,
        afterwards: Afterwards,
        annotations: BTreeMap<String, String>,
        roots: RootFiles,
    },
    Istio(UpstreamConfig),
}

impl SignerConfig {
    /// Whether it certifies whatever names we ask for. A CA certifies us under our own name only.
    pub(super) fn certifies_servers(&self) -> bool {
        !matches!(self, Self::Istio(_))
    }
}

/// A signer of the cluster for our own listeners.
#[derive(Debug)]
pub(crate) struct ListenerSigner {
    pub(crate) signer: String,
    pub(crate) approval: Approval,
    pub(crate) roots: RootFiles,
    /// For one certificate.
    pub(crate) deadline: Duration,
}

impl ListenerSigner {
    /// Asked as a signer for workloads would be.
    pub(super) fn new(
        signer: String,
        args: &RegistrationArgs,
    ) -> Result<Self, RegistrationFlagsError> {
        if args.signer_timeout < SHORTEST_DEADLINE {
            return Err(RegistrationFlagsError::Timeout);
        }
        Ok(Self {
            signer,
            approval: approval(args.approve_requests.unwrap_or(true)),
            roots: RootFiles {
                common: args.root_ca_file.clone(),
                by_signer: by_signer(&args.signer_root)?,
            },
            deadline: args.signer_timeout,
        })
    }
}

/// Where roots are, as far as they are in files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RootFiles {
    pub(crate) common: Option<PathBuf>,
    pub(crate) by_signer: Vec<(String, PathBuf)>,
}

/// Whose certificates this server gives out.
#[derive(Debug)]
pub(crate) enum Whose {
    /// Its own CA's, which another one may certify.
    Own(Option<UpstreamCa>),
    /// Somebody signs who is asked each time.
    Signers(RegistrationConfig),
}

/// With the policy for lifetimes, which `ttl` is for a CA of our own. `base` is the folder that the well-known files are in.
pub(super) fn whose(
    args: RegistrationArgs,
    upstream: Option<UpstreamCa>,
    has_cluster: bool,
    ttl: TtlPolicy,
    base: &Path,
) -> Result<(Whose, TtlPolicy), RegistrationFlagsError> {
    let (deadline, max) = (args.signer_timeout, args.max_client_certificate_duration);
    if deadline < SHORTEST_DEADLINE {
        return Err(RegistrationFlagsError::Timeout);
    }
    let kind = args.external_ca.clone().unwrap_or_default();
    let (signer, ttl) = match (kind.as_str(), upstream) {
        ("", upstream) => return Ok((Whose::Own(upstream), ttl)),
        (ISTIO, Some(upstream)) => match upstream.source {
            UpstreamSource::Ask(upstream) => (SignerConfig::Istio(upstream), ttl),
            UpstreamSource::Drop(_) => return Err(RegistrationFlagsError::NoAddress),
        },
        (ISTIO, None) => return Err(RegistrationFlagsError::NoAddress),
        (KUBERNETES | CERT_MANAGER, Some(_)) => return Err(RegistrationFlagsError::Upstream(kind)),
        (KUBERNETES | CERT_MANAGER, None) if !has_cluster => {
            return Err(RegistrationFlagsError::NoCluster(kind));
        }
        (KUBERNETES, None) => (kubernetes_csr(args, base)?, ttl),
        (CERT_MANAGER, None) => {
            let policy = TtlPolicy::new(ttl.default_within(max), max, OverMax::Clamp)?;
            (cert_manager(args)?, policy)
        }
        _ => return Err(RegistrationFlagsError::Kind(kind)),
    };
    Ok((Whose::Signers(RegistrationConfig { signer, deadline }), ttl))
}

fn kubernetes_csr(
    args: RegistrationArgs,
    base: &Path,
) -> Result<SignerConfig, RegistrationFlagsError> {
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    let (default, domain) = (named(args.k8s_signer), named(args.cert_signer_domain));
    let has_domain = domain.is_some();
    let signers = match (default, domain) {
        (Some(default), None) => SignerNames::One(default),
        (None, Some(domain)) => SignerNames::InDomain(domain),
        (Some(default), Some(domain)) => SignerNames::OneAndDomain { default, domain },
        (None, None) => return Err(RegistrationFlagsError::NoSigner),
    };
    let approval = approval(args.approve_requests.unwrap_or(true));
    let common = args.root_ca_file.or_else(|| istios(base, has_domain));
    Ok(SignerConfig::KubernetesCsr {
        signers,
        approval,
        roots: RootFiles {
            common,
            by_signer: by_signer(&args.signer_root)?,
        },
    })
}

/// Where Istio's registration authority looks for the roots: the signers of a domain have others than the cluster.
fn istios(base: &Path, has_domain: bool) -> Option<PathBuf> {
    let external = base.join("etc/external-ca-cert/root-cert.pem");
    let cluster = base.join("var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
    let cluster = (!has_domain).then_some(cluster);
    [Some(external), cluster]
        .into_iter()
        .flatten()
        .find(|path| path.exists())
}

fn cert_manager(args: RegistrationArgs) -> Result<SignerConfig, RegistrationFlagsError> {
    let parts = [&args.issuer_name, &args.issuer_kind, &args.issuer_group];
    let issuer = match parts.iter().filter(|part| !part.is_empty()).count() {
        3 if args.issuer_enabled => Some(IssuerRef {
            name: args.issuer_name,
            kind: args.issuer_kind,
            group: args.issuer_group,
        }),
        1 | 2 if args.issuer_enabled => return Err(RegistrationFlagsError::HalfAnIssuer),
        _ => None,
    };
    let (name, namespace) = (
        args.runtime_issuance_config_map_name,
        args.runtime_issuance_config_map_namespace,
    );
    let issuers = match (name, namespace, issuer) {
        (Some(name), Some(namespace), otherwise) => Issuers::Followed {
            from: ConfigMapRef { namespace, name },
            otherwise,
        },
        (None, None, Some(issuer)) => Issuers::Fixed(issuer),
        (None, None, None) => return Err(RegistrationFlagsError::NoIssuer),
        _ => return Err(RegistrationFlagsError::HalfAConfigMap),
    };
    Ok(SignerConfig::CertManager {
        namespace: args.certificate_namespace,
        issuers,
        approval: approval(args.approve_requests.unwrap_or(false)),
        afterwards: if args.preserve_certificate_requests {
            Afterwards::Keep
        } else {
            Afterwards::Delete
        },
        annotations: annotations(&args.certificate_request_additional_annotations)?,
        roots: RootFiles {
            common: args.root_ca_file,
            by_signer: by_signer(&args.signer_root)?,
        },
    })
}

fn approval(ours: bool) -> Approval {
    if ours {
        Approval::Ours
    } else {
        Approval::Others
    }
}

fn by_signer(typed: &[String]) -> Result<Vec<(String, PathBuf)>, RegistrationFlagsError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((signer, file)) if !signer.is_empty() && !file.is_empty() => {
            Ok((signer.to_owned(), PathBuf::from(file)))
        }
        _ => Err(RegistrationFlagsError::SignerRoot(text.clone())),
    };
    typed.iter().map(pair).collect()
}

fn annotations(typed: &[String]) -> Result<BTreeMap<String, String>, RegistrationFlagsError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if is_annotation(key) => Ok((key.to_owned(), value.to_owned())),
        _ => Err(RegistrationFlagsError::Annotation(text.clone())),
    };
    typed
        .iter()
        .filter(|text| !text.is_empty())
        .map(pair)
        .collect()
}

/// A qualified name, as Kubernetes calls it.
fn is_annotation(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').unwrap_or(("kubernetes.io", key));
    let is_name = |text: &str, longest: usize, more: &[u8]| {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
        let ends = [text.bytes().next(), text.bytes().last()];
        text.len() <= longest
            && text.bytes().all(is_good)
            && ends
                .iter()
                .all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
    };
    is_name(prefix, 253, b"-.") && is_name(name, 63, b"-._")
}

/// Flags about a signer that cannot be meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationFlagsError {
    /// Nobody knows it.
    #[error(
        "invalid CA Name {0:?}: known are ISTIOD_RA_KUBERNETES_API, cert-manager and ISTIOD_RA_ISTIO_API"
    )]
    Kind(String),
    /// It is asked through an API server.
    #[error("--external-ca {0} needs --kubernetes")]
    NoCluster(String),
    /// Two that would sign.
    #[error("--external-ca {0} and an upstream CA: only one of them can be meant")]
    Upstream(String),
    /// Nobody is named that could sign.
    #[error("--external-ca {KUBERNETES} needs --k8s-signer, --cert-signer-domain or both")]
    NoSigner,
    /// Nobody is named that could sign.
    #[error("--external-ca {ISTIO} needs --upstream-ca-addr with its roots and credentials")]
    NoAddress,
    /// Name, kind and group belong together.
    #[error("--issuer-name, --issuer-kind and --issuer-group: all three or none")]
    HalfAnIssuer,
    /// Name and namespace belong together.
    #[error(
        "--runtime-issuance-config-map-name and --runtime-issuance-config-map-namespace: both or none"
    )]
    HalfAConfigMap,
    /// Nobody says who signs.
    #[error(
        "without an issuer, --runtime-issuance-config-map-name and --runtime-issuance-config-map-namespace must say where one is named"
    )]
    NoIssuer,
    /// Not a pair.
    #[error("roots of a signer {0:?}: SIGNER=FILE")]
    SignerRoot(String),
    /// Kubernetes would not take it.
    #[error("annotation {0:?}: KEY=VALUE with a key as Kubernetes takes it")]
    Annotation(String),
    /// Nobody could sign in that time.
    #[error("--signer-timeout is shorter than one second")]
    Timeout,
    /// The lifetimes contradict each other.
    #[error("--max-client-certificate-duration: {0}")]
    Ttl(#[from] TtlError),
    /// Our own certificate cannot come from there.
    #[error(
        "the CA that is asked gives no certificates for listeners: name files with --ca-cert-file, --tls-cert-file and --tls-key-file"
    )]
    NoServingCertificate,
}

const KUBERNETES: &str = "ISTIOD_RA_KUBERNETES_API";
const ISTIO: &str = "ISTIOD_RA_ISTIO_API";
const CERT_MANAGER: &str = "cert-manager";
const SHORTEST_DEADLINE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Config, ConfigError};
    use super::*;
    use crate::args::Args;

    fn read(flags: &[&str]) -> Result<Option<SignerConfig>, String> {
        let args = Args::try_parse_from(["ca-server"].iter().chain(flags)).unwrap();
        let config: Result<Config, ConfigError> = args.try_into();
        config
            .map(|config| match config.whose {
                Whose::Own(_) => None,
                Whose::Signers(config) => Some(config.signer),
            })
            .map_err(|error| error.to_string())
    }

    fn in_cluster(flags: &[&str]) -> Result<SignerConfig, String> {
        let cluster = ["--kubernetes", "--kubeconfig", "k"];
        read(&[&cluster[..], flags].concat()).map(Option::unwrap)
    }

    #[test]
    fn nothing_typed_is_a_ca_of_our_own() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&["--external-ca", ""]).unwrap().is_none());
    }

    #[test]
    fn a_kubernetes_signer_is_named_as_in_istio() {
        let kind = ["--external-ca", "ISTIOD_RA_KUBERNETES_API"];
        let with = |flags: &[&str]| in_cluster(&[&kind[..], flags].concat());
        let Ok(SignerConfig::KubernetesCsr {
            signers, approval, ..
        }) = with(&["--k8s-signer", "example.com/a"])
        else {
            panic!("not a Kubernetes signer");
        };
        assert_eq!(signers, SignerNames::One("example.com/a".into()));
        assert_eq!(approval, Approval::Ours);
        let both = ["--k8s-signer", "a/b", "--cert-signer-domain", "example.org"];
        let both = [&both[..], &["--approve-requests", "false"]].concat();
        let Ok(SignerConfig::KubernetesCsr {
            signers, approval, ..
        }) = with(&both)
        else {
            panic!("not a Kubernetes signer");
        };
        assert_eq!(signers.to_string(), "a/b, example.org/*");
        assert_eq!(approval, Approval::Others);
        assert!(with(&[]).unwrap_err().contains("needs --k8s-signer"));
    }

    #[test]
    fn cert_manager_has_istio_csrs_flags_and_defaults() {
        let kind = ["--external-ca", "cert-manager"];
        let with = |flags: &[&str]| in_cluster(&[&kind[..], flags].concat());
        let Ok(SignerConfig::CertManager {
            namespace,
            issuers,
            approval,
            afterwards,
            annotations,
            roots,
        }) = with(&[])
        else {
            panic!("not cert-manager");
        };
        assert_eq!(namespace, "istio-system");
        assert_eq!(issuers.to_string(), "Issuer.cert-manager.io/istio-ca");
        assert_eq!(
            (approval, afterwards),
            (Approval::Others, Afterwards::Delete)
        );
        assert!(annotations.is_empty());
        assert_eq!(roots, RootFiles::default());

        let map = [
            "--runtime-issuance-config-map-name",
            "issuer",
            "--runtime-issuance-config-map-namespace",
            "mesh",
        ];
        let no_issuer = ["--issuer-enabled=false"];
        let none = [
            "--issuer-name",
            "",
            "--issuer-kind",
            "",
            "--issuer-group",
            "",
        ];
        for flags in [&no_issuer[..], &none] {
            assert!(with(flags).unwrap_err().starts_with("without an issuer"));
            let Ok(SignerConfig::CertManager { issuers, .. }) = with(&[flags, &map].concat())
            else {
                panic!("not cert-manager");
            };
            assert_eq!(issuers.to_string(), "as ConfigMap mesh/issuer says");
        }
        for (flags, told) in [
            (&["--issuer-name", ""][..], "all three or none"),
            (&map[..2], "both or none"),
            (&["--signer-root", "a"], "SIGNER=FILE"),
            (
                &["--certificate-request-additional-annotations", "a b=c"],
                "annotation \"a b=c\"",
            ),
            (&["--signer-timeout", "0s"], "shorter than one second"),
            (
                &["--upstream-ca-drop", "/drop"],
                "only one of them can be meant",
            ),
        ] {
            let error = with(flags).unwrap_err();
            assert!(error.contains(told), "{flags:?}: {error}");
        }
        let error = read(&kind).unwrap_err();
        assert_eq!(error, "--external-ca cert-manager needs --kubernetes");
        let error = read(&["--external-ca", "vault"]).unwrap_err();
        assert!(error.starts_with("invalid CA Name \"vault\""), "{error}");
    }

    #[test]
    fn annotations_are_read_as_kubernetes_takes_them() {
        let typed = ["a=b", "example.com/key-1=x=y", "c="].map(String::from);
        let read = annotations(&typed).unwrap();
        assert_eq!(read["example.com/key-1"], "x=y");
        assert_eq!((read["a"].as_str(), read["c"].as_str()), ("b", ""));
        for bad in ["", "/a", "a/", "-a", "a_", "a b", "a/b/c", &"x".repeat(64)] {
            assert!(!is_annotation(bad), "{bad:?}");
        }
    }

    #[test]
    fn another_istio_ca_needs_an_address_and_files_for_the_listener() {
        let kind = ["--external-ca", "ISTIOD_RA_ISTIO_API"];
        assert!(
            read(&kind)
                .unwrap_err()
                .contains("needs --upstream-ca-addr")
        );
        let address = ["--upstream-ca-addr", "ca:15012", "--upstream-ca-root", "/r"];
        let token = ["--upstream-ca-token-file", "/t"];
        let all = [&kind[..], &address, &token].concat();
        assert!(read(&all).unwrap_err().contains("name files"));
        let files = [
            "--ca-cert-file",
            "a",
            "--tls-cert-file",
            "b",
            "--tls-key-file",
            "c",
        ];
        let signer = read(&[&all[..], &files].concat()).unwrap();
        assert!(matches!(signer, Some(SignerConfig::Istio(_))));
    }
}
