//! Writing DER that no proper writer would write.

use ca_core::SigningKey as _;

use crate::fixed::WORKLOAD_KEY;

pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;

/// A value whose content is `parts`, one after the other.
pub fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(u8::try_from(short).expect("below 128")),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).expect("at most 8"));
            out.extend_from_slice(significant);
        }
    }
    out.extend(content);
    out
}

/// A certificate signing request whose signature holds, with any bytes inside its subject and its attributes. This
/// is how a fuzzer gets behind the signature.
pub fn request(subject: &[u8], attributes: &[u8]) -> Vec<u8> {
    let info = wrap(
        SEQUENCE,
        &[
            &[0x02, 1, 0],
            &wrap(SEQUENCE, &[subject]),
            WORKLOAD_KEY.public_key().spki_der(),
            &wrap(CONTEXT_0, &[attributes]),
        ],
    );
    let signature = WORKLOAD_KEY.sign(&info).expect("a signature");
    let algorithm = wrap(SEQUENCE, &[&[0x06, 3, 0x2b, 0x65, 0x70]]);
    wrap(
        SEQUENCE,
        &[&info, &algorithm, &wrap(BIT_STRING, &[&[0], &signature])],
    )
}

/// Cuts an input in two: its first byte tells how long the first part is.
pub fn two_parts(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = input.split_first() else {
        return (input, input);
    };
    rest.split_at(rest.len().min(usize::from(*length)))
}
