//! A Kubernetes API server, which Vault asks whose a token is.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::api::{Api, text};
use super::login::{AUDIENCE, POLICY, ROLE};
use crate::interop::openssl::openssl;
use crate::lab::Lab;
use crate::mesh::{self, Workload};
use crate::process::Process;
use crate::{wait, workspace};

/// Where the login is.
pub(super) const LOGIN: &str = "auth/kubernetes/login";

const LIMIT: Duration = Duration::from_secs(60);

/// Of whoever sets the cluster up.
const OPERATOR: &str = "operator-token";

/// Tells whose a token is, and needs a right for that.
const REVIEWER: &str = "vault";

/// One API server with its etcd, and nobody else.
pub(super) struct Cluster {
    api: Api,
    // In this order: the API server goes first.
    _api_server: Process,
    _etcd: Process,
}

impl Cluster {
    /// Returns when it works. `assets` is the folder of its two programs.
    pub(super) fn start(lab: &Lab, assets: &Path) -> Result<Self> {
        let [address, client, peer] = [
            mesh::free_address()?,
            mesh::free_address()?,
            mesh::free_address()?,
        ];
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.arg("--data-dir").arg(lab.path("etcd")).args([
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]);
        let etcd = lab.start("etcd", &mut etcd)?;
        let key = lab.path("service-accounts.key");
        workspace::output(openssl(&["genpkey", "-algorithm", "RSA", "-out"]).arg(&key))?;
        let operators = lab.write(
            "operators.csv",
            format!("{OPERATOR},operator,1,system:masters\n"),
        )?;
        let certificates = lab.path("api-server");
        let mut api_server = Command::new(assets.join("kube-apiserver"));
        api_server
            .arg("--cert-dir")
            .arg(&certificates)
            .arg("--token-auth-file")
            .arg(operators)
            .arg("--service-account-signing-key-file")
            .arg(&key)
            .arg("--service-account-key-file")
            .arg(&key)
            .args([
                format!("--etcd-servers=http://{client}"),
                format!("--bind-address={}", address.ip()),
                format!("--advertise-address={}", address.ip()),
                format!("--secure-port={}", address.port()),
                format!("--service-account-issuer=https://{address}"),
                "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
                "--authorization-mode=RBAC".to_owned(),
                // It waits for a controller that is not there.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ]);
        let mut api_server = lab.start("kube-apiserver", &mut api_server)?;
        let api = Api {
            address,
            roots: certificates.join("apiserver.crt"),
            caller: Some(("Authorization", format!("Bearer {OPERATOR}"))),
        };
        wait::until("API server that works", LIMIT, || {
            api_server.check()?;
            Ok(match api.ask("GET", "/readyz", &Value::Null) {
                Ok((200, _)) => ControlFlow::Break(()),
                Ok((status, answer)) => ControlFlow::Continue(format!("{status} {answer}")),
                Err(error) => ControlFlow::Continue(format!("{error:#}")),
            })
        })?;
        Ok(Self {
            api,
            _api_server: api_server,
            _etcd: etcd,
        })
    }

    /// Makes the accounts, and has Vault believe their tokens where this API server does.
    pub(super) fn introduce(&self, vault: &Api) -> Result<()> {
        let (namespace, account) = (Workload::Cart.namespace(), Workload::Cart.service_account());
        let named = |name: &str| json!({ "metadata": { "name": name } });
        self.api.post("/api/v1/namespaces", &named(namespace))?;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        for name in [account, REVIEWER] {
            self.api.post(&accounts, &named(name))?;
        }
        let binding = json!({
            "metadata": { "name": "vault-reviews-tokens" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": REVIEWER, "namespace": namespace }],
        });
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        self.api.post(bindings, &binding)?;
        let ca = fs::read_to_string(&self.api.roots).context("no certificate of the API server")?;
        let cluster = json!({
            "kubernetes_host": format!("https://{}", self.api.address),
            "kubernetes_ca_cert": ca,
            "token_reviewer_jwt": self.token(REVIEWER, &[])?,
            "disable_local_ca_jwt": true,
        });
        vault.post("/v1/auth/kubernetes/config", &cluster)?;
        // Anybody: what a certificate may say is up to the names that the engine lets each have.
        let role = json!({
            "bound_service_account_names": ["*"],
            "bound_service_account_namespaces": ["*"],
            "audience": AUDIENCE,
            "token_policies": [POLICY],
            "token_ttl": "1h",
        });
        let path = format!("/v1/auth/kubernetes/role/{ROLE}");
        vault.post(&path, &role).map(drop)
    }

    /// What a kubelet mounts into a pod of this account.
    pub(super) fn token(&self, account: &str, audiences: &[&str]) -> Result<String> {
        let namespace = Workload::Cart.namespace();
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let wish = json!({ "spec": { "audiences": audiences, "expirationSeconds": 3600 } });
        let made = self.api.post(&path, &wish)?;
        Ok(text(&made, "/status/token")?.to_owned())
    }
}
