//! What is meant about our own certificates: where from, for which names, shown how.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ca_core::{IdentityError, SubjectName};

use crate::args::{NamedHosts, ServingArgs};
use crate::serving::{
    self, CertificateFiles, Compliance, Provider, ServingPlan, TlsPolicy, TlsPolicyError,
};

/// Our own certificates and the listeners that show them.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) plan: ServingPlan,
    pub(crate) webhook: Option<SocketAddr>,
    pub(crate) dns: Option<Dns>,
}

/// DNS over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dns {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
}

impl Serving {
    /// `listen` is the address for certificate requests; `base` is the folder that the well-known files are in; `k8s_signer` is
    /// the signer of the cluster that is meant where none is named.
    pub(super) fn new(
        args: ServingArgs,
        listen: SocketAddr,
        base: &Path,
        k8s_signer: Option<&str>,
    ) -> Result<Self, ServingConfigError> {
        if args.serving_cert_ttl < 4 * serving::FIRST_RETRY {
            return Err(ServingConfigError::Lifetime);
        }
        let compliance = compliance(args.compliance_policy.as_deref())?;
        let tls = TlsPolicy::new(compliance, args.tls_min_version, &args.tls_cipher_suites)?;
        let files = [args.ca_cert_file, args.tls_cert_file, args.tls_key_file];
        let provider = provider(&args.cert_provider, files, base, k8s_signer)?;
        let names = Names {
            namespace: args.namespace.filter(|namespace| !namespace.is_empty()),
            revision: args.revision,
            discovery_address: args.discovery_address,
            added: args.dns_names,
        };
        let dns = args.dns_listen.zip(args.dns_upstream);
        let dns = dns.map(|(listen, upstream)| Dns { listen, upstream });
        Ok(Self {
            plan: ServingPlan {
                provider,
                lifetime: args.serving_cert_ttl,
                tls,
                folder: args.serving_certs_dir,
                grpc: names.of(listen)?,
                webhook: args.webhook_listen.map(|at| names.of(at)).transpose()?,
                dns: dns.map(|dns| names.of(dns.listen)).transpose()?,
                others: others(args.serving_cert)?,
            },
            webhook: args.webhook_listen,
            dns,
        })
    }
}

fn compliance(typed: Option<&str>) -> Result<Option<Compliance>, ServingConfigError> {
    Ok(Some(match typed.unwrap_or_default() {
        "" => return Ok(None),
        "fips-140-2" => Compliance::Fips140_2,
        "fips-140-3" => Compliance::Fips140_3,
        "pqc" => Compliance::PostQuantum,
        other => return Err(ServingConfigError::Compliance(other.into())),
    }))
}

/// Istio's choice: files that are named, files where Istio looks for them, and only then the provider.
fn provider(
    typed: &str,
    files: [Option<PathBuf>; 3],
    base: &Path,
    k8s_signer: Option<&str>,
) -> Result<Provider, ServingConfigError> {
    // Judged in any case: who asks for something that there is not should not get something else.
    let generated = match typed {
        "" | "istiod" => Some(Provider::OwnCa),
        "none" => Some(Provider::Nowhere),
        "custom" => None,
        "kubernetes" => {
            let signer = k8s_signer.filter(|signer| !signer.is_empty());
            let signer = signer.ok_or(ServingConfigError::NoSigner)?;
            Some(Provider::ClusterSigner(signer.into()))
        }
        other => match other.strip_prefix("k8s.io/") {
            // As the API demands of the names of signers.
            Some(signer) if signer.contains('/') => Some(Provider::ClusterSigner(signer.into())),
            _ => return Err(ServingConfigError::Provider(other.into())),
        },
    };
    match files {
        [Some(roots), Some(chain), Some(key)] => {
            return Ok(Provider::Files(CertificateFiles { roots, chain, key }));
        }
        [None, None, None] => {}
        _ => return Err(ServingConfigError::SomeFiles),
    }
    match well_known(base) {
        Some(files) => Ok(Provider::Files(files)),
        None => generated.ok_or(ServingConfigError::NoFiles),
    }
}

/// Where Istio's manifests mount a certificate for istiod.
fn well_known(base: &Path) -> Option<CertificateFiles> {
    let folder = base.join("var/run/secrets/istiod");
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
    Some(CertificateFiles {
        chain: file("tls/tls.crt")?,
        key: file("tls/tls.key")?,
        roots: file("ca/root-cert.pem").or_else(|| file("tls/ca.crt"))?,
    })
}

/// By which names clients reach us.
struct Names {
    namespace: Option<String>,
    revision: Option<String>,
    discovery_address: String,
    added: Vec<String>,
}

impl Names {
    /// For a listener at `listen`, sorted, each once.
    fn of(&self, listen: SocketAddr) -> Result<Vec<SubjectName>, ServingConfigError> {
        let mut names: Vec<String> = self.added.iter().map(|name| name.trim().into()).collect();
        match &self.namespace {
            Some(namespace) => names.extend(self.of_istiod(namespace)),
            None => {
                names.extend(["localhost", "127.0.0.1", "::1"].map(String::from));
                if !listen.ip().is_unspecified() {
                    names.push(listen.ip().to_string());
                }
            }
        }
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        Ok(names
            .iter()
            .map(|name| name.parse())
            .collect::<Result<_, _>>()?)
    }

