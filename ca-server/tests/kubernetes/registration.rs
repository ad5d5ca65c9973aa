//! The registration authority: the library against a real API server, with a stand-in for whoever signs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ca_core::testing::{TestCa, now};
use ca_core::{
    CertificateAuthority, Csr, IssuedChain, KeyKind, PrivateKey, SignError, SigningRequest,
    SpiffeId, create_csr_pem,
};
use ca_ra::{
    Afterwards, Approval, CertManagerAuthority, CertManagerConfig, CertificateRequest,
    ConfigMapRef, IssuerRef, Issuers, KubernetesCsrAuthority, KubernetesCsrConfig, SignerNames,
    SignerRoots,
};
use futures_util::future::join_all;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, from_json};
use crate::deadline::{DEADLINE, eventually, within};
use crate::stand_in::StandIn;

/// How the stand-in treats a service account of this name, what kind of error that is, and what it says.
type Case = (&'static str, fn(&SignError) -> bool, &'static str);

const HOUR: Duration = Duration::from_secs(3600);
/// As the manifest names it.
const ISSUER_MAP: &str = "istio-issuer";
const ISSUER: &str = "Issuer.cert-manager.io/istio-ca";
/// Of requests that nobody answers.
const SOON: Duration = Duration::from_secs(2);

fn request(name: &str) -> SigningRequest {
    let name: SpiffeId = format!("spiffe://signer/ns/shop/sa/{name}")
        .parse()
        .unwrap();
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let pem = create_csr_pem(&key, &[name.clone().into()]).unwrap();
    let csr = Csr::from_pem(pem.as_bytes()).unwrap();
    SigningRequest::new(csr, vec![name.into()], HOUR)
}

async fn sign(
    authority: &impl CertificateAuthority,
    request: SigningRequest,
) -> Result<IssuedChain, SignError> {
    within("answer", authority.sign(request, now())).await
}

/// What cert-manager's namespace and our rights in it are, and the authority that runs there.
struct Bench {
    client: Client,
    admin: Client,
    namespace: String,
    /// What must go on meanwhile.
    tasks: JoinSet<()>,
}

impl Bench {
    async fn cert_manager(cluster: &Cluster) -> Self {
        Self::with(cluster, "registration-cert-manager.yaml").await
    }

    async fn with(cluster: &Cluster, manifest: &str) -> Self {
        let namespace = cluster.namespace("requests").await;
        let kubeconfig = cluster.install_manifest(manifest, &namespace).await;
        Self {
            client: cluster.client(&kubeconfig).await,
            admin: cluster.admin(),
            namespace,
            tasks: JoinSet::new(),
        }
    }

    fn config(&self) -> CertManagerConfig {
        CertManagerConfig {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            issuers: Issuers::Fixed(ISSUER.parse().unwrap()),
            approval: Approval::Others,
            afterwards: Afterwards::Delete,
            annotations: BTreeMap::new(),
            roots: SignerRoots::from_answers(),
            deadline: DEADLINE,
        }
    }

    fn start(&mut self, config: CertManagerConfig) -> CertManagerAuthority {
        let (authority, upkeep) = CertManagerAuthority::new(config);
        self.tasks.spawn(upkeep.run());
        authority
    }

    fn signer(&self) -> StandIn {
        StandIn::cert_manager(self.admin.clone(), &self.namespace, "istio-ca")
    }

