use ca_core::{Csr, SigningRequest};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::*;
use crate::odd_certificates::{CART, ForeignCa, csr, leaf_of_cart, new_key, now, of_cart, uri};

/// A request for one hour, and a signer with two intermediates.
struct Lab {
    key: KeyPair,
    asked: ScreenedRequest,
    root: ForeignCa,
    upper: ForeignCa,
    lower: ForeignCa,
}

impl Lab {
    fn new() -> Self {
        let key = new_key();
        let root = ForeignCa::root("root");
        let upper = root.intermediate("upper");
        let lower = upper.intermediate("lower");
        Self {
            asked: screened(csr(&key, &of_cart(), Vec::new())),
            key,
            root,
            upper,
            lower,
        }
    }

    fn roots(&self) -> TrustBundle {
        TrustBundle::new([self.root.certificate.clone()]).unwrap()
    }

    fn leaf(&self) -> Certificate {
        self.lower.sign(&leaf_of_cart(), &self.key)
    }

    fn accept(&self, chain: &[&Certificate]) -> Result<IssuedChain, ReturnedError> {
        self.accept_with(chain, &self.roots())
    }

    fn accept_with(
        &self,
        chain: &[&Certificate],
        roots: &TrustBundle,
    ) -> Result<IssuedChain, ReturnedError> {
        let mut all = chain.iter().copied().cloned();
        let leaf = all.next().unwrap();
        let chain = CertificateChain::new(leaf, all.collect::<Vec<_>>());
        self.asked.accept(&chain, roots, now())
    }

