//! aws-lc: fast at P-384, makes RSA keys, loads EC keys without their public half.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use webpki::aws_lc_rs as verify;
use zeroize::Zeroizing;

use super::{Backend, LoadedKey};
use crate::key::{Curve, KeyError, KeyKind, KeyParts};

/// The `aws-lc-rs` library.
pub static AWS_LC_RS: Backend = Backend {
    name: "aws-lc-rs",
    // Those that ring has, so that which backend is used does not decide what is accepted.
    verifiers: &[
        verify::ECDSA_P256_SHA256,
        verify::ECDSA_P256_SHA384,
        verify::ECDSA_P384_SHA256,
        verify::ECDSA_P384_SHA384,
        verify::ED25519,
        verify::RSA_PKCS1_2048_8192_SHA256,
        verify::RSA_PKCS1_2048_8192_SHA384,
        verify::RSA_PKCS1_2048_8192_SHA512,
        verify::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        verify::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        verify::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    ],
    load,
    generate,
};

fn load(parts: &KeyParts<'_>) -> Result<LoadedKey, KeyError> {
    let rejected = |e: aws_lc_rs::error::KeyRejected| KeyError::Rejected(e.to_string());
    let random = SystemRandom::new();
    match parts {
        KeyParts::Ec {
            curve,
            scalar,
            public,
        } => {
            let key = match public {
                Some(public) => {
                    EcdsaKeyPair::from_private_key_and_public_key(algorithm(*curve), scalar, public)
                }
                None => EcdsaKeyPair::from_private_key_der(
                    algorithm(*curve),
                    &curve.sec1_der(scalar, None),
                ),
            }
            .map_err(rejected)?;
            Ok(LoadedKey {
                public: key.public_key().as_ref().into(),
                sign: Box::new(move |message| {
                    let signature = key.sign(&random, message).map_err(|_| KeyError::Sign)?;
                    Ok(signature.as_ref().into())
                }),
            })
        }
        KeyParts::Ed25519 { seed } => {
            let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(rejected)?;
            Ok(LoadedKey {
                public: key.public_key().as_ref().into(),
                sign: Box::new(move |message| Ok(key.sign(message).as_ref().into())),
            })
        }
        KeyParts::Rsa { pkcs1 } => {
            let key = RsaKeyPair::from_der(pkcs1).map_err(rejected)?;
            Ok(LoadedKey {
                public: key.public_key().as_ref().into(),
                sign: Box::new(move |message| {
                    let mut out = vec![0; key.public_modulus_len()];
                    key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut out)
                        .map_err(|_| KeyError::Sign)?;
                    Ok(out)
                }),
            })
        }
    }
}

fn generate(kind: KeyKind) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let random = SystemRandom::new();
    let rsa = |size: KeySize| {
        let key = RsaKeyPair::generate(size).map_err(|_| KeyError::Generate)?;
        let document: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
            key.as_der().map_err(|_| KeyError::Generate)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    };
    let document = match kind {
        KeyKind::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(algorithm(Curve::P256), &random),
        KeyKind::EcdsaP384 => EcdsaKeyPair::generate_pkcs8(algorithm(Curve::P384), &random),
        KeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
        KeyKind::Rsa2048 => return rsa(KeySize::Rsa2048),
        KeyKind::Rsa3072 => return rsa(KeySize::Rsa3072),
        KeyKind::Rsa4096 => return rsa(KeySize::Rsa4096),
    };
    let document = document.map_err(|_| KeyError::Generate)?;
    Ok(Zeroizing::new(document.as_ref().into()))
}

fn algorithm(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        Curve::P384 => &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
    }
}
