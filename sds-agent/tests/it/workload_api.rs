//! The SPIFFE Workload API, asked by its published client library.

use std::time::Duration;

use ca_core::{CertificateChain, PrivateKey};
use ca_proto::spiffe::workload::{
    JwtsvidRequest, X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use futures_util::StreamExt as _;
use spiffe::{TrustDomain, WorkloadApiClient, X509Svid};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tonic::{Code, Request};

use crate::{
    agent::{Agent, channel, check, soon},
    ca::{Behaviour, Ca},
};

async fn client(agent: &Agent) -> WorkloadApiClient {
    let endpoint = format!("unix://{}", agent.socket().display());
    let connecting = WorkloadApiClient::connect_to(endpoint);
    soon("a connection", connecting).await.unwrap()
}

/// What the library has read, read again by us.
fn chain(svid: &X509Svid) -> CertificateChain {
    let certificates = svid.cert_chain().iter();
    let mut certificates = certificates
        .map(|certificate| ca_core::Certificate::from_der(certificate.as_ref().to_vec()));
    let leaf = certificates.next().unwrap().unwrap();
    let rest: Vec<_> = certificates.map(Result::unwrap).collect();
    CertificateChain::new(leaf, rest)
}

fn key(svid: &X509Svid) -> PrivateKey {
    let der = svid.private_key().as_ref();
    let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", der));
    PrivateKey::from_pem(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn the_published_client_gets_identity_and_roots_and_follows_both() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let client = client(&agent).await;
    let mut contexts = Box::pin(client.stream_x509_contexts().await.unwrap());
    let context = soon("a context", contexts.next()).await.unwrap().unwrap();
    let svid = context.default_svid().unwrap();
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(svid.spiffe_id().to_string(), id);
    let first = chain(svid);
    check(&first, &key(svid), &ca.roots);
    let domain = TrustDomain::new("cluster.local").unwrap();
    let bundle = context.bundle_set().get(&domain).unwrap();
    let root: &[u8] = bundle.authorities()[0].as_ref();
    assert_eq!(root, ca.roots.certificates()[0].der());

    agent.renew();
    let context = soon("a renewal", contexts.next()).await.unwrap().unwrap();
    let renewed = chain(context.default_svid().unwrap());
    assert_ne!(renewed, first);

    let mut bundles = Box::pin(client.stream_x509_bundles().await.unwrap());
    let held = soon("roots", bundles.next()).await.unwrap().unwrap();
    assert_eq!(held.get(&domain).unwrap().authorities().len(), 1);
    ca.move_to_another_root();
    agent.renew();
    let both = soon("both roots", bundles.next()).await.unwrap().unwrap();
    assert_eq!(both.get(&domain).unwrap().authorities().len(), 2);
}

#[tokio::test]
async fn a_client_that_is_early_is_answered_when_there_is_something() {
    let mut ca = Ca::new(Behaviour::Good {
        lifetime: Duration::from_secs(3600),
    });
    let agent = Agent::start(&ca, &[]);
    let client = client(&agent).await;
    let mut svids = Box::pin(client.stream_x509_svids().await.unwrap());
    let early = tokio::time::timeout(Duration::from_millis(50), svids.next()).await;
    assert!(early.is_err());
    ca.switch_on();
    let svid = soon("an identity", svids.next()).await.unwrap().unwrap();
    check(&chain(&svid), &key(&svid), &ca.roots);
}

#[tokio::test]
async fn the_header_is_required_and_there_are_no_tokens() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut client = SpiffeWorkloadApiClient::new(channel(agent.socket()).await.unwrap());
    let status = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "security header missing from request");
    let mut request = Request::new(JwtsvidRequest::default());
    let header = "true".parse().unwrap();
    request.metadata_mut().insert("workload.spiffe.io", header);
    let status = client.fetch_jwtsvid(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

/// As gRPC libraries of the C family do. Ours cannot, so this speaks the bytes.
#[tokio::test]
async fn a_client_may_name_the_socket_by_its_path() {
    let ca = Ca::good();
    let agent = Agent::start(&ca, &[]);
    let mut stream = UnixStream::connect(agent.socket()).await.unwrap();
    let field = |name: u8, value: &str| {
        let length = u8::try_from(value.len()).unwrap();
        [&[name, length], value.as_bytes()].concat()
    };
    // POST, http, path and authority.
    let headers = [
        vec![0x83, 0x86],
        field(0x44, "/SpiffeWorkloadAPI/FetchX509Bundles"),
        field(0x40, ":authority"),
        field(0, "run%2Fsocket").split_off(1),
    ]
    .concat();
    let length = u8::try_from(headers.len()).unwrap();
    let frame = [&[0, 0, length, 1, 5, 0, 0, 0, 1][..], &headers].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let request = [&preface[..], &settings, &frame].concat();
    stream.write_all(&request).await.unwrap();
    // Without the metadata it is refused, by us: HEADERS, not RST_STREAM.
    let kind = soon("an answer on the stream", async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if head[8] == 1 {
                break head[3];
            }
        }
    })
    .await;
    assert_eq!(kind, 1);
}
