//! The whole server as a registration authority, and one whose own certificate a signer of the cluster makes. Who signs is a stand-in.

use ca_core::Certificate;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use tonic::Code;

use crate::cluster::Cluster;
use crate::deadline::eventually;
use crate::roots;
use crate::server::{Ask, Server};
use crate::stand_in::StandIn;
use crate::state::rotate;

/// The names in a certificate.
fn names(pem: &str) -> Vec<String> {
    let leaf = Certificate::from_pem(pem.as_bytes()).unwrap();
    leaf.names().iter().map(ToString::to_string).collect()
}

fn report(server: &Server) -> Value {
    serde_json::from_str(&server.get("/debug").1).unwrap()
}

/// Until the pods of the cluster are known: a caller may be quicker than our watch.
async fn signed(server: &Server, ask: Ask<'_>) -> Vec<String> {
    let attempt = async || {
        let signed = server.sign(ask.clone()).await;
        signed.map_err(|status| format!("{status:?}\n{}", server.log()))
    };
    eventually("certificate", attempt).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn with_cert_manager_callers_of_the_cluster_get_what_it_signs_and_the_server_has_no_key() {
    let cluster = roots::cluster().await;
    let namespace = cluster.namespace("requests").await;
    let kubeconfig = cluster
        .install_manifest("registration-cert-manager.yaml", &namespace)
        .await;
    roots::namespace(&cluster, "ra-roots", serde_json::json!({ "ra": "on" })).await;
    let signer = StandIn::cert_manager(cluster.admin(), &namespace, "istio-ca");
    let flags = [
        "--external-ca=cert-manager",
        "--configmap-namespace-selector=ra=on",
        "--certificate-namespace",
        &namespace,
    ];
    let server = Server::start(&kubeconfig, &namespace, &flags).await;
    server.until_ready().await;
    assert_eq!(report(&server)["ca"]["kind"], "registration authority");
    // The signer's, with which the certificate of the listener is verified below.
    assert_eq!(server.root_pem(), signer.ca().root_pem());
    roots::until_says(&cluster, "ra-roots", &signer.ca().root_pem()).await;

    let cart = cluster.workload("default", "cart", "node-1").await;
    let token = cluster.token(&cart, &["istio-ca"]).await;
    let own = cart.spiffe_id();
    let elements = signed(&server, Ask::new(&token).naming(&[&own])).await;
    assert_eq!(names(&elements[0]), [own.as_str()]);
    assert_eq!(*elements.last().unwrap(), signer.ca().root_pem());

    // The signer takes names from the CSR, so it has to ask for exactly what was granted.
    let other = own.replace("cart", "other");
    for greedy in [&[][..], &[other.as_str()], &[own.as_str(), &other]] {
        let refused = server.sign(Ask::new(&token).naming(greedy)).await;
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let denied = cluster.workload("default", "denied", "node-1").await;
    let denied_token = cluster.token(&denied, &["istio-ca"]).await;
    let id = denied.spiffe_id();
    let attempt = async || {
        let asked = server.sign(Ask::new(&denied_token).naming(&[&id])).await;
        match asked {
            Err(status) if status.code() == Code::Internal => Ok(status.message().to_owned()),
            outcome => Err(format!("{outcome:?}")),
        }
    };
    let told = eventually("denial", attempt).await;
    assert_eq!(told, "CSR signing error (the signer has declined)");
    server.until_logged("was denied").await;
    let junk = server.sign(Ask::new("junk")).await.unwrap_err();
    assert_eq!(junk.code(), Code::Unauthenticated);

    let refused = rotate(&server, "renew").unwrap_err();
    assert!(refused.contains("somebody else signs"), "{refused}");
    let root = server.announced("root certificate");
    let folder = std::path::Path::new(&root).parent().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read(&path).unwrap();
            let has_key = String::from_utf8_lossy(&text).contains("PRIVATE KEY");
            assert!(!has_key, "{}", path.display());
        }
    }
}