    fn requests(&self) -> Api<CertificateRequest> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    async fn until_tidy(&self) {
        let api = self.requests();
        let attempt = async || match api.list(&ListParams::default()).await {
            Ok(list) if list.items.is_empty() => Ok(()),
            Ok(list) => Err(format!("{} are left", list.items.len())),
            Err(error) => Err(error.to_string()),
        };
        eventually("tidy namespace", attempt).await;
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn cert_manager_is_asked_as_istio_csr_asks_it() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let signer = bench.signer();
    let mut config = bench.config();
    config.annotations = BTreeMap::from([("example.com/team".into(), "mesh".into())]);
    let authority = bench.start(config);

    let issued = sign(&authority, request("cart")).await.unwrap();
    assert_eq!(issued.roots(), &signer.ca().roots());
    let leaf = issued.chain().leaf();
    let cart = "spiffe://signer/ns/shop/sa/cart";
    assert_eq!(leaf.spiffe_ids().next().unwrap().as_str(), cart);
    let (_, served) = authority
        .certify_server(vec!["ca.example.com".parse().unwrap()], HOUR, now())
        .await
        .unwrap();
    assert_eq!(
        served.chain().leaf().names(),
        ["ca.example.com".parse().unwrap()]
    );

    let seen = signer.seen();
    let object = &seen[0].object;
    let name = object["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("istio-csr-"), "{name}");
    assert_eq!(
        object["metadata"]["annotations"],
        json!({ "istio.cert-manager.io/identities": cart, "example.com/team": "mesh" })
    );
    let spec = &object["spec"];
    assert_eq!(spec["duration"], "1h0m0s");
    assert_eq!(spec["usages"], json!(["client auth", "server auth"]));
    assert_ne!(spec["isCA"], json!(true));
    assert_eq!(
        spec["issuerRef"],
        json!({ "name": "istio-ca", "kind": "Issuer", "group": "cert-manager.io" })
    );
    let own = &seen[1].object;
    assert_eq!(own["spec"]["usages"], json!(["server auth"]));
    assert_eq!(
        own["metadata"]["annotations"]["istio.cert-manager.io/identities"],
        "istio-csr-serving"
    );
    bench.until_tidy().await;
}

/// How each ends, and that nothing is left behind.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn what_cert_manager_does_not_sign_or_signs_badly_ends_at_once_and_is_tidied_up() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let _signer = bench.signer();
    let config = bench.config();
    let authority = bench.start(config);
    let declined = |error: &SignError| matches!(error, SignError::Declined(_));
    let unavailable = |error: &SignError| matches!(error, SignError::Unavailable(_));
    let bad = |error: &SignError| matches!(error, SignError::BadAnswer(_));
    let cases: [Case; 9] = [
        ("denied", declined, "was denied: \"policy: said by"),
        ("failed", declined, "has failed: \"Failed: said by"),
        ("invalid", declined, "is invalid to the signer: \"bad: said"),
        ("deleted", unavailable, "was deleted by somebody"),
        ("other-key", bad, "another key"),
        ("other-name", bad, "somebody-else"),
        ("more-names", bad, "somebody-else"),
        ("too-long", bad, "later than"),
        ("junk", bad, "the signer's answer"),
    ];
    for (name, is_kind, told) in cases {
        let began = Instant::now();
        let error = sign(&authority, request(name)).await.unwrap_err();
        assert!(is_kind(&error), "{name}: {error:?}");
        assert!(error.to_string().contains(told), "{name}: {error}");
        assert!(began.elapsed() < DEADLINE / 2, "{name} was waited for");
    }
    bench.until_tidy().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn who_is_not_answered_in_time_and_who_gives_up_leaves_nothing_behind() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let signer = bench.signer();
    let config = CertManagerConfig {
        deadline: SOON,
        ..bench.config()
    };
    let authority = bench.start(config);
    let error = sign(&authority, request("ignored")).await.unwrap_err();
    assert!(matches!(error, SignError::Unavailable(_)), "{error:?}");
    assert!(
        error.to_string().contains("no certificate within 2s"),
        "{error}"
    );
    bench.until_tidy().await;

    let dropped = authority.sign(request("ignored"), now());
    tokio::select! {
        _ = dropped => panic!("signed"),
        _ = signer.until_seen(2) => {}
    }
    assert_eq!(authority.under_way(), 0);
    bench.until_tidy().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn requests_are_kept_where_that_is_wished() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let _signer = bench.signer();
    let config = CertManagerConfig {
        afterwards: Afterwards::Keep,
        ..bench.config()
    };
    let authority = bench.start(config);
    sign(&authority, request("cart")).await.unwrap();
    sign(&authority, request("denied")).await.unwrap_err();
    let kept = bench.requests().list(&ListParams::default()).await.unwrap();
    assert_eq!(kept.items.len(), 2);
}

/// What a crash leaves: requests of ours that nobody waits for. Those of others, and fresh ones, stay.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn what_a_crash_has_left_behind_is_swept_and_what_is_not_ours_is_not() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let signer = bench.signer();
    let config = CertManagerConfig {
        deadline: DEADLINE,
        ..bench.config()
    };
    let authority = bench.start(config);
    let foreign = json!({
        "metadata": { "name": "istio-csr-of-somebody" },
        "spec": { "request": "eA==", "issuerRef": { "name": "none" } },
    });
    let foreign: CertificateRequest = from_json(foreign);
    let api = bench.requests();
    api.create(&PostParams::default(), &foreign).await.unwrap();
    let waiting = authority.sign(request("ignored"), now());
    tokio::select! {
        _ = waiting => panic!("signed"),
        _ = signer.until_seen(1) => {
            // Before it can tidy up after the one that has just been given up.
            bench.tasks.abort_all();
        }
    }
    while bench.tasks.join_next().await.is_some() {}
    drop(authority);
    let left = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 2, "the crash has left one");

    let config = CertManagerConfig {
        deadline: Duration::from_secs(1),
        ..bench.config()
    };
    let _next = bench.start(config);
    let attempt = async || {
        let left = api.list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = left.iter().map(kube::ResourceExt::name_any).collect();
        match &names[..] {
            [only] if only == "istio-csr-of-somebody" => Ok(()),
            _ => Err(format!("{names:?}")),
        }
    };
    eventually("sweep", attempt).await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn another_issuer_takes_over_while_requests_of_the_first_are_under_way() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::with(&cluster, "runtime-issuer.yaml").await;
    let first = StandIn::cert_manager(bench.admin.clone(), &bench.namespace, "first");
    let second = StandIn::cert_manager(bench.admin.clone(), &bench.namespace, "second");
    let config = CertManagerConfig {
        issuers: Issuers::Followed {
            from: ConfigMapRef {
                namespace: bench.namespace.clone(),
                name: ISSUER_MAP.into(),
            },
            otherwise: None,
        },
        ..bench.config()
    };
    let authority = bench.start(config);
    let error = sign(&authority, request("cart")).await.unwrap_err();
    assert!(matches!(error, SignError::Unavailable(_)), "{error:?}");
    assert!(
        error.to_string().contains("no issuer is configured"),
        "{error}"
    );

    let maps: Api<ConfigMap> = Api::namespaced(bench.admin.clone(), &bench.namespace);
    let name_issuer = async |name: &str| {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": ISSUER_MAP },
            "data": {
                "issuer-name": name, "issuer-kind": "Issuer", "issuer-group": "cert-manager.io",
            },
        });
        let params = PatchParams::apply("tests").force();
        maps.patch(ISSUER_MAP, &params, &Patch::Apply(&map))
            .await
            .unwrap();
        let mut issuer = authority.issuer();
        let named = |now: &Option<IssuerRef>| now.as_ref().is_some_and(|now| now.name == name);
        within(name, issuer.wait_for(named)).await.unwrap();
    };
    name_issuer("first").await;
    let issued = sign(&authority, request("cart")).await.unwrap();
    assert_eq!(issued.roots(), &first.ca().roots());

    // One that hangs at the first issuer neither holds the change up nor is moved.
    let hangs = authority.clone();
    let hanging = tokio::spawn(async move { hangs.sign(request("ignored"), now()).await });
    first.until_seen(2).await;
    name_issuer("second").await;
    let issued = sign(&authority, request("cart")).await.unwrap();
    assert_eq!(issued.roots(), &second.ca().roots());
    assert!(!hanging.is_finished());
    hanging.abort();

    maps.delete(ISSUER_MAP, &DeleteParams::default())
        .await
        .unwrap();
    let mut issuer = authority.issuer();
    within("no issuer", issuer.wait_for(Option::is_none))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_request_that_nobody_else_approves_is_approved_by_us() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::with(&cluster, "registration-cert-manager-approving.yaml").await;
    let config = CertManagerConfig {
        approval: Approval::Ours,
        // The first object of a kind that is seconds old is kept waiting.
        deadline: Duration::from_secs(8),
        afterwards: Afterwards::Keep,
        ..bench.config()
    };
    let authority = bench.start(config);
    let error = sign(&authority, request("cart")).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("no certificate within 8s"), "{told}");
    let kept = bench.requests().list(&ListParams::default()).await.unwrap();
    let status = kept.items[0].status.as_ref().unwrap();
    assert_eq!(status.conditions[0].type_, "Approved");
    assert_eq!(status.conditions[0].status, "True");
}

