//! etcd and kube-apiserver on free ports of this machine, and the certificates between them and their clients.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ca_core::crypto::AWS_LC_RS;
use ca_core::{KeyKind, PrivateKey};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::watched::Watched;

/// Where the programs are, and what CRDs to install.
pub(crate) struct Assets {
    etcd: PathBuf,
    api_server: PathBuf,
    /// Files of YAML.
    crds: Vec<PathBuf>,
}

impl Assets {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: whoever runs the tests says where the partners are"
    )]
    pub(crate) fn find() -> Self {
        let folder = std::env::var_os("KUBEBUILDER_ASSETS")
            .map(PathBuf::from)
            .expect("KUBEBUILDER_ASSETS names the folder of kube-apiserver and etcd: `cargo xtask interop kubernetes` sets it");
        let program = |name: &str| {
            let path = folder.join(name);
            assert!(path.is_file(), "no {}", path.display());
            path
        };
        Self {
            etcd: program("etcd"),
            api_server: program("kube-apiserver"),
            crds: [
                ("CERT_MANAGER_CRDS", "cert-manager.io_"),
                ("PROMETHEUS_OPERATOR_CRDS", "_servicemonitors."),
            ]
            .into_iter()
            .filter_map(|(variable, wanted)| Some((std::env::var_os(variable)?, wanted)))
            .flat_map(|(folder, wanted)| definitions(Path::new(&folder), wanted))
            .collect(),
        }
    }
}

pub(crate) struct ControlPlane {
    assets: Assets,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    etcd_url: String,
    issuer: Issuer<'static, KeyPair>,
    /// What clients verify the API server with.
    pub(crate) ca_pem: String,
    // In this order: the API server goes first.
    api_server: Option<Watched>,
    etcd: Watched,
}

impl ControlPlane {
    /// Starts both. **The API server answers only after a while.**
    pub(crate) fn start(assets: Assets, folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("ca.pem", &ca_pem);
        let (certificate, key) = serving_certificate(&issuer);
        write("serving.pem", &certificate);
        write("serving-key.pem", &key);
        // As most clusters have it.
        let key = PrivateKey::generate_with(KeyKind::Rsa2048, &AWS_LC_RS).unwrap();
        write("service-accounts.pem", &key.to_pkcs8_pem());

        let [client, peer, port] = free_ports();
        let etcd_url = format!("http://127.0.0.1:{client}");
        let etcd = start_etcd(&assets, &folder, &etcd_url, peer);
        let mut control_plane = Self {
            assets,
            folder,
            port,
            etcd_url,
            issuer,
            ca_pem,
            api_server: None,
            etcd,
        };
        control_plane.start_api_server();
        control_plane
    }

    pub(crate) fn start_api_server(&mut self) {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let issuer = format!("https://127.0.0.1:{}", self.port);
        let flags = [
            format!("--etcd-servers={}", self.etcd_url),
            "--bind-address=127.0.0.1".into(),
            // Looks for a default route otherwise, which this machine may not have.
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", file("serving.pem")),
            format!("--tls-private-key-file={}", file("serving-key.pem")),
            format!("--client-ca-file={}", file("ca.pem")),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            // It would have every pod wait for a controller that is not there.
            "--disable-admission-plugins=ServiceAccount".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            // A URL that leads here, so that discovery of the keys goes the way it goes in a cluster.
            format!("--service-account-issuer={issuer}"),
            format!("--service-account-jwks-uri={issuer}/openid/v1/jwks"),
            format!(
                "--service-account-signing-key-file={}",
                file("service-accounts.pem")
            ),
            format!(
                "--service-account-key-file={}",
                file("service-accounts.pem")
            ),
            "--feature-gates=ClusterTrustBundle=true,PodCertificateRequest=true".into(),
            "--runtime-config=certificates.k8s.io/v1beta1=true".into(),
        ];
        let log = self.folder.join("kube-apiserver.log");
        self.api_server = Some(Watched::start(&self.assets.api_server, &flags, log, None));
    }

    /// Its data stays where it is, in etcd.
    pub(crate) fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Definitions to install, in files.
    pub(crate) fn crds(&self) -> &[PathBuf] {
        &self.assets.crds
    }

    /// A certificate and its key for a client of this name in these groups.
    pub(crate) fn client_certificate(&self, user: &str, groups: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// What both said last.
    pub(crate) fn last_words(&self) -> String {
        let api_server = self.api_server.as_ref().map(Watched::last_words);
        format!(
            "etcd:\n{}\nkube-apiserver:\n{}",
            self.etcd.last_words(),
            api_server.unwrap_or_default()
        )
    }
}

/// The files of a folder whose names contain this.
fn definitions(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(wanted))
        .collect();
    files.sort();
    files
}

fn serving_certificate(issuer: &Issuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn start_etcd(assets: &Assets, folder: &Path, client: &str, peer: u16) -> Watched {
    let peer = format!("http://127.0.0.1:{peer}");
    let flags = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // Nothing here outlives the machine.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ];
    Watched::start(&assets.etcd, &flags, folder.join("etcd.log"), Some(folder))
}

/// All found at once, so that none is given twice.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
