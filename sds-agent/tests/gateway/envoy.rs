//! A real Envoy that shows what a Secret holds, to clients that must show a certificate of the CA in it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ca_core::{CertificateChain, PrivateKey, testing::TestCa};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    agent::Agent,
    deadline::{eventually, within},
    stage::{Pair, Stage},
    watched::Watched,
};

const NAME: &str = "kubernetes://shop";
const ROTATIONS: usize = 10;

#[tokio::test]
#[ignore = "needs an API server and Envoy: cargo xtask interop kubernetes"]
async fn an_envoy_shows_what_the_secret_holds_and_no_handshake_fails() {
    let stage = Stage::new().await;
    let agent = stage.agent(&[]);
    let envoy = Envoy::start(&agent);
    let client = Client::new(&stage, stage.ca.workload("shop", "browser"));
    // Warming: its port is closed, and opens when there is something to show.
    let asked = |_, page: &str| page.contains(&format!("{NAME}  waits"));
    agent.becomes("/debug/sds", asked).await;
    client.shake(envoy.port).await.unwrap_err();

    let mut pair = stage.pair();
    stage.write_with_ca("shop", &pair, &stage.ca).await;
    client.sees(&envoy, &pair).await;

    let stop = Arc::new(AtomicBool::new(false));
    let shaking = tokio::spawn(client.clone().shake_until(envoy.port, Arc::clone(&stop)));
    for _ in 0..ROTATIONS {
        pair = stage.pair();
        stage.write_with_ca("shop", &pair, &stage.ca).await;
        client.sees(&envoy, &pair).await;
    }
    // Half of a replacement, as it happens to those who copy files.
    let broken = Pair {
        chain: stage.pair().chain,
        key: pair.key.clone(),
    };
    stage.write_with_ca("shop", &broken, &stage.ca).await;
    let refused = |_, page: &str| page.contains("does not belong to the certificate");
    agent.becomes("/debug/sds", refused).await;
    client.sees(&envoy, &pair).await;
    stage.delete("shop").await;
    let gone = |_, page: &str| page.contains("not found");
    agent.becomes("/debug/sds", gone).await;
    client.sees(&envoy, &pair).await;
    pair = stage.pair();
    stage.write_with_ca("shop", &pair, &stage.ca).await;
    client.sees(&envoy, &pair).await;
    stop.store(true, Ordering::Relaxed);
    let (made, failed) = within("the last handshake", shaking).await.unwrap();
    assert_eq!(failed, [""; 0], "of {made} handshakes");
    assert!(made > ROTATIONS, "{made} handshakes");

    // Clients of another CA, and then again those of this one.
    let other = TestCa::new("cluster.local");
    stage.write_with_ca("shop", &pair, &other).await;
    eventually("refusal of a client", || async {
        let shaken = client.shake(envoy.port).await;
        shaken.map_or(Ok(()), |_| Err("it is let in".to_owned()))
    })
    .await;
    let stranger = Client::new(&stage, other.workload("shop", "browser"));
    stranger.sees(&envoy, &pair).await;
    agent.stop().await;
}

/// With one listener, for TLS in both directions.
struct Envoy {
    port: u16,
    _process: Watched,
}

impl Envoy {
    #[expect(
        clippy::disallowed_methods,
        reason = "an edge: whoever runs the tests says where the partners are"
    )]
    fn start(agent: &Agent) -> Self {
        let program = std::env::var_os("ENVOY")
            .map(PathBuf::from)
            .expect("ENVOY names the program: `cargo xtask interop kubernetes` sets it");
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let config = agent.home.path("envoy.json");
        std::fs::write(&config, bootstrap(&agent.socket(), port).to_string()).unwrap();
        let flags = [
            "--config-path".to_owned(),
            config.display().to_string(),
            "--disable-hot-restart".to_owned(),
            "--concurrency".to_owned(),
            "1".to_owned(),
        ];
        let log = agent.home.path("envoy.log");
        Self {
            port,
            _process: Watched::start(&program, &flags, log, None),
        }
    }
}

fn bootstrap(socket: &Path, port: u16) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let secret = |name: String| {
        json!({
            "name": name,
            "sds_config": {
                "resource_api_version": "V3",
                "initial_fetch_timeout": "0s",
                "api_config_source": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
                },
            },
        })
    };
    let tls = json!({
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [secret(NAME.to_owned())],
            "validation_context_sds_secret_config": secret(format!("{NAME}-cacert")),
        },
    });
    let route = json!({
        "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": "shop" } },
    });
    let router = json!({ "@type": format!("{TYPES}.filters.http.router.v3.Router") });
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gateway",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": router }],
    });
    json!({
        "node": { "id": "router~127.0.0.1~gateway.edge~edge", "cluster": "gateway" },
        "static_resources": {
            "listeners": [{
                "name": "gateway",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
                "filter_chains": [{
                    "filters": [{
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }],
                    "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": tls },
                }],
            }],
            "clusters": [{
                "name": "sds-grpc",
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": {
                    "cluster_name": "sds-grpc",
                    "endpoints": [{
                        "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": socket } } } }],
                    }],
                },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                        "explicit_http_config": { "http2_protocol_options": {} },
                    },
                },
            }],
        },
    })
}

/// Somebody outside, who trusts the gateway's CA and has a certificate.
#[derive(Clone)]
struct Client(TlsConnector);

impl Client {
    fn new(stage: &Stage, (key, chain): (PrivateKey, CertificateChain)) -> Self {
        let mut roots = RootCertStore::empty();
        for root in stage.ca.roots().certificates() {
            roots.add(CertificateDer::from(root.der())).unwrap();
        }
        let chain = chain.iter();
        let chain = chain.map(|one| CertificateDer::from(one.der()).into_owned());
        let key = pem::parse(key.to_pkcs8_pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.into_contents()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.collect(), key)
            .unwrap();
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// The certificate that the gateway shows, after an answer of it.
    async fn shake(&self, port: u16) -> Result<Vec<u8>, String> {
        let shaken = async {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = ServerName::try_from("shop.example.com").unwrap();
            let mut tls = self.0.connect(name, tcp).await?;
            tls.write_all(b"GET / HTTP/1.1\r\nhost: shop.example.com\r\nconnection: close\r\n\r\n")
                .await?;
            let mut answer = Vec::new();
            tls.read_to_end(&mut answer).await?;
            let shown = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "no answer");
            Ok(shown)
        };
        let shaken: std::io::Result<_> = within("handshake", shaken).await;
        shaken.map_err(|error| error.to_string())
    }

    /// Waits until this pair is shown.
    async fn sees(&self, envoy: &Envoy, pair: &Pair) {
        let wanted = CertificateChain::from_pem(pair.chain.as_bytes()).unwrap();
        eventually("certificate of the secret", || async {
            let shown = self.shake(envoy.port).await?;
            if shown == wanted.leaf().der() {
                Ok(())
            } else {
                Err("another one is shown".to_owned())
            }
        })
        .await;
    }

    /// How many handshakes, and why some of them failed.
    async fn shake_until(self, port: u16, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
        let (mut made, mut failed) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            made += 1;
            failed.extend(self.shake(port).await.err());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        (made, failed)
    }
}