/// The signer's answers reach those who wait although the watch ends, the API server is gone for a while, and the answer came while
/// nobody could see it.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn an_api_server_that_restarts_costs_time_and_no_request() {
    let mut cluster = Cluster::start().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let config = bench.config();
    let authority = bench.start(config);
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let authority = authority.clone();
            tokio::spawn(async move { authority.sign(request("cart"), now()).await })
        })
        .collect();
    let api = bench.requests();
    let attempt = async || {
        let count = api.list(&ListParams::default()).await.unwrap().items.len();
        if count == 5 {
            Ok(())
        } else {
            Err(format!("{count}"))
        }
    };
    eventually("requests", attempt).await;
    cluster.stop_api();
    cluster.start_api().await;
    // Only now is there a signer.
    let signer = bench.signer();
    for each in waiting {
        let issued = within("answer", each).await.unwrap().unwrap();
        assert_eq!(issued.roots(), &signer.ca().roots());
    }
    bench.until_tidy().await;
}

/// One watch for all, by the API server's own count.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn two_hundred_at_once_share_one_watch() {
    let cluster = Cluster::start().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let config = bench.config();
    let authority = bench.start(config);
    let all = (0..200).map(|number| {
        let (authority, name) = (authority.clone(), format!("cart-{number}"));
        tokio::spawn(async move { authority.sign(request(&name), now()).await })
    });
    let all: Vec<_> = all.collect();
    let api = bench.requests();
    let attempt = async || {
        let count = api.list(&ListParams::default()).await.unwrap().items.len();
        if count == 200 {
            Ok(())
        } else {
            Err(format!("{count}"))
        }
    };
    eventually("requests", attempt).await;
    assert_eq!(authority.under_way(), 200);
    // Before there is a signer, the watches are ours.
    assert_eq!(watches(&bench.admin, "certificaterequests").await, 1);
    let _signer = bench.signer();
    for each in join_all(all).await {
        within("answer", async { each }).await.unwrap().unwrap();
    }
    assert_eq!(authority.under_way(), 0);
    bench.until_tidy().await;
}

