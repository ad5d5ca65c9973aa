//! The kinds of key that are measured.

use ca_core::KeyKind;

/// In the order of the tables.
pub const ALL_KINDS: [KeyKind; 4] = [
    KeyKind::EcdsaP256,
    KeyKind::EcdsaP384,
    KeyKind::Rsa2048,
    KeyKind::Ed25519,
];

/// As tables and file names have it.
pub fn label(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::EcdsaP256 => "P-256",
        KeyKind::EcdsaP384 => "P-384",
        KeyKind::Rsa2048 => "RSA-2048",
        KeyKind::Ed25519 => "Ed25519",
        _ => "not measured",
    }
}
