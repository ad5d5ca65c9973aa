//! What a token says about itself.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// When a JWT expires, if it is one and says so. **Nothing is verified**: this is for the holder, who
/// would rather not show what must be refused.
pub(super) fn expiry(token: &str) -> Option<OffsetDateTime> {
    let claims = token.split('.').nth(1)?;
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let exp = claims.get("exp")?;
    // A number, of which nobody says that it is whole.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "parts of a second do not count, and what no time is so far away is none"
    )]
    let seconds = exp.as_i64().or_else(|| Some(exp.as_f64()? as i64))?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
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
