//! A gateway in a namespace of a cluster, with the access that the documentation gives it.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use ca_core::{
    CertificateChain, Csr, PrivateKey, SubjectName, create_csr_pem,
    testing::{TestCa, now},
};
use ca_proto::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{Secret as Served, secret::Type},
};
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, rbac::v1::RoleBinding},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{
    agent::{Agent, Home},
    cluster::{Cluster, from_json},
    deadline::within,
    manifests,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Whom the documentation gives the access to, and by what.
const ACCOUNT: &str = "gateway";
const BINDING: &str = "gateway-secrets";

/// A namespace with the documented objects in it.
pub(crate) struct Stage {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) namespace: String,
    /// Who signs what the gateway shows.
    pub(crate) ca: TestCa,
    /// With a token of the gateway's account.
    kubeconfig: PathBuf,
}

/// A certificate with its key, as PEM.
pub(crate) struct Pair {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::in_cluster(Cluster::shared().await).await
    }

    pub(crate) async fn in_cluster(cluster: Arc<Cluster>) -> Self {
        let namespace = cluster.namespace("edge").await;
        let (_folder, file) = documented_access();
        // As `kubectl apply` would, into this namespace.
        let kubeconfig = cluster.install_manifest(&file, &namespace).await;
        Self {
            cluster,
            namespace,
            ca: TestCa::new("cluster.local"),
            kubeconfig,
        }
    }

    /// Takes the documented access away.
    pub(crate) async fn withdraw(&self) {
        let bindings: Api<RoleBinding> = Api::namespaced(self.cluster.admin(), &self.namespace);
        let params = DeleteParams::default();
        let deleted = within("deletion", bindings.delete(BINDING, &params)).await;
        deleted.unwrap();
    }

    /// Gives the gateway's account the documented access to this namespace.
    pub(crate) async fn grant(&self, namespace: &str) {
        let (_folder, file) = documented_access();
        let mut objects = manifests::access(&file, namespace);
        objects.retain(|object| object.name_any() == BINDING);
        assert_eq!(objects.len(), 2, "a role and its binding");
        for mut object in objects {
            if let Some(subjects) = object.data.get_mut("subjects") {
                subjects[0]["namespace"] = self.namespace.clone().into();
            }
            manifests::apply(&self.cluster.admin(), &object).await;
        }
    }

    /// An agent for the gateway, which reaches the API server with a token of its account.
    pub(crate) fn agent(&self, more: &[&str]) -> Agent {
        let home = Home::with(&self.ca.roots(), "");
        let mounted = home.path("mounted");
        fs::create_dir(&mounted).unwrap();
        let own = self.ca.workload(&self.namespace, ACCOUNT);
        let (key, chain) = (own.0.to_pkcs8_pem(), own.1.to_pem());
        for (name, text) in [
            ("key.pem", &*key),
            ("cert-chain.pem", &chain),
            ("root-cert.pem", &self.ca.root_pem()),
        ] {
            fs::write(mounted.join(name), text).unwrap();
        }
        let [mounted, kubeconfig, socket] = [&mounted, &self.kubeconfig, &home.path("run/socket")]
            .map(|path| path.display().to_string());
        let flags = [
            &[
                "--namespace",
                &*self.namespace,
                "--service-account",
                ACCOUNT,
                "--mounted-certs",
                &mounted,
                "--socket",
                &socket,
                "--admin-listen",
                "127.0.0.1:0",
                "--gateway-secrets",
                "--kubeconfig",
                &kubeconfig,
            ],
            more,
        ];
        let flags = flags.concat().iter().map(ToString::to_string).collect();
        Agent::start_with_only(home, flags)
    }

    /// Writes a Secret of this type as its owner would, new or in the place of another.
    pub(crate) async fn write(&self, name: &str, kind: &str, data: &[(&str, &str)]) {
        self.write_labelled(name, kind, data, json!({})).await;
    }

    pub(crate) async fn write_labelled(
        &self,
        name: &str,
        kind: &str,
        data: &[(&str, &str)],
        labels: Value,
    ) {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())))
            .collect();
        let secret: Secret = from_json(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "labels": labels },
            "type": kind,
            "data": data,
        }));
        let params = PatchParams::apply("owner").force();
        let patch = Patch::Apply(&secret);
        let secrets = self.secrets();
        let written = within("secret", secrets.patch(name, &params, &patch)).await;
        written.unwrap();
    }

    /// A Secret as `kubectl create secret tls` makes it.
    pub(crate) async fn write_tls(&self, name: &str, pair: &Pair) {
        let data = [("tls.crt", &*pair.chain), ("tls.key", &*pair.key)];
        self.write(name, "kubernetes.io/tls", &data).await;
    }

    /// The same, with the CA that clients must have.
    pub(crate) async fn write_with_ca(&self, name: &str, pair: &Pair, ca: &TestCa) {
        let data = [
            ("tls.crt", &*pair.chain),
            ("tls.key", &*pair.key),
            ("ca.crt", &*ca.root_pem()),
        ];
        self.write(name, "kubernetes.io/tls", &data).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        let secrets = self.secrets();
        let params = DeleteParams::default();
        let deleted = within("deletion", secrets.delete(name, &params)).await;
        deleted.unwrap();
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.admin(), &self.namespace)
    }

    /// A new pair for a name that browsers know.
    pub(crate) fn pair(&self) -> Pair {
        let (key, chain) = self.ca.identity(&[host()], HOUR, now());
        Pair {
            chain: chain.to_pem(),
            key: key.to_pkcs8_pem().to_string(),
        }
    }

    /// The chain for a key.
    pub(crate) fn certify(&self, key: &PrivateKey) -> String {
        let csr = create_csr_pem(key, &[host()]).unwrap();
        let csr = Csr::from_pem(csr.as_bytes()).unwrap();
        let issued = self.ca.issue(&csr, &[host()], HOUR, now());
        issued.chain().to_pem()
    }

    /// A list of the CA's by rcgen, which revokes nobody.
    pub(crate) fn revocation_list(&self) -> String {
        let key = rcgen::KeyPair::from_pem(&self.ca.key().to_pkcs8_pem()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&self.ca.root_pem(), key).unwrap();
        let params = rcgen::CertificateRevocationListParams {
            this_update: now() - time::Duration::hours(1),
            next_update: now() + time::Duration::hours(1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&issuer).unwrap().pem().unwrap()
    }

    /// The cluster, where nobody else has it.
    pub(crate) fn cluster_mut(&mut self) -> &mut Cluster {
        Arc::get_mut(&mut self.cluster).expect("a cluster of its own")
    }
}

