//! From a tonic request to plain evidence, and to what the caller wishes for.

use std::time::Duration;

use ca_auth::{Evidence, Transport};
use ca_proto::istio::v1::auth::IstioCertificateRequest;
use prost_types::value::Kind;
use tonic::Request;

use crate::serving::Peer;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) csr_pem: String,
    /// `None` asks for the default.
    pub(crate) ttl: Option<Duration>,
    pub(crate) on_behalf_of: Option<String>,
    pub(crate) signer: Option<String>,
    /// It wishes to be a CA below this one. Not a key of Istio's: its CA certifies no other by this service.
    pub(crate) authority: bool,
}

/// Takes a request apart.
pub(crate) fn read(request: Request<IstioCertificateRequest>) -> (Evidence, Wish) {
    let evidence = read_evidence(&request);
    let message = request.into_inner();
    let value = |key: &str| message.metadata.as_ref()?.fields.get(key)?.kind.as_ref();
    let metadata = |key: &str| match value(key)? {
        Kind::StringValue(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let wish = Wish {
        ttl: u64::try_from(message.validity_duration)
            .ok()
            .filter(|s| *s > 0)
            .map(Duration::from_secs),
        on_behalf_of: metadata("ImpersonatedIdentity"),
        signer: metadata("CertSigner"),
        // Nothing but the plain value: whoever writes it otherwise means something else.
        authority: matches!(value(CERTIFICATE_AUTHORITY), Some(Kind::BoolValue(true))),
        csr_pem: message.csr,
    };
    (evidence, wish)
}

/// What is known of a request before it is read.
pub(crate) fn of_peer(peer: &Peer) -> Evidence {
    let evidence = Evidence::new(Transport::Tls {
        client_chain: peer.client_chain.clone(),
    });
    match peer.address {
        Some(address) => evidence.with_peer_address(address),
        None => evidence,
    }
}

fn read_evidence<T>(request: &Request<T>) -> Evidence {
    let mut evidence = match request.extensions().get::<Peer>() {
        None => Evidence::new(Transport::Plaintext),
        Some(peer) => of_peer(peer),
    };
    for value in request.metadata().get_all("authorization") {
        // A header that is not text holds no token.
        evidence = evidence.with_authorization(value.to_str().unwrap_or_default());
    }
    for value in request.metadata().get_all("x-forwarded-client-cert") {
        // A header that is not text stays as one that cannot be read: it was sent.
        evidence = evidence.with_forwarded_certificate(value.to_str().unwrap_or_default());
    }
    // Istio: only one value is a claim; two are none.
    let mut clusters = request.metadata().get_all("clusterid").iter();
    if let (Some(cluster), None) = (clusters.next(), clusters.next()) {
        evidence = evidence.with_cluster(cluster.to_str().unwrap_or_default());
    }
    evidence
}

/// In the metadata, with the value `true`: the wish to be certified as a CA.
const CERTIFICATE_AUTHORITY: &str = "CertificateAuthority";

#[cfg(test)]
mod tests {
    use ca_auth::BearerToken;
    use prost_types::{Struct, Value};

    use super::*;

    fn request(seconds: i64, metadata: &[(&str, Kind)]) -> Request<IstioCertificateRequest> {
        let fields = metadata
            .iter()
            .map(|(k, v)| {
                (
                    (*k).to_owned(),
                    Value {
                        kind: Some(v.clone()),
                    },
                )
            })
            .collect();
        Request::new(IstioCertificateRequest {
            csr: "csr".into(),
            validity_duration: seconds,
            metadata: Some(Struct { fields }),
        })
    }

    #[test]
    fn zero_and_negative_lifetimes_ask_for_the_default_and_none_overflows() {
        for (seconds, expected) in [
            (0, None),
            (-1, None),
            (i64::MIN, None),
            (60, Some(60)),
            (i64::MAX, Some(i64::MAX as u64)),
        ] {
            assert_eq!(
                read(request(seconds, &[])).1.ttl,
                expected.map(Duration::from_secs)
            );
        }
    }

    #[test]
    fn metadata_is_read_by_its_exact_name_and_only_as_text() {
        let text = |t: &str| Kind::StringValue(t.into());
        let wish = read(request(
            0,
            &[
                ("ImpersonatedIdentity", text("spiffe://td/x")),
                ("CertSigner", text("s")),
            ],
        ))
        .1;
        assert_eq!(wish.on_behalf_of.as_deref(), Some("spiffe://td/x"));
        assert_eq!(wish.signer.as_deref(), Some("s"));
        let wish = read(request(
            0,
            &[
                ("impersonatedidentity", text("x")),
                ("CertSigner", text("")),
            ],
        ))
        .1;
        assert_eq!((wish.on_behalf_of, wish.signer), (None, None));
        let wish = read(request(
            0,
            &[("ImpersonatedIdentity", Kind::NumberValue(1.0))],
        ))
        .1;
        assert_eq!(wish.on_behalf_of, None);
    }

    #[test]
    fn the_wish_to_be_a_ca_is_the_plain_value_true_and_nothing_like_it() {
        let wishes = |key: &str, value| read(request(0, &[(key, value)])).1.authority;
        assert!(wishes("CertificateAuthority", Kind::BoolValue(true)));
        for (key, value) in [
            ("CertificateAuthority", Kind::BoolValue(false)),
            ("CertificateAuthority", Kind::StringValue("true".into())),
            ("CertificateAuthority", Kind::NumberValue(1.0)),
            ("certificateauthority", Kind::BoolValue(true)),
        ] {
            assert!(!wishes(key, value.clone()), "{key} {value:?}");
        }
    }

    #[test]
    fn the_token_and_a_single_cluster_become_evidence() {
        let mut request = request(0, &[]);
        request
            .metadata_mut()
            .append("authorization", "Bearer t".parse().unwrap());
        request
            .metadata_mut()
            .append("clusterid", "eu-1".parse().unwrap());
        let evidence = read_evidence(&request);
        assert_eq!(evidence.bearer_token().map(BearerToken::secret), Some("t"));
        assert_eq!(evidence.cluster(), Some("eu-1"));
        assert!(matches!(evidence.transport(), Transport::Plaintext));
        request
            .metadata_mut()
            .append("clusterid", "eu-2".parse().unwrap());
        assert_eq!(read_evidence(&request).cluster(), None);
    }
}
