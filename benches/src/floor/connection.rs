//! The cryptography of one issuance on a new connection: that of a TLS handshake comes on top.

use anyhow::{Error, Result};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;

use super::Floor;

/// For the server of a handshake in which both sides show a certificate that a root has signed: what [`Floor`] does, two
/// more verifications (of the client's certificate, and of its proof to have the key), one more signature, and X25519 with
/// a new key. By aws-lc-rs; the symmetric part is not in it.
pub struct ConnectionFloor {
    issuance: Floor,
    random: SystemRandom,
    peer: Vec<u8>,
}

impl ConnectionFloor {
    /// Around `issuance`, whose keys are those of the handshake too.
    ///
    /// # Errors
    /// When the library makes no key.
    pub fn new(issuance: Floor) -> Result<Self> {
        let random = SystemRandom::new();
        let peer = EphemeralPrivateKey::generate(&X25519, &random).map_err(Error::msg)?;
        let peer = peer.compute_public_key().map_err(Error::msg)?;
        Ok(Self {
            issuance,
            random,
            peer: peer.as_ref().to_vec(),
        })
    }

    /// Does it once; `false` when the library refuses.
    #[must_use]
    pub fn shake_hands_and_issue(&self) -> bool {
        self.agree()
            && self.issuance.sign()
            && self.issuance.verify()
            && self.issuance.verify()
            && self.issuance.verify_and_sign()
    }

    fn agree(&self) -> bool {
        let Ok(own) = EphemeralPrivateKey::generate(&X25519, &self.random) else {
            return false;
        };
        // A share that nobody reads would not be computed.
        let is_sent = own
            .compute_public_key()
            .is_ok_and(|share| !std::hint::black_box(share.as_ref()).is_empty());
        let peer = UnparsedPublicKey::new(&X25519, &self.peer);
        let secret = agree_ephemeral(own, peer, (), |secret| {
            std::hint::black_box(secret);
            Ok(())
        });
        is_sent && secret.is_ok()
    }
}
