//! What the two Envoys are told: the TLS parts as Istio tells its sidecars, the rest as little as works.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// How Envoy discovers its secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Discovery {
    /// As Istio configures it.
    #[default]
    StateOfTheWorld,
    Incremental,
}

impl Discovery {
    fn api_type(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => "GRPC",
            Self::Incremental => "DELTA_GRPC",
        }
    }

    /// As the agent's debug page calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => "state of the world",
            Self::Incremental => "incremental",
        }
    }
}

/// Where secrets come from.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'a> {
    pub(super) socket: &'a Path,
    pub(super) discovery: Discovery,
}

/// Where traffic goes, and who must be there.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) id: String,
    /// Expected there by requests below `/stranger`, which must fail for it.
    pub(super) not_its_id: String,
}

/// Traffic out of a workload: plain HTTP in, mutual TLS on to a server that is exactly the one named.
pub(super) fn outbound(node: &str, sds: Secrets<'_>, server: &Server) -> Value {
    let routes = json!([
        { "match": { "prefix": "/stranger" }, "route": { "cluster": "stranger" } },
        { "match": { "prefix": "/" }, "route": { "cluster": "outbound" } },
    ]);
    let connections = http_connections("outbound", &routes, &json!({}));
    let chain = json!({ "filters": [connections] });
    let clusters = [
        mutual_tls_cluster("outbound", server.address, &server.id, sds.discovery),
        mutual_tls_cluster(
            "stranger",
            server.address,
            &server.not_its_id,
            sds.discovery,
        ),
        sds_cluster(sds.socket),
    ];
    bootstrap(node, "outbound", &chain, &clusters)
}

/// Traffic into a workload: mutual TLS in, plain HTTP on to the backend. A client without a
/// certificate, or with one of another trust domain, is refused.
pub(super) fn inbound(
    node: &str,
    sds: Secrets<'_>,
    backend: SocketAddr,
    trust_domain: &str,
) -> Value {
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "inbound" } }]);
    // The backend learns who called, and with which certificate.
    let forward = json!({
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": { "uri": true, "cert": true },
    });
    let names = json!([{
        "san_type": "URI",
        "matcher": { "prefix": format!("spiffe://{trust_domain}/") },
    }]);
    let mut tls = common_tls(&names, sds.discovery);
    tls["alpn_protocols"] = json!(["istio-peer-exchange", "h2", "http/1.1"]);
    let chain = json!({
        "filters": [http_connections("inbound", &routes, &forward)],
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": tls,
                "require_client_certificate": true,
            },
        },
    });
    let plain = json!({
        "name": "inbound",
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": assignment("inbound", &socket_address(backend)),
    });
    bootstrap(node, "inbound", &chain, &[plain, sds_cluster(sds.socket)])
}

/// Traffic out of a workload by this many ways, each with a stream of its own for the certificate.
/// They share one for the roots.
pub(super) fn many(node: &str, sds: Secrets<'_>, streams: usize) -> Value {
    // Nobody is asked anything.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut clusters: Vec<_> = (1..=streams)
        .map(|number| {
            let name = format!("way-{number}");
            let mut cluster =
                mutual_tls_cluster(&name, nowhere, "spiffe://nobody/nowhere", sds.discovery);
            let tls = &mut cluster["transport_socket"]["typed_config"]["common_tls_context"];
            let source = &mut tls["tls_certificate_sds_secret_configs"][0]["sds_config"];
            // Envoy shares a stream among all that configure it alike, so each does it otherwise.
            source["initial_fetch_timeout"] = json!(format!("{}s", 1000 + number));
            cluster
        })
        .collect();
    clusters.push(sds_cluster(sds.socket));
    let routes = json!([{ "match": { "prefix": "/" }, "route": { "cluster": "way-1" } }]);
    let chain = json!({ "filters": [http_connections("many", &routes, &json!({}))] });
    bootstrap(node, "many", &chain, &clusters)
}

fn bootstrap(node: &str, listener: &str, chain: &Value, clusters: &[Value]) -> Value {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    json!({
        "node": { "id": node, "cluster": node },
        "admin": { "address": socket_address(any_port) },
        "static_resources": {
            "listeners": [{
                "name": listener,
                "address": socket_address(any_port),
                "filter_chains": [chain],
            }],
            "clusters": clusters,
        },
    })
}

fn mutual_tls_cluster(
    name: &str,
    server: SocketAddr,
    server_id: &str,
    discovery: Discovery,
) -> Value {
    let names = json!([{ "san_type": "URI", "matcher": { "exact": server_id } }]);
    let mut tls = common_tls(&names, discovery);
    tls["alpn_protocols"] = json!(["istio-peer-exchange", "istio"]);
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": assignment(name, &socket_address(server)),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { "http_protocol_options": {} },
                // A pooled connection would outlive a rotation: each request shakes hands anew.
                "common_http_protocol_options": { "max_requests_per_connection": 1 },
            },
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
                "common_tls_context": tls,
                // A resumed session shows no certificate, and the certificates are what is watched.
                "max_session_keys": 0,
            },
        },
    })
}

/// Own certificate and roots from the agent, both by SDS, with the names that the peer may have.
fn common_tls(peer_names: &Value, discovery: Discovery) -> Value {
    json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
        "tls_certificate_sds_secret_configs": [secret("default", discovery)],
        "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": peer_names },
            "validation_context_sds_secret_config": secret("ROOTCA", discovery),
        },
    })
}

fn secret(name: &str, discovery: Discovery) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": discovery.api_type(),
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
            },
        },
    })
}

fn sds_cluster(socket: &Path) -> Value {
    json!({
        "name": "sds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment("sds-grpc", &json!({ "pipe": { "path": socket } })),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
    })
}

fn http_connections(prefix: &str, routes: &Value, extra: &Value) -> Value {
    let mut manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": prefix,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
        }],
    });
    if let (Some(manager), Some(extra)) = (manager.as_object_mut(), extra.as_object()) {
        manager.extend(extra.clone());
    }
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

fn assignment(cluster: &str, address: &Value) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({
        "socket_address": { "address": address.ip().to_string(), "port_value": address.port() },
    })
}
