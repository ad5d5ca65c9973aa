//! Exchanging one token for another, as RFC 8693 has it.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use zeroize::Zeroizing;

use super::{AccessToken, AccessTokenError};
use crate::transport::{self, Server};

/// Where Google has it.
const PATH: &str = "/v1/token";

/// All of Google's APIs; what the caller may do there is for roles to say.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// An access token for `token`, which the provider named by `audience` must know. **The caller bounds the time.**
pub(crate) async fn exchange(
    server: &Server,
    audience: &str,
    token: &str,
) -> Result<AccessToken, AccessTokenError> {
    let mut request = Request::new(Bytes::from_owner(form(audience, token)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let answer = transport::ask(server, request).await?;
    AccessToken::from_answer(&answer, &server.address.to_string())
}

fn form(audience: &str, token: &str) -> Zeroizing<Vec<u8>> {
    let fields = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", audience),
        ("scope", SCOPE),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", token),
    ];
    // Enough from the start: what is outgrown is not wiped.
    let longest = fields
        .iter()
        .map(|(name, value)| name.len() + 2 + value.len() * 3);
    let mut form = Zeroizing::new(Vec::with_capacity(longest.sum()));
    for (name, value) in fields {
        if !form.is_empty() {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                form.push(byte);
            } else {
                form.push(b'%');
                for digit in [byte >> 4, byte & 15] {
                    form.push(b"0123456789ABCDEF"[usize::from(digit)]);
                }
            }
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_encoded() {
        let form = form("//iam/a b", "e30.x+/=&\u{f6}");
        let text = std::str::from_utf8(&form).unwrap();
        assert!(
            text.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3A"),
            "{text}"
        );
        assert!(text.contains("&audience=%2F%2Fiam%2Fa%20b&"), "{text}");
        assert!(
            text.ends_with("&subject_token=e30.x%2B%2F%3D%26%C3%B6"),
            "{text}"
        );
    }
}
