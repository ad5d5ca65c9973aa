use ca_core::testing::now;
use proptest::prelude::*;

use super::*;
use crate::evidence::Transport;

fn list(text: &str) -> Vec<ForwardedCertificate> {
    ForwardedCertificate::parse_list(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn headers_as_envoy_writes_them_are_read() {
    let one = list(
        r#"By=spiffe://cluster.local/ns/istio-system/sa/gateway;Hash=468ed33be74eee6556d90c0149c1309e;Subject="";URI=spiffe://cluster.local/ns/shop/sa/cart"#,
    );
    assert_eq!(
        one,
        [ForwardedCertificate {
            by: vec!["spiffe://cluster.local/ns/istio-system/sa/gateway".into()],
            hash: Some("468ed33be74eee6556d90c0149c1309e".into()),
            subject: Some(String::new()),
            uris: vec!["spiffe://cluster.local/ns/shop/sa/cart".into()],
            dns_names: Vec::new(),
        }]
    );

    let two = list(
        r#"Hash=ab;Cert="-----BEGIN%20CERT%3D%3B,=;";Subject="/C=US/O=\"Quoted, Inc\";L=x\\";URI=spiffe://a/b;DNS=a.example;DNS=b.example, By=spiffe://c/d;uri=;URI=spiffe://e/f"#,
    );
    assert_eq!(two.len(), 2);
    assert_eq!(
        two[0].subject.as_deref(),
        Some(r#"/C=US/O="Quoted, Inc";L=x\\"#)
    );
    assert_eq!(two[0].dns_names, ["a.example", "b.example"]);
    assert_eq!(two[1].uris, ["", "spiffe://e/f"]);
    assert_eq!(list("URI=a")[0].uris, ["a"]);
}

#[test]
fn anything_else_is_refused_with_the_place() {
    for bad in [
        "",
        "URI",
        "=x",
        "URI:x",
        "URI=x;",
        "URI=x,",
        ",URI=x",
        "URI=x;;URI=y",
        "URI=x y",
        "URI=x=y",
        r#"URI=x"y""#,
        r#"URI="x"#,
        r#"URI="x\"#,
        r#"URI="x"y"#,
        "U RI=x",
        "URI=\"x\r\nEvil: y\"",
        "Hash=a;hash=b",
        r#"Subject="a";Subject="b""#,
    ] {
        let verdict = ForwardedCertificate::parse_list(bad);
        let is_told = |at: usize| at <= bad.len();
        assert!(
            matches!(verdict, Err(ForwardedError::Form { at }) if is_told(at)),
            "{bad:?}: {verdict:?}"
        );
    }
    let error = ForwardedCertificate::parse_list("URI=x;;URI=y").unwrap_err();
    assert_eq!(error.to_string(), "the header cannot be read (byte 6)");
    let long = format!("URI={}", "x".repeat(ForwardedCertificate::MAX_HEADER_BYTES));
    let long = ForwardedCertificate::parse_list(&long);
    assert_eq!(long, Err(ForwardedError::TooLong));
}

const CART: &str = "URI=spiffe://cluster.local/ns/shop/sa/cart";

fn judge(peer: Option<&str>, headers: &[&str]) -> Result<Vec<String>, AuthnError> {
    let ranges = ["10.0.0.0/8", "2001:db8::/32"].map(|range| range.parse().unwrap());
    let authenticator = ForwardedCertificateAuthenticator::new(
        "cluster.local".parse().unwrap(),
        TrustedProxies::new(ranges.into()),
    );
    let mut evidence = Evidence::new(Transport::Tls { client_chain: None });
    if let Some(peer) = peer {
        evidence = evidence.with_peer_address(peer.parse().unwrap());
    }
    for header in headers {
        evidence = evidence.with_forwarded_certificate(*header);
    }
    let caller = authenticator.judge(&evidence, now())?;
    assert!(matches!(
        caller.source,
        Source::ForwardedCertificate { proxy: Some(_) }
    ));
    assert_eq!((caller.pod, caller.service_account), (None, None));
    let names = caller.identities.as_slice().iter();
    Ok(names.map(ToString::to_string).collect())
}

#[test]
fn only_a_trusted_proxy_is_believed() {
    for (peer, trusted) in [
        (Some("10.1.2.3:4000"), true),
        (Some("[2001:db8::7]:4000"), true),
        (Some("[::ffff:10.1.2.3]:4000"), true),
        (Some("11.0.0.1:4000"), false),
        (Some("[2001:db9::7]:4000"), false),
        (Some("127.0.0.1:4000"), false),
        (Some("[::1]:4000"), false),
        (None, false),
    ] {
        match judge(peer, &[CART]) {
            Ok(names) => {
                assert!(trusted, "{peer:?}");
                assert_eq!(names, ["spiffe://cluster.local/ns/shop/sa/cart"]);
            }
            Err(AuthnError::Rejected(reason)) => {
                assert!(
                    !trusted && reason.to_string().contains("trusted proxy"),
                    "{peer:?}"
                );
            }
            Err(other) => panic!("{peer:?}: {other}"),
        }
    }
    assert!(matches!(
        judge(Some("10.1.2.3:4000"), &[]),
        Err(AuthnError::NotPresented)
    ));
}

#[test]
fn one_element_with_ids_of_our_workloads_counts_and_nothing_else() {
    let two = format!("{CART};URI=spiffe://cluster.local/x/y");
    let cases: &[(&[&str], usize)] = &[
        (&[CART], 1),
        (&[&two], 2),
        (
            &["URI=spiffe://other/ns/a/sa/b;URI=spiffe://cluster.local/ns/shop/sa/cart"],
            1,
        ),
        (&["URI=spiffe://other/ns/shop/sa/cart"], 0),
        (&["URI=spiffe://cluster.local"], 0),
        (&["URI=spiffe://cluster.local/ns/shop/sa/cart%00"], 0),
        (&["DNS=spiffe://cluster.local/ns/shop/sa/cart"], 0),
        (&["By=spiffe://cluster.local/ns/shop/sa/cart"], 0),
        (
            &[r#"Subject="CN=spiffe://cluster.local/ns/shop/sa/cart""#],
            0,
        ),
        (&["junk"], 0),
        (&[""], 0),
        // Somebody in front of the proxy may have made up all but one of these.
        (&[CART, CART], 0),
        (
            &["URI=spiffe://cluster.local/a/b,URI=spiffe://cluster.local/c/d"],
            0,
        ),
    ];
    for (headers, expected) in cases {
        match judge(Some("10.1.2.3:4000"), headers) {
            Ok(names) => assert_eq!(names.len(), *expected, "{headers:?}"),
            Err(AuthnError::Rejected(_)) => assert_eq!(*expected, 0, "{headers:?}"),
            Err(other) => panic!("{headers:?}: {other}"),
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>(), near in r#"[A-Ua-i="\\;, ]{0,60}"#) {
        let _ = ForwardedCertificate::parse_list(&text);
        let _ = ForwardedCertificate::parse_list(&near);
    }

    #[test]
    fn what_is_quoted_stays_inside_its_value(text in r#"[a-z=,;"]{0,20}"#) {
        let quoted = text.replace('"', r#"\""#);
        let list = list(&format!(r#"URI="{quoted}";DNS=x"#));
        prop_assert_eq!(list.len(), 1);
        prop_assert_eq!(&list[0].uris, &[text]);
        prop_assert_eq!(&list[0].dns_names, &["x"]);
    }
}
