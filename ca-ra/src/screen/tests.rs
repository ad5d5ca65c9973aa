use std::net::Ipv4Addr;
use std::time::Duration;

use ca_core::{PrivateKey, create_csr_pem};
use proptest::prelude::*;
use rcgen::{
    Attribute, BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};

use super::*;
use crate::odd_certificates::{CART, blank, csr, extension, new_key, of_cart, uri};

const GATE: &str = "spiffe://cluster.local/ns/shop/sa/gate";
const HOUR: Duration = Duration::from_secs(3600);

fn screen_for(granted: &[&str], csr: Csr) -> Result<ScreenedRequest, ScreenError> {
    let names = granted.iter().map(|name| name.parse().unwrap()).collect();
    ScreenedRequest::screen(SigningRequest::new(csr, names, HOUR))
}

fn screen(params: &CertificateParams) -> Result<ScreenedRequest, ScreenError> {
    screen_for(&[CART], csr(&new_key(), params, Vec::new()))
}

/// The error for a request with changes, which must be refused.
fn refused(change: impl FnOnce(&mut CertificateParams)) -> ScreenError {
    let mut params = of_cart();
    change(&mut params);
    screen(&params).unwrap_err()
}

#[test]
fn what_agents_send_passes() {
    // ztunnel and our own agent: no subject.
    let screened = screen(&of_cart()).unwrap();
    assert_eq!(screened.name().as_str(), CART);
    assert_eq!(screened.request().lifetime(), HOUR);
    let key = PrivateKey::generate(ca_core::KeyKind::EcdsaP256).unwrap();
    let own = create_csr_pem(&key, &[CART.parse().unwrap()]).unwrap();
    let own = Csr::from_pem(own.as_bytes()).unwrap();
    assert!(screen_for(&[CART], own).is_ok());

    // Istio's agent: an organization that is empty.
    for empty in [
        DnValue::Utf8String(String::new()),
        DnValue::PrintableString("".try_into().unwrap()),
    ] {
        let mut params = of_cart();
        params
            .distinguished_name
            .push(DnType::OrganizationName, empty.clone());
        assert!(screen(&params).is_ok(), "{empty:?}");
    }
}

#[test]
fn any_other_subject_is_refused() {
    let text = |text: &str| DnValue::Utf8String(text.into());
    for (subject, types) in [
        (vec![(DnType::CommonName, text("cart"))], &["2.5.4.3"][..]),
        (vec![(DnType::CommonName, text(""))], &["2.5.4.3"]),
        (
            vec![(DnType::OrganizationName, text("shop"))],
            &["2.5.4.10"],
        ),
        (vec![(DnType::OrganizationName, text(" "))], &["2.5.4.10"]),
        (
            vec![(DnType::OrganizationalUnitName, text(""))],
            &["2.5.4.11"],
        ),
        (vec![(DnType::CountryName, text("DE"))], &["2.5.4.6"]),
        (
            vec![
                (DnType::OrganizationName, text("")),
                (DnType::CommonName, text("system:masters")),
            ],
            &["2.5.4.10", "2.5.4.3"],
        ),
    ] {
        let error = refused(|params| {
            for (kind, value) in subject {
                params.distinguished_name.push(kind, value);
            }
        });
        let attributes = types.iter().map(ToString::to_string).collect();
        assert_eq!(error, ScreenError::Subject { attributes });
    }
}

#[test]
fn the_names_must_be_the_granted_one_and_no_other() {
    for asked in [
        &[GATE][..],
        &[CART, GATE],
        &[GATE, CART],
        &[CART, CART],
        &["spiffe://other/ns/shop/sa/cart"],
        &["spiffe://cluster.local/ns/shop/sa/cart/"],
        &["spiffe://cluster.local/ns/shop/sa/cart2"],
        &["spiffe://cluster.local/ns/shop/sa/car"],
        &["SPIFFE://cluster.local/ns/shop/sa/cart"],
        &["spiffe://cluster.local/ns/shop/sa/cart,spiffe://cluster.local/ns/shop/sa/gate"],
        &["https://cluster.local/"],
        &[""],
    ] {
        let error = refused(|p| p.subject_alt_names = asked.iter().map(|name| uri(name)).collect());
        assert!(
            matches!(error, ScreenError::OtherName { .. }),
            "{asked:?}: {error}"
        );
    }
    let error = refused(|p| p.subject_alt_names.clear());
    assert_eq!(error, ScreenError::NoName);
}

