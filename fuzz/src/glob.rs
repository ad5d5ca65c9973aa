//! Patterns for SPIFFE IDs, matched letter by letter.

/// Whether `text` is one of the IDs that the whole pattern (`spiffe://…`) means.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix("/**") {
        Some(above) => (0..text.len()).any(|at| {
            text.as_bytes()[at] == b'/' && at + 1 < text.len() && one(above, &text[..at])
        }),
        None => one(pattern, text),
    }
}

/// A pattern as a policy writes it, with the trust domain in front.
pub fn whole(pattern: &str, mesh: &str) -> String {
    match pattern {
        "**" => format!("spiffe://{mesh}/**"),
        path if path.starts_with('/') => format!("spiffe://{mesh}{path}"),
        whole => {
            // As Istio does, a trust domain may be written with an @.
            let rest = whole.strip_prefix("spiffe://").expect("a pattern");
            let (domain, path) = rest.split_once('/').expect("a pattern has a path");
            format!("spiffe://{}/{path}", domain.replace('@', "."))
        }
    }
}

/// A star is any letters but a slash.
fn one(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let segment = rest.find('/').unwrap_or(rest.len());
            (0..=segment).any(|taken| one(after, &rest[taken..]))
        }),
    }
}
