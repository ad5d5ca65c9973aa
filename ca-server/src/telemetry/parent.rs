//! W3C Trace Context: the trace that a request belongs to, as its caller says.

use tonic::metadata::MetadataMap;

/// What the caller says. Nobody has judged the caller yet, so nothing is decided by it but where spans are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// Nothing that can be read.
    None,
    /// It traces, but not this request: then neither do we.
    NotSampled,
    Span(ParentSpan),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParentSpan {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    /// What other systems want to be kept beside it.
    pub(super) trace_state: String,
}

impl Parent {
    pub(super) fn read(metadata: &MetadataMap) -> Self {
        let mut values = metadata.get_all("traceparent").iter();
        // More than one is none: W3C.
        let (Some(value), None) = (values.next(), values.next()) else {
            return Self::None;
        };
        let Some((trace_id, span_id, sampled)) = value.to_str().ok().and_then(parse) else {
            return Self::None;
        };
        if !sampled {
            return Self::NotSampled;
        }
        let states = metadata.get_all("tracestate").iter();
        let states: Option<Vec<_>> = states.map(|state| state.to_str().ok()).collect();
        let trace_state = states.unwrap_or_default().join(",");
        Self::Span(ParentSpan {
            trace_id,
            span_id,
            trace_state: if trace_state.len() <= MOST_STATE {
                trace_state
            } else {
                String::new()
            },
        })
    }
}

/// `00-<trace>-<span>-<flags>`; later versions may append more.
fn parse(text: &str) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut parts = text.splitn(5, '-');
    let [version] = hex(parts.next()?)?;
    let (trace_id, span_id) = (hex(parts.next()?)?, hex(parts.next()?)?);
    let [flags] = hex(parts.next()?)?;
    let is_known = version != 0xff && (version != 0 || parts.next().is_none());
    let is_valid = trace_id != [0; 16] && span_id != [0; 8];
    (is_known && is_valid).then_some((trace_id, span_id, flags & 1 == 1))
}

/// Lower case only: W3C.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// What W3C asks to be passed on at least; more is not kept for a stranger.
const MOST_STATE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(headers: &[(&'static str, &str)]) -> Parent {
        let mut metadata = MetadataMap::new();
        for (name, value) in headers {
            metadata.append(*name, value.parse().unwrap());
        }
        Parent::read(&metadata)
    }

    #[test]
    fn a_parent_is_read_as_w3c_writes_it() {
        let Parent::Span(span) = read(&[
            ("traceparent", &format!("00-{TRACE}-{SPAN}-01")),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]) else {
            panic!("no parent");
        };
        assert_eq!(span.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(span.span_id[6..], [0x33, 0x31]);
        assert_eq!(span.trace_state, "a=1,b=2");
        assert_eq!(
            read(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))]),
            Parent::NotSampled
        );
        let later = format!("cc-{TRACE}-{SPAN}-03-what-comes");
        assert!(matches!(read(&[("traceparent", &later)]), Parent::Span(_)));
    }

    #[test]
    fn what_cannot_be_a_parent_is_none() {
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            "00".into(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(read(&[("traceparent", &bad)]), Parent::None, "{bad:?}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(
            read(&[("traceparent", &good), ("traceparent", &good)]),
            Parent::None
        );
        assert_eq!(read(&[]), Parent::None);
    }

    #[test]
    fn a_state_that_is_too_long_is_not_kept() {
        let long = "a=".to_owned() + &"b".repeat(MOST_STATE);
        let Parent::Span(span) = read(&[
            ("traceparent", &format!("00-{TRACE}-{SPAN}-01")),
            ("tracestate", &long),
        ]) else {
            panic!("no parent");
        };
        assert_eq!(span.trace_state, "");
    }
}