/// How many watches on a resource the API server has open.
async fn watches(admin: &Client, resource: &str) -> u64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = within("metrics", admin.request_text(request))
        .await
        .unwrap();
    let open = metrics.lines().filter(|line| {
        line.starts_with("apiserver_longrunning_requests{")
            && line.contains(&format!("resource=\"{resource}\""))
            && line.contains("verb=\"WATCH\"")
    });
    let counts = open.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

fn kubernetes(bench: &mut Bench, names: SignerNames, approval: Approval) -> KubernetesCsrAuthority {
    let (authority, upkeep) = KubernetesCsrAuthority::new(KubernetesCsrConfig {
        client: bench.client.clone(),
        signers: names,
        approval,
        roots: SignerRoots::from_answers(),
        deadline: DEADLINE,
    });
    bench.tasks.spawn(upkeep.run());
    authority
}

/// What is left of the requests to this signer.
async fn until_tidy(admin: &Client, signer: &str) {
    let api: Api<CertificateSigningRequest> = Api::all(admin.clone());
    let params = ListParams::default().fields(&format!("spec.signerName={signer}"));
    let attempt = async || match api.list(&params).await {
        Ok(list) if list.items.is_empty() => Ok(()),
        Ok(list) => Err(format!("{} are left", list.items.len())),
        Err(error) => Err(error.to_string()),
    };
    eventually("tidy cluster", attempt).await;
}

