use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::crypto::AWS_LC_RS;
use crate::csr::{Csr, create_csr_pem};
use crate::identity::SubjectName;
use crate::key::{KeyKind, PrivateKey};
use crate::testing::{TestCa, now};

fn csr(kind: KeyKind) -> Csr {
    let key = PrivateKey::generate_with(kind, &AWS_LC_RS).unwrap();
    Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap()
}

fn fixture(name: &str) -> Csr {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/csr")
        .join(name);
    Csr::from_pem(&std::fs::read(path).unwrap()).unwrap()
}

fn cart() -> Vec<SubjectName> {
    vec!["spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()]
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn every_ca_key_signs_every_kind_of_key_and_the_path_holds() {
    use KeyKind::*;
    let requests: Vec<_> = [Rsa2048, EcdsaP256, EcdsaP384, Ed25519].map(csr).into();
    for ca_kind in [Rsa2048, EcdsaP256, EcdsaP384, Ed25519] {
        let ca = TestCa::with_key(
            "cluster.local",
            PrivateKey::generate_with(ca_kind, &AWS_LC_RS).unwrap(),
        );
        for request in &requests {
            let issued = ca.issue(request, &cart(), HOUR, now());
            issued.chain().verify(issued.roots(), now()).unwrap();
            assert_eq!(issued.chain().leaf().public_key(), request.public_key());
        }
    }
}

/// Field by field what the template promises, as another parser reads it.
#[test]
fn a_leaf_has_exactly_the_promised_contents() {
    let ca = TestCa::new("cluster.local");
    let names: Vec<SubjectName> = [
        "spiffe://cluster.local/ns/shop/sa/cart",
        "cart.shop.svc",
        "10.0.0.7",
    ]
    .map(|n| n.parse().unwrap())
    .into();
    for (request, key_usage) in [
        (fixture("p256.pem"), 0b1),
        (fixture("p384.pem"), 0b1),
        (fixture("ed25519.pem"), 0b1),
        (fixture("rsa2048.pem"), 0b101),
        // Asks to be a CA, which nobody listens to.
        (fixture("ca-true.pem"), 0b1),
    ] {
        let issued = ca.issue(&request, &names, HOUR, now());
        let der = issued.chain().leaf().der();
        let (rest, leaf) = X509Certificate::from_der(der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(leaf.version().0, 2);
        assert_eq!(leaf.raw_serial().len(), 16);
        assert_eq!(leaf.raw_serial()[0] & 0xc0, 0x40);
        assert_eq!(
            leaf.issuer().as_raw(),
            ca.roots().certificates()[0].subject_der()
        );
        assert_eq!(leaf.public_key().raw, request.public_key().spki_der());

        let extensions: Vec<_> = leaf
            .iter_extensions()
            .map(|e| {
                (
                    e.oid.to_id_string(),
                    e.critical,
                    e.parsed_extension().clone(),
                )
            })
            .collect();
        let order: Vec<_> = extensions
            .iter()
            .map(|(oid, critical, _)| (oid.as_str(), *critical))
            .collect();
        assert_eq!(
            order,
            [
                ("2.5.29.15", true),
                ("2.5.29.37", false),
                ("2.5.29.19", true),
                ("2.5.29.14", false),
                ("2.5.29.35", false),
                ("2.5.29.17", true),
            ]
        );
        for (_, _, extension) in extensions {
            match extension {
                ParsedExtension::KeyUsage(usage) => assert_eq!(usage.flags, key_usage),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    assert!(
                        usage.server_auth
                            && usage.client_auth
                            && !usage.any
                            && usage.other.is_empty()
                    );
                }
                ParsedExtension::BasicConstraints(basic) => {
                    assert!(!basic.ca && basic.path_len_constraint.is_none());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    assert_eq!(id.0, request.public_key().key_identifier());
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    assert_eq!(
                        id.key_identifier.unwrap().0,
                        ca.key().public_key_identifier()
                    );
                }
                ParsedExtension::SubjectAlternativeName(san) => assert_eq!(
                    san.general_names,
                    [
                        GeneralName::URI("spiffe://cluster.local/ns/shop/sa/cart"),
                        GeneralName::DNSName("cart.shop.svc"),
                        GeneralName::IPAddress(&[10, 0, 0, 7]),
                    ]
                ),
                other => panic!("an extension nobody promised: {other:?}"),
            }
        }
    }
}

impl PrivateKey {
    fn public_key_identifier(&self) -> [u8; 20] {
        use crate::key::SigningKey as _;
        self.public_key().key_identifier()
    }
}

#[test]
fn a_common_name_is_given_on_request_with_our_value_when_it_fits() {
    let ca = TestCa::new("cluster.local");
    let common_name = |request: &Csr, names: &[SubjectName]| {
        let issued = ca.issue(request, names, HOUR, now());
        issued.chain().verify(issued.roots(), now()).unwrap();
        let (_, leaf) = X509Certificate::from_der(issued.chain().leaf().der()).unwrap();
        leaf.subject()
            .iter_common_name()
            .next()
            .map(|cn| cn.as_str().unwrap().to_owned())
    };
    let asks = fixture("common-name.pem");
    assert_eq!(
        common_name(&asks, &cart()).as_deref(),
        Some("spiffe://cluster.local/ns/shop/sa/cart")
    );
    assert_eq!(common_name(&fixture("p256.pem"), &cart()), None);
    // 64 bytes fit, 65 do not.
    let long = |bytes: usize| vec![format!("{:a<bytes$}", "spiffe://td/").parse().unwrap()];
    assert_eq!(common_name(&asks, &long(64)).map(|cn| cn.len()), Some(64));
    assert_eq!(common_name(&asks, &long(65)), None);
}

#[test]
fn dates_are_backdated_a_little_and_end_with_the_issuer() {
    let ca = TestCa::new("cluster.local");
    let request = csr(KeyKind::EcdsaP256);
    let at = now();
    let dates = |ttl: u64| {
        let issued = ca.issue(&request, &cart(), Duration::from_secs(ttl), at);
        let leaf = issued.chain().leaf().clone();
        (
            (at - leaf.not_before()).whole_seconds(),
            (leaf.not_after() - at).whole_seconds(),
        )
    };
    assert_eq!(dates(3600), (120, 3600));
    assert_eq!(dates(8), (2, 8));
    assert_eq!(dates(1), (0, 1));
    assert_eq!(dates(10 * 24 * 3600).1, 24 * 3600, "the root ends first");
}

#[test]
fn an_issuer_out_of_its_time_signs_nothing() {
    let ca = TestCa::new("cluster.local");
    let root = ca.roots().certificates()[0].clone();
    let issue = |at| {
        ca.authority().issue(
            &SigningRequest::new(csr(KeyKind::EcdsaP256), cart(), HOUR),
            at,
        )
    };
    assert!(
        matches!(issue(root.not_after()), Err(SignError::Expired { at }) if at == root.not_after())
    );
    let early = root.not_before() - Duration::from_secs(1);
    assert!(matches!(issue(early), Err(SignError::NotYetValid { .. })));
    issue(root.not_before()).unwrap();
}

#[test]
fn nothing_is_certified_for_nobody_or_beyond_the_calendar() {
    let ca = TestCa::new("cluster.local");
    let issue = |names, ttl| {
        ca.authority().issue(
            &SigningRequest::new(csr(KeyKind::EcdsaP256), names, ttl),
            now(),
        )
    };
    assert!(matches!(
        issue(Vec::new(), HOUR),
        Err(SignError::Refused(_))
    ));
    assert!(matches!(
        issue(cart(), Duration::MAX),
        Err(SignError::Refused(_))
    ));
}

#[test]
fn serial_numbers_do_not_repeat() {
    let ca = TestCa::new("cluster.local");
    let request = csr(KeyKind::EcdsaP256);
    let serials: std::collections::HashSet<_> = (0..100)
        .map(|_| {
            ca.issue(&request, &cart(), HOUR, now())
                .chain()
                .leaf()
                .serial()
        })
        .collect();
    assert_eq!(serials.len(), 100);
}

fn ca_request(name: &str) -> CaRequest {
    CaRequest::new(csr(KeyKind::EcdsaP256), "cluster.local", name, HOUR)
}

#[test]
fn a_ca_below_is_a_ca_within_its_limits() {
    let ca = TestCa::new("cluster.local");
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    let issued = ca
        .authority()
        .issue_ca(
            &ca_request("east")
                .with_path_length(0)
                .permitting_only(domain),
            now(),
        )
        .unwrap();
    let certificate = issued.chain().leaf();
    assert!(certificate.is_ca());
    let read = crate::Certificate::from_der(certificate.der().to_vec()).unwrap();
    assert_eq!(read.rights(), certificate.rights());
    let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
    assert_eq!(parsed.subject().to_string(), "O=cluster.local, CN=east");
    assert_eq!(
        parsed
            .basic_constraints()
            .unwrap()
            .unwrap()
            .value
            .path_len_constraint,
        Some(0)
    );
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(
        usage.critical
            && usage.value.key_cert_sign()
            && usage.value.crl_sign()
            && !usage.value.digital_signature()
    );
    let constraints = parsed.name_constraints().unwrap().unwrap();
    assert!(constraints.critical);
    let permitted = constraints.value.permitted_subtrees.as_ref().unwrap();
    assert_eq!(permitted.len(), 1);
    assert_eq!(permitted[0].base, GeneralName::URI("cluster.local"));
    assert!(parsed.extended_key_usage().unwrap().is_none());
}

#[test]
fn path_lengths_shrink_downwards_and_end() {
    let root = TestCa::new("cluster.local");
    let below = |authority: &LocalAuthority, name: &str, length: Option<u8>| {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let csr = Csr::from_pem(create_csr_pem(&key, &[]).unwrap().as_bytes()).unwrap();
        let mut request = CaRequest::new(csr, "cluster.local", name, HOUR);
        request.path_length = length;
        let issued = authority.issue_ca(&request, now())?;
        let bundle = KeyCertBundle::new(
            std::sync::Arc::new(key),
            issued.chain().clone(),
            issued.roots().clone(),
            now(),
        );
        let rights = issued.chain().leaf().rights();
        Ok::<_, SignError>((
            LocalAuthority::new(BundleStore::new(bundle.unwrap())),
            rights,
        ))
    };
    let (first, rights) = below(&root.authority(), "first", Some(1)).unwrap();
    assert_eq!(
        rights,
        CaRights::Ca {
            path_length: Some(1)
        }
    );
    assert!(matches!(
        below(&first, "second", Some(1)),
        Err(SignError::Refused(_))
    ));
    // Where nothing is asked for, what is left is written.
    let (second, rights) = below(&first, "second", None).unwrap();
    assert_eq!(
        rights,
        CaRights::Ca {
            path_length: Some(0)
        }
    );
    assert!(matches!(
        below(&second, "third", None),
        Err(SignError::Refused(_))
    ));
    // It certifies workloads still.
    let issued = second
        .issue(
            &SigningRequest::new(csr(KeyKind::EcdsaP256), cart(), HOUR),
            now(),
        )
        .unwrap();
    assert_eq!(issued.chain().intermediates().len(), 2);
    issued.chain().verify(issued.roots(), now()).unwrap();
}

#[test]
fn a_key_made_for_a_listener_follows_the_ca() {
    for (ca_kind, expected) in [
        (KeyKind::EcdsaP256, "ECDSA P-256"),
        (KeyKind::EcdsaP384, "ECDSA P-384"),
        (KeyKind::Rsa2048, "ECDSA P-256"),
        (KeyKind::Ed25519, "ECDSA P-256"),
    ] {
        let ca = TestCa::with_key(
            "td",
            PrivateKey::generate_with(ca_kind, &AWS_LC_RS).unwrap(),
        );
        let names = vec!["istiod.istio-system.svc".parse().unwrap()];
        let (key, issued) = ca
            .authority()
            .issue_with_new_key(names.clone(), HOUR, now())
            .unwrap();
        assert_eq!(issued.chain().leaf().names(), names);
        assert_eq!(
            issued.chain().leaf().public_key(),
            crate::SigningKey::public_key(&key)
        );
        assert_eq!(
            crate::SigningKey::public_key(&key).kind().to_string(),
            expected
        );
    }
}

/// A key that can be reached by one call only, as a device or a service would offer it.
#[derive(Debug)]
struct Device(PrivateKey, std::sync::atomic::AtomicUsize);

impl crate::SigningKey for Device {
    fn public_key(&self) -> &crate::PublicKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, crate::KeyError> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.sign(message)
    }
}

#[test]
fn a_key_in_a_device_makes_a_root_and_signs_with_one_call_for_each_certificate() {
    let device = Device(
        PrivateKey::generate(KeyKind::EcdsaP384).unwrap(),
        Default::default(),
    );
    let root = crate::RootParams::new("td", HOUR)
        .self_sign(&device, now())
        .unwrap();
    let device = std::sync::Arc::new(device);
    let roots = crate::TrustBundle::new([root.clone()]).unwrap();
    let key: std::sync::Arc<dyn crate::SigningKey> = std::sync::Arc::<Device>::clone(&device);
    let bundle =
        KeyCertBundle::new(key, crate::CertificateChain::new(root, []), roots, now()).unwrap();
    let before = device.1.load(std::sync::atomic::Ordering::Relaxed);
    let authority = LocalAuthority::new(BundleStore::new(bundle));
    let issued = authority
        .issue(
            &SigningRequest::new(csr(KeyKind::Ed25519), cart(), HOUR),
            now(),
        )
        .unwrap();
    issued.chain().verify(issued.roots(), now()).unwrap();
    assert_eq!(
        device.1.load(std::sync::atomic::Ordering::Relaxed),
        before + 1
    );
}