    /// The verdict on a leaf that differs from a good one.
    fn changed(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<(), ReturnedError> {
        let mut params = leaf_of_cart();
        change(&mut params);
        let leaf = self.lower.sign(&params, &self.key);
        let chain = [&leaf, &self.lower.certificate, &self.upper.certificate];
        self.accept(&chain).map(drop)
    }
}

fn screened(csr: Csr) -> ScreenedRequest {
    let hour = std::time::Duration::from_secs(3600);
    let request = SigningRequest::new(csr, vec![CART.parse().unwrap()], hour);
    ScreenedRequest::screen(request).unwrap()
}

#[test]
fn a_good_answer_is_accepted_in_any_order_and_comes_out_in_order() {
    let lab = Lab::new();
    let (leaf, root) = (&lab.leaf(), &lab.root.certificate);
    let (lower, upper) = (&lab.lower.certificate, &lab.upper.certificate);
    for chain in [
        &[leaf, lower, upper][..],
        &[leaf, upper, lower],
        &[leaf, lower, upper, root],
        &[leaf, root, upper, lower],
        &[leaf, lower, lower, upper, upper],
        &[leaf, leaf, lower, upper],
    ] {
        let issued = lab.accept(chain).unwrap();
        assert_eq!(issued.chain().leaf(), leaf);
        assert_eq!(
            issued.chain().intermediates(),
            [lower.clone(), upper.clone()]
        );
        assert_eq!(issued.roots(), &lab.roots());
    }
}

#[test]
fn the_roots_may_hold_what_the_chain_leaves_out() {
    let lab = Lab::new();
    let leaf = &lab.leaf();
    let (lower, upper) = (&lab.lower.certificate, &lab.upper.certificate);
    // Intermediates beside the root, as mesh configurations list them.
    let all = [lower, upper, &lab.root.certificate];
    let all = TrustBundle::new(all.into_iter().cloned()).unwrap();
    assert!(lab.accept_with(&[leaf], &all).is_ok());
    assert!(lab.accept_with(&[leaf, lower], &all).is_ok());
    // The root alone, and an intermediate is missing.
    for chain in [&[leaf][..], &[leaf, lower]] {
        let verdict = lab.accept(chain);
        assert!(
            matches!(verdict, Err(ReturnedError::Chain(_))),
            "{verdict:?}"
        );
    }
    // A root that is another's, though it has the same name.
    let other = TrustBundle::new([ForeignCa::root("root").certificate]).unwrap();
    let verdict = lab.accept_with(&[leaf, lower, upper], &other);
    assert!(
        matches!(verdict, Err(ReturnedError::Chain(_))),
        "{verdict:?}"
    );
}

#[test]
fn certificates_without_a_place_in_the_chain_are_refused() {
    let lab = Lab::new();
    let leaf = &lab.leaf();
    let (lower, upper) = (&lab.lower.certificate, &lab.upper.certificate);
    let elsewhere = ForeignCa::root("elsewhere").intermediate("stranger");
    // Another certificate for the place of the lower one.
    let twin = lab.upper.intermediate("lower");
    for chain in [
        &[leaf, upper][..],
        &[leaf, lower, upper, &elsewhere.certificate],
        &[leaf, &elsewhere.certificate, lower, upper],
        &[leaf, lower, &twin.certificate, upper],
        &[leaf, &lab.leaf(), lower, upper],
    ] {
        let verdict = lab.accept(chain);
        assert!(
            matches!(verdict, Err(ReturnedError::Stranger { .. })),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_signature_that_only_the_names_promise_is_refused() {
    let lab = Lab::new();
    let forged = lab
        .upper
        .intermediate("lower")
        .sign(&leaf_of_cart(), &lab.key);
    let chain = [&forged, &lab.lower.certificate, &lab.upper.certificate];
    let verdict = lab.accept(&chain);
    assert!(
        matches!(verdict, Err(ReturnedError::Chain(_))),
        "{verdict:?}"
    );
}

#[test]
fn another_key_is_refused() {
    let lab = Lab::new();
    let leaf = lab.lower.sign(&leaf_of_cart(), &new_key());
    let chain = [&leaf, &lab.lower.certificate, &lab.upper.certificate];
    assert_eq!(lab.accept(&chain), Err(ReturnedError::OtherKey));
}

#[test]
fn other_names_are_refused() {
    let lab = Lab::new();
    let dns = SanType::DnsName("cart.shop.svc".try_into().unwrap());
    let mail = SanType::Rfc822Name("cart@example.com".try_into().unwrap());
    let other = uri("spiffe://cluster.local/ns/shop/sa/gate");
    for names in [
        vec![],
        vec![other.clone()],
        vec![uri(CART), other],
        vec![uri(CART), uri(CART)],
        vec![uri(CART), dns.clone()],
        vec![dns],
        vec![uri(CART), mail],
        vec![uri(CART), uri("https://example.com")],
    ] {
        let verdict = lab.changed(|params| params.subject_alt_names.clone_from(&names));
        assert!(
            matches!(verdict, Err(ReturnedError::OtherNames { .. })),
            "{names:?}: {verdict:?}"
        );
    }
}

#[test]
fn a_ca_is_refused() {
    let verdict = Lab::new().changed(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    });
    assert_eq!(verdict, Err(ReturnedError::IsCa));
}

#[test]
fn a_certificate_that_cannot_serve_both_ends_is_refused() {
    let lab = Lab::new();
    for usage in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        let verdict = lab.changed(|params| params.extended_key_usages = vec![usage]);
        assert!(
            matches!(verdict, Err(ReturnedError::Chain(_))),
            "{verdict:?}"
        );
    }
}

#[test]
fn the_dates_must_hold_now_and_no_longer_than_asked() {
    let lab = Lab::new();
    let verdict = |from: Duration, until: Duration| {
        lab.changed(|params| {
            params.not_before = now() + from;
            params.not_after = now() + until;
        })
    };
    let (minute, hour) = (Duration::minutes(1), Duration::hours(1));
    for (from, until) in [
        (-minute, hour),
        (Duration::ZERO, hour),
        (-minute, 10 * minute),
        (-minute, Duration::seconds(1)),
        (-24 * hour, hour),
        (-minute, hour + 5 * minute),
    ] {
        assert_eq!(verdict(from, until), Ok(()), "{from} to {until}");
    }
    for (from, until) in [
        (minute, hour),
        (-hour, -minute),
        (-hour, Duration::seconds(-1)),
    ] {
        assert_eq!(
            verdict(from, until),
            Err(ReturnedError::NotValidNow {
                from: now() + from,
                until: now() + until
            })
        );
    }
    for until in [
        hour + 5 * minute + Duration::seconds(1),
        24 * hour,
        365 * 24 * hour,
    ] {
        assert_eq!(
            verdict(-minute, until),
            Err(ReturnedError::TooLong {
                until: now() + until,
                latest: now() + hour + 5 * minute
            })
        );
    }
}

#[test]
fn an_answer_that_is_not_released_is_a_bad_answer() {
    let error = SignError::from(ReturnedError::OtherKey);
    assert!(!error.is_retryable());
    assert!(matches!(error, SignError::BadAnswer(_)));
}

#[test]
fn a_certificate_of_our_server_has_our_names_and_serves() {
    let lab = Lab::new();
    let host = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let names: [SubjectName; 2] = ["b.example", "a.example"].map(|name| name.parse().unwrap());
    let good = || {
        let mut params = leaf_of_cart();
        params.subject_alt_names = vec![host("a.example"), host("b.example")];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    };
    let hour = std::time::Duration::from_secs(3600);
    let verdict = |params: &CertificateParams| {
        let leaf = lab.root.sign(params, &lab.key);
        let key = leaf.public_key().clone();
        let chain = CertificateChain::new(leaf, []);
        accept_server(&key, &names, hour, &chain, &lab.roots(), now()).map(drop)
    };
    assert_eq!(verdict(&good()), Ok(()));

    let mut more = good();
    more.subject_alt_names.push(uri(CART));
    let mut fewer = good();
    fewer.subject_alt_names.pop();
    for other in [more, fewer] {
        let error = verdict(&other).unwrap_err();
        assert!(
            matches!(error, ReturnedError::NotOurNames { .. }),
            "{error}"
        );
    }
    let mut client = good();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert!(matches!(verdict(&client), Err(ReturnedError::Chain(_))));
    let mut ca = good();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages.clear();
    assert_eq!(verdict(&ca), Err(ReturnedError::IsCa));
    let mut long = good();
    long.not_after = now() + Duration::hours(2);
    assert!(matches!(verdict(&long), Err(ReturnedError::TooLong { .. })));
}
