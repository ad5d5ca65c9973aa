//! Reading JSON that others wrote.

use serde_json::Value;

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum JsonFault {
    /// Something else.
    #[error("it is not JSON")]
    NotJson,
    /// Something is missing, or of another kind.
    #[error("there is no {0}")]
    Missing(&'static str),
}

/// The whole of it.
pub(crate) fn json(body: &[u8]) -> Result<Value, JsonFault> {
    serde_json::from_slice(body).map_err(|_| JsonFault::NotJson)
}

/// The text at this JSON pointer.
pub(crate) fn text<'a>(
    json: &'a Value,
    pointer: &str,
    what: &'static str,
) -> Result<&'a str, JsonFault> {
    let text = json.pointer(pointer).and_then(Value::as_str);
    text.ok_or(JsonFault::Missing(what))
}

/// A token at this JSON pointer: something that a header can have. It is taken out, so that no copy stays behind.
pub(crate) fn take_token(
    json: &mut Value,
    pointer: &str,
    what: &'static str,
) -> Result<zeroize::Zeroizing<String>, JsonFault> {
    let taken = json.pointer_mut(pointer).map(Value::take);
    let Some(Value::String(token)) = taken else {
        return Err(JsonFault::Missing(what));
    };
    let token = zeroize::Zeroizing::new(token);
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(JsonFault::Missing(what));
    }
    Ok(token)
}

/// What somebody says about a refusal, as one line of reasonable length.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let words: Vec<_> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