#[test]
fn exactly_one_spiffe_id_can_be_granted() {
    let request = || csr(&new_key(), &of_cart(), Vec::new());
    for granted in [
        &[][..],
        &[CART, GATE],
        &[GATE, CART],
        &[CART, CART],
        &[CART, "cart.shop.svc"],
        &["cart.shop.svc"],
        &["10.0.0.1"],
    ] {
        let error = screen_for(granted, request()).unwrap_err();
        let granted = granted.len();
        assert_eq!(error, ScreenError::NotOneIdentity { granted });
    }
    // Both equal sets and several names: istio-csr would forward it, Istio would not.
    let mut both = of_cart();
    both.subject_alt_names.push(uri(GATE));
    let both = csr(&new_key(), &both, Vec::new());
    assert!(screen_for(&[CART, GATE], both).is_err());
}

#[test]
fn names_of_other_kinds_are_refused() {
    let kinds = [
        (
            SanType::DnsName("cart.shop.svc".try_into().unwrap()),
            "dNSName",
        ),
        (SanType::DnsName("".try_into().unwrap()), "dNSName"),
        (
            SanType::Rfc822Name("a@example.com".try_into().unwrap()),
            "rfc822Name",
        ),
        (SanType::Rfc822Name("".try_into().unwrap()), "rfc822Name"),
        (SanType::IpAddress(Ipv4Addr::LOCALHOST.into()), "iPAddress"),
        (
            SanType::OtherName((vec![1, 2, 3], "a".to_owned().into())),
            "otherName",
        ),
    ];
    for (name, kind) in kinds {
        for at in [0, 1] {
            let error = refused(|params| params.subject_alt_names.insert(at, name.clone()));
            assert_eq!(error, ScreenError::NameKind { kind }, "{name:?} at {at}");
        }
    }
}

#[test]
fn the_list_of_names_is_read_strictly() {
    let cart = |tag: u8| [&[tag, u8::try_from(CART.len()).unwrap()], CART.as_bytes()].concat();
    let list = |names: &[u8]| [&[0x30, u8::try_from(names.len()).unwrap()], names].concat();
    let with = |value: &[u8]| {
        let mut params = blank();
        params.custom_extensions = vec![extension(&[2, 5, 29, 17], value)];
        screen(&params)
    };
    assert!(with(&list(&cart(0x86))).is_ok());

    assert_eq!(with(&list(&[])).unwrap_err(), ScreenError::NoName);
    let kind = "uniformResourceIdentifier";
    assert_eq!(
        with(&list(&cart(0xa6))).unwrap_err(),
        ScreenError::NameKind { kind }
    );
    for malformed in [
        vec![],
        vec![0x30],
        vec![0x30, 5],
        vec![0x30, 0x80, 0, 0],
        cart(0x86),
        [&list(&cart(0x86))[..], &[0]].concat(),
        [&list(&cart(0x86))[..], &list(&cart(0x86))].concat(),
        // A set, a universal tag 6 (an object identifier), an application tag 6, a private tag 6.
        [&[0x31][..], &list(&cart(0x86))[1..]].concat(),
        list(&cart(0x06)),
        list(&cart(0x46)),
        list(&cart(0xc6)),
        // Tags that general names do not have.
        list(&[0x89, 0]),
        list(&[0x9f, 0x40, 0]),
        // A length that is not the shortest.
        [&[0x30, 0x81][..], &list(&cart(0x86))[1..]].concat(),
    ] {
        let verdict = with(&malformed).unwrap_err();
        assert_eq!(verdict, ScreenError::MalformedNames, "{malformed:02x?}");
    }
}

