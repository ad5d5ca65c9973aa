//! Label selectors as text, as kubectl and Helm values have them.

use kube::core::{Expression, Selector};

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`. Nothing at all selects everything.
///
/// # Errors
/// Names the part that is none.
pub(crate) fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut expressions = Vec::new();
    for part in parts(text).filter(|part| !part.is_empty()) {
        let read = read(part).ok_or_else(|| SelectorError {
            text: text.to_owned(),
            part: part.to_owned(),
        })?;
        expressions.push(read);
    }
    Ok(expressions.into_iter().collect())
}

/// What stands between commas that are not within parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let parts = text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.map(str::trim)
}

fn read(part: &str) -> Option<Expression> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Expression::DoesNotExist(self::key(key)?));
    }
    if let Some((left, right)) = part.split_once("!=") {
        return Some(Expression::NotEqual(key(left)?, value(right)?));
    }
    if let Some((left, right)) = part.split_once('=') {
        let right = right.strip_prefix('=').unwrap_or(right);
        return Some(Expression::Equal(key(left)?, value(right)?));
    }
    let Some((left, list)) = part.split_once('(') else {
        return Some(Expression::Exists(key(part)?));
    };
    let list = list.strip_suffix(')')?.split(',').map(value);
    let list = list.collect::<Option<_>>()?;
    let (left, operator) = left.trim_end().rsplit_once(char::is_whitespace)?;
    match operator {
        "in" => Some(Expression::In(key(left)?, list)),
        "notin" => Some(Expression::NotIn(key(left)?, list)),
        _ => None,
    }
}

/// `app` or `example.com/app`.
fn key(text: &str) -> Option<String> {
    let text = text.trim();
    let name = match text.split_once('/') {
        Some((prefix, name)) if is_word(prefix) => name,
        Some(_) => return None,
        None => text,
    };
    is_word(name).then(|| text.to_owned())
}

/// A label may be there with nothing in it.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    (text.is_empty() || is_word(text)).then(|| text.to_owned())
}

fn is_word(text: &str) -> bool {
    let is_edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "label selector {text:?}: {part:?} is none of key=value, key!=value, key in (a,b), key notin (a,b), key, !key"
)]
pub struct SelectorError {
    /// All of it.
    pub text: String,
    /// What cannot be read.
    pub part: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt as _;

    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_form_selects_what_kubectl_would() {
        let mesh = [("istio.io/rev", "blue"), ("env", "prod")];
        for (selector, expected) in [
            ("", true),
            ("env=prod", true),
            ("env==prod", true),
            (" env = prod , istio.io/rev in (red, blue)", true),
            ("env in (prod,test),env notin (dev)", true),
            ("env!=prod", false),
            ("env", true),
            ("!env", false),
            ("!legacy,env", true),
            ("istio.io/rev notin (blue)", false),
            ("team=", false),
            // What is not there is not equal.
            ("team!=a", true),
        ] {
            assert_eq!(selects(selector, &mesh), expected, "{selector:?}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_by_its_part() {
        for (selector, part) in [
            ("env=prod,a b", "a b"),
            ("env in prod", "env in prod"),
            ("env in (a", "env in (a"),
            ("env near (a)", "env near (a)"),
            ("-x", "-x"),
            ("=a", "=a"),
            ("a=b c", "a=b c"),
            ("!", "!"),
        ] {
            assert_eq!(parse(selector).unwrap_err().part, part);
        }
    }
}