    fn of_istiod(&self, namespace: &str) -> Vec<String> {
        let host = match self.discovery_address.rsplit_once(':') {
            Some((host, _port)) => host,
            None => &self.discovery_address,
        };
        let mut names = vec![
            host.to_owned(),
            format!("istiod.{namespace}.svc"),
            format!("istiod-remote.{namespace}.svc"),
            format!("istio-pilot.{namespace}.svc"),
        ];
        let revision = self.revision.as_deref().unwrap_or_default();
        if !matches!(revision, "" | "default") {
            names.push(format!("istiod-{revision}.{namespace}.svc"));
        }
        names
    }
}

fn others(typed: Vec<NamedHosts>) -> Result<Vec<(String, Vec<SubjectName>)>, ServingConfigError> {
    let mut others: Vec<(String, Vec<SubjectName>)> = Vec::new();
    for NamedHosts { name, hosts } in typed {
        let is_taken = [serving::GRPC, serving::WEBHOOK, serving::DNS].contains(&&*name)
            || others.iter().any(|(other, _)| *other == name);
        if is_taken {
            return Err(ServingConfigError::Taken(name));
        }
        others.push((name, hosts));
    }
    Ok(others)
}

/// What was typed about our own certificates and cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingConfigError {
    /// What this meant in Kubernetes once (`kubernetes.io/legacy-unknown`) signs no more.
    #[error("certificate provider \"kubernetes\": name the signer with --k8s-signer")]
    NoSigner,
    /// It is asked through an API server.
    #[error("certificates by the signer {0} of Kubernetes need --kubernetes")]
    NoCluster(String),
    /// Nobody knows it.
    #[error(
        "certificate provider {0:?}: known are istiod, kubernetes, k8s.io/DOMAIN/NAME, custom and none"
    )]
    Provider(String),
    /// A certificate without its key, or the like.
    #[error("--ca-cert-file, --tls-cert-file and --tls-key-file: all three or none")]
    SomeFiles,
    /// Files are wanted, and there are none.
    #[error(
        "certificate provider \"custom\": name files with --ca-cert-file, --tls-cert-file and --tls-key-file"
    )]
    NoFiles,
    /// A name that no certificate can have.
    #[error("serving certificate: {0}")]
    Name(#[from] IdentityError),
    /// Another certificate is called so.
    #[error("serving certificate {0:?}: there is another one of this name")]
    Taken(String),
    /// Over before it could be renewed.
    #[error("the lifetime of serving certificates is shorter than four seconds")]
    Lifetime,
    /// Nobody knows it.
    #[error("compliance policy {0:?}: known are fips-140-2, fips-140-3 and pqc")]
    Compliance(String),
    /// Nothing that could be spoken.
    #[error("TLS: {0}")]
    Tls(#[from] TlsPolicyError),
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ServingArgs,
    }

    fn serving_in(base: &Path, flags: &[&str]) -> Result<Serving, ServingConfigError> {
        let typed = Typed::try_parse_from(["ca-server"].iter().chain(flags)).unwrap();
        Serving::new(typed.args, "10.1.2.3:15012".parse().unwrap(), base, None)
    }

    fn serving(flags: &[&str]) -> Result<Serving, ServingConfigError> {
        serving_in(Path::new("/nonexistent"), flags)
    }

    fn names(flags: &[&str]) -> Vec<String> {
        let plan = serving(flags).unwrap().plan;
        plan.grpc.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_namespace_the_names_are_those_of_this_machine_each_once() {
        assert_eq!(
            names(&["--dns-names", "ca.example.com, localhost,"]),
            [
                "10.1.2.3",
                "127.0.0.1",
                "::1",
                "ca.example.com",
                "localhost"
            ]
        );
    }

    /// Istio, names of istiod's serving certificate: revision "", `default`, `canary`, hosts named twice.
    #[test]
    fn in_a_namespace_the_names_are_istiods_sorted_and_each_once() {
        let plain = [
            "istio-pilot.mesh.svc",
            "istiod-remote.mesh.svc",
            "istiod.istio-system.svc",
            "istiod.mesh.svc",
        ];
        for revision in [&[][..], &["--revision", ""], &["--revision", "default"]] {
            assert_eq!(names(&[&["--namespace", "mesh"], revision].concat()), plain);
        }
        let added = ["--dns-names", "a.example.com,istiod.mesh.svc,a.example.com"];
        let revision = ["--namespace", "mesh", "--revision", "canary"];
        let mut all = [&["a.example.com"], &plain[..]].concat();
        all.insert(2, "istiod-canary.mesh.svc");
        assert_eq!(names(&[&revision[..], &added].concat()), all);
        assert_eq!(
            names(&[
                "--namespace",
                "istio-system",
                "--discovery-address",
                "pilot.example.com:443"
            ]),
            [
                "istio-pilot.istio-system.svc",
                "istiod-remote.istio-system.svc",
                "istiod.istio-system.svc",
                "pilot.example.com"
            ]
        );
    }

    /// Istio, source of istiod's serving certificate: row by row.
    #[test]
    fn files_win_over_the_provider_and_flags_over_files_where_istio_looks() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let put = |name: &str| {
            let path = base.join("var/run/secrets/istiod").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let provider = |flags: &[&str]| serving_in(base, flags).unwrap().plan.provider;
        let none = ["--cert-provider", "none"];
        assert_eq!(provider(&[]), Provider::OwnCa);
        assert_eq!(provider(&["--cert-provider", ""]), Provider::OwnCa);
        assert_eq!(provider(&none), Provider::Nowhere);

        let (chain, key) = (put("tls/tls.crt"), put("tls/tls.key"));
        assert_eq!(provider(&[]), Provider::OwnCa, "a pair without roots");
        let roots = put("tls/ca.crt");
        let found = |roots| {
            let (chain, key) = (chain.clone(), key.clone());
            Provider::Files(CertificateFiles { roots, chain, key })
        };
        assert_eq!(provider(&none), found(roots));
        let roots = put("ca/root-cert.pem");
        assert_eq!(provider(&["--cert-provider", "custom"]), found(roots));

        let named = [
            "--caCertFile",
            "a",
            "--tlsCertFile",
            "b",
            "--tlsKeyFile",
            "c",
        ];
        let files = CertificateFiles {
            roots: "a".into(),
            chain: "b".into(),
            key: "c".into(),
        };
        assert_eq!(provider(&named), Provider::Files(files));
    }

    /// Istio, provider `k8s.io/<signer>`.
    #[test]
    fn a_signer_of_the_cluster_is_named_by_the_provider_or_beside_it() {
        let named = serving(&["--cert-provider", "k8s.io/example.com/x"]).unwrap();
        let by_name = Provider::ClusterSigner("example.com/x".into());
        assert_eq!(named.plan.provider, by_name);
        let beside = provider(
            "kubernetes",
            [None, None, None],
            Path::new("/nonexistent"),
            Some("example.com/x"),
        );
        assert_eq!(beside.unwrap(), by_name);
        // It is for the listeners alone.
        assert!(!named.plan.needs_issuer());
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_name() {
        let cases: &[(&[&str], &str)] = &[
            (
                &["--cert-provider", "kubernetes"],
                "certificate provider \"kubernetes\": name the signer with --k8s-signer",
            ),
            (
                &["--cert-provider", "k8s.io/x"],
                "\"k8s.io/x\": known are istiod, kubernetes, k8s.io/DOMAIN/NAME",
            ),
            (
                &["--cert-provider", "istio"],
                "certificate provider \"istio\": known are",
            ),
            (
                &["--cert-provider", "custom"],
                "certificate provider \"custom\": name files",
            ),
            (
                &["--tls-cert-file", "a", "--tls-key-file", "b"],
                "all three or none",
            ),
            (&["--ca-cert-file", "a"], "all three or none"),
            (&["--dns-names", "a..b"], "not a DNS name: \"a..b\""),
            (&["--serving-cert-ttl", "3s"], "shorter than four seconds"),
            (
                &["--compliance-policy", "fips"],
                "compliance policy \"fips\": known are",
            ),
            (
                &[
                    "--compliance-policy",
                    "fips-140-2",
                    "--tls-min-version",
                    "1.3",
                ],
                "TLS: compliance policy, lowest TLS version",
            ),
            (
                &[
                    "--serving-certs-dir",
                    "d",
                    "--serving-cert",
                    "dns=a.example.com",
                ],
                "serving certificate \"dns\": there is another one of this name",
            ),
        ];
        for (flags, told) in cases {
            let error = serving(flags).unwrap_err().to_string();
            assert!(error.contains(told), "{flags:?}: {error}");
        }
    }

    /// Also before it is looked whether there is a folder for it.
    #[test]
    fn a_certificate_for_a_program_beside_us_has_a_name_and_hosts() {
        for (wrong, told) in [
            ("foo", "not NAME=HOST,... with a name of letters"),
            ("=a.example.com", "not NAME=HOST,... with a name of letters"),
            (
                "../x=a.example.com",
                "not NAME=HOST,... with a name of letters",
            ),
            ("a=b..c", "not a DNS name: \"b..c\""),
        ] {
            let typed = Typed::try_parse_from(["ca-server", "--serving-cert", wrong]);
            let error = typed.err().unwrap().to_string();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_listener_for_dns_needs_a_resolver_behind_it() {
        let typed = |flags: &[&str]| Typed::try_parse_from(["ca-server"].iter().chain(flags));
        assert!(typed(&["--dns-listen", "127.0.0.1:0"]).is_err());
        assert!(typed(&["--serving-cert", "a=b"]).is_err());
        let both = [
            "--dns-listen",
            "127.0.0.1:0",
            "--dns-upstream",
            "127.0.0.1:53",
        ];
        assert!(typed(&both).is_ok());
        let serving = serving(&both).unwrap();
        assert!(serving.plan.dns.is_some() && serving.plan.webhook.is_none());
    }
}