/// The manifest lets us approve for this one.
const SIGNER: &str = "example.com/mesh";

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_kubernetes_signer_is_asked_as_istiod_asks_it() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::with(&cluster, "registration-kubernetes.yaml").await;
    let signer = StandIn::kubernetes(bench.admin.clone(), SIGNER);
    let authority = kubernetes(&mut bench, SignerNames::One(SIGNER.into()), Approval::Ours);
    let issued = sign(&authority, request("cart")).await.unwrap();
    assert_eq!(issued.roots(), &signer.ca().roots());

    let object = &signer.seen()[0].object;
    let name = object["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("csr-workload-"), "{name}");
    let spec = &object["spec"];
    assert_eq!(spec["expirationSeconds"], 3600);
    assert_eq!(
        spec["usages"],
        json!([
            "digital signature",
            "key encipherment",
            "server auth",
            "client auth"
        ])
    );
    let declined = |error: &SignError| matches!(error, SignError::Declined(_));
    let unavailable = |error: &SignError| matches!(error, SignError::Unavailable(_));
    let bad = |error: &SignError| matches!(error, SignError::BadAnswer(_));
    let cases: [Case; 5] = [
        ("failed", declined, "has failed: \"SigningError: said by"),
        ("deleted", unavailable, "was deleted by somebody"),
        ("other-key", bad, "another key"),
        ("other-name", bad, "somebody-else"),
        ("too-long", bad, "later than"),
    ];
    for (name, is_kind, told) in cases {
        let error = sign(&authority, request(name)).await.unwrap_err();
        assert!(is_kind(&error), "{name}: {error:?}");
        assert!(error.to_string().contains(told), "{name}: {error}");
    }
    let short = SigningRequest::new(
        request("cart").csr().clone(),
        request("cart").names().to_vec(),
        Duration::from_secs(599),
    );
    let error = sign(&authority, short).await.unwrap_err();
    assert!(matches!(error, SignError::Refused(_)), "{error:?}");
    let named = request("cart").with_signer(Some("mesh".into()));
    let error = sign(&authority, named).await.unwrap_err();
    assert!(declined(&error), "{error:?}");
    assert!(
        error.to_string().contains("certSignerDomain is required"),
        "{error}"
    );
    until_tidy(&bench.admin, SIGNER).await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn a_signer_of_the_domain_is_chosen_by_the_request_and_a_denial_ends_it() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::with(&cluster, "registration-kubernetes.yaml").await;
    // The manifest lets us approve for all of this domain.
    let blue = format!("blue-{}", bench.namespace);
    let whole = format!("example.com/{blue}");
    let signer = StandIn::kubernetes(bench.admin.clone(), &whole);
    let names = SignerNames::InDomain("example.com".into());
    let authority = kubernetes(&mut bench, names.clone(), Approval::Others);
    let denied = request("denied").with_signer(Some(blue.clone()));
    let error = sign(&authority, denied).await.unwrap_err();
    assert!(matches!(error, SignError::Declined(_)), "{error:?}");
    assert!(error.to_string().contains("was denied"), "{error}");

    // Not ours to approve by the manifest: told at once, as what it is.
    let asked = || request("cart").with_signer(Some(blue.clone()));
    let elsewhere = SignerNames::InDomain("example.org".into());
    let not_ours = kubernetes(&mut bench, elsewhere, Approval::Ours);
    let error = sign(&not_ours, asked()).await.unwrap_err();
    assert!(matches!(error, SignError::Declined(_)), "{error:?}");
    assert!(error.to_string().contains("cannot approve"), "{error}");

    let ours = kubernetes(&mut bench, names, Approval::Ours);
    let issued = sign(&ours, asked()).await.unwrap();
    assert_eq!(issued.roots(), &signer.ca().roots());
    let error = sign(&ours, request("cart")).await.unwrap_err();
    assert!(error.to_string().contains("names no signer"), "{error}");
    until_tidy(&bench.admin, &whole).await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: cargo xtask interop kubernetes"]
async fn roots_in_a_file_are_not_changed_by_what_an_answer_brings() {
    let cluster = Cluster::shared().await;
    let mut bench = Bench::cert_manager(&cluster).await;
    let _signer = bench.signer();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, TestCa::new("another").root_pem()).unwrap();
    let config = CertManagerConfig {
        roots: SignerRoots::in_file(&file).unwrap(),
        ..bench.config()
    };
    let authority = bench.start(config);
    let error = sign(&authority, request("cart")).await.unwrap_err();
    assert!(matches!(error, SignError::BadAnswer(_)), "{error:?}");
    assert!(error.to_string().contains("does not verify"), "{error}");
}
