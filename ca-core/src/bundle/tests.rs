use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::key::{KeyKind, PrivateKey};
use crate::self_signed::RootParams;
use crate::testing::{TestCa, now};

fn key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::generate(KeyKind::EcdsaP256).unwrap())
}

fn root(key: &PrivateKey, lifetime: u64) -> Certificate {
    RootParams::new("td", Duration::from_secs(lifetime))
        .self_sign(key, now())
        .unwrap()
}

fn bundle_of(key: Arc<PrivateKey>, root: Certificate) -> Result<KeyCertBundle, BundleError> {
    let roots = TrustBundle::new([root.clone()]).unwrap();
    KeyCertBundle::new(key, CertificateChain::new(root, []), roots, now())
}

#[test]
fn what_fits_together_is_a_bundle_and_a_root_is_not_sent_along() {
    let key = key();
    let root = root(&key, 3600);
    let bundle = bundle_of(key, root.clone()).unwrap();
    assert_eq!(bundle.signing_certificate(), &root);
    assert_eq!(bundle.not_after(), root.not_after());
    assert!(bundle.chain_for(root).intermediates().is_empty());
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let signer = key();
    let error = bundle_of(key(), root(&signer, 3600)).unwrap_err();
    assert_eq!(error, BundleError::KeyMismatch);
}

#[test]
fn a_leaf_cannot_sign() {
    let ca = TestCa::new("td");
    let (leaf_key, chain) = ca.workload("a", "b");
    let serial = chain.leaf().serial();
    let error = KeyCertBundle::new(Arc::new(leaf_key), chain, ca.roots(), now()).unwrap_err();
    assert_eq!(error, BundleError::NotCa { serial });
}

#[test]
fn a_root_that_is_not_trusted_or_not_valid_is_refused() {
    let key = key();
    let root = root(&key, 3600);
    let chain = CertificateChain::new(root.clone(), []);
    let strangers = TestCa::new("td").roots();
    let shared: Arc<dyn SigningKey> = key;
    let error =
        KeyCertBundle::new(Arc::clone(&shared), chain.clone(), strangers, now()).unwrap_err();
    assert!(
        matches!(error, BundleError::Chain(ChainError::Path(_))),
        "{error:?}"
    );
    let roots = TrustBundle::new([root]).unwrap();
    for at in [
        now() - Duration::from_secs(600),
        now() + Duration::from_secs(3601),
    ] {
        let error =
            KeyCertBundle::new(Arc::clone(&shared), chain.clone(), roots.clone(), at).unwrap_err();
        assert_eq!(error, BundleError::Chain(ChainError::RootsExpired));
    }
}

/// A key that claims to be another: its signatures do not verify.
#[derive(Debug)]
struct Impostor {
    claimed: PrivateKey,
    real: PrivateKey,
}

impl SigningKey for Impostor {
    fn public_key(&self) -> &crate::PublicKey {
        self.claimed.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.real.sign(message)
    }
}

#[test]
fn a_device_that_signs_with_the_wrong_key_is_found_out_before_it_is_used() {
    let claimed = key();
    let root = root(&claimed, 3600);
    let roots = TrustBundle::new([root.clone()]).unwrap();
    let impostor = Impostor {
        claimed: (*claimed).clone(),
        real: (*key()).clone(),
    };
    let error = KeyCertBundle::new(
        Arc::new(impostor),
        CertificateChain::new(root, []),
        roots,
        now(),
    );
    assert!(matches!(
        error,
        Err(BundleError::Chain(ChainError::Path(_)))
    ));
}

#[test]
fn subscribers_see_the_newest_bundle_once_and_never_miss_one() {
    let fresh = || {
        let key = key();
        let root = root(&key, 3600);
        bundle_of(key, root).unwrap()
    };
    let store = BundleStore::new(fresh());
    let mut subscription = store.subscribe();
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(subscription.changed()).poll(&mut context).is_pending());

    store.replace(fresh());
    store.replace(fresh());
    assert_eq!(store.generation(), 3);
    match pin!(subscription.changed()).poll(&mut context) {
        Poll::Ready(seen) => assert!(Arc::ptr_eq(&seen, &store.current())),
        Poll::Pending => panic!("a replacement was missed"),
    }
    assert!(pin!(subscription.changed()).poll(&mut context).is_pending());

    // Replaced while it waits.
    let mut waiting = pin!(subscription.changed());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    store.replace(fresh());
    assert!(waiting.poll(&mut context).is_ready());
}

#[test]
fn a_successor_must_keep_the_trust_of_what_is_in_use() {
    let (old_key, new_key) = (key(), key());
    let (old, new) = (root(&old_key, 3600), root(&new_key, 3600));
    let bundle = |key: &Arc<PrivateKey>, signing: &Certificate, roots: &[&Certificate]| {
        let roots = TrustBundle::new(roots.iter().map(|root| (*root).clone())).unwrap();
        let key: Arc<dyn SigningKey> = Arc::clone(key) as Arc<dyn SigningKey>;
        KeyCertBundle::new(
            key,
            CertificateChain::new(signing.clone(), []),
            roots,
            now(),
        )
        .unwrap()
    };
    let store = BundleStore::new(bundle(&old_key, &old, &[&old]));
    // In one step: refused, and nothing has changed.
    assert_eq!(
        store.succeed(bundle(&new_key, &new, &[&new])),
        Err(TrustBroken)
    );
    assert_eq!(store.generation(), 1);
    // In three: both trusted, the new one signs, the old one leaves.
    store
        .succeed(bundle(&old_key, &old, &[&old, &new]))
        .unwrap();
    store
        .succeed(bundle(&new_key, &new, &[&new, &old]))
        .unwrap();
    store.succeed(bundle(&new_key, &new, &[&new])).unwrap();
    assert_eq!(store.generation(), 4);
    // Partly the same is not enough: who trusts only what is gone would be cut off.
    let third_key = key();
    let third = root(&third_key, 3600);
    store
        .succeed(bundle(&new_key, &new, &[&new, &old]))
        .unwrap();
    assert_eq!(
        store.succeed(bundle(&new_key, &new, &[&new, &third])),
        Err(TrustBroken)
    );
}

#[test]
fn a_signing_certificate_that_is_over_is_refused_although_a_renewed_root_vouches_for_its_key() {
    let key = key();
    let old = root(&key, 60);
    let later = now() + Duration::from_secs(120);
    let renewed = RootParams::new("td", Duration::from_secs(3600))
        .renew(&*key, &old, later)
        .unwrap();
    let roots = TrustBundle::new([renewed]).unwrap();
    let error = KeyCertBundle::new(key, CertificateChain::new(old, []), roots, later).unwrap_err();
    assert!(matches!(error, BundleError::OutOfTime { .. }), "{error:?}");
}
