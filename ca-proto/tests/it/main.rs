//! Golden wire layouts: what stock clients send and expect, byte for byte.

use std::collections::BTreeMap;

use ca_proto::{
    ISTIO_FILE_DESCRIPTOR_SET, SECRET_TYPE_URL,
    envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, TlsCertificate, secret::Type,
        },
        service::{
            discovery::v3::{DiscoveryRequest, DiscoveryResponse},
            secret::v3::secret_discovery_service_server,
        },
    },
    istio::v1::auth::{
        CsrRequest, IstioCertificateRequest, IstioCertificateResponse, istio_ca_service_server,
        istio_certificate_service_server,
    },
    spiffe::workload::{X509svid, X509svidResponse, spiffe_workload_api_server},
};
use prost::Message as _;
use prost_types::{Any, FileDescriptorSet, Struct, Value, value::Kind};

#[test]
fn certificate_request() {
    let request = IstioCertificateRequest {
        csr: "csr".to_owned(),
        validity_duration: 86_400,
        metadata: Some(Struct {
            fields: BTreeMap::from([(
                "CertSigner".to_owned(),
                Value {
                    kind: Some(Kind::StringValue("s".to_owned())),
                },
            )]),
        }),
    };
    let golden: Vec<u8> = [
        // Tag 1, text.
        b"\x0a\x03csr".as_slice(),
        // Tag 3, varint 86400. Tag 2 is not in use.
        b"\x18\x80\xa3\x05",
        // Tag 4, a struct of one field: key (1) and value (2), the value being text (3).
        b"\x22\x13\x0a\x11\x0a\x0aCertSigner\x12\x03\x1a\x01s",
    ]
    .concat();
    assert_eq!(request.encode_to_vec(), golden);
    assert_eq!(
        IstioCertificateRequest::decode(golden.as_slice()).unwrap(),
        request
    );
}

#[test]
fn certificate_response() {
    let response = IstioCertificateResponse {
        cert_chain: vec!["leaf\n".to_owned(), "root\n".to_owned()],
    };
    assert_eq!(response.encode_to_vec(), b"\x0a\x05leaf\n\x0a\x05root\n");
}

#[test]
fn services_have_their_public_names() {
    assert_eq!(
        istio_certificate_service_server::SERVICE_NAME,
        "istio.v1.auth.IstioCertificateService"
    );
    assert_eq!(
        istio_ca_service_server::SERVICE_NAME,
        "istio.v1.auth.IstioCAService"
    );
    assert_eq!(
        secret_discovery_service_server::SERVICE_NAME,
        "envoy.service.secret.v3.SecretDiscoveryService"
    );
    // Without a package, as published.
    assert_eq!(
        spiffe_workload_api_server::SERVICE_NAME,
        "SpiffeWorkloadAPI"
    );
}

#[test]
fn what_reflection_tells_is_complete() {
    let set = FileDescriptorSet::decode(ISTIO_FILE_DESCRIPTOR_SET).unwrap();
    let names: Vec<_> = set
        .file
        .iter()
        .map(prost_types::FileDescriptorProto::name)
        .collect();
    let services: Vec<_> = set
        .file
        .iter()
        .flat_map(|file| &file.service)
        .map(prost_types::ServiceDescriptorProto::name)
        .collect();
    assert_eq!(services, ["IstioCertificateService", "IstioCAService"]);
    for import in set.file.iter().flat_map(|file| &file.dependency) {
        assert!(names.contains(&import.as_str()), "{import}");
    }
}

#[test]
fn secret_in_a_response() {
    let secret = Secret {
        name: "default".to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(b"C")),
            private_key: Some(inline(b"K")),
            ..TlsCertificate::default()
        })),
    };
    let golden_secret: Vec<u8> = [
        b"\x0a\x07default".as_slice(),
        b"\x12\x0a",
        b"\x0a\x03\x12\x01C",
        b"\x12\x03\x12\x01K",
    ]
    .concat();
    assert_eq!(secret.encode_to_vec(), golden_secret);

    let response = DiscoveryResponse {
        version_info: "v".to_owned(),
        resources: vec![Any {
            type_url: SECRET_TYPE_URL.to_owned(),
            value: golden_secret.clone(),
        }],
        type_url: SECRET_TYPE_URL.to_owned(),
        nonce: "n".to_owned(),
        ..DiscoveryResponse::default()
    };
    let url = b"\x44type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let any = [b"\x0a".as_slice(), url, b"\x12\x15", &golden_secret].concat();
    let golden = [
        b"\x0a\x01v".as_slice(),
        b"\x12",
        &[u8::try_from(any.len()).unwrap()],
        &any,
        b"\x22",
        url,
        b"\x2a\x01n",
    ]
    .concat();
    assert_eq!(response.encode_to_vec(), golden);
}

#[test]
fn identity_of_the_workload_api() {
    let response = X509svidResponse {
        svids: vec![X509svid {
            spiffe_id: "spiffe://a/b".to_owned(),
            x509_svid: b"C".to_vec(),
            x509_svid_key: b"K".to_vec(),
            bundle: b"R".to_vec(),
            hint: "h".to_owned(),
        }],
        ..X509svidResponse::default()
    };
    assert_eq!(
        response.encode_to_vec(),
        b"\x0a\x1a\x0a\x0cspiffe://a/b\x12\x01C\x1a\x01K\x22\x01R\x2a\x01h"
    );
    let shown = format!("{response:?}");
    assert!(!shown.contains("75"), "{shown}");
}

#[test]
fn roots_are_a_validation_context() {
    let secret = Secret {
        name: "ROOTCA".to_owned(),
        r#type: Some(Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(b"R")),
            crl: Some(inline(b"L")),
            ..CertificateValidationContext::default()
        })),
    };
    assert_eq!(
        secret.encode_to_vec(),
        b"\x0a\x06ROOTCA\x22\x0a\x0a\x03\x12\x01R\x3a\x03\x12\x01L"
    );
}

/// A stock Envoy lists tens of kilobytes of extensions in its node.
#[test]
fn unknown_fields_of_a_node_are_skipped() {
    let node = b"\x0a\x02id\x4a\x05\x0a\x03abc\x52\x04feat";
    let request = [
        b"\x12".as_slice(),
        &[u8::try_from(node.len()).unwrap()],
        node,
    ]
    .concat();
    let request = DiscoveryRequest::decode(request.as_slice()).unwrap();
    let node = request.node.unwrap();
    assert_eq!(node.id, "id");
    assert_eq!(node.client_features, ["feat"]);
}

#[test]
fn debug_never_shows_a_key() {
    let secret = Secret {
        name: "default".to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            private_key: Some(inline(b"KEY-BYTES")),
            password: Some(DataSource {
                specifier: Some(Specifier::InlineString("KEY-BYTES".to_owned())),
                watched_directory: None,
            }),
            ..TlsCertificate::default()
        })),
    };
    let response = DiscoveryResponse {
        resources: vec![Any {
            type_url: SECRET_TYPE_URL.to_owned(),
            value: secret.encode_to_vec(),
        }],
        ..DiscoveryResponse::default()
    };
    let bytes_as_numbers = "75, 69, 89";
    let old = CsrRequest {
        node_agent_credential: b"KEY-BYTES".to_vec(),
        ..CsrRequest::default()
    };
    for text in [
        format!("{secret:?}"),
        format!("{response:?}"),
        format!("{old:?}"),
    ] {
        assert!(
            !text.contains("KEY-BYTES") && !text.contains(bytes_as_numbers),
            "{text}"
        );
    }
    assert!(format!("{secret:?}").contains("9 bytes"));
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        watched_directory: None,
    }
}
