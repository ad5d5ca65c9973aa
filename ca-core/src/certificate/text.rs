//! PEM as programs write it (RFC 7468, "strict"), at the speed of its base64. What else people make of it is for the
//! `pem` crate to read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BYTES_OF_A_LINE: usize = 48;
const LETTERS_OF_A_LINE: usize = 64;

/// One block, ending in a newline.
pub(crate) fn encode_pem(label: &str, der: &[u8]) -> String {
    let letters = der.len().div_ceil(3) * 4;
    let boundaries = "-----BEGIN -----\n-----END -----\n".len() + 2 * label.len();
    let length = boundaries + letters + der.len().div_ceil(BYTES_OF_A_LINE);
    let mut text = String::with_capacity(length);
    let mut line = [0; LETTERS_OF_A_LINE];
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(part);
    }
    for bytes in der.chunks(BYTES_OF_A_LINE) {
        // Neither can fail: a line has room for its bytes, and base64 is ASCII.
        let written = STANDARD.encode_slice(bytes, &mut line).unwrap_or_default();
        text.push_str(std::str::from_utf8(&line[..written]).unwrap_or_default());
        text.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    debug_assert_eq!(text.len(), length);
    text
}

/// The content of a text that is one block with this label, in lines of 64 letters that end in a bare newline, and
/// nothing else. `None` is no verdict: it may be PEM of another shape.
pub(crate) fn decode_strict_pem(label: &str, text: &[u8]) -> Option<Vec<u8>> {
    let label = label.as_bytes();
    let body = text
        .strip_prefix(b"-----BEGIN ")?
        .strip_prefix(label)?
        .strip_prefix(b"-----\n")?;
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let body = body
        .strip_suffix(b"-----")?
        .strip_suffix(label)?
        .strip_suffix(b"-----END ")?;
    let mut der = vec![0; body.len().div_ceil(LETTERS_OF_A_LINE + 1) * BYTES_OF_A_LINE];
    let mut length = 0;
    for line in body.chunks(LETTERS_OF_A_LINE + 1) {
        // A short line is the last one.
        if length % BYTES_OF_A_LINE != 0 {
            return None;
        }
        let letters = line.strip_suffix(b"\n")?;
        length += STANDARD.decode_slice(letters, &mut der[length..]).ok()?;
    }
    der.truncate(length);
    Some(der)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "CERTIFICATE REQUEST";

    fn theirs(der: &[u8]) -> String {
        der::pem::encode_string(LABEL, der::pem::LineEnding::LF, der).unwrap()
    }

    proptest! {
        #[test]
        fn it_is_what_others_write_and_read(der in prop::collection::vec(any::<u8>(), 1..300)) {
            let text = encode_pem(LABEL, &der);
            prop_assert_eq!(&text, &theirs(&der));
            prop_assert_eq!(decode_strict_pem(LABEL, text.as_bytes()), Some(der.clone()));
            prop_assert_eq!(decode_strict_pem(LABEL, text.trim_end().as_bytes()), Some(der));
        }

        #[test]
        fn what_it_reads_others_read_alike(
            der in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), new in any::<u8>(),
        ) {
            let mut text = encode_pem(LABEL, &der).into_bytes();
            let at = at.index(text.len());
            text[at] = new;
            if let Some(ours) = decode_strict_pem(LABEL, &text) {
                let (label, theirs) = der::pem::decode_vec(&text).unwrap();
                prop_assert_eq!((label, theirs), (LABEL, ours));
            }
        }
    }

    #[test]
    fn other_shapes_are_left_to_others() {
        let der = [7; 100];
        let good = encode_pem(LABEL, &der);
        assert!(decode_strict_pem(LABEL, good.as_bytes()).is_some());
        let padded_inside = good.replacen("BwcH\n", "Bw==\n", 1);
        assert_ne!(padded_inside, good);
        for other in [
            good.replace('\n', "\r\n"),
            format!("text in front\n{good}"),
            format!("{good}{good}"),
            format!("{good}\n"),
            good.replace("REQUEST", "RESPONSE"),
            good.replacen("BwcH", "BwcH\n", 1),
            padded_inside,
            good[..good.len() / 2].to_owned(),
            String::new(),
        ] {
            assert_eq!(decode_strict_pem(LABEL, other.as_bytes()), None, "{other}");
        }
    }
}
