//! Our certificates beside those of Istio's own CA, for the same key, request and name: everything is equal but the
//! differences named here, each of which `docs/compatibility.md` explains.
//!
//! Istio's are in `testdata/istio`; a program in `benches/peer/istio` made them.

use std::path::Path;
use std::sync::Arc;

use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Extension};

use super::*;
use crate::certificate::{Certificate, CertificateChain};
use crate::crypto::AWS_LC_RS;
use crate::self_signed::RootParams;
use crate::trust::TrustBundle;

#[test]
fn a_leaf_differs_from_istios_in_key_identifier_and_in_the_usage_of_other_keys_than_rsa() {
    let identifier = "subject key identifier: -> present";
    let usage = format!("key usage: critical {ISTIO_LEAF} -> critical {SIGN_ONLY}");
    for (request, expected) in [
        ("p256", vec![usage.as_str(), identifier]),
        ("ed25519", vec![usage.as_str(), identifier]),
        // The name part that the CSR asks for is there in both, with the same value of the CA's.
        ("common-name", vec![usage.as_str(), identifier]),
        ("rsa2048", vec![identifier]),
    ] {
        let ours = authority().issue(
            &SigningRequest::new(csr(request), vec![cart()], DAY),
            start(),
        );
        let ours = ours.unwrap();
        assert_eq!(
            differences(
                &certificate(&format!("leaf-{request}")),
                ours.chain().leaf()
            ),
            expected,
            "{request}"
        );
    }
}

#[test]
fn a_serving_certificate_differs_from_istios_in_its_key() {
    let names = vec!["istiod.istio-system.svc".parse().unwrap()];
    let (_, ours) = authority().issue_with_new_key(names, DAY, start()).unwrap();
    let usage = format!("key usage: critical {ISTIO_LEAF} -> critical {SIGN_ONLY}");
    assert_eq!(
        differences(&certificate("serving"), ours.chain().leaf()),
        [
            "key: RSA-2048 -> ECDSA P-256",
            usage.as_str(),
            "subject key identifier: -> present"
        ]
    );
}

#[test]
fn an_intermediate_has_a_name_where_istios_has_none() {
    let request = CaRequest::new(csr("p256"), "cluster.local", "edge", DAY);
    let ours = authority().issue_ca(&request, start()).unwrap();
    assert_eq!(
        differences(&certificate("intermediate"), ours.chain().leaf()),
        [
            // Istio's certificates below it have an empty issuer, which RFC 5280 forbids.
            "subject:  -> O=cluster.local, CN=edge",
            "key usage: critical 03020204 -> critical 03020106",
            "subject alternative name: critical 302886267370696666653a2f2f636c75737465722e6c6f63616c2f6e732f73686f702f73612f63617274 -> ",
        ]
    );
}

#[test]
fn a_root_differs_in_key_and_start_and_may_sign_revocation_lists() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let istio = certificate("root");
    let lifetime = (istio.not_after() - istio.not_before()).unsigned_abs();
    let root = RootParams::new("cluster.local", lifetime);
    let ours = root.self_sign(&key, istio.not_before()).unwrap();
    assert_eq!(
        differences(&istio, &ours),
        [
            "lifetime: 3153600000 s -> 3153600120 s",
            "key: RSA-2048 -> ECDSA P-256",
            "signature: 1.2.840.113549.1.1.11 -> 1.2.840.10045.4.3.2",
            "key usage: critical 03020204 -> critical 03020106",
        ]
    );
}

/// digitalSignature and keyEncipherment, as Istio has it for every key.
const ISTIO_LEAF: &str = "030205a0";
const SIGN_ONLY: &str = "03020780";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Istio's CA as it was when it made the certificates, with our code in it.
fn authority() -> LocalAuthority {
    let root = certificate("root");
    let key = PrivateKey::from_pem_with(&file("istio/root-key.pem"), &AWS_LC_RS).unwrap();
    let chain = CertificateChain::new(root.clone(), vec![]);
    let roots = TrustBundle::new(vec![root]).unwrap();
    let bundle = KeyCertBundle::new(Arc::new(key), chain, roots, start()).unwrap();
    LocalAuthority::new(BundleStore::new(bundle))
}

fn start() -> OffsetDateTime {
    certificate("root").not_before() + Duration::from_secs(3600)
}

fn cart() -> SubjectName {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn csr(name: &str) -> Csr {
    Csr::from_pem(&file(&format!("csr/{name}.pem"))).unwrap()
}

fn certificate(name: &str) -> Certificate {
    Certificate::from_pem(&file(&format!("istio/{name}.pem"))).unwrap()
}

fn file(name: &str) -> Vec<u8> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    std::fs::read(testdata.join(name)).unwrap()
}

/// Field by field, in the order of the certificate: `field: Istio's -> ours`.
fn differences(istio: &Certificate, ours: &Certificate) -> Vec<String> {
    let (istio, ours) = (fields(istio), fields(ours));
    let mut found = Vec::new();
    for (name, a) in &istio {
        let b = ours.iter().find(|(other, _)| other == name);
        let b = b.map_or("", |(_, value)| value);
        if a != b {
            found.push(format!("{name}: {a} -> {b}"));
        }
    }
    for (name, _) in ours {
        if !istio.iter().any(|(other, _)| *other == name) {
            found.push(format!("{name}: -> present"));
        }
    }
    found
}

/// Everything in it but what is random: the value of the serial number, and of a key of its own.
fn fields(certificate: &Certificate) -> Vec<(String, String)> {
    let (rest, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
    assert!(rest.is_empty());
    let (from, to) = (certificate.not_before(), certificate.not_after());
    assert_eq!(from.nanosecond(), 0, "{}", from.format(&Rfc3339).unwrap());
    let mut fields: Vec<(String, String)> = [
        ("version", parsed.version().to_string()),
        (
            "serial number",
            format!("at most 20 bytes: {}", parsed.raw_serial().len() <= 20),
        ),
        ("issuer", parsed.issuer().to_string()),
        ("lifetime", format!("{} s", (to - from).whole_seconds())),
        ("subject", parsed.subject().to_string()),
        ("key", certificate.public_key().kind().to_string()),
        (
            "signature",
            parsed.signature_algorithm.algorithm.to_id_string(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(parsed.signature, parsed.signature_algorithm);
    fields.extend(parsed.extensions().iter().map(extension));
    fields
}

fn extension(extension: &X509Extension<'_>) -> (String, String) {
    let name = match extension.oid.to_id_string().as_str() {
        "2.5.29.14" => "subject key identifier",
        "2.5.29.15" => "key usage",
        "2.5.29.17" => "subject alternative name",
        "2.5.29.19" => "basic constraints",
        "2.5.29.35" => "authority key identifier",
        "2.5.29.37" => "extended key usage",
        other => return (other.to_owned(), "unexpected".to_owned()),
    };
    let critical = if extension.critical { "critical " } else { "" };
    // That of a CA depends on its key alone, and both read it by the same rule where the key is the same.
    let value: String = match name {
        "subject key identifier" => format!("{} bytes", extension.value.len()),
        _ => extension.value.iter().map(|b| format!("{b:02x}")).collect(),
    };
    (name.to_owned(), format!("{critical}{value}"))
}