impl Pair {
    /// One that issued itself and is good for an hour from then on, to the second: a CA sets that back.
    pub(crate) fn that_begins(at: OffsetDateTime) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["shop.example.com".to_owned()]).unwrap();
        params.not_before = at;
        params.not_after = at + HOUR;
        Self {
            chain: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn host() -> SubjectName {
    SubjectName::Dns("shop.example.com".parse().unwrap())
}

/// The first YAML of the section on gateways, as a file in a folder that goes with this.
fn documented_access() -> (TempDir, String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md");
    let document = fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once("\n## Gateways\n").unwrap();
    let (_, yaml) = section.split_once("```yaml\n").unwrap();
    let (yaml, _) = yaml.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.yaml");
    fs::write(&file, yaml).unwrap();
    let file = file.display().to_string();
    (folder, file)
}

/// That this pair is what a client was sent under this name.
pub(crate) fn assert_pair(served: &Served, name: &str, pair: &Pair) {
    assert_eq!(served.name, name);
    let Some(Type::TlsCertificate(sent)) = &served.r#type else {
        panic!("no key pair: {name}");
    };
    let chain = CertificateChain::from_pem(bytes(sent.certificate_chain.as_ref())).unwrap();
    let wanted = CertificateChain::from_pem(pair.chain.as_bytes()).unwrap();
    assert_eq!(chain, wanted, "{name}");
    let key = PrivateKey::from_pem(bytes(sent.private_key.as_ref())).unwrap();
    let wanted = PrivateKey::from_pem(pair.key.as_bytes()).unwrap();
    assert_eq!(key.to_pkcs8_pem(), wanted.to_pkcs8_pem(), "{name}");
}

/// What was sent inline; nothing if there is none.
pub(crate) fn bytes(source: Option<&DataSource>) -> &[u8] {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        None => &[],
        other => panic!("not inline: {other:?}"),
    }
}
