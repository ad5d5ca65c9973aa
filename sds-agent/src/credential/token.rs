//! What a token says about itself.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// When a JWT expires, if it is one and says so. **Nothing is verified**: this is for the holder, who
/// would rather not show what must be refused.
pub(super) fn expiry(token: &str) -> Option<OffsetDateTime> {
    let claims = token.split('.').nth(1)?;
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
    let seconds = number_field(std::str::from_utf8(&claims).ok()?, "exp")?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

/// A whole number that stands under `name` in the outermost object. A JSON library for one number
/// would be a tenth of the agent.
fn number_field(json: &str, name: &str) -> Option<i64> {
    let bytes = json.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let (text, after) = string(json, at)?;
                at = after;
                let rest = json[at..].trim_start();
                if depth == 1
                    && text == name
                    && let Some(value) = rest.strip_prefix(':')
                {
                    return leading_number(value.trim_start());
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The string that starts with the quote at `start`, as it is written, and where it is over.
fn string(json: &str, start: usize) -> Option<(&str, usize)> {
    let mut escaped = false;
    for (offset, byte) in json.bytes().enumerate().skip(start + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&json[start + 1..offset], offset + 1)),
            _ => {}
        }
    }
    None
}

/// `1700000000` of `1700000000.5}`.
fn leading_number(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-');
    text[..end.unwrap_or(text.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_expiry_is_found_wherever_it_stands() {
        let at = OffsetDateTime::from_unix_timestamp(1_795_262_400).ok();
        for claims in [
            r#"{"exp":1795262400}"#,
            r#"{ "aud" : ["istio-ca"], "exp" : 1795262400.75, "iat": 1 }"#,
            r#"{"kubernetes.io":{"exp":1,"pod":{"name":"a"}},"exp":1795262400}"#,
            r#"{"sub":"a\\\"exp\":5","exp":1795262400}"#,
            r#"{"list":["exp",{"exp":3}],"exp":1795262400}"#,
            r#"{"is":"exp","exp":1795262400}"#,
        ] {
            assert_eq!(expiry(&jwt(claims)), at, "{claims}");
        }
    }

    #[test]
    fn what_has_no_expiry_never_expires() {
        for claims in [
            "",
            "{}",
            r#"{"exp":"soon"}"#,
            r#"{"a":{"exp":1}}"#,
            r#"{"exp"#,
            "]",
        ] {
            assert_eq!(expiry(&jwt(claims)), None, "{claims}");
        }
        for token in ["", "opaque", "a.b", "a.!.c", "..", "a.\u{f6}.c"] {
            assert_eq!(expiry(token), None, "{token}");
        }
    }
}
