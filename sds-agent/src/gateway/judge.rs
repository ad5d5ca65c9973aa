//! Whether what a Secret holds can be served now. Envoy would take nearly anything, and then fail connections.

use ca_core::Certificate;
use time::OffsetDateTime;

use super::contents::{CaParts, Contents, Missing, PairParts};
use crate::{
    clock, roots_file,
    secrets::{self, Secret, SecretName, Unusable},
};

/// What is served as `name` of a Secret with these contents.
///
/// # Errors
///
/// When it is not there, does not read, does not fit together, or its time is not now.
pub(super) fn secret(
    name: &SecretName,
    contents: &Contents,
    now: OffsetDateTime,
) -> Result<Secret, Unfit> {
    match name {
        SecretName::CredentialRoots(_) => ca(&contents.ca()?, now),
        _ => pair(&contents.pair()?, now),
    }
}

fn pair(parts: &PairParts<'_>, now: OffsetDateTime) -> Result<Secret, Unfit> {
    let pair = secrets::key_pair(parts.chain, parts.key, now)?;
    Ok(pair.with_staple(parts.staple))
}

fn ca(parts: &CaParts<'_>, now: OffsetDateTime) -> Result<Secret, Unfit> {
    let (roots, left_out) = roots_file::readable(parts.roots);
    let Some(last) = roots.iter().map(Certificate::not_after).max() else {
        return Err(Unusable::NoRoots.into());
    };
    if last <= now {
        return Err(Unfit::RootsExpired(last));
    }
    if left_out > 0 {
        tracing::warn!(
            left_out,
            "some certificates of a CA do not read and are left out"
        );
    }
    let lists = secrets::read_revocation_lists(parts.revocation, now);
    let revocation = lists.map_err(|error| Unfit::Revocation(error.to_string()))?;
    let roots = roots.iter().map(Certificate::to_pem).collect();
    Ok(Secret::new(secrets::Contents::Roots { roots, revocation }))
}

/// Why what a Secret holds is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("the last of the CA's certificates expired at {}", clock::show(*.0))]
    RootsExpired(OffsetDateTime),
    #[error("the revocation lists are not fit: {0}")]
    Revocation(String),
}

impl Unfit {
    /// When it may be fit without a change.
    pub(super) fn fit_from(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Unusable(Unusable::NotYetValid(at)) => Some(*at),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ca_core::testing::{TestCa, now};
    use k8s_openapi::{ByteString, api::core::v1};

    use super::*;
    use crate::secrets::{Catalogue, Contents as Served};

    fn judge(name: &str, data: &[(&str, &str)], now: OffsetDateTime) -> Result<Secret, String> {
        let name = Catalogue { credentials: true }.read(name).unwrap();
        let part = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), part(text)));
        let contents = Contents::of(v1::Secret {
            data: Some(data.collect()),
            ..v1::Secret::default()
        });
        secret(&name, &contents, now).map_err(|unfit| unfit.to_string())
    }

    #[test]
    fn a_pair_must_fit_together_and_now() {
        let ca = TestCa::new("cluster.local");
        let (key, chain) = ca.workload("edge", "gateway");
        let (other, _) = ca.workload("edge", "gateway");
        let (key, other, pem) = (key.to_pkcs8_pem(), other.to_pkcs8_pem(), chain.to_pem());
        let good = [
            ("tls.crt", &*pem),
            ("tls.key", &key),
            ("tls.ocsp-staple", "S"),
        ];
        let served = judge("shop", &good, now()).unwrap();
        let Served::KeyPair {
            chain: sent,
            staple,
            ..
        } = served.contents()
        else {
            panic!("no pair");
        };
        assert_eq!((&**sent, staple.as_deref()), (&*pem, Some(&b"S"[..])));
        let leaf = chain.leaf();
        let second = Duration::from_secs(1);
        for (data, at, reason) in [
            (
                [("cert", &*pem), ("key", &other)],
                now(),
                "does not belong to",
            ),
            (
                [("cert", "junk"), ("key", &key)],
                now(),
                "certificate does not read",
            ),
            (
                [("cert", &pem), ("key", "junk")],
                now(),
                "key does not read",
            ),
            (
                [("cert", &pem), ("key", &key)],
                leaf.not_after(),
                "expired at",
            ),
            (
                [("cert", &pem), ("key", &key)],
                leaf.not_before() - second,
                "not valid before",
            ),
        ] {
            let refused = judge("shop", &data, at).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_ca_is_served_without_the_pair_beside_it_and_with_its_own_lists() {
        let ca = TestCa::new("cluster.local");
        let (key, chain) = ca.workload("edge", "gateway");
        let (key, pem, root) = (key.to_pkcs8_pem(), chain.to_pem(), ca.root_pem());
        let all = [("tls.crt", &*pem), ("tls.key", &key), ("ca.crt", &root)];
        let served = judge("shop-cacert", &all, now()).unwrap();
        let Served::Roots {
            roots,
            revocation: None,
        } = served.contents()
        else {
            panic!("no roots");
        };
        assert_eq!(*roots, root);
        let no_ca = judge("shop-cacert", &all[..2], now()).unwrap_err();
        assert!(no_ca.contains("(cacert) or (ca.crt)"), "{no_ca}");
        let end = ca.roots().certificates()[0].not_after();
        for (data, at, reason) in [
            (
                &[("ca.crt", "junk"), ("ca.crl", "")],
                now(),
                "no root certificate",
            ),
            (
                &[("ca.crt", &root), ("ca.crl", "junk")],
                now(),
                "revocation lists",
            ),
            (&[("ca.crt", &root), ("ca.crl", "")], end, "expired at"),
        ] {
            let refused = judge("shop-cacert", data, at).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
