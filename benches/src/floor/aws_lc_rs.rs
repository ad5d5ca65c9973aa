//! aws-lc, bare.

use anyhow::{Error, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use ca_core::KeyKind;

use super::{Sign, Verify, is_read};

pub(super) fn verifier(kind: KeyKind, public_key: Vec<u8>) -> Option<Box<Verify>> {
    let algorithm: &'static dyn VerificationAlgorithm = match kind {
        KeyKind::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
        KeyKind::EcdsaP384 => &signature::ECDSA_P384_SHA384_ASN1,
        KeyKind::Rsa2048 => &signature::RSA_PKCS1_2048_8192_SHA256,
        KeyKind::Ed25519 => &signature::ED25519,
        _ => return None,
    };
    let key = UnparsedPublicKey::new(algorithm, public_key);
    Some(Box::new(move |signed, signature| {
        key.verify(signed, signature).is_ok()
    }))
}

pub(super) fn signer(kind: KeyKind, pkcs8: &[u8]) -> Result<Option<Box<Sign>>> {
    Ok(Some(match kind {
        KeyKind::EcdsaP256 => ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)?,
        KeyKind::EcdsaP384 => ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8)?,
        KeyKind::Rsa2048 => {
            let key = RsaKeyPair::from_pkcs8(pkcs8).map_err(Error::msg)?;
            let random = SystemRandom::new();
            Box::new(move |message| {
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut out)
                    .is_ok_and(|()| is_read(&out))
            })
        }
        KeyKind::Ed25519 => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(Error::msg)?;
            Box::new(move |message| is_read(key.sign(message).as_ref()))
        }
        _ => return Ok(None),
    }))
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, pkcs8: &[u8]) -> Result<Box<Sign>> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).map_err(Error::msg)?;
    Ok(Box::new(move |message| {
        key.sign(&random, message)
            .is_ok_and(|signature| is_read(signature.as_ref()))
    }))
}
