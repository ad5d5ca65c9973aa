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
    google,
    istio::v1::auth::{
        CsrRequest, CsrResponse, IstioCertificateRequest, IstioCertificateResponse,
        istio_ca_service_server, istio_certificate_service_server,
    },
    opentelemetry::proto::{
        collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
        common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
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
fn spans() {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    };
    let several = any_value::Value::ArrayValue(ArrayValue {
        values: vec![AnyValue {
            value: Some(text("i")),
        }],
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", text("ca"))],
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "l".to_owned(),
                    version: "1".to_owned(),
                }),
                spans: vec![Span {
                    trace_id: vec![7; 16],
                    span_id: vec![8; 8],
                    trace_state: "a=1".to_owned(),
                    parent_span_id: vec![9; 8],
                    name: "n".to_owned(),
                    kind: SpanKind::Server.into(),
                    start_time_unix_nano: 1,
                    end_time_unix_nano: 2,
                    attributes: vec![
                        attribute("c", any_value::Value::IntValue(14)),
                        attribute("i", several),
                    ],
                    status: Some(Status {
                        message: "m".to_owned(),
                        code: StatusCode::Error.into(),
                    }),
                    flags: 0x301,
                }],
            }],
        }],
    };
    let golden: Vec<u8> = [
        // A program (1), which has a resource (1) with an attribute (1): key (1) and value (2), which is text (1).
        b"\x0a\x8a\x01\x0a\x16\x0a\x14\x0a\x0cservice.name\x12\x04\x0a\x02ca".as_slice(),
        // The spans of a library (2): its name and version (1).
        b"\x12\x70\x0a\x06\x0a\x01l\x12\x011",
        // A span (2): its trace (1), itself (2), state (3), parent (4).
        b"\x12\x66\x0a\x10\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07",
        b"\x12\x08\x08\x08\x08\x08\x08\x08\x08\x08\x1a\x03a=1\x22\x08\x09\x09\x09\x09\x09\x09\x09\x09",
        // Name (5), kind (6), start (7) and end (8).
        b"\x2a\x01n\x30\x02\x39\x01\0\0\0\0\0\0\0\x41\x02\0\0\0\0\0\0\0",
        // Attributes (9): a number (3), and several values (5).
        b"\x4a\x07\x0a\x01c\x12\x02\x18\x0e",
        b"\x4a\x0c\x0a\x01i\x12\x07\x2a\x05\x0a\x03\x0a\x01i",
        // Status (15): sentence (2) and code (3). Flags (16).
        b"\x7a\x05\x12\x01m\x18\x02\x85\x01\x01\x03\0\0",
    ]
    .concat();
    assert_eq!(request.encode_to_vec(), golden);
    // Some were not taken (1): how many (1) and why (2).
    let answer = ExportTraceServiceResponse::decode(b"\x0a\x06\x08\x03\x12\x02no".as_slice());
    let partial = answer.unwrap().partial_success.unwrap();
    assert_eq!((partial.rejected_spans, &*partial.error_message), (3, "no"));
}

#[test]
fn certificate_response() {
    let response = IstioCertificateResponse {
        cert_chain: vec!["leaf\n".to_owned(), "root\n".to_owned()],
    };
    assert_eq!(response.encode_to_vec(), b"\x0a\x05leaf\n\x0a\x05root\n");
}

/// What node agents of Istio up to 1.5 send and expect.
#[test]
fn request_and_response_of_old_node_agents() {
    let request = CsrRequest {
        csr_pem: b"csr".to_vec(),
        node_agent_credential: b"jwt".to_vec(),
        credential_type: "t".to_owned(),
        requested_ttl_minutes: 60,
    };
    assert_eq!(
        request.encode_to_vec(),
        b"\x0a\x03csr\x12\x03jwt\x1a\x01t\x20\x3c"
    );
    let response = CsrResponse {
        is_approved: true,
        status: Some(google::rpc::Status {
            code: 3,
            ..google::rpc::Status::default()
        }),
        signed_cert: b"leaf".to_vec(),
        cert_chain: b"chain".to_vec(),
    };
    assert_eq!(
        response.encode_to_vec(),
        b"\x08\x01\x12\x02\x08\x03\x1a\x04leaf\x22\x05chain"
    );
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