/// Whoever publishes the roots need not be who is asked for certificates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn the_roots_of_an_issuer_that_takes_over_are_out_before_anybody_asks_for_a_certificate() {
    let cluster = roots::cluster().await;
    let namespace = cluster.namespace("requests").await;
    let kubeconfig = cluster
        .install_manifest("runtime-issuer.yaml", &namespace)
        .await;
    let selected = serde_json::json!({ "taken-over": "on" });
    roots::namespace(&cluster, "taken-over", selected).await;
    let first = StandIn::cert_manager(cluster.admin(), &namespace, "first");
    let second = StandIn::cert_manager(cluster.admin(), &namespace, "second");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), &namespace);
    let name_issuer = async |name: &str| {
        let map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "istio-issuer" },
            "data": { "issuer-name": name, "issuer-kind": "Issuer", "issuer-group": "cert-manager.io" },
        });
        let params = PatchParams::apply("tests").force();
        let patch = Patch::Apply(&map);
        let patched = maps.patch("istio-issuer", &params, &patch);
        patched.await.unwrap();
    };
    name_issuer("first").await;
    let flags = [
        "--external-ca=cert-manager",
        "--configmap-namespace-selector=taken-over=on",
        "--issuer-enabled=false",
        "--runtime-issuance-config-map-name=istio-issuer",
        "--runtime-issuance-config-map-namespace",
        &namespace,
        "--certificate-namespace",
        &namespace,
    ];
    let server = Server::start(&kubeconfig, &namespace, &flags).await;
    server.until_ready().await;
    let first_roots = first.ca().roots();
    roots::until_says(&cluster, "taken-over", first_roots.to_pem()).await;
    name_issuer("second").await;
    let both = first_roots.merge(&second.ca().roots());
    roots::until_says(&cluster, "taken-over", both.to_pem()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn with_the_certificate_api_the_request_may_name_its_signer() {
    let cluster = Cluster::start().await;
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster
        .install_manifest("registration-kubernetes.yaml", &namespace)
        .await;
    let mesh = StandIn::kubernetes(cluster.admin(), "example.com/mesh");
    let blue = StandIn::kubernetes(cluster.admin(), "example.com/blue");
    let flags = [
        "--external-ca=ISTIOD_RA_KUBERNETES_API",
        "--k8s-signer=example.com/mesh",
        "--cert-signer-domain=example.com",
    ];
    let server = Server::start(&kubeconfig, &namespace, &flags).await;
    server.until_ready().await;
    let cart = cluster.workload("default", "cart", "node-1").await;
    let token = cluster.token(&cart, &["istio-ca"]).await;
    let own = cart.spiffe_id();
    let ask = || Ask::new(&token).naming(&[&own]);
    let elements = signed(&server, ask()).await;
    assert_eq!(names(&elements[0]), [own.as_str()]);
    assert_eq!(*elements.last().unwrap(), mesh.ca().root_pem());
    let elements = server.sign(ask().metadata("CertSigner", "blue")).await;
    assert_eq!(*elements.unwrap().last().unwrap(), blue.ca().root_pem());
    // What was asked for, in its own words; the API makes nothing that is over within ten minutes.
    server.sign(ask().seconds(1200)).await.unwrap();
    let seen = mesh.seen();
    let seconds = &seen.last().unwrap().object["spec"]["expirationSeconds"];
    assert_eq!(*seconds, 1200);
    let short = server.sign(ask().seconds(60)).await.unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument, "{short}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_signer_of_the_cluster_certifies_the_listeners_of_a_ca() {
    let cluster = Cluster::start().await;
    let namespace = cluster.namespace("mesh").await;
    let kubeconfig = cluster
        .install_manifest("ca-serving-signer.yaml", &namespace)
        .await;
    let signer = StandIn::kubernetes(cluster.admin(), "example.com/serving");
    let flags = [
        "--cert-provider=k8s.io/example.com/serving",
        "--publish-roots=false",
    ];
    let server = Server::start(&kubeconfig, &namespace, &flags).await;
    server.until_ready().await;
    let serving = report(&server)["serving_certificates"][0].clone();
    assert_eq!(serving["provider"], "kubernetes", "{serving}");
    let asked = signer.seen();
    let usages = &asked[0].object["spec"]["usages"];
    assert_eq!(
        *usages,
        serde_json::json!(["digital signature", "key encipherment", "server auth"])
    );

    let cart = cluster.workload("default", "cart", "node-1").await;
    let token = cluster.token(&cart, &["istio-ca"]).await;
    // Its root verifies the listener, and ours still signs for workloads.
    assert_ne!(server.root_pem(), signer.ca().root_pem());
    let channel = server.connect_by(&signer.ca().root_pem()).await;
    let attempt = async || {
        let signed = Ask::new(&token).send(channel.clone()).await;
        signed.map_err(|status| format!("{status:?}\n{}", server.log()))
    };
    let elements = eventually("certificate", attempt).await;
    assert_eq!(*elements.last().unwrap(), server.root_pem());
}
