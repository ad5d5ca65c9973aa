//! The page at `/`: `/debug` for a person.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

pub(super) async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(PAGE))
}

/// One file, which needs nothing from elsewhere.
const PAGE: &str = include_str!("page.html");

/// The page may do what its own script and style do, and ask this server. A script that came in with what it shows would
/// not run: it has another hash.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = hash(between(PAGE, "<script>", "</script>"));
    let style = hash(between(PAGE, "<style>", "</style>"));
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_default();
    rest.split_once(end).unwrap_or_default().0
}

fn hash(text: &str) -> String {
    // The hash of a suite that is linked anyway.
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.map(|suite| suite.common.hash_provider.hash(text.as_bytes()));
    let hash = hash.map(|hash| STANDARD.encode(hash.as_ref()));
    format!("sha256-{}", hash.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_run_its_own_script_and_nothing_else() {
        // The example of the CSP specification.
        assert_eq!(
            hash("alert('Hello, world.');"),
            "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="
        );
        for (start, end) in [("<script>", "</script>"), ("<style>", "</style>")] {
            assert_eq!(PAGE.matches(start).count(), 1);
            assert!(between(PAGE, start, end).len() > 100);
        }
        assert!(!POLICY.contains("unsafe") && !POLICY.contains("sha256-'"));
        // What a policy by hashes does not let run, and what would need the network.
        for word in [
            " style=",
            "onclick",
            "innerHTML",
            "src=",
            "http://",
            "https://",
            "@import",
            "url(",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