#[test]
fn every_other_extension_is_refused() {
    let refused_oid = |change: fn(&mut CertificateParams)| match refused(change) {
        ScreenError::Extension { oid } => oid,
        other => panic!("{other}"),
    };
    // The right to be a CA, with and without it.
    let ca = refused_oid(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(["2.5.29.19", "2.5.29.15"].contains(&ca.as_str()), "{ca}");
    assert_eq!(refused_oid(|p| p.is_ca = IsCa::ExplicitNoCa), "2.5.29.19");
    let basic = |p: &mut CertificateParams, value: &[u8]| {
        p.custom_extensions = vec![extension(&[2, 5, 29, 19], value)];
    };
    for value in [&[0x30, 3, 1, 1, 0xff][..], &[0x30, 0], b"garbage"] {
        let error = refused(|p| basic(p, value));
        let oid = "2.5.29.19".into();
        assert_eq!(error, ScreenError::Extension { oid });
    }
    // Usages that istio-csr lets pass, and others.
    for usage in [
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ] {
        let error = refused(|p| p.key_usages = vec![usage]);
        let oid = "2.5.29.15".into();
        assert_eq!(error, ScreenError::Extension { oid });
    }
    for usage in [
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::Any,
    ] {
        let error = refused(|p| p.extended_key_usages = vec![usage]);
        let oid = "2.5.29.37".into();
        assert_eq!(error, ScreenError::Extension { oid });
    }
    // Name constraints, and something nobody knows.
    let error = refused(|p| p.custom_extensions = vec![extension(&[2, 5, 29, 30], &[0x30, 0])]);
    assert!(matches!(error, ScreenError::Extension { .. }), "{error}");
    let error = refused(|p| p.custom_extensions = vec![extension(&[1, 2, 3, 4], &[5, 0])]);
    assert!(matches!(error, ScreenError::Extension { .. }), "{error}");
    // The names twice.
    let other = [&[0x30, 2 + 38, 0x86, 38], GATE.as_bytes()].concat();
    let error = refused(|p| p.custom_extensions = vec![extension(&[2, 5, 29, 17], &other)]);
    let oid = "2.5.29.17".into();
    assert_eq!(error, ScreenError::Csr(CsrError::RepeatedExtension { oid }));
}

#[test]
fn other_attributes_are_refused() {
    const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];
    const CHALLENGE_PASSWORD: &[u64] = &[1, 2, 840, 113_549, 1, 9, 7];
    /// The same as an extension request, to the CAs of one vendor.
    const CERTIFICATE_EXTENSIONS: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 2, 1, 14];
    let no_extensions = [0x31, 2, 0x30, 0];
    let password = [0x31, 5, 0x0c, 3, b'a', b'b', b'c'];
    for (oid, values) in [
        (EXTENSION_REQUEST, &no_extensions[..]),
        (CERTIFICATE_EXTENSIONS, &no_extensions),
        (CHALLENGE_PASSWORD, &password),
    ] {
        let values = values.to_vec();
        let request = csr(&new_key(), &of_cart(), vec![Attribute { oid, values }]);
        let error = screen_for(&[CART], request).unwrap_err();
        let dotted: Vec<String> = oid.iter().map(ToString::to_string).collect();
        let oid = dotted.join(".");
        assert_eq!(error, ScreenError::Attribute { oid });
    }
    // Two lists of extensions in one attribute.
    let (oid, values) = (EXTENSION_REQUEST, vec![0x31, 4, 0x30, 0, 0x30, 0]);
    let request = csr(&new_key(), &blank(), vec![Attribute { oid, values }]);
    let error = screen_for(&[CART], request).unwrap_err();
    assert!(matches!(error, ScreenError::Attribute { .. }), "{error}");
}

#[test]
fn the_reason_is_told_in_istios_words_and_is_short() {
    let long = format!("spiffe://{}", "a".repeat(20_000));
    let error = refused(|p| p.subject_alt_names = vec![uri(&long)]);
    assert!(error.to_string().len() < 500);
    let SignError::Refused(text) = SignError::from(ScreenError::NoName) else {
        panic!("not a refusal");
    };
    assert_eq!(
        text,
        "unable to validate SAN Identities in CSR: asks for no name"
    );
}

proptest! {
    #[test]
    fn a_list_of_uris_is_read_as_it_was_written(uris in proptest::collection::vec("\\PC{0,60}", 0..5)) {
        use der::Encode as _;
        let encode = |tag, value: &[u8]| AnyRef::new(tag, value).unwrap().to_der().unwrap();
        let list: Vec<u8> = uris.iter().flat_map(|uri| encode(URI, uri.as_bytes())).collect();
        let list = encode(Tag::Sequence, &list);
        let expected: Vec<&[u8]> = uris.iter().map(String::as_bytes).collect();
        prop_assert_eq!(read_uris(&list), Ok(expected));
        for cut in 0..list.len() {
            prop_assert!(read_uris(&list[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in any::<Vec<u8>>()) {
        let _ = read_uris(&bytes);
        let _ = read_attribute_types(&bytes);
    }
}
