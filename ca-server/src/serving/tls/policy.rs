//! Which versions, cipher suites and key exchanges all listeners offer.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ProtocolVersion, SupportedProtocolVersion};

/// What is offered. One that exists can be spoken.
#[derive(Clone, Debug)]
pub(crate) struct TlsPolicy {
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

/// Istio's `COMPLIANCE_POLICY`: it narrows what is offered, and does not make the cryptography a validated module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compliance {
    /// TLS 1.2 alone, AES-GCM, P-256.
    Fips140_2,
    /// TLS 1.2 and 1.3, AES-GCM, P-256 and P-384.
    Fips140_3,
    /// TLS 1.3 alone, AES-GCM, X25519 with ML-KEM-768.
    PostQuantum,
}

/// The oldest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MinVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl TlsPolicy {
    /// What all three allow. `suites` are those of TLS 1.2, by the names of the standard: those of TLS 1.3 are not chosen, as in
    /// Istio; without any, all are allowed.
    pub(crate) fn new(
        compliance: Option<Compliance>,
        min_version: MinVersion,
        suites: &[String],
    ) -> Result<Self, TlsPolicyError> {
        let mut provider = aws_lc_rs::default_provider();
        let mut chosen = Vec::new();
        for name in suites {
            let mut known = provider.cipher_suites.iter();
            let suite = known.find(|suite| suite.suite().as_str() == Some(name.as_str()));
            let suite = suite.ok_or_else(|| TlsPolicyError::CipherSuite { name: name.clone() })?;
            chosen.push(suite.suite());
        }
        provider.cipher_suites.retain(|suite| {
            let is_chosen = chosen.is_empty() || chosen.contains(&suite.suite());
            let is_compliant = compliance.is_none() || is_aes_gcm(suite.suite());
            is_compliant && (is_chosen || suite.version() == &TLS13)
        });
        // AES-128 with SHA-256 first: the key schedule of the suite with SHA-384 runs without hardware support and costs
        // each new connection 5 % more.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let groups: Option<&[&'static dyn SupportedKxGroup]> = match compliance {
            None => None,
            Some(Compliance::Fips140_2) => Some(&[kx_group::SECP256R1]),
            Some(Compliance::Fips140_3) => Some(&[kx_group::SECP256R1, kx_group::SECP384R1]),
            Some(Compliance::PostQuantum) => Some(&[kx_group::X25519MLKEM768]),
        };
        if let Some(groups) = groups {
            provider.kx_groups = groups.to_vec();
        }
        let versions: Vec<_> = [&TLS13, &TLS12]
            .into_iter()
            .filter(|version| match version.version {
                ProtocolVersion::TLSv1_2 => {
                    min_version == MinVersion::Tls12 && compliance != Some(Compliance::PostQuantum)
                }
                _ => compliance != Some(Compliance::Fips140_2),
            })
            .filter(|version| {
                let mut suites = provider.cipher_suites.iter();
                suites.any(|suite| suite.version() == *version)
            })
            .collect();
        if versions.is_empty() {
            return Err(TlsPolicyError::Nothing);
        }
        Ok(Self {
            provider: Arc::new(provider),
            versions,
        })
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub(super) fn versions(&self) -> &[&'static SupportedProtocolVersion] {
        &self.versions
    }
}

fn is_aes_gcm(suite: CipherSuite) -> bool {
    suite
        .as_str()
        .is_some_and(|name| name.contains("_AES_") && name.contains("_GCM_"))
}

/// What no peer could speak.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsPolicyError {
    /// Unknown, or too weak to be here.
    #[error("not a cipher suite of this server: {name:?}")]
    CipherSuite {
        /// What was typed.
        name: String,
    },
    /// The wishes exclude each other.
    #[error("compliance policy, lowest TLS version and cipher suites leave nothing to offer")]
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(policy: &TlsPolicy) -> (Vec<ProtocolVersion>, Vec<&str>, Vec<&str>) {
        let provider = policy.provider();
        let suites = provider.cipher_suites.iter();
        let groups = provider.kx_groups.iter();
        (
            policy.versions().iter().map(|v| v.version).collect(),
            suites.filter_map(|s| s.suite().as_str()).collect(),
            groups.filter_map(|g| g.name().as_str()).collect(),
        )
    }

    /// Istio, `COMPLIANCE_POLICY`: row by row.
    #[test]
    fn each_compliance_policy_offers_what_istios_does() {
        use ProtocolVersion::{TLSv1_2, TLSv1_3};
        let ecdhe = [
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ];
        for (compliance, versions, groups) in [
            (Compliance::Fips140_2, vec![TLSv1_2], vec!["secp256r1"]),
            (
                Compliance::Fips140_3,
                vec![TLSv1_3, TLSv1_2],
                vec!["secp256r1", "secp384r1"],
            ),
            (
                Compliance::PostQuantum,
                vec![TLSv1_3],
                vec!["X25519MLKEM768"],
            ),
        ] {
            let policy = TlsPolicy::new(Some(compliance), MinVersion::Tls12, &[]).unwrap();
            let found = offered(&policy);
            assert_eq!((found.0, found.2), (versions, groups), "{compliance:?}");
            for suite in ecdhe {
                assert!(found.1.contains(&suite), "{compliance:?} lacks {suite}");
            }
            assert!(!found.1.iter().any(|suite| suite.contains("CHACHA20")));
        }
    }

    #[test]
    fn without_wishes_both_versions_and_the_hybrid_key_exchange_are_offered() {
        let policy = TlsPolicy::new(None, MinVersion::Tls12, &[]).unwrap();
        let (versions, suites, groups) = offered(&policy);
        assert_eq!(versions.len(), 2);
        assert_eq!(suites[0], "TLS13_AES_128_GCM_SHA256");
        assert_eq!(groups[0], "X25519MLKEM768");
    }

    #[test]
    fn suites_are_chosen_for_tls_1_2_alone_and_what_excludes_itself_is_refused() {
        let suite = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned();
        let policy = TlsPolicy::new(None, MinVersion::Tls12, std::slice::from_ref(&suite)).unwrap();
        let (versions, suites, _) = offered(&policy);
        assert_eq!(versions.len(), 2);
        assert_eq!(suites.len(), 4);
        assert!(suites.contains(&suite.as_str()));

        let unknown = TlsPolicy::new(None, MinVersion::Tls12, &["TLS_RSA_WITH_RC4".into()]);
        assert_eq!(
            unknown.unwrap_err().to_string(),
            "not a cipher suite of this server: \"TLS_RSA_WITH_RC4\""
        );
        let nothing = TlsPolicy::new(Some(Compliance::Fips140_2), MinVersion::Tls13, &[]);
        assert_eq!(nothing.unwrap_err(), TlsPolicyError::Nothing);
    }
}
