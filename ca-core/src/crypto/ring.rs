//! ring: small, and quick to start. It cannot make RSA keys, and cannot load an EC key without its public half.

use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use webpki::ring as verify;
use zeroize::Zeroizing;

use super::{Backend, LoadedKey};
use crate::key::{Curve, KeyError, KeyKind, KeyParts};

/// The `ring` library.
pub static RING: Backend = Backend {
    name: "ring",
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
    let rejected = |e: ring::error::KeyRejected| KeyError::Rejected(e.to_string());
    let random = SystemRandom::new();
    match parts {
        KeyParts::Ec {
            curve,
            scalar,
            public,
        } => {
            let public = public.ok_or_else(|| {
                KeyError::Rejected(
                    "the key file lacks the public key, which ring cannot compute".into(),
                )
            })?;
            let key = EcdsaKeyPair::from_private_key_and_public_key(
                algorithm(*curve),
                scalar,
                public,
                &random,
            )
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
                public: key.public().as_ref().into(),
                sign: Box::new(move |message| {
                    let mut out = vec![0; key.public().modulus_len()];
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
    let document = match kind {
        KeyKind::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(algorithm(Curve::P256), &random),
        KeyKind::EcdsaP384 => EcdsaKeyPair::generate_pkcs8(algorithm(Curve::P384), &random),
        KeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
            return Err(KeyError::CannotGenerate {
                kind,
                backend: "ring",
            });
        }
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
